# SPDX-License-Identifier: Apache-2.0
"""Training end to end on a tiny network: what it leaves, repeats, resumes, accumulates and shares between processes."""
from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ms = pytest.importorskip("mindspore")
import run_KTNET_squad  # noqa: E402
import run_KTNET_squad_eval  # noqa: E402
from src.batch_plan import choose_buckets  # noqa: E402
from src.config import SQUAD, WORDNET  # noqa: E402
from src.dataset import create_dev_dataset, create_train_dataset, feature_lengths  # noqa: E402
from src.reader.logits import Logits  # noqa: E402
from src.training.log import StepRecord  # noqa: E402
from src.training.loop import check_progress  # noqa: E402
from src.training.state import SETTINGS_DIGEST, settings_digest  # noqa: E402
from src.weights.checkpoint import read_checkpoint, write_checkpoint  # noqa: E402
from testing import small_training  # noqa: E402
from testing.small_training import run_here, train  # noqa: E402
from utils.device import bfloat16_unit  # noqa: E402
from utils.util import InputError  # noqa: E402

ROOT = Path(__file__).parents[1]
LAST = "KTNET_squad-2_6.ckpt"           # 22 features in batches of 4: 6 steps an epoch


def command(script, flags):
    return [sys.executable, str(ROOT / script), *flags]


def run_apart(data, output, code=0, **values):
    """A training in a process of its own: what products are computed in is chosen before MindSpore is imported."""
    result = subprocess.run(command("run_KTNET_squad.py", small_training.flags(data, output, **values)), cwd=ROOT,
                            capture_output=True, text=True, check=False)
    assert result.returncode == code, result.stdout + result.stderr
    return result


def weights(output, name=LAST):
    stored = read_checkpoint(output / "finetune_checkpoint" / name)
    return {key: value.asnumpy() for key, value in stored.items()}


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert all((first[name] == second[name]).all() for name in first)


