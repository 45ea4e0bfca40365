# SPDX-License-Identifier: Apache-2.0
"""The whole way from JSON to dense columns, and what is on disk at every moment of it."""
from __future__ import annotations

import collections
import dataclasses
import errno
import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import data_convert
import src.feature_stream as feature_stream
from src.config import KNOWLEDGE_BASES, NELL, RECORD, SPLITS, SQUAD, TASKS, WORDNET, DataFolder, WindowConfig
from src.data_convert import bring_up_to_date, convert, convert_all
from src.dataset import feature_lengths
from src.feature_files import temporary_folder
from src.knowledge.formats import read_records, write_records
from src.reader.decoding import DecodingOptions, answer_and_score
from src.reader.examples import read_side_table
from src.reader.storage import ConvertedFiles, FeatureExpander, check_features, open_converted
from testing import small_data
from testing.real_data import SHARED, needs_shared
from testing.small_training import run_here
from utils.util import LOGGER, InputError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    return small_data.make_data(tmp_path / "data")


def read_dense(mindrecord: Path, split: str, bases: Any = KNOWLEDGE_BASES, length: int = 384) -> list[dict[str, Any]]:
    """All features, as MindSpore reads them and the expander makes them dense."""
    import mindspore.dataset as ds

    open_converted(mindrecord)
    expander = FeatureExpander(bases, split, length)
    rows = ds.MindDataset(str(mindrecord), columns_list=list(expander.stored_names), shuffle=False)
    return [dict(zip(expander.column_names, expander(*row), strict=True))
            for row in rows.create_tuple_iterator(num_epochs=1, output_numpy=True)]


def lists(dense: np.ndarray, as_sets: bool = False) -> tuple[tuple[int, ...], ...]:
    """The concepts of every position, without their padding."""
    rows = []
    for row in dense[:, :, 0].tolist():
        used = [concept for concept in row if concept]
        assert row[:len(used)] == used            # padding stands at the end
        rows.append(tuple(sorted(used) if as_sets else used))
    return tuple(rows)


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(ROOT / "data_convert.py"), *arguments], cwd=ROOT, text=True,
                          capture_output=True, timeout=900)


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- features --------------------------------------------------------------------------------------------------------


def test_a_training_feature_by_hand(data: DataFolder) -> None:
    conversion = small_data.conversion(data)
    manifest = convert(conversion)
    first, second, third = read_dense(conversion.target, "train")
    pieces = ["[CLS]", "Where", "is", "Paris", "?", "[SEP]", "Paris", "lies", "on", "the", "Se", "##ine", ".", "The",
              "river", "'", "s", "banks", "are", "long", ".", "[SEP]"]
    length = len(pieces)
    assert first["src_ids"].tolist() == [small_data.VOCABULARY.index(piece) for piece in pieces] + [0] * (384 - length)
    assert first["input_mask"].tolist() == [1.0] * length + [0.0] * (384 - length)
    assert first["sent_ids"].tolist() == [0] * 6 + [1] * (length - 6) + [0] * (384 - length)
    assert first["pos_ids"].tolist() == list(range(384))
    assert (int(first["start_positions"][0]), int(first["end_positions"][0])) == (10, 11)      # Se ##ine
    # Ids count the lines of the vectors files: WordNet's names are sorted there, NELL's are not.
    names = sorted({name for synsets in small_data.SYNSETS.values() for name in synsets})
    expected = {7: "lies", 14: "river", 17: "banks"}
    assert lists(first["wn_concept_ids"]) == tuple(
        tuple(names.index(name) + 1 for name in small_data.SYNSETS[expected[place]]) if place in expected else ()
        for place in range(384))
    nell = {3: (1,), 6: (1,), 10: (2,), 11: (2,)}                     # Paris (twice) is a city, Se ##ine a river
    assert lists(first["nell_concept_ids"]) == tuple(nell.get(place, ()) for place in range(384))
    assert answer_of(second) == ["The", "river", "'", "s", "banks"]
    assert answer_of(third) == ["in", "a", "town"]
    nothing = {"words": 0, "concepts": 0}
    assert manifest["counts"] == {"questions": 3, "features": 3, "skipped": {}, "dropped_windows": 0,
                                  "questions_without_overlap": 0, "cut_concepts": {"wn": nothing, "nell": nothing}}


def answer_of(feature: dict[str, Any]) -> list[str]:
    """The word pieces between the labels."""
    start, end = int(feature["start_positions"][0]), int(feature["end_positions"][0])
    return [small_data.VOCABULARY[piece] for piece in feature["src_ids"][start:end + 1]]


