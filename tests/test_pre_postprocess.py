# SPDX-License-Identifier: Apache-2.0
"""MindRecord to raw files and the harness's results to answers, there and back, and everything that can go wrong."""
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import postprocess
import preprocess
import src.export.preprocess
from src.config import FIRST_UNIQUE_ID, KNOWLEDGE_BASES, KTNetConfig
from src.export.bin_files import MANIFEST, UNFINISHED
from src.reader.examples import EvaluationExample, Window
from src.reader.storage import (
    STORAGE_FORMAT,
    ConvertedFiles,
    PieceConcepts,
    pack_feature,
    stored_columns,
    stored_schema,
)
from src.weights.sizes import save_config
from testing.reference import TINY
from utils.util import InputError, lock_folder

LENGTH = 16
FEATURES = 4      # the third question has two windows
QUERY = 2         # word pieces of every question


def side_table():
    """Three questions about passages of single-piece words."""
    first = FIRST_UNIQUE_ID
    for number, (passage, windows) in enumerate((
            ("grain came from Egypt", [(first, 0, 4)]),
            ("Rome fell late", [(first + 1, 0, 3)]),
            ("ships sailed by night to the port of Rome", [(first + 2, 0, 6), (first + 3, 3, 6)]))):
        words = tuple(passage.split())
        yield EvaluationExample(f"q{number}", "?", words, words, tuple(range(len(words))), QUERY,
                                tuple(Window(*window) for window in windows), (words[-1],), ("Rome",))


class Feature(NamedTuple):
    """A feature before it is packed or padded."""

    pieces: np.ndarray
    query_end: int
    concepts: list[PieceConcepts]
    unique_id: int


def random_features(seed):
    """Features with random word pieces and concepts for the windows of the side table."""
    random = np.random.RandomState(seed)
    for example in side_table():
        for window in example.windows:
            length = QUERY + window.length + 3
            concepts = []
            for base in KNOWLEDGE_BASES:
                counts = random.randint(0, 3, length).astype(np.int32)
                counts[1] = base.max_concepts
                concepts.append(PieceConcepts(counts, random.randint(1, 200, counts.sum()).astype(np.int32)))
            pieces = random.randint(1, 1000, length).astype(np.int32)
            yield Feature(pieces, QUERY + 2, concepts, window.unique_id)


def write_converted(folder, dataset="squad", seed=1, **settings):
    """A whole converted dev split; returns the MindRecord file and the features."""
    from mindspore.mindrecord import FileWriter

    folder.mkdir(parents=True, exist_ok=True)
    files = ConvertedFiles(folder / "dev.mindrecord")
    names = stored_columns(KNOWLEDGE_BASES, "dev")
    features = list(random_features(seed))
    writer = FileWriter(str(files.mindrecord), 1, overwrite=True)
    writer.add_schema(stored_schema(KNOWLEDGE_BASES, "dev"), "features")
    writer.write_raw_data([dict(zip(names, pack_feature(*feature[:3], [feature.unique_id]), strict=True))
                           for feature in features])
    writer.commit()
    np.save(files.lengths, np.array([len(feature.pieces) for feature in features], np.int32))
    files.examples.write_text("".join(example.to_json() + "\n" for example in side_table()), encoding="utf-8")
    written = (files.mindrecord, files.index, files.lengths, files.examples)
    files.manifest.write_text(json.dumps({
        "format": STORAGE_FORMAT, "rows": len(features), "files": {path.name: path.stat().st_size for path in written},
        "inputs": {}, "settings": {"dataset": dataset, "split": "dev", "lower_case": False, "max_seq_len": LENGTH,
                     "doc_stride": 8, "max_query_length": QUERY, "version_2_with_negative": False, **settings},
        "knowledge_bases": [{"name": base.name, "label": base.label, "concepts": 199, "max_concepts": base.max_concepts}
                            for base in KNOWLEDGE_BASES]}), encoding="utf-8")
    return files.mindrecord, features


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    return write_converted(tmp_path_factory.mktemp("converted"))


@pytest.fixture
def inputs(converted, tmp_path):
    """Inputs as preprocess.py writes them."""
    run_preprocess(converted[0], tmp_path / "inputs")
    return tmp_path / "inputs"