def test_what_a_training_leaves(trained):
    output, result = trained
    lines = [line for line in result.stderr.splitlines() if line.startswith("epoch:")]
    assert len(lines) == 12 and lines[0].startswith("epoch: 1 step: 1, loss is ")
    assert lines[-1].startswith("epoch: 2 step: 6, loss is ")
    assert json.loads(result.stdout.splitlines()[-1]).keys() == {"exact_match", "f1"}
    folder = output / "finetune_checkpoint"
    assert {path.name for path in folder.iterdir()} == {
        "KTNET_squad-1_6.ckpt", "KTNET_squad-1_6.json", LAST, "KTNET_squad-2_6.json", "KTNET_squad-best.ckpt",
        "KTNET_squad-best.json", "training_state_squad.ckpt",
        "training_state_squad.json", ".training_squad.lock"}
    records = [json.loads(line) for line in (output / "metrics_squad.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == list(range(1, 13))
    assert records[-1]["loss"] < records[0]["loss"]
    assert (output / "training_squad.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in output.glob("*.json")} == {
        "predictions.json", "nbest_predictions.json", "eval_result.json", "options_squad.json"}
    options = json.loads((output / "options_squad.json").read_text())
    assert options["learning_rate"] == 0.003 and options["max_seq_len"] == 48


def test_what_is_trained_and_what_is_not(training_data, trained):
    stored = weights(trained[0])
    start = {name: value.asnumpy() for name, value in read_checkpoint(training_data.bert() / "roberta.ckpt").items()}
    moved = {name for name, value in start.items() if (stored[name] != value).any()}
    assert moved == set(start)
    assert not any(name.startswith("ema.embedding_") for name in stored)
    assert np.abs(stored["embedding_wn.embedding_table"][0]).max() == 0.0
    assert stored["embedding_wn.embedding_table"].any()
    assert stored["TriLinearTwoTimeSelfAttentionLayer.weight_mul"].any()


@pytest.mark.slow
def test_a_frozen_encoder_stays_as_it_is(training_data, tmp_path):
    train(training_data, tmp_path, epoch=1, freeze=True, use_ema=False, warmup_proportion=0)
    stored = weights(tmp_path, "KTNET_squad-1_6.ckpt")
    start = read_checkpoint(training_data.bert() / "roberta.ckpt")
    assert all((stored[name] == value.asnumpy()).all() for name, value in start.items())
    assert not any(name.startswith("ema.") for name in stored)
    # The second stage starts from the first's checkpoint.
    train(training_data, tmp_path / "second", epoch=1, buckets=1,
          init_checkpoint=tmp_path / "finetune_checkpoint" / "KTNET_squad-1_6.ckpt")
    assert (weights(tmp_path / "second", "KTNET_squad-1_6.ckpt")["dense1.weight"] != stored["dense1.weight"]).any()


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(training_data, trained, tmp_path):
    train(training_data, tmp_path / "again")
    assert_same(weights(trained[0]), weights(tmp_path / "again"))
    train(training_data, tmp_path / "other", random_seed=46, epoch=1)
    other = weights(tmp_path / "other", "KTNET_squad-1_6.ckpt")
    assert (other["dense1.weight"] != weights(trained[0], "KTNET_squad-1_6.ckpt")["dense1.weight"]).any()


@pytest.mark.slow
def test_products_in_bfloat16(training_data, trained, tmp_path):
    """Repeatable to the bit, near the weights of float32, and no resuming in another type."""
    if bfloat16_unit() is None:
        pytest.skip("the processor has neither AMX nor AVX512-BF16: products in bfloat16 are NOT tested")
    rounded = [tmp_path / "one", tmp_path / "two"]
    for output in rounded:
        run_apart(training_data, output, compute_type="bfloat16")
    first, second = map(weights, rounded)
    assert_same(first, second)
    exact = weights(trained[0])
    assert all(value.dtype == np.float32 for value in first.values())
    assert (first["dense1.weight"] != exact["dense1.weight"]).any()
    np.testing.assert_allclose(first["dense1.weight"], exact["dense1.weight"], atol=0.02)
    assert json.loads((rounded[0] / "options_squad.json").read_text())["compute_type"] == "bfloat16"
    result = run_apart(training_data, rounded[0], code=2, resume=True, compute_type="float32")
    assert "started with compute_type bfloat16, not float32" in result.stderr.splitlines()[-1]


@pytest.mark.slow
def test_killed_and_resumed_ends_with_the_same_bits(training_data, trained, tmp_path):
    generator = random.Random(5)
    flags = small_training.flags(training_data, tmp_path, save_steps=1, resume=True)
    kills = 0
    for _ in range(40):
        # The first kills come while it trains or saves, whatever the speed of the machine: after some log lines.
        lines = generator.randint(1, 4) if kills < 3 else None
        code = small_training.run_and_kill(command("run_KTNET_squad.py", flags), lines, generator.random() * 0.05)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
        for path in (tmp_path / "finetune_checkpoint").glob("*.ckpt"):
            read_checkpoint(path)                                  # none is ever unreadable
    else:
        pytest.fail("the training never came to its end")
    assert kills >= 3
    assert_same(weights(trained[0]), weights(tmp_path))
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics_squad.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 13))


def test_a_second_training_over_the_first_is_refused(training_data, trained, tmp_path):
    output = tmp_path / "copy"
    shutil.copytree(trained[0], output)
    (output / "finetune_checkpoint" / ".training_squad.lock").unlink()      # holds the process id of the last one
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    result = run_here(run_KTNET_squad.main, small_training.flags(training_data, output), code=2)
    assert "holds a training already" in result.stderr and "Traceback" not in result.stderr
    other = small_training.flags(training_data, output, resume=True, learning_rate=0.1)
    result = run_here(run_KTNET_squad.main, other, code=2)
    assert "learning_rate" in result.stderr.splitlines()[-1]
    (output / "finetune_checkpoint" / ".training_squad.lock").unlink()
    assert before == {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}