@pytest.mark.parametrize("dataset", ["squad", "record"])
def test_a_dev_split(data: DataFolder, dataset: str) -> None:
    conversion = small_data.conversion(data, dataset, "dev", windows=WindowConfig(16, 4, 8))
    manifest = convert(conversion)
    features = read_dense(conversion.target, "dev", length=16)
    entries = list(read_side_table(conversion.target))
    windows = [(entry, window) for entry in entries for window in entry.windows]
    assert [int(feature["unique_id"][0]) for feature in features] == [window.unique_id for _, window in windows] \
        == list(range(1000000000, 1000000000 + len(features)))
    lengths = np.load(ConvertedFiles(conversion.target).lengths)
    assert lengths.dtype == np.int32 and manifest["rows"] == len(features) == len(lengths)
    for (entry, window), feature, length in zip(windows, features, lengths.tolist(), strict=True):
        assert length == feature["input_mask"].sum() == entry.document_offset + window.length + 1
        inside = feature["src_ids"][entry.document_offset:entry.document_offset + window.length].tolist()
        assert [small_data.VOCABULARY[piece] for piece in inside] \
            == [piece if piece in small_data.VOCABULARY else "[UNK]"
                for piece in entry.pieces[window.doc_start:window.doc_start + window.length]]
    answers = {"squad": [("the Seine", "Seine"), ("by the river",)], "record": [("Peru", "Lima")]}
    assert [entry.answers for entry in entries] == answers[dataset]
    if dataset == "record":
        assert entries[0].entities == ("Peru", "Lima")
        assert entries[0].words[:4] == ("A", "town", "in", "Peru")      # no-break spaces are spaces


def test_a_subset_of_the_knowledge_bases(data: DataFolder) -> None:
    both = small_data.conversion(data)
    only = small_data.conversion(data, bases=(NELL,), target=data.root / "nell.mindrecord")
    convert_all([both, only])
    for bases in ((NELL,), (WORDNET,), (NELL, WORDNET)):
        for chosen, full in zip(read_dense(both.target, "train", bases), read_dense(both.target, "train"), strict=True):
            assert all(np.array_equal(values, full[name]) for name, values in chosen.items())
    for alone, full in zip(read_dense(only.target, "train", (NELL,)), read_dense(both.target, "train"), strict=True):
        assert all(np.array_equal(values, full[name]) for name, values in alone.items())


def test_unfindable_answers_are_skipped_and_counted(data: DataFolder) -> None:
    path = data.dataset_json(SQUAD, "train")
    values = json.loads(path.read_text())
    values["data"][0]["paragraphs"][0]["qas"][0]["answers"][0]["answer_start"] = 2
    path.write_text(json.dumps(values))
    manifest = convert(small_data.conversion(data))
    counts = manifest["counts"]
    assert (counts["questions"], counts["features"], counts["dropped_windows"]) == (3, 2, 0)
    assert counts["skipped"] == {"answer text not found in the passage": 1}


def test_records_may_come_in_any_order(data: DataFolder) -> None:
    conversion = small_data.conversion(data)
    convert(conversion)
    expected = snapshot(conversion.target.parent)["train.mindrecord"]
    for path in (conversion.tokens_path, conversion.retrieved_path(NELL)):
        extra = {**next(iter(read_records(path))), "id": "of no question here"}
        write_records(path, [extra, *reversed(list(read_records(path)))])
    convert(conversion)
    assert snapshot(conversion.target.parent)["train.mindrecord"] == expected


def test_uncased(data: DataFolder) -> None:
    (data.bert() / "vocab.txt").write_text(
        "\n".join(dict.fromkeys([*small_data.SPECIAL, *(piece.lower() for piece in small_data.PIECES)])) + "\n")
    small_data.make_tokens(data, "squad", "train", lower_case=True)
    conversion = small_data.conversion(data, lower_case=True)
    manifest = convert(conversion)
    assert manifest["settings"]["lower_case"] is True
    vocabulary = (data.bert() / "vocab.txt").read_text().split()
    source = read_dense(conversion.target, "train")[0]["src_ids"].tolist()
    assert [vocabulary[piece] for piece in source[:7]] == ["[CLS]", "where", "is", "paris", "?", "[SEP]", "paris"]


# --- the golden features ---------------------------------------------------------------------------------------------


def feature_key(dense: dict[str, Any], labels: list[str]) -> tuple[Any, ...]:
    mask = dense["input_mask"]
    length = int(mask.sum())
    assert mask.dtype == np.float32 and np.array_equal(mask, (np.arange(384) < length).astype(np.float32))
    return (dense["src_ids"].tobytes(), dense["sent_ids"].tobytes(), dense["pos_ids"].tobytes(), length,
            lists(dense["wn_concept_ids"]), lists(dense["nell_concept_ids"], as_sets=True),
            *(int(dense[name][0]) for name in labels))