def run_preprocess(mindrecord, folder, *more, dataset="squad"):
    preprocess.main(["--dataset", dataset, "--predict_mindrecord_file", str(mindrecord),
                     "--preprocess_path", str(folder), *more])


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def dense(feature, concepts_of):
    """The inputs of one feature, spelled out position by position."""
    length = len(feature.pieces)
    columns = [np.zeros(LENGTH, "<f4"), np.zeros(LENGTH, "<i4"), np.arange(LENGTH, dtype="<i4"),
               np.zeros(LENGTH, "<i4")]
    columns[0][:length] = 1
    columns[1][:length] = feature.pieces
    columns[3][feature.query_end:length] = 1
    for number in concepts_of:
        table = np.zeros((LENGTH, KNOWLEDGE_BASES[number].max_concepts), "<i4")
        counts, ids = feature.concepts[number]
        waiting = ids.tolist()
        for position, count in enumerate(counts):
            for place in range(count):
                table[position, place] = waiting.pop(0)
        columns.append(table)
    return [*columns, np.array([feature.unique_id], "<i4")]


@pytest.mark.parametrize(("flags", "concepts_of"), [([], (0, 1)), (["--use_nell", "False"], (0,)),
                                                    (["--use_wordnet", "False"], (1,))])
def test_inputs_byte_for_byte(converted, tmp_path, flags, concepts_of):
    mindrecord, features = converted
    run_preprocess(mindrecord, tmp_path, *flags)
    expected = {f"{column:02d}_data/squad_batch_1_{number}.bin": value.tobytes()
                for number, feature in enumerate(features) for column, value in enumerate(dense(feature, concepts_of))}
    found = contents(tmp_path)
    manifest = json.loads(found.pop(MANIFEST))
    assert found == expected
    assert manifest["count"] == FEATURES
    assert manifest["unique_ids"] == list(range(FIRST_UNIQUE_ID, FIRST_UNIQUE_ID + FEATURES))
    names = ["input_mask", "src_ids", "pos_ids", "sent_ids", "wn_concept_ids", "nell_concept_ids", "unique_id"]
    assert [entry["name"] for entry in manifest["inputs"]] == [
        name for place, name in enumerate(names) if place - 4 in concepts_of or place not in (4, 5)]
    for entry in manifest["inputs"]:
        assert entry["bytes"] == len(found[f"{entry['folder']}/squad_batch_1_0.bin"])


def test_a_run_cut_short_goes_on(converted, tmp_path, monkeypatch):
    whole = src.export.preprocess.write_input
    written = []

    def fail_in_the_middle(path, column, value):
        if len(written) == 10:
            raise KeyboardInterrupt
        written.append(path)
        whole(path, column, value)

    monkeypatch.setattr(src.export.preprocess, "write_input", fail_in_the_middle)
    with pytest.raises(KeyboardInterrupt):
        run_preprocess(converted[0], tmp_path / "cut")
    assert not (tmp_path / "cut" / MANIFEST).exists()
    monkeypatch.undo()
    written[3].write_bytes(b"cut")                                     # as a full disk or a power cut may leave it
    before = {path: path.stat().st_mtime_ns for path in written if path != written[3]}
    run_preprocess(converted[0], tmp_path / "cut")
    run_preprocess(converted[0], tmp_path / "whole")
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert {path: path.stat().st_mtime_ns for path in before} == before    # what was whole was not written again


def test_a_second_run_finds_all_there_or_mends_it(converted, inputs):
    before = contents(inputs)
    stamp = (inputs / MANIFEST).stat().st_mtime_ns
    run_preprocess(converted[0], inputs)
    assert (inputs / MANIFEST).stat().st_mtime_ns == stamp
    (inputs / "01_data" / "squad_batch_1_2.bin").unlink()
    run_preprocess(converted[0], inputs)
    assert contents(inputs) == before


def test_inputs_of_another_run_are_replaced(converted, inputs, tmp_path):
    other, _ = write_converted(tmp_path / "record", dataset="record", seed=2)
    run_preprocess(other, inputs, "--use_nell", "False", dataset="record")
    run_preprocess(other, tmp_path / "fresh", "--use_nell", "False", dataset="record")
    assert contents(inputs) == contents(tmp_path / "fresh")
    assert not (inputs / "06_data").exists()


def test_two_runs_at_once_are_refused(converted, tmp_path):
    """The second gets one line; neither leaves files that no manifest names."""
    other, _ = write_converted(tmp_path / "record", dataset="record", seed=2)
    lock = lock_folder(tmp_path / "inputs", "held")
    try:
        with pytest.raises(InputError, match="--preprocess_path .*inputs: another process is writing there"):
            run_preprocess(converted[0], tmp_path / "inputs")
    finally:
        os.close(lock)
    assert not list((tmp_path / "inputs").iterdir())
    run_preprocess(converted[0], tmp_path / "inputs")
    run_preprocess(other, tmp_path / "inputs", dataset="record")
    run_preprocess(converted[0], tmp_path / "inputs")


