# SPDX-License-Identifier: Apache-2.0
"""Two stages in one training: what each does, and that a kill anywhere loses nothing."""
from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

ms = pytest.importorskip("mindspore")
from mindspore import Tensor  # noqa: E402

from src.config import RECORD, SQUAD, KTNetConfig, MemoryConfig, feature_columns, input_columns  # noqa: E402
from src.dataset import create_dev_dataset, create_train_dataset, feature_lengths, plan_device_rows  # noqa: E402
from src.inference.attention import (  # noqa: E402
    KTNETAttention,
    describe_memory_weights,
    measure_memory_weights,
)
from src.KTNET import KTNET, HeadWithLoss, KTNETWithLoss  # noqa: E402
from src.settings import TrainingSettings  # noqa: E402
from src.training.hidden import EncodedFeatures, encoded_bytes  # noqa: E402
from src.training.log import read_metrics  # noqa: E402
from src.weights.checkpoint import read_checkpoint  # noqa: E402
from testing import small_training  # noqa: E402
from utils.util import InputError  # noqa: E402

ROOT = Path(__file__).parents[1]
TWO = {"stages": "two", "first_epoch": 2, "first_learning_rate": 0.01, "epoch": 1}


@pytest.fixture(scope="session")
def data(training_data):
    return training_data


def command(data, output, **values):
    return [sys.executable, str(ROOT / "run_KTNET_squad.py"), *small_training.flags(data, output, **TWO, **values)]


def weights(path):
    return {name: value.asnumpy() for name, value in read_checkpoint(path).items()}


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The checkpoint folder of a training that nobody interrupts."""
    output = tmp_path_factory.mktemp("whole")
    small_training.train(data, output, **TWO)
    return output / "finetune_checkpoint"


# --------------------------------------------------------------------------------------------------------- recipes
def stages_of(task, *flags):
    return TrainingSettings.parse(["--stages", "two", *flags], task).recipe.in_stages(task.first_stages)


@pytest.mark.parametrize("task, epochs, rate, second_epochs", [(SQUAD, 1, 3e-5, 3), (RECORD, 10, 3e-4, 4)])
def test_the_recipe_of_the_authors(task, epochs, rate, second_epochs):
    first, second = stages_of(task, "--recipe", "authors")
    assert (first.freeze, first.epoch, first.learning_rate) == (True, epochs, rate)
    assert (first.lr_schedule, first.warmup_proportion, first.use_ema) == ("constant", 0.0, False)
    assert first.encoder_dropout
    assert (second.freeze, second.epoch, second.learning_rate) == (False, second_epochs, 3e-5)
    assert (second.lr_schedule, second.warmup_proportion, second.use_ema, second.ema_decay) == ("linear", 0.1, True,
                                                                                                0.9999)


def test_own_lengths_and_rates_go_before_the_recipe():
    first, second = stages_of(SQUAD, "--recipe", "authors", "--first_epoch", "7", "--first_learning_rate", "0.5",
                              "--epoch", "2", "--learning_rate", "0.25", "--encoder_dropout", "False",
                              "--head_learning_rate", "0.75")
    assert (first.epoch, first.learning_rate, first.encoder_dropout, first.head_factor) == (7, 0.5, False, 1.0)
    assert (second.epoch, second.learning_rate, second.head_factor) == (2, 0.25, 3.0)


def test_one_stage_stays_as_it_was():
    recipe, = TrainingSettings.parse([], SQUAD).recipe.in_stages(SQUAD.first_stages)
    assert (recipe.freeze, recipe.epoch, recipe.learning_rate) == (False, 3, 4e-5)
    with pytest.raises(InputError, match="--freeze True: .*--stages two"):
        stages_of(SQUAD, "--freeze", "True")


def test_a_rate_of_0_has_no_multiple():
    with pytest.raises(InputError, match="--learning_rate 0 with --head_learning_rate: .*--freeze True"):
        TrainingSettings.parse(["--learning_rate", "0", "--head_learning_rate", "1e-3"], SQUAD
                               ).recipe.in_stages(SQUAD.first_stages)


# ------------------------------------------------------------------------------------------- what is kept in stage one
@pytest.mark.slow
def test_the_kept_output_is_that_of_the_encoder(data):
    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
    path = data.mindrecord(SQUAD, "train")
    memories = tuple(MemoryConfig(name, 16, 16, most) for name, most in (("wn", 49), ("nell", 27)))
    network = KTNET(KTNetConfig(small_training.ENCODER, memories, 48), is_training=True)
    network.set_train(False)
    buckets = (32, 48)
    kept = EncodedFeatures(network, path, memories, 4, buckets)
    assert kept.bytes <= encoded_bytes(feature_lengths(path), buckets, 32) * 1.5
    names = [column.name for column in feature_columns(memories, "train", 48)]
    plan = {"batch_size": 4, "buckets": buckets, "epoch": 3}
    step = Tensor(0, ms.int32)
    for rows, batch in list(zip(plan_device_rows(path, **plan), create_train_dataset(
            path, knowledge_bases=memories, **plan).create_dict_iterator(num_epochs=1), strict=True))[:3]:
        columns = [batch[name] for name in names]
        expected = KTNETWithLoss(network, frozen=True)(step, *columns).asnumpy()
        hidden = kept.batch(rows, columns[0].shape[1])
        found = HeadWithLoss(network)(step, hidden, columns[0], *columns[4:]).asnumpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_kept_output_fits_batches_of_every_length():
    """The last features of a bucket were padded to a longer one's length, and may be in their own in the next epoch."""
    kept = EncodedFeatures.__new__(EncodedFeatures)
    kept.width = 2
    kept.outputs = [np.full((length, 2), length, np.float32) for length in (32, 48)]
    for length in (32, 48):
        hidden = kept.batch(np.array([1, 0]), length).asnumpy().reshape(2, length, 2)
        assert (hidden[0] == 48).all() and (hidden[1, :32] == 32).all() and (hidden[1, 32:] == 0).all()


