# SPDX-License-Identifier: Apache-2.0
"""A checkpoint and what it must fit: the sizes beside it, the features, the vocabulary, the concepts, the data set."""
from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

ms = pytest.importorskip("mindspore")
import export  # noqa: E402
import run_KTNET_squad  # noqa: E402
import run_KTNET_squad_eval  # noqa: E402
from src.config import SPLITS, SQUAD, WORDNET, DataFolder  # noqa: E402
from src.data_convert import convert  # noqa: E402
from src.knowledge.concepts import concept_digest, read_concept_vectors, write_concept_vectors  # noqa: E402
from src.settings import EvaluationSettings  # noqa: E402
from src.weights.build import (  # noqa: E402
    as_older_port,
    as_trained,
    build_for_evaluation,
    warn_about_cuts,
)
from src.weights.checkpoint import (  # noqa: E402
    checkpoints_in,
    open_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from src.weights.sizes import check_meaning, config_path, load_config, load_options  # noqa: E402
from testing import reference, small_data, small_training  # noqa: E402
from testing.reference import TINY, random_columns, random_parameters  # noqa: E402
from testing.small_checkpoint import make_checkpoint  # noqa: E402
from testing.toy_wordnet import make_wordnet  # noqa: E402
from utils.util import InputError, file_digest, read_json  # noqa: E402


@pytest.fixture(scope="session")
def data(training_data):
    return training_data


@pytest.fixture(scope="session")
def checkpoint(trained):
    """The last one of a training."""
    return trained[0] / "finetune_checkpoint" / "KTNET_squad-2_6.ckpt"


def evaluate(data, checkpoint, output):
    run_KTNET_squad_eval.main(["--device_target", "CPU", "--data_url", str(data.root), "--load_checkpoint_path",
                               str(checkpoint), "--checkpoints", str(output), "--batch_size", "2", "--buckets", "1"])


def convert_again(data):
    for split in SPLITS:
        convert(small_data.conversion(data, "squad", split, windows=small_training.WINDOWS), num_workers=1)


def test_a_checkpoint_says_what_its_numbers_mean(data, checkpoint):
    config = load_config(checkpoint)
    assert config.dataset == "squad"
    assert config.vocabulary_md5 == file_digest(data.bert() / "vocab.txt")
    names, _ = read_concept_vectors(data.vectors(WORDNET))
    assert config.memories[0].concepts_sha256 == concept_digest(names)
    assert all(memory.concepts_sha256 for memory in config.memories)


@pytest.mark.parametrize(("change", "message"), [
    ("vectors", "the wn concepts are not those, or not in the order, that it was trained with"),
    ("vocabulary", "--vocab_path: not the vocabulary that .*KTNET_squad-2_6.ckpt was trained with")])
def test_what_gives_the_ids_another_meaning_is_refused(data, checkpoint, tmp_path, change, message):
    """Vectors or word pieces in another order, converted with: as many as before, so no size tells."""
    other = DataFolder(tmp_path / "data")
    shutil.copytree(data.root, other.root)
    if change == "vectors":
        names, vectors = read_concept_vectors(other.vectors(WORDNET))
        write_concept_vectors(other.vectors(WORDNET), names[::-1], vectors[::-1])
    else:
        vocabulary = other.bert() / "vocab.txt"
        lines = vocabulary.read_text("utf-8").splitlines()
        vocabulary.write_text("\n".join([*lines[:-2], lines[-1], lines[-2]]) + "\n", encoding="utf-8")
    convert_again(other)
    with pytest.raises(InputError, match=message):
        evaluate(other, checkpoint, tmp_path / "eval")
    with pytest.raises(InputError, match=message):
        run_KTNET_squad.main(small_training.flags(other, tmp_path / "output", init_checkpoint=checkpoint))
    assert not (tmp_path / "output").exists()


def test_a_checkpoint_of_the_other_data_set_is_refused(tmp_path):
    checkpoint = tmp_path / "KTNET_record-1_1.ckpt"
    make_checkpoint(checkpoint, dataclasses.replace(TINY, dataset="record"))
    with pytest.raises(InputError, match="was trained on record, the questions are those of squad"):
        export.main(["--dataset", "squad", "--load_checkpoint_path", str(checkpoint), "--file_path", str(tmp_path),
                     "--device_target", "CPU"])
    manifest = {"settings": {"dataset": "squad"}, "knowledge_bases": []}
    with pytest.raises(InputError, match="was trained on record"):
        check_meaning(load_config(checkpoint), manifest, checkpoint)
    check_meaning(load_config(checkpoint), manifest, checkpoint, same_dataset=False)     # a start of another training


@pytest.mark.parametrize(("place", "value", "message"), [
    ("bert.num_hidden_layers", -1, "num_hidden_layers must be a positive whole number"),
    ("bert.num_hidden_layers", 1, r"has no bert.bert_encoder.layers.1.\S+, which .*two do not belong together"),
    ("bert.num_hidden_layers", 3, r"asks for bert.bert_encoder.layers.2.\S+, which .* lacks"),
    ("bert.num_hidden_layers", 10 ** 9, "num_hidden_layers must be a positive whole number"),
    ("bert.vocab_size", 10 ** 30, "is a whole number of more than 64 bits"),
    ("bert.vocab_size", 10 ** 8, r"embedding_table should be \[100000000, 32\], in .* it is \[97, 32\]"),
    ("bert.hidden_dropout_prob", 1.5, "hidden_dropout_prob is 1.5"),
    ("bert.num_attention_heads", 2, "was changed since it was written"),
    ("bert.layer_norm_eps", 1e-7, "was changed since it was written"),
    ("bert", [], "bert: must be an object with the fields"),
    ("memories.0.rows", 80, r"embedding_wn.embedding_table should be \[80, 16\]"),
    ("memories.0.rows", "many", "rows must be a positive whole number"),
    ("memories.1.name", "wn", "two memories share a name"),
    ("memories", 3, "not the sizes of a KT-NET"),
    ("dataset", 3, "dataset must be a string")])
def test_sizes_that_no_longer_fit_are_refused(tmp_path, place, value, message):
    path = tmp_path / "KTNET_squad-1_1.ckpt"
    make_checkpoint(path, TINY)
    values = read_json(config_path(path))
    if "changed" not in message:
        del values["network_sha256"]         # earlier versions wrote none
    *parents, last = place.split(".")
    inner = values["network"]
    for parent in parents:
        inner = inner[int(parent) if parent.isdigit() else parent]
    inner[last] = value
    config_path(path).write_text(json.dumps(values))
    with pytest.raises(InputError, match=message) as caught:
        open_checkpoint(path)
    assert str(config_path(path)) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(("options", "message"), [
    ([], "its options are not an object"), ({"doc_stride": "far"}, "doc_stride: 'far' is not a whole number"),
    ({"do_lower_case": 3}, "do_lower_case: '3' is neither"),
    ({"vocab_path": ["a"]}, "vocab_path: one value is wanted")])
def test_options_that_cannot_be_are_refused(tmp_path, options, message):
    path = tmp_path / "KTNET_squad-1_1.ckpt"
    config_path(path).write_text(json.dumps({"network": TINY.to_dict(), "options": options}))
    with pytest.raises(InputError, match=f"KTNET_squad-1_1.json: {message}"):
        load_options(path)
    config_path(path).write_text(json.dumps({"options": {"doc_stride": 3, "vocab_path": "v.txt", "epoch": "?"}}))
    assert load_options(path) == {"doc_stride": 3, "vocab_path": Path("v.txt")}


def test_what_no_shape_tells_is_taken_from_the_checkpoint(caplog):
    """A second stage from a network that was computed otherwise than the encoder's file says."""
    caplog.set_level("INFO")
    own = dataclasses.replace(TINY.bert, hidden_act="relu", num_attention_heads=1, hidden_dropout_prob=0.5)
    assert as_trained(TINY.bert, own, "start.ckpt") == dataclasses.replace(own, hidden_dropout_prob=TINY.bert.
                                                                           hidden_dropout_prob)
    assert "start.ckpt: computed as it was trained" in caplog.text and "hidden_act relu" in caplog.text
    caplog.clear()
    assert as_trained(TINY.bert, TINY.bert, "start.ckpt") == TINY.bert and not caplog.text


def test_features_without_a_memory_s_concepts_are_refused(tmp_path):
    path = tmp_path / "KTNET_squad-1_1.ckpt"
    make_checkpoint(path, TINY)
    settings = EvaluationSettings.parse(["--load_checkpoint_path", str(path), "--max_seq_len", "40"], SQUAD)
    with pytest.raises(InputError, match="reads the knowledge base nell, of which the features hold nothing"):
        build_for_evaluation(settings, {"knowledge_bases": [{"name": "wn", "concepts": 3}]})


def test_features_with_fewer_concepts_of_a_word_are_told(caplog):
    manifest = {"knowledge_bases": [{"name": "wn", "max_concepts": 2}, {"name": "nell"}]}      # not known: a passage
    warn_about_cuts(TINY.memories, manifest)
    assert f"wn: the network reads up to {TINY.memories[0].max_concepts} concepts of a word" in caplog.text
    assert "nell" not in caplog.text


def test_a_broken_encoder_is_found_before_training(data, tmp_path):
    broken = small_training.random_encoder(small_training.ENCODER)
    broken["bert.bert_encoder.layers.1.intermediate.weight"][5] = np.nan
    write_checkpoint(tmp_path / "broken.ckpt", broken)
    with pytest.raises(InputError, match="broken.ckpt: .*layers.1.intermediate.weight holds NaN or infinite values"):
        run_KTNET_squad.main(small_training.flags(data, tmp_path / "output", load_pretrain_checkpoint_path=tmp_path
                                                  / "broken.ckpt"))
    assert not (tmp_path / "output").exists()


# -------------------------------------------------------------------------------------------------- the older port
def as_older(weights, path):
    """Write weights as the older port left them: no sizes beside them, no self-matching weights."""
    match = "TriLinearTwoTimeSelfAttentionLayer"
    stored = {name: value for name, value in weights.items() if not name.startswith((match, "ema."))}
    write_checkpoint(path, {**stored, f"{match}.create_parameter_bias": weights[f"{match}.bias"],
                            "MemoryLayer_wn.concept_ordinal": np.zeros(3, np.float32)})
    return path


@pytest.mark.slow
def test_the_older_port_is_computed_as_it_was_trained(tmp_path, capsys):
    """By tanh and with epsilon 1e-7; what such a checkpoint lacks is set here, to compare the logits."""
    from src.export.export import build_for_export
    from src.settings import ExportSettings

    weights = random_parameters(TINY, 8)
    (tmp_path / "bert_config.json").write_text(json.dumps(dataclasses.asdict(TINY.bert)))
    settings = ExportSettings.parse([
        "--dataset", "squad", "--load_checkpoint_path", str(as_older(weights, tmp_path / "KTNET.ckpt")),
        "--bert_config_path", str(tmp_path / "bert_config.json"), "--device_target", "CPU", "--max_seq_len", "40"])
    network, _, _ = build_for_export(settings)
    for name in ("weight_1", "weight_2", "weight_mul"):
        getattr(network.TriLinearTwoTimeSelfAttentionLayer, name).set_data(
            ms.Tensor(weights[f"TriLinearTwoTimeSelfAttentionLayer.{name}"]))
    layer = network.bert.bert_encoder.layers[1]
    assert {layer.output.layernorm.epsilon, layer.attention.output.layernorm.epsilon,
            network.bert.bert_embedding_postprocessor.layernorm.epsilon} == {1e-7}
    if reference.torch is None:
        pytest.skip("PyTorch is not installed: the logits are NOT compared")
    columns = random_columns(TINY, 2, 4)
    older = dataclasses.replace(TINY, bert=as_older_port(TINY.bert, tmp_path))
    columns["unique_id"] = np.zeros((2, 1), np.int32)
    inputs = [columns[name] for name in ("input_mask", "src_ids", "pos_ids", "sent_ids", "wn_concept_ids",
                                         "nell_concept_ids", "unique_id")]
    ms.set_context(mode=ms.GRAPH_MODE)
    found = network(*map(ms.Tensor, inputs)).asnumpy()
    np.testing.assert_allclose(found, reference.logits(weights, older, columns), rtol=0, atol=2e-5)
    assert np.abs(found - reference.logits(weights, TINY, columns)).max() > 1e-4


@pytest.mark.slow
def test_evaluating_the_older_port_says_so_in_one_line(data, checkpoint, tmp_path, capsys):
    weights = {name: value.asnumpy() for name, value in open_checkpoint(checkpoint).values.items()}
    evaluate(data, as_older(weights, tmp_path / "KTNET.ckpt"), tmp_path / "eval")
    lines = [line for line in capsys.readouterr().err.splitlines() if "older port" in line]
    assert len(lines) == 1 and "GELU by tanh, layer norms with epsilon 1e-07" in lines[0]
    assert (tmp_path / "eval" / "predictions.json").is_file()


def test_a_checkpoint_as_safetensors_and_as_a_folder_is_the_same_network(data, checkpoint, tmp_path):
    """Evaluated, exported, trained on, resumed: what is written in one format is read as what is in the other."""
    copy, folder = tmp_path / "KTNET_squad-1_1.safetensors", tmp_path / "model"
    write_checkpoint(copy, read_checkpoint(checkpoint))
    shutil.copy(config_path(checkpoint), config_path(copy))
    for number, path in enumerate((checkpoint, copy)):
        evaluate(data, path, tmp_path / str(number))
    assert (tmp_path / "0" / "nbest_predictions.json").read_bytes() == (
        tmp_path / "1" / "nbest_predictions.json").read_bytes()
    make_wordnet(tmp_path / "wordnet")
    export.main(["--file_format", "FOLDER", "--export_path", str(folder), "--load_checkpoint_path", str(copy),
                 "--device_target", "CPU", "--data_url", str(data.root), "--wordnet_path", str(tmp_path / "wordnet")])
    flags = small_training.flags(data, tmp_path / "further", epoch=1, batch_size=small_training.QUESTIONS,
                                 learning_rate=0, init_checkpoint=folder, checkpoint_format="safetensors")
    run_KTNET_squad.main(flags)
    last = tmp_path / "further" / "finetune_checkpoint" / "KTNET_squad-1_1.safetensors"
    assert checkpoints_in(last.parent, "squad") == [last]
    further, start = open_checkpoint(last), open_checkpoint(folder)
    assert further.config == dataclasses.replace(start.config, bert=further.config.bert)
    for name, value in start.values.items():       # nothing was learned, so these are the folder's averaged weights
        np.testing.assert_array_equal(further.values[name].asnumpy(), value.asnumpy())
    run_KTNET_squad.main([*flags, "--resume", "True"])
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    (last.parent / "bit.safetensors").write_bytes(content)
    with pytest.raises(InputError, match="bit.safetensors: damaged or changed"):
        read_checkpoint(last.parent / "bit.safetensors")
    (last.parent / "cut.safetensors").write_bytes(last.read_bytes()[:-1])
    with pytest.raises(InputError, match="cut.safetensors: not a whole safetensors file"):
        read_checkpoint(last.parent / "cut.safetensors")