def golden_keys(name: str, labels: list[str]) -> list[tuple[Any, ...]]:
    archive = np.load(SHARED / "golden" / f"{name}.npz")
    golden = {key: archive[key] for key in archive.files}
    keys = []
    for number, length in enumerate(golden["length"].tolist()):
        concepts = []
        for base in ("wn", "nell"):
            bounds = golden[f"{base}_ptr"][number * 384:(number + 1) * 384 + 1].tolist()
            ids = golden[f"{base}_ids"][bounds[0]:bounds[-1]].tolist()
            concepts.append(tuple(tuple(ids[start - bounds[0]:stop - bounds[0]])
                                  for start, stop in zip(bounds, bounds[1:], strict=False)))
        keys.append((golden["src_ids"][number].astype(np.int32).tobytes(),
                     golden["sent_ids"][number].astype(np.int32).tobytes(),
                     golden["pos_ids"].astype(np.int32).tobytes(), length, *concepts,
                     *(int(golden[label][number]) for label in labels)))
    return keys


def assert_golden(mindrecord: Path, name: str, split: str) -> None:
    """Converted features are the golden ones, in their order for dev; the golden training ones were shuffled."""
    labels = ["unique_id"] if split == "dev" else ["start_positions", "end_positions"]
    ours = [feature_key(feature, labels) for feature in read_dense(mindrecord, split)]
    golden = golden_keys(name, labels)
    if split == "dev":
        assert ours == golden
    else:
        assert collections.Counter(ours) == collections.Counter(golden)


def chosen_articles(json_path: Path, titles: tuple[str, ...], target: Path) -> Path:
    """Write a data set of some articles of another."""
    values = json.loads(json_path.read_text(encoding="utf-8"))
    values["data"] = [article for article in values["data"] if article["title"] in titles]
    target.write_text(json.dumps(values), encoding="utf-8")
    return target


GOLDEN_ARTICLES = ("Chloroplast", "Civil_disobedience")      # those of squad_train_2articles


@needs_shared
@pytest.mark.parametrize(("name", "dataset", "split", "articles"), [
    ("record_dev", "record", "dev", None), ("record_train", "record", "train", None),
    ("squad_dev", "squad", "dev", None),
    ("squad_train_2articles", "squad", "train", GOLDEN_ARTICLES)])
def test_features_equal_the_golden_ones(tmp_path: Path, name: str, dataset: str, split: str,
                                        articles: tuple[str, ...] | None) -> None:
    data = DataFolder(SHARED)
    json_path = data.dataset_json(TASKS[dataset], split)
    if articles:
        json_path = chosen_articles(json_path, articles, tmp_path / "chosen.json")
    target = tmp_path / f"{split}.mindrecord"
    convert(small_data.conversion(data, dataset, split, json_path=json_path, target=target))
    assert_golden(target, name, split)


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_script_converts_everything(data: DataFolder) -> None:
    """In processes of their own, with the same bytes as in one process."""
    done = run_script("--data_url", str(data.root), "--num_workers", "2")
    assert done.returncode == 0, done.stderr
    for task in (SQUAD, RECORD):
        for split in SPLITS:
            manifest = open_converted(data.mindrecord(task, split))
            assert manifest["settings"]["dataset"] == task.name and manifest["settings"]["split"] == split
    written = {name: content for name, content in snapshot(data.root).items()
               if name.endswith((".mindrecord", ".npy", ".jsonl"))}
    assert len(written) == 10
    for name in written:
        (data.root / name).unlink()
    convert_all([small_data.conversion(data, dataset, split) for dataset in ("squad", "record") for split in SPLITS],
                num_workers=1)
    assert {name: content for name, content in snapshot(data.root).items() if name in written} == written
    assert not list(data.root.rglob("*.part"))


def test_the_manifest(data: DataFolder) -> None:
    conversion = small_data.conversion(data, split="dev")
    manifest = convert(conversion)
    assert open_converted(conversion.target) == manifest
    written = {name: (conversion.target.parent / name).read_bytes()
               for name in ("dev.mindrecord", "dev.lengths.npy", "dev.examples.jsonl", "dev.mindrecord.db")}
    assert manifest["files"] == {name: len(content) for name, content in written.items()}
    assert manifest["md5"] == {name: hashlib.md5(content).hexdigest() for name, content in written.items()}
    assert [(base["name"], base["concepts"], base["max_concepts"]) for base in manifest["knowledge_bases"]] \
        == [("wn", 9, 49), ("nell", 4, 27)]
    assert [base["concepts_sha256"] for base in manifest["knowledge_bases"]] == [
        hashlib.sha256(b"".join(line.split(b" ")[0] + b"\n" for line in data.vectors(base).read_bytes().splitlines())
                       ).hexdigest() for base in KNOWLEDGE_BASES]
    assert manifest["settings"] == {"dataset": "squad", "split": "dev", "lower_case": False, "max_seq_len": 384,
                                    "doc_stride": 128, "max_query_length": 64, "version_2_with_negative": False}