def test_files_of_somebody_else_are_left_alone(converted, tmp_path):
    (tmp_path / "01_data").mkdir()
    (tmp_path / "01_data" / "holiday.jpg").write_bytes(b"sun")
    with pytest.raises(InputError, match=r"holiday.jpg: was not written by this program"):
        run_preprocess(converted[0], tmp_path)
    assert list(contents(tmp_path)) == ["01_data/holiday.jpg"]


def test_features_that_do_not_fit(converted, tmp_path):
    with pytest.raises(InputError, match="holds squad dev features, not record dev"):
        run_preprocess(converted[0], tmp_path, dataset="record")
    with pytest.raises(InputError, match=r"dev.manifest.json: no such file"):
        run_preprocess(tmp_path / "dev.mindrecord", tmp_path)
    mindrecord, _ = write_converted(tmp_path / "mixed")
    files = ConvertedFiles(mindrecord)
    lines = files.examples.read_text().splitlines(keepends=True)
    for kept, message in ((lines[:2], "of the MindRecord file is not in it"),
                          ([*lines, lines[2].replace("100000000", "200000000")], "is not in the MindRecord file")):
        files.examples.write_text("".join(kept))
        manifest = json.loads(files.manifest.read_text())
        manifest["files"][files.examples.name] = files.examples.stat().st_size
        files.manifest.write_text(json.dumps(manifest))
        with pytest.raises(InputError, match=message):
            run_preprocess(mindrecord, tmp_path / "out")
        assert not (tmp_path / "out" / MANIFEST).exists()
        assert (tmp_path / "out" / UNFINISHED).exists()


def test_features_that_the_exported_network_was_not_made_for(converted, inputs, tmp_path):
    model = tmp_path / "KTNET.onnx"
    save_config(model, KTNetConfig(TINY.bert, dataset="record"), {})
    write_results(tmp_path / "results")
    with pytest.raises(InputError, match=r"KTNET.onnx: was trained on record, the questions are those of squad"):
        run_preprocess(converted[0], tmp_path / "out", "--model_path", str(model))
    with pytest.raises(InputError, match=r"KTNET.onnx: was trained on record"):
        run_postprocess(converted, inputs, tmp_path / "results", tmp_path / "out", "--model_path", str(model))
    assert not (tmp_path / "out").exists()
    save_config(model, KTNetConfig(TINY.bert, dataset="squad"), {})
    run_postprocess(converted, inputs, tmp_path / "results", tmp_path / "out", "--model_path", str(model))
    assert (tmp_path / "out" / "predictions.json").is_file()


# --- Results --------------------------------------------------------------------------------------------------------

def write_results(folder, dataset="squad"):
    """Results in which every question's last word is best, "late Rome" aside: float32 [2, 1, S] a feature."""
    folder.mkdir(exist_ok=True)
    values = np.random.RandomState(3).uniform(-1, 0, (FEATURES, 2, 1, LENGTH)).astype("<f4")
    for number, position in ((0, QUERY + 2 + 3), (1, QUERY + 2), (3, QUERY + 2 + 5)):
        values[number, :, 0, position] = 5.0
    for number in range(FEATURES):
        values[number].tofile(folder / f"{dataset}_batch_1_{number}_0.bin")
    return values


def run_postprocess(converted, inputs, results, output, *more, dataset="squad"):
    postprocess.main(["--dataset", dataset, "--predict_mindrecord_file", str(converted[0]), "--preprocess_path",
                      str(inputs), "--result_path", str(results), "--output_path", str(output), *more])


def test_results_become_answers(converted, inputs, tmp_path, capsys):
    values = write_results(tmp_path / "results")
    run_postprocess(converted, inputs, tmp_path / "results", tmp_path / "out", "--save_logits",
                    str(tmp_path / "logits.npz"), "--n_best_size", "3")
    figures = json.loads(capsys.readouterr().out)
    assert figures == {"exact_match": pytest.approx(200 / 3), "f1": pytest.approx(200 / 3)}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["eval_result.json",
                                                                          "nbest_predictions.json", "predictions.json"]
    assert json.loads((tmp_path / "out" / "eval_result.json").read_bytes()) == figures
    assert json.loads((tmp_path / "out" / "predictions.json").read_bytes()) == {"q0": "Egypt", "q1": "Rome",
                                                                               "q2": "Rome"}
    with np.load(tmp_path / "logits.npz") as saved:
        np.testing.assert_array_equal(saved["unique_id"], np.arange(FEATURES) + FIRST_UNIQUE_ID)
        np.testing.assert_array_equal(saved["start_logits"], values[:, 0, 0])
        np.testing.assert_array_equal(saved["end_logits"], values[:, 1, 0])