def test_checkpoints_that_no_training_here_wrote_are_left_alone(training_data, trained, tmp_path):
    """Training removes its older checkpoints by their names: it must not start among those of others."""
    folder = tmp_path / "finetune_checkpoint"
    folder.mkdir()
    shutil.copy(trained[0] / "finetune_checkpoint" / LAST, folder / "KTNET_squad-3_11000.ckpt")
    result = run_here(run_KTNET_squad.main, small_training.flags(training_data, tmp_path, resume=True), code=2)
    assert "holds checkpoints already, as KTNET_squad-3_11000.ckpt" in result.stderr.splitlines()[-1]
    assert {path.name for path in folder.iterdir()} == {"KTNET_squad-3_11000.ckpt", ".training_squad.lock"}


@pytest.mark.parametrize(("values", "words"), [
    ({"loss": float("nan")}, "diverged"), ({"gradient_norm": float("inf")}, "diverged"),
    ({"overflow": True, "loss_scale": 1.0, "loss": float("inf")}, "without any loss scale"),
    ({"overflow": True, "loss_scale": 2.0, "loss": float("nan"), "gradient_norm": 0.0}, None), ({}, None)])
def test_a_training_that_has_diverged_stops(values, words):
    record = StepRecord(**{"step": 7, "epoch": 1, "loss": 1.0, "learning_rate": 0.1, "gradient_norm": 2.0,
                           "loss_scale": 1.0, "overflow": False, "length": 64, "seconds": 1.0} | values)
    if words is None:
        check_progress(record)
    else:
        with pytest.raises(InputError, match=f"step 7: .*{words}"):
            check_progress(record)


@pytest.mark.slow
def test_accumulated_batches_give_the_update_of_one_large_batch(steady_data, tmp_path):
    train(steady_data, tmp_path / "large", batch_size=8, epoch=1)
    train(steady_data, tmp_path / "parts", batch_size=4, accumulation_steps=2, epoch=1)
    large, parts = (weights(tmp_path / name, "KTNET_squad-1_3.ckpt") for name in ("large", "parts"))
    for name, value in large.items():
        np.testing.assert_allclose(parts[name], value, atol=1e-5, err_msg=name)


def run_two(logs, *words):
    """A script and its flags in two processes; gives the exit code and all that was said."""
    script = shutil.which("msrun", path=str(Path(sys.executable).parent))
    assert script, "msrun comes with mindspore"
    with socket.socket() as listener:       # random numbers are the same in every session of tests
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    result = subprocess.run(
        [script, "--worker_num=2", "--local_worker_num=2", f"--master_port={port}",
         f"--log_dir={logs}", "--join=True", *words], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)})
    return result.returncode, result.stdout + result.stderr + "".join(
        path.read_text() for path in logs.glob("worker_*.log"))