def test_what_is_done_is_left_alone(data: DataFolder) -> None:
    conversion = small_data.conversion(data)
    convert(conversion)
    times = {path: path.stat().st_mtime_ns for path in conversion.target.parent.iterdir()}
    convert(conversion)
    assert {path: path.stat().st_mtime_ns for path in conversion.target.parent.iterdir()} == times
    os.utime(conversion.vocab_path)                   # another time, the same bytes: still done
    convert(conversion)
    assert conversion.target.stat().st_mtime_ns == times[conversion.target]
    convert(conversion, force=True)
    assert conversion.target.stat().st_mtime_ns != times[conversion.target]


@pytest.mark.parametrize("change", ["settings", "input", "missing", "cut"])
def test_what_is_not_the_same_is_done_again(data: DataFolder, change: str) -> None:
    conversion = small_data.conversion(data)
    convert(conversion)
    before = conversion.target.stat().st_mtime_ns
    files = ConvertedFiles(conversion.target)
    if change == "settings":
        conversion = small_data.conversion(data, windows=WindowConfig(64, 32, 16))
    elif change == "input":
        path = data.dataset_json(SQUAD, "train")
        path.write_text(path.read_text().replace('"1.1"', '"1.2"'))
    elif change == "missing":
        files.lengths.unlink()
    else:
        os.truncate(files.index, 100)
    convert(conversion)
    assert conversion.target.stat().st_mtime_ns != before
    assert open_converted(conversion.target)["settings"] == conversion.settings()


@pytest.mark.parametrize("damage", ["cut data", "no data", "cut index", "no index", "no lengths", "no table",
                                    "no manifest", "broken manifest", "empty manifest", "newer manifest"])
def test_damaged_files_are_refused(data: DataFolder, damage: str) -> None:
    conversion = small_data.conversion(data, split="dev")
    convert(conversion)
    files = ConvertedFiles(conversion.target)
    how, which = damage.split()
    path = {"data": files.mindrecord, "index": files.index, "lengths": files.lengths, "table": files.examples,
            "manifest": files.manifest}[which]
    if how == "cut":
        os.truncate(path, path.stat().st_size - 1)
    elif how == "no":
        path.unlink()
    else:
        newer = path.read_text().replace('"format": 1', '"format": 2')
        path.write_text({"broken": "{", "empty": "{}", "newer": newer}[how])
    with pytest.raises(InputError, match=f"{path.name}.*"):
        open_converted(conversion.target)


def test_a_failed_conversion_leaves_the_earlier_one(data: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    conversion = small_data.conversion(data)
    convert(conversion)
    before = snapshot(conversion.target.parent)
    change_records(conversion.retrieved_path(NELL), lambda records: records[2]["document_entities"][0].update(
        token_start=99, token_end=99))
    monkeypatch.setattr(feature_stream, "BATCH_ROWS", 1)        # so that some rows are written before the fault
    with pytest.raises(InputError, match="question t3"):
        convert(conversion)
    assert snapshot(conversion.target.parent) == before


@pytest.mark.slow
def test_a_killed_conversion_leaves_nothing_that_looks_whole(data: DataFolder) -> None:
    """Kill the script and its processes at many moments; whatever is there afterwards is whole or refused."""
    conversion = small_data.conversion(data)
    seen = set()
    for number in range(6):
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "data_convert.py"), "--data_url", str(data.root), "--dataset", "squad",
             "--split", "train", "--force"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True)
        folder = conversion.target.parent / f".{conversion.target.name}.part"
        if number % 2:                                       # once the data file is being written
            while process.poll() is None and not (folder / conversion.target.name).exists():
                time.sleep(0.005)
        else:
            while process.poll() is None and not folder.exists():
                time.sleep(0.005)
        time.sleep(0.01 * number)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        try:
            open_converted(conversion.target)
            assert len(read_dense(conversion.target, "train")) == 3
            seen.add("whole")
        except InputError:
            seen.add("refused")
    assert seen
    convert(conversion)                                      # cleans up and does it
    assert len(read_dense(conversion.target, "train")) == 3
    assert not list(conversion.target.parent.glob(".*"))