def test_record_prefers_entities(tmp_path):
    converted = write_converted(tmp_path / "record", dataset="record")
    run_preprocess(converted[0], tmp_path / "inputs", dataset="record")
    write_results(tmp_path / "results", "record")
    run_postprocess(converted, tmp_path / "inputs", tmp_path / "results", tmp_path / "out", dataset="record")
    predictions = json.loads((tmp_path / "out" / "predictions.json").read_bytes())
    assert predictions["q0"] == "Egypt"        # no entry shares a word with the entity
    assert predictions["q1"] == predictions["q2"] == "Rome"


def test_ignored_padding(converted, inputs, tmp_path):
    write_results(tmp_path / "results")
    path = tmp_path / "results" / "squad_batch_1_1_0.bin"
    values = np.fromfile(path, "<f4")
    values[[LENGTH - 1, 2 * LENGTH - 1]] = 9.0              # the last position is padding
    values.tofile(path)
    for flag, answer in (("False", "empty"), ("True", "Rome")):
        run_postprocess(converted, inputs, tmp_path / "results", tmp_path / "out", "--n_best_size", "1",
                        "--ignore_padding", flag)
        assert json.loads((tmp_path / "out" / "predictions.json").read_bytes())["q1"] == answer


def drop_one(results: Path, inputs: Path) -> None:
    (results / "squad_batch_1_3_0.bin").unlink()


def drop_all(results: Path, inputs: Path) -> None:
    for path in results.iterdir():
        path.unlink()
    results.rmdir()


def cut(results: Path, inputs: Path) -> None:
    path = results / "squad_batch_1_1_0.bin"
    path.write_bytes(path.read_bytes()[:-4])


def add_one(results: Path, inputs: Path) -> None:
    (results / "squad_batch_1_4_0.bin").write_bytes(b"")


def not_a_number(results: Path, inputs: Path) -> None:
    np.full(2 * LENGTH, np.nan, "<f4").tofile(results / "squad_batch_1_0_0.bin")


def no_manifest(results: Path, inputs: Path) -> None:
    (inputs / MANIFEST).unlink()


def other_inputs(results: Path, inputs: Path) -> None:
    path = inputs / MANIFEST
    path.write_text(path.read_text().replace('"source": "', '"source": "0'))


def other_dataset(results: Path, inputs: Path) -> None:
    path = inputs / MANIFEST
    path.write_text(path.read_text().replace('"squad"', '"record"'))


def broken_manifest(results: Path, inputs: Path) -> None:
    (inputs / MANIFEST).write_text('{"dataset": "squad", "inputs": 3}')


def cut_manifest(results: Path, inputs: Path) -> None:
    (inputs / MANIFEST).write_text('{"dataset": "squ')


@pytest.mark.parametrize(("harm", "message"), [
    (drop_one, r"squad_batch_1_3_0.bin: no such file \(1 of 4 results are missing\)"),
    (drop_all, r"squad_batch_1_0_0.bin: no such file \(4 of 4 results are missing\)"),
    (cut, r"squad_batch_1_1_0.bin: has 124 bytes, not the 128 of float32 \[2, 1, 16\]"),
    (add_one, r"squad_batch_1_4_0.bin: belongs to no input"),
    (not_a_number, r"unique id 1000000000 \(question q0\) are not all finite"),
    (no_manifest, r"manifest.json: no such file; the inputs are missing or incomplete; run preprocess.py"),
    (other_inputs, "was not made of"),
    (other_dataset, "holds inputs of record, not of squad"),
    (broken_manifest, "not a manifest of inputs"),
    (cut_manifest, "not JSON.*; remove .* and run preprocess.py again"),
])
def test_results_that_do_not_fit(converted, inputs, tmp_path, harm, message):
    write_results(tmp_path / "results")
    harm(tmp_path / "results", inputs)
    with pytest.raises(InputError, match=message):
        run_postprocess(converted, inputs, tmp_path / "results", tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("script", [preprocess, postprocess])
def test_unknown_flags_are_refused(script, capsys):
    with pytest.raises(SystemExit) as stop:
        script.main(["--dataset", "squad", "--n_best", "3"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