@pytest.mark.slow
def test_the_weight_on_concepts_is_that_of_the_attention(data):
    """The mean over word pieces with concepts, by the network that lays its attention open."""
    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
    path = data.mindrecord(SQUAD, "dev")
    memories = tuple(MemoryConfig(name, 16, 16, most) for name, most in (("wn", 49), ("nell", 27)))
    config = KTNetConfig(small_training.ENCODER, memories, 48)
    network = KTNETAttention(config)
    random = np.random.RandomState(1)
    for parameter in network.get_parameters():
        parameter.set_data(Tensor((0.1 * random.randn(*parameter.shape)).astype(np.float32)))
    network.set_train(False)
    found = measure_memory_weights(network, path, memories, 2, 48)
    batch, = create_dev_dataset(path, batch_size=2, max_seq_len=48, knowledge_bases=memories).create_dict_iterator(
        num_epochs=1)
    attention = network(*[batch[column.name] for column in input_columns(memories, 48)])[1:]
    assert list(found) == ["wn", "nell"]
    for memory, weights in zip(memories, attention, strict=True):
        known = batch[memory.column].asnumpy()[:, :, 0, 0] > 0
        assert known.any() and found[memory.name] == pytest.approx(1 - weights.asnumpy()[known][:, 0].mean(), rel=1e-4)
        assert 0.0 < found[memory.name] < 1.0
    text = describe_memory_weights({"wn": 0.412, "nell": 0.9}, {"wn": "WordNet", "nell": "NELL"})
    assert text.startswith("WordNet: 0.41 of the weight on concepts, NELL: 0.90")


# ------------------------------------------------------------------------------------------- one run of two stages
@pytest.mark.slow
def test_what_each_stage_trains(data, whole):
    start = weights(data.bert() / "roberta.ckpt")
    first, second = (weights(whole / f"KTNET_squad-{epoch}_6.ckpt") for epoch in (2, 3))
    assert all((first[name] == value).all() for name, value in start.items())
    assert not any(name.startswith("ema.") for name in first)
    assert all((second[name] != value).any() for name, value in start.items())
    assert any(name.startswith("ema.") for name in second)
    records = read_metrics(whole.parent / "metrics_squad.jsonl")
    assert [(record["step"], record["epoch"]) for record in records] == [(step, 1 + (step - 1) // 6)
                                                                         for step in range(1, 19)]
    rates = [record["learning_rate"] for record in records]
    assert rates[0] == 0.01 and rates[11] < 0.001 and rates[12] == 0.003
    assert json.loads((whole / "KTNET_squad-3_6.json").read_text())["options"]["stages"] == "two"


@pytest.mark.slow
def test_killed_in_each_stage_and_between_them(data, whole, tmp_path):
    resumed = command(data, tmp_path, resume=True, save_steps=2)
    for moment in ("epoch: 1 step: 5,", "KTNET_squad-2_6.ckpt", "epoch: 3 step: 4,"):
        assert small_training.run_and_kill(resumed, None, 0.0, moment) == -signal.SIGKILL
    assert small_training.run_and_kill(resumed, None, 0.0) == 0
    folder = tmp_path / "finetune_checkpoint"
    for name in ("KTNET_squad-3_6.ckpt", "training_state_squad.ckpt"):
        one, two = weights(whole / name), weights(folder / name)
        one.pop("settings_digest", None), two.pop("settings_digest", None)       # of the flags, which differ
        assert one.keys() == two.keys() and all(value.tobytes() == two[key].tobytes() for key, value in one.items())
    steps = [record["step"] for record in read_metrics(tmp_path / "metrics_squad.jsonl")]
    assert steps == list(range(1, 19))