@pytest.mark.slow
def test_workers_end_with_the_script(data: DataFolder) -> None:
    """Killing only the writing process must not leave the others behind."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "data_convert.py"), "--data_url", str(data.root), "--num_workers", "2"],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and not children(process.pid):
        time.sleep(0.005)
    workers = children(process.pid)
    assert workers
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{worker}").exists() and "Z" not in status(worker) for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def status(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def test_two_conversions_at_once_are_refused(data: DataFolder) -> None:
    conversion = small_data.conversion(data)
    with temporary_folder(conversion.target), pytest.raises(InputError, match="another process is converting"):
        convert(conversion)
    convert(conversion)


def test_a_lock_on_a_folder_that_was_removed_counts_for_nothing(data: DataFolder, monkeypatch: pytest.MonkeyPatch
                                                                ) -> None:
    """Between opening the folder and locking it, the process that held it removes it: both would be inside."""
    conversion = small_data.conversion(data)
    folder = conversion.target.parent / f".{conversion.target.name}.part"
    lock, removed = fcntl.flock, []

    def late(handle: int, how: int) -> None:
        if not removed:
            folder.rmdir()
            removed.append(folder)
        lock(handle, how)

    monkeypatch.setattr("utils.util.fcntl.flock", late)
    with temporary_folder(conversion.target):
        assert removed and folder.is_dir()
        with pytest.raises(InputError, match="another process is converting"), temporary_folder(conversion.target):
            pass


@pytest.mark.parametrize("how", ["no manifest", "over ours"])
def test_a_mindrecord_file_of_somebody_else_is_kept(data: DataFolder, how: str,
                                                    caplog: pytest.LogCaptureFixture) -> None:
    conversion = small_data.conversion(data)
    files = ConvertedFiles(conversion.target)
    if how == "over ours":
        convert(conversion)
    for path in (files.mindrecord, files.index):
        path.write_bytes(b"somebody else's " + path.name.encode())
    for number in (1, 2):
        with caplog.at_level("WARNING", "ktnet"):
            LOGGER.propagate = True
            convert(conversion)
        kept = conversion.target.parent / f"train-kept-{number}"
        assert (kept / files.index.name).read_bytes() == b"somebody else's " + files.index.name.encode()
        assert (kept / files.mindrecord.name).read_bytes().startswith(b"somebody else's")
        assert f"was not written by this program; moved to {kept}" in caplog.text
        assert len(read_dense(conversion.target, "train")) == 3
        for path in (files.mindrecord, files.index):
            path.write_bytes(b"somebody else's " + path.name.encode())


def test_a_conversion_killed_while_it_publishes_leaves_no_stranger(data: DataFolder, monkeypatch: pytest.MonkeyPatch
                                                                   ) -> None:
    """Its data file without a manifest is replaced by the next run, not kept aside."""
    conversion = small_data.conversion(data)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("src.feature_files.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            convert(conversion)
    assert conversion.target.exists() and not ConvertedFiles(conversion.target).manifest.exists()
    convert(conversion)
    assert len(read_dense(conversion.target, "train")) == 3
    assert not list(conversion.target.parent.glob("*kept*")) and not list(conversion.target.parent.glob(".*"))


@pytest.mark.parametrize("which", ["mindrecord", "index", "lengths", "examples", "manifest"])
def test_one_flipped_bit_is_noticed(data: DataFolder, which: str) -> None:
    conversion = small_data.conversion(data, split="dev")
    manifest = convert(conversion)
    path = getattr(ConvertedFiles(conversion.target), which)
    content = bytearray(path.read_bytes())
    place = content.index(b'"rows": ') + 8 if which == "manifest" else len(content) // 2
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"{path.name}: .*changed"):
        open_converted(conversion.target)
        check_features(conversion.target, manifest)
    if which in ("lengths", "manifest"):
        with pytest.raises(InputError, match=f"{path.name}: .*changed"):
            feature_lengths(conversion.target)


def test_what_does_not_fit_is_counted_and_told(data: DataFolder, caplog: pytest.LogCaptureFixture) -> None:
    """More concepts than K, and windows that do not overlap."""
    bases = tuple(dataclasses.replace(base, max_concepts=1) for base in KNOWLEDGE_BASES)
    conversion = small_data.conversion(data, bases=bases, windows=WindowConfig(16, 8, 8))
    LOGGER.propagate = True
    with caplog.at_level("WARNING", "ktnet"):
        counts = convert(conversion, num_workers=1)["counts"]
    # WordNet: banks has 3 and lies 2 in the first passage, town 2 and lies 2 in the second; NELL: Lima has 2.
    assert counts["cut_concepts"] == {"wn": {"words": 4, "concepts": 5}, "nell": {"words": 1, "concepts": 1}}
    assert counts["questions_without_overlap"] == 1      # its 5 pieces leave windows of 8
    assert "4 words have more than 1 concepts of WordNet: 5 concepts are ignored" in caplog.text
    assert "--doc_stride 8: the windows of a passage do not overlap (questions: 1)" in caplog.text


@pytest.mark.parametrize("fault", ["missing", "cut", "other pieces", "other questions"])
def test_token_files_are_needed_by_nobody(data: DataFolder, fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """Conversion warns of one that does not fit, and makes the same features without it."""
    conversion = small_data.conversion(data, split="dev")
    digests = convert(conversion, num_workers=1)["md5"]
    if fault == "missing":
        conversion.tokens_path.unlink()
    elif fault == "cut":
        cut(conversion.tokens_path)
    else:
        change_records(conversion.tokens_path, lambda records: records.pop(1) if fault == "other questions" else
                       records[0].update(query_subtokens=["what"]))
    LOGGER.propagate = True
    with caplog.at_level("WARNING", "ktnet"):
        again = convert(conversion, num_workers=1, force=True)["md5"]
    assert again["dev.examples.jsonl"] == digests["dev.examples.jsonl"]
    assert again["dev.lengths.npy"] == digests["dev.lengths.npy"]
    assert (f"{conversion.tokens_path}: " in caplog.text) == (fault != "missing")


def test_questions_without_answers_can_be_converted_for_prediction(data: DataFolder) -> None:
    for dataset in ("squad", "record"):
        path = data.dataset_json(TASKS[dataset], "dev")
        values = json.loads(path.read_text())
        for item in values["data"]:
            for question in item["qas"] if dataset == "record" else first_paragraphs(item):
                del question["answers"]
        path.write_text(json.dumps(values))
        conversion = small_data.conversion(data, dataset, "dev")
        convert(conversion)
        assert [entry.answers for entry in read_side_table(conversion.target)] \
            == [()] * open_converted(conversion.target)["counts"]["questions"]
        logits = {window.unique_id: (np.zeros(384), np.zeros(384))
                  for entry in read_side_table(conversion.target) for window in entry.windows}
        assert answer_and_score(conversion.target, logits, data.root / "out", DecodingOptions()) == {}
        assert (data.root / "out" / "predictions.json").is_file()
        assert not (data.root / "out" / "eval_result.json").exists()
    train = data.dataset_json(SQUAD, "train")
    train.write_text(train.read_text().replace('"answers"', '"no_answers"'))
    with pytest.raises(InputError, match="question t1 has 0 answers; a training question has exactly one"):
        convert(small_data.conversion(data))


def first_paragraphs(article: dict[str, Any]) -> list[dict[str, Any]]:
    return [question for paragraph in article["paragraphs"] for question in paragraph["qas"]]


# --- features of one file never answer for another -------------------------------------------------------------------


def test_features_follow_the_data_set(data: DataFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The same questions under another path are fine; others are converted, or refused where the user named both."""
    conversion = small_data.conversion(data, split="dev")
    manifest = convert(conversion)
    assert bring_up_to_date(conversion, manifest) == manifest
    shutil.copy(conversion.json_path, tmp_path / "copy.json")
    copy = dataclasses.replace(conversion, json_path=tmp_path / "copy.json")
    assert bring_up_to_date(copy, manifest) == manifest
    other = dataclasses.replace(conversion, json_path=tmp_path / "other.json")
    with pytest.raises(InputError, match=r"other\.json: no such file"):
        bring_up_to_date(other, manifest)
    other.json_path.write_text(conversion.json_path.read_text().replace("What runs", "What  runs"))
    named = dataclasses.replace(other, target=data.root / "named.mindrecord")
    with pytest.raises(InputError, match=r"other\.json: .*named\.mindrecord was made from another file"):
        bring_up_to_date(named, convert(dataclasses.replace(named, json_path=conversion.json_path)))
    LOGGER.propagate = True
    with caplog.at_level("WARNING", "ktnet"):
        assert bring_up_to_date(other, manifest)["inputs"]["examples"] != manifest["inputs"]["examples"]
    assert "was made from another file: converting again" in caplog.text
    assert [entry.question for entry in read_side_table(conversion.target)][0] == "What  runs through Paris?"