@pytest.mark.slow
def test_two_hosts_that_are_not_at_the_same_step_do_not_go_on(steady_data, tmp_path):
    """Each process with a folder of its own, as on two hosts without a shared disk: the second has no state."""
    train(steady_data, tmp_path / "rank0", batch_size=8, epoch=1, is_distribute=False)
    settings = tmp_path / "rank0" / "finetune_checkpoint" / "training_state_squad.json"
    flags = small_training.flags(steady_data, "FOLDER", batch_size=4, epoch=1, resume=True, is_distribute=True,
                                 device_num=2)
    told = json.loads(settings.read_text()) | {"devices": 2, "device_num": 2, "is_distribute": True, "batch_size": 4}
    settings.write_text(json.dumps(told))
    state = settings.with_suffix(".ckpt")
    write_checkpoint(state, {**read_checkpoint(state), SETTINGS_DIGEST: settings_digest(told)})
    (tmp_path / "start.py").write_text(
        "import os, sys\nfrom run_KTNET_squad import main\nfrom utils.util import run_main\n"
        f"run_main(main, [word.replace('FOLDER', {str(tmp_path)!r} + '/rank' + os.environ['RANK_ID']) "
        "for word in sys.argv[1:]])\n")
    code, said = run_two(tmp_path / "logs", str(tmp_path / "start.py"), *flags)
    assert code != 0 and "after step 3 here, elsewhere not" in said, said
    assert "after step 0 here, elsewhere not" in said and not list((tmp_path / "rank1").rglob("*.ckpt"))


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one_with_twice_the_batch(steady_data, tmp_path):
    steps = {"epoch": 7}                                            # 7 x 3 = 21 steps
    train(steady_data, tmp_path / "one", batch_size=8, **steps)
    flags = small_training.flags(steady_data, tmp_path / "two", batch_size=4, is_distribute=True, device_num=2, **steps)
    code, said = run_two(tmp_path / "logs", str(ROOT / "run_KTNET_squad.py"), *flags)
    assert code == 0, said
    one, two = (weights(tmp_path / name, "KTNET_squad-7_3.ckpt") for name in ("one", "two"))
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_evaluation_does_not_depend_on_batches_and_buckets(training_data, trained, tmp_path):
    checkpoint = trained[0] / "finetune_checkpoint" / LAST
    results = []
    for number, values in enumerate(({"batch_size": 1, "buckets": 1}, {"batch_size": 3, "buckets": 3},
                                     {"batch_size": 2, "save_logits": tmp_path / "logits.npz"})):
        flags = {"device_target": "CPU", "data_url": training_data.root, "checkpoints": tmp_path / str(number),
                 "load_checkpoint_path": checkpoint} | values
        run_here(run_KTNET_squad_eval.main, small_training.as_words(flags))
        results.append([(tmp_path / str(number) / name).read_bytes() for name in ("predictions.json",
                                                                                  "eval_result.json")])
    assert results[0] == results[1] == results[2]
    logits = Logits.load(tmp_path / "logits.npz")
    assert len(logits) == 2 and logits.start_logits.shape == (2, small_training.WINDOWS.max_seq_len)
    # The moving average was evaluated: the weights themselves give other logits.
    flags |= {"checkpoints": tmp_path / "raw", "use_ema": False, "save_logits": tmp_path / "raw.npz"}
    run_here(run_KTNET_squad_eval.main, small_training.as_words(flags))
    assert (Logits.load(tmp_path / "raw.npz").start_logits != logits.start_logits).any()


def test_batches_of_the_dataset(training_data):
    path = training_data.mindrecord(SQUAD, "train")
    lengths = feature_lengths(path)
    buckets = choose_buckets(lengths, 48, 2)
    starts, seen = [], 0
    for rank in range(2):
        dataset = create_train_dataset(path, device_num=2, rank=rank, batch_size=4, buckets=buckets)
        for batch in dataset.create_dict_iterator(num_epochs=1, output_numpy=True):
            assert batch["src_ids"].shape[1] in buckets and batch["src_ids"].shape[0] == 4
            assert batch["wn_concept_ids"].shape == (4, batch["src_ids"].shape[1], 49, 1)
            assert (batch["start_positions"] <= batch["end_positions"]).all()
            assert {name: column.dtype.name for name, column in batch.items()} == {
                "input_mask": "float32", **dict.fromkeys(list(batch)[1:], "int32")}
            picked = batch["src_ids"][np.arange(4)[:, None], batch["start_positions"]]
            assert (picked > 3).all()                               # an answer begins at a word piece, no special token
            starts.append(batch["start_positions"])
            seen += 4
    assert seen == 24 and len(starts) == 6
    whole = create_dev_dataset(training_data.mindrecord(SQUAD, "dev"), batch_size=4, max_seq_len=48)
    ids = np.concatenate([batch["unique_id"] for batch in whole.create_dict_iterator(num_epochs=1, output_numpy=True)])
    assert ids.ravel().tolist() == [1000000000, 1000000001]


@pytest.mark.parametrize(("flags", "words"), [
    ({"max_seq_len": 64}, "--max_seq_len 64"),
    ({"do_lower_case": True}, "--do_lower_case True"),
    ({"doc_stride": 20}, "--doc_stride 20"),
    ({"load_pretrain_checkpoint_path": "nowhere.ckpt"}, "nowhere.ckpt"),
    ({"bert_config_path": "nowhere.json"}, "nowhere.json"),
    ({"is_modelarts": True, "save_url": "obs://there"}, "moxing"),
    ({"learning_rate": "fast"}, "--learning_rate"),
    ({"device_target": "TPU"}, "--device_target"),
    ({"no_such_flag": 1}, "--no_such_flag"),
])
def test_bad_input_is_one_line(training_data, tmp_path, flags, words):
    result = run_here(run_KTNET_squad.main, small_training.flags(training_data, tmp_path / "out", **flags), code=2)
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ") and words in line and "Traceback" not in result.stderr
    assert not list(tmp_path.rglob("*.ckpt"))