@pytest.mark.parametrize("which", ["data set", "retrieved"])
def test_features_follow_a_file_that_was_changed(data: DataFolder, which: str) -> None:
    """Also with the same size and time of change."""
    conversion = small_data.conversion(data, split="dev")
    manifest = convert(conversion)
    path = conversion.json_path if which == "data set" else conversion.retrieved_path(NELL)
    before = path.stat()
    path.with_name("new").write_bytes(path.read_bytes().replace(b"runs", b"goes").replace(b"seine", b"river"))
    os.replace(path.with_name("new"), path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert bring_up_to_date(conversion, manifest)["inputs"] != manifest["inputs"]


def test_features_travel_alone(data: DataFolder) -> None:
    """Without the data set and what was retrieved for it; but not as those of another data set."""
    conversion = small_data.conversion(data, split="dev")
    manifest = convert(conversion)
    for path in (conversion.json_path, conversion.retrieved_path(NELL), conversion.retrieved_path(WORDNET)):
        path.unlink()
    assert bring_up_to_date(conversion, manifest) == manifest
    with pytest.raises(InputError, match="holds squad dev features, not record dev"):
        bring_up_to_date(small_data.conversion(data, "record", "dev", target=conversion.target), manifest)


# --- what the script says of bad input -------------------------------------------------------------------------------


def change_json(data: DataFolder, change: Any, dataset: str = "squad", split: str = "train") -> None:
    path = data.dataset_json(TASKS[dataset], split)
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values["data"])
    path.write_text(json.dumps(values), encoding="utf-8")


def first_question(articles: list[Any]) -> dict[str, Any]:
    return articles[0]["paragraphs"][0]["qas"][0]


def change_records(path: Path, change: Any) -> None:
    records = list(read_records(path))
    change(records)
    write_records(path, records)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


FAULTS: dict[str, tuple[Any, str]] = {
    "no data set": (lambda data: data.dataset_json(SQUAD, "train").unlink(), r"train-v1\.1\.json: no such file; put"),
    "cut data set": (lambda data: cut(data.dataset_json(SQUAD, "train")), r"train-v1\.1\.json: line 1, column \d+: "),
    "no JSON": (lambda data: data.dataset_json(SQUAD, "train").write_bytes(b"\x80\x81"), r"train-v1\.1\.json: .*UTF-8"),
    "list instead of object": (lambda data: data.dataset_json(SQUAD, "train").write_text("[]"), "not a data set"),
    "no data": (lambda data: data.dataset_json(SQUAD, "train").write_text("{}"), 'no list "data"'),
    "no questions": (lambda data: change_json(data, lambda articles: articles.clear()), "none of its 0 questions"),
    "no context": (lambda data: change_json(data, lambda articles: articles[0]["paragraphs"][0].pop("context")),
                   r"data\[0\]\.paragraphs\[0\]: the field 'context' is missing"),
    "id is a number": (lambda data: change_json(data, lambda articles: first_question(articles).update(id=5)),
                       r"data\[0\]\.paragraphs\[0\]\.qas\[0\]\.id: is 5; it must be a text"),
    "answer outside": (lambda data: change_json(
        data, lambda articles: first_question(articles)["answers"][0].update(answer_start=500)),
        "question t1: the answer \"Seine\" takes characters 500 to 504"),
    "two answers": (lambda data: change_json(
        data, lambda articles: first_question(articles)["answers"].append({"text": "Paris", "answer_start": 0})),
        "question t1 has 2 answers"),
    "two questions of one id": (lambda data: change_json(
        data, lambda articles: articles[0]["paragraphs"][0]["qas"][1].update(id="t1")),
        "two questions have the id 't1'"),
    "half a surrogate pair": (lambda data: change_json(
        data, lambda articles: first_question(articles).update(question="\ud800")), "half a surrogate pair"),
    "no synsets": (lambda data: data.retrieved(WORDNET, SQUAD, "train").unlink(), "--step wordnet"),
    "no beliefs": (lambda data: data.retrieved(NELL, SQUAD, "train").unlink(), "--step nell"),
    "no vectors": (lambda data: data.vectors(NELL).unlink(), "put the concept vectors of NELL there"),
    "synset without a vector": (lambda data: data.vectors(WORDNET).write_text("__river_NN_1 0.5\n"),
                                "concept '__.*' has no vector in"),
    "category without a vector": (lambda data: data.vectors(NELL).write_text("concept:river 0.5\n"),
                                  "question t1: concept 'concept:city' has no vector in"),
    "entity outside": (lambda data: change_records(
        data.retrieved(NELL, SQUAD, "train"), lambda all: all[0]["document_entities"][0].update(token_end=99)),
        "question t1: document entity 'paris' ends at word 99, the text has 14"),
    "entity before its start": (lambda data: change_records(
        data.retrieved(NELL, SQUAD, "train"), lambda all: all[0]["query_entities"][0].update(token_start=-1)),
        "question t1: .*token_start -1"),
    "no vocabulary": (lambda data: (data.bert() / "vocab.txt").unlink(), "--vocab_path"),
    "vocabulary without [CLS]": (lambda data: (data.bert() / "vocab.txt").write_text("[PAD]\n[UNK]\n[SEP]\n"),
                                 r"\[CLS\] missing"),
    "target cannot be written": (lambda data: (data.root / "SQuAD" / ".train.mindrecord.part").write_text(""),
                                 r"train\.mindrecord: its folder cannot be written"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("num_workers", [1, 2])
def test_faults_are_one_clear_line(data: DataFolder, fault: str, num_workers: int, monkeypatch: pytest.MonkeyPatch
                                   ) -> None:
    damage, message = FAULTS[fault]
    damage(data)
    before = snapshot(data.root)
    monkeypatch.setattr(feature_stream, "_may_fork", lambda: True)     # the children do not touch MindSpore
    with pytest.raises(InputError, match=message) as raised:
        convert_all([small_data.conversion(data)], num_workers)
    assert "\n" not in str(raised.value) and str(data.root) in str(raised.value)
    assert snapshot(data.root) == before


def test_an_input_that_cannot_be_read_is_not_blamed_on_the_output(data: DataFolder, monkeypatch: pytest.MonkeyPatch
                                                                  ) -> None:
    conversion = small_data.conversion(data)

    def unreadable(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(conversion.json_path))

    monkeypatch.setattr(feature_stream, "build", unreadable)
    with pytest.raises(InputError, match=f"^{conversion.json_path}: Permission denied; make it readable"):
        convert_all([conversion], 1)


@pytest.mark.parametrize(("name", "length"), [("it's.mindrecord", 48), ("train.mindrecord", 10_000_000)])
def test_what_mindrecord_does_not_take_is_one_line(data: DataFolder, name: str, length: int) -> None:
    conversion = dataclasses.replace(small_data.conversion(data), target=data.root / "SQuAD" / name,
                                     windows=WindowConfig(length, 16, 24))
    with pytest.raises(InputError, match=f"{name}: MindRecord takes no file of this name .* {length} word") as refused:
        convert_all([conversion], 1)
    assert "\n" not in str(refused.value) and not conversion.target.exists()


def test_a_builder_that_ends_within_a_message_is_told() -> None:
    receiving, sending = multiprocessing.Pipe(duplex=False)
    os.write(sending.fileno(), b"\0\0\0\x64abc")       # the head of a message of 100 bytes
    sending.close()
    builder = feature_stream._Builder.__new__(feature_stream._Builder)
    builder._receiving, builder._process = receiving, SimpleNamespace(join=lambda: None, exitcode=-9)
    with pytest.raises(InputError, match=r"ended without a result \(exit code -9\)"):
        next(builder.parts())


@pytest.mark.parametrize(("arguments", "message"), [
    (["--max_seq_len", "6"], "error: --max_seq_len 6: question t1 has 4 word pieces, which leave no room"),
    (["--dataset", "record", "--version_2_with_negative", "True"], "error: --version_2_with_negative is for SQuAD 2.0"),
    (["--max_seq_length", "6"], "unrecognized arguments"),
    (["--do_lower_case", "perhaps"], "neither True nor False"),
])
def test_the_script_refuses_in_one_line(data: DataFolder, arguments: list[str], message: str) -> None:
    before = snapshot(data.root)
    done = run_here(data_convert.main, ["--data_url", str(data.root), "--split", "train", *arguments], code=2)
    assert done.stdout == ""
    assert message in done.stderr and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert snapshot(data.root) == before


def test_a_data_set_that_is_not_there_is_left_out(data: DataFolder) -> None:
    shutil.rmtree(data.root / RECORD.folder)
    flags = ["--data_url", str(data.root), "--split", "dev"]
    assert f"{data.root / RECORD.folder}: no data set there, skipped" in run_here(data_convert.main, flags).stderr
    assert ConvertedFiles(data.mindrecord(SQUAD, "dev")).manifest.is_file()
    shutil.rmtree(data.root / SQUAD.folder)
    refused = run_here(data_convert.main, flags, code=2)
    assert f"{data.dataset_json(SQUAD, 'dev')}: no such file" in refused.stderr


@pytest.mark.slow
def test_a_full_disk_is_one_clear_line(data: DataFolder) -> None:
    """Files may not grow beyond 100 kB: what MindRecord and NumPy say of that becomes one line."""
    code = ("import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)); "
            "import data_convert; from utils.util import run_main; run_main(data_convert.main, sys.argv[1:])")
    done = subprocess.run([sys.executable, "-c", code, "--data_url", str(data.root), "--dataset", "squad", "--split",
                           "train"], cwd=ROOT, text=True, capture_output=True, timeout=900)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode == 2 and len(errors) == 1 and "train.mindrecord" in errors[0], done.stderr
    assert not ConvertedFiles(data.mindrecord(SQUAD, "train")).manifest.exists()
    assert not list(data.root.rglob("*.part"))


@needs_shared
def test_the_files_are_a_tenth_of_the_dense_ones(tmp_path: Path) -> None:
    """All files of a split against the dense columns of the feature table in a MindRecord file of their own."""
    from mindspore.mindrecord import FileWriter

    target = tmp_path / "dev.mindrecord"
    convert(small_data.conversion(DataFolder(SHARED), "squad", "dev", target=target))
    manifest = open_converted(target)
    features = read_dense(target, "dev")
    writer = FileWriter(str(tmp_path / "dense.mindrecord"), 1)
    writer.add_schema({name: {"type": str(values.dtype), "shape": list(values.shape)}
                       for name, values in features[0].items()}, "dense")
    for start in range(0, len(features), 100):
        writer.write_raw_data(features[start:start + 100])
    writer.commit()
    assert 10 * sum(manifest["files"].values()) < (tmp_path / "dense.mindrecord").stat().st_size