def test_vectors_in_another_order_are_refused(training_data, tmp_path):
    """As many concepts, other ids: the features would point at the wrong vectors."""
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("".join(reversed(training_data.vectors(WORDNET).read_text().splitlines(keepends=True))))
    with pytest.raises(InputError, match="vectors.txt: its concepts are not those, or not in the order"):
        run_KTNET_squad.main(small_training.flags(training_data, tmp_path / "out", wn_concept_embedding_path=vectors))
    assert not list(tmp_path.rglob("*.ckpt"))


def test_features_do_not_answer_for_another_file(training_data, tmp_path):
    """A data set that is not there, and one that differs where the features were named."""
    with pytest.raises(InputError, match="nowhere.json: no such file"):
        run_KTNET_squad.main(small_training.flags(training_data, tmp_path / "out", train_file="nowhere.json"))
    other = tmp_path / "other.json"
    other.write_text(training_data.dataset_json(SQUAD, "train").read_text() + "\n")
    for path in training_data.mindrecord(SQUAD, "train").parent.glob("train.*"):
        shutil.copy(path, tmp_path)
    with pytest.raises(InputError, match=r"other\.json: .*train\.mindrecord was made from another file"):
        run_KTNET_squad.main(small_training.flags(training_data, tmp_path / "out", train_file=other,
                                                  train_mindrecord_file=tmp_path / "train.mindrecord"))
    assert not list(tmp_path.rglob("*.ckpt"))


def test_an_encoder_too_short_and_an_output_that_cannot_be_written(training_data, tmp_path):
    sizes = json.loads((training_data.bert() / "bert_config.json").read_text())
    short = tmp_path / "short.json"
    short.write_text(json.dumps({**sizes, "max_position_embeddings": 40}))
    for flags, words in (({"bert_config_path": short}, "has only 40 positions"),
                         ({"checkpoints": short / "below_a_file"}, str(short))):
        chosen = small_training.flags(training_data, **{"output": tmp_path / "out"} | flags)
        result = run_here(run_KTNET_squad.main, chosen, code=2)
        line = result.stderr.strip().splitlines()[-1]
        assert line.startswith("error: ") and words in line and "Traceback" not in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["short.json"]


@pytest.mark.slow
def test_a_checkpoint_of_other_sizes_and_a_cut_one(training_data, trained, tmp_path):
    whole = trained[0] / "finetune_checkpoint" / LAST
    cut = tmp_path / "cut.ckpt"
    cut.write_bytes(whole.read_bytes()[:-1000])
    other = tmp_path / "other.ckpt"
    shutil.copy(whole, other)
    sizes = json.loads((training_data.bert() / "bert_config.json").read_text())
    (tmp_path / "bert_config.json").write_text(json.dumps({**sizes, "hidden_size": 64}))
    for checkpoint, words in ((cut, str(cut)), (tmp_path / "none.ckpt", "none.ckpt"), (other, "is [")):
        result = run_here(run_KTNET_squad_eval.main, [
            "--device_target", "CPU", "--data_url", str(training_data.root), "--checkpoints", str(tmp_path / "out"),
            "--load_checkpoint_path", str(checkpoint),
            "--bert_config_path", str(tmp_path / "bert_config.json")], code=2)
        assert words in result.stderr.strip().splitlines()[-1] and "Traceback" not in result.stderr
    assert not (tmp_path / "out" / "predictions.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("bases", [{"use_nell": False}, {"use_wordnet": False, "use_nell": False}])
def test_ablations(training_data, tmp_path, bases):
    train(training_data, tmp_path, epoch=1, do_predict=True, **bases)
    stored = weights(tmp_path, "KTNET_squad-1_6.ckpt")
    assert any("wn" in name for name in stored) == bases.get("use_wordnet", True)
    assert any("nell" in name for name in stored) == bases.get("use_nell", True)
