# SPDX-License-Identifier: Apache-2.0
"""Broken variants of every file the readers read: whatever is wrong, only InputError comes out, in one line."""
from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.config import NELL, RECORD, SPLITS, SQUAD, WORDNET, DataFolder, load_knowledge_bases
from src.feature_stream import build
from src.knowledge.formats import read_mapping, read_records
from src.reader.examples import read_side_table
from src.reader.storage import open_converted
from testing import small_data
from utils.util import InputError

TASKS = {"squad": SQUAD, "record": RECORD}
throws = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return small_data.make_data(tmp_path_factory.mktemp("bad") / "data")


class Spoiled:
    """Lets a test spoil a file and puts it right again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.good = path.read_bytes()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *_: object) -> None:
        self.path.write_bytes(self.good)


def outcome(work: Callable[[], Any]) -> str:
    """Run; "" when all went well, else what the InputError says. Any other exception is a failure of the test."""
    try:
        work()
    except InputError as error:
        message = str(error)
        assert message and "\n" not in message
        return message
    return ""


def convert_in_memory(data: DataFolder, dataset: str, split: str) -> Callable[[], None]:
    """All of reading and building, without the writer."""
    conversion = small_data.conversion(data, dataset, split)

    def work() -> None:
        conversion.check_inputs()
        for _ in build(conversion):
            pass
    return work


NOT_SURROGATES = st.characters(blacklist_categories=())
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(NOT_SURROGATES, max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3), max_leaves=6)


def spots(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values inside ``value``."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += spots(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            found += spots(inner, (*path, number))
    return found


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """``value`` with one to three places removed, doubled or replaced."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        places = spots(value)
        if not places:
            break
        *way, last = draw(st.sampled_from(places))
        holder = value
        for key in way:
            holder = holder[key]
        kind = draw(st.sampled_from(["remove", "replace", "number", "text", "double"]))
        if kind == "remove":
            del holder[last]
        elif kind == "double" and isinstance(holder, list):
            holder.insert(last, copy.deepcopy(holder[last]))
        elif kind == "number":
            holder[last] = draw(st.integers(-3, 80))
        elif kind == "text":
            holder[last] = draw(st.sampled_from(["", " ", "Paris", "t1", "a\u0301\u200b", "\ud800", "x" * 300]))
        else:
            holder[last] = draw(ANYTHING)
    return value


@pytest.mark.parametrize("dataset", TASKS)
@pytest.mark.parametrize("split", SPLITS)
@throws
@given(choice=st.data())
def test_changed_data_sets(data: DataFolder, dataset: str, split: str, choice: st.DataObject) -> None:
    values = {"squad": small_data.squad, "record": small_data.record}[dataset]()[split]
    with Spoiled(data.dataset_json(TASKS[dataset], split)) as path:
        path.write_text(json.dumps(choice.draw(changed(values))), encoding="utf-8")
        message = outcome(convert_in_memory(data, dataset, split))
        assert not message or str(data.root) in message or message.startswith("--")


@throws
@given(start=st.integers(0, 2000), length=st.integers(0, 40), filling=st.binary(max_size=8))
def test_data_sets_with_changed_bytes(data: DataFolder, start: int, length: int, filling: bytes) -> None:
    with Spoiled(data.dataset_json(SQUAD, "train")) as path:
        content = path.read_bytes()
        start %= len(content)
        path.write_bytes(content[:start] + filling + content[start + length:])
        outcome(convert_in_memory(data, "squad", "train"))


@throws
@given(length=st.integers(0, 2000))
def test_cut_data_sets_never_pass(data: DataFolder, length: int) -> None:
    with Spoiled(data.dataset_json(SQUAD, "train")) as path:
        os.truncate(path, length % path.stat().st_size)
        assert str(path) in outcome(convert_in_memory(data, "squad", "train"))


@pytest.mark.parametrize("which", ["tokens", "entities"])
@throws
@given(choice=st.data())
def test_changed_records(data: DataFolder, which: str, choice: st.DataObject) -> None:
    path = data.tokens(SQUAD, "train", False) if which == "tokens" else data.retrieved(NELL, SQUAD, "train")
    with Spoiled(path):
        records = choice.draw(changed(list(read_records(path))))
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        message = outcome(convert_in_memory(data, "squad", "train"))
        assert not message or str(data.root) in message


@throws
@given(choice=st.data())
def test_changed_synsets(data: DataFolder, choice: st.DataObject) -> None:
    path = data.retrieved(WORDNET, SQUAD, "train")
    with Spoiled(path):
        path.write_text(json.dumps(choice.draw(changed(read_mapping(path)))) + "\n")
        outcome(convert_in_memory(data, "squad", "train"))


@pytest.mark.parametrize("which", ["tokens", "entities", "synsets", "vocabulary", "vectors"])
@throws
@given(start=st.integers(0, 5000), length=st.integers(0, 30), filling=st.binary(max_size=6))
def test_files_with_changed_bytes(data: DataFolder, which: str, start: int, length: int, filling: bytes) -> None:
    paths = {"tokens": data.tokens(SQUAD, "train", False), "entities": data.retrieved(NELL, SQUAD, "train"),
             "synsets": data.retrieved(WORDNET, SQUAD, "train"), "vocabulary": data.bert() / "vocab.txt",
             "vectors": data.vectors(NELL)}
    with Spoiled(paths[which]) as path:
        content = path.read_bytes()
        start %= len(content)
        path.write_bytes(content[:start] + filling + content[start + length:])
        message = outcome(convert_in_memory(data, "squad", "train"))
        assert not message or str(data.root) in message


@pytest.mark.parametrize("content", [b"", b"\n", b"null", b"[" * 100_000, b'{"data": ' * 20_000, b"\xef\xbb\xbf{}",
                                     b'{"data": [' + b"9" * 10_000 + b"]}", b'{"data": [{}]}', b'{"data": [[]]}',
                                     b'{"data": {"a": 1}}', b'{"data": [], "data": 5}', b"\x00" * 50])
def test_strange_data_sets(data: DataFolder, content: bytes) -> None:
    for dataset, task in TASKS.items():
        with Spoiled(data.dataset_json(task, "dev")) as path:
            path.write_bytes(content)
            message = outcome(convert_in_memory(data, dataset, "dev"))
            assert str(path) in message


@throws
@given(choice=st.data())
def test_changed_knowledge_base_lists(tmp_path: Path, choice: st.DataObject) -> None:
    bases = [{"name": "wn", "label": "WordNet", "vectors": "v", "retrieved": "r", "key": "word", "max_concepts": 3}]
    path = tmp_path / "bases.json"
    path.write_text(json.dumps(choice.draw(changed(bases))))
    outcome(lambda: load_knowledge_bases(path))


@throws
@given(choice=st.data())
def test_changed_manifests_and_tables(tmp_path: Path, choice: st.DataObject) -> None:
    target = tmp_path / "dev.mindrecord"
    target.write_bytes(b"12345")
    manifest = {"rows": 1, "files": {"dev.mindrecord": 5}, "settings": {}}
    (tmp_path / "dev.manifest.json").write_text(json.dumps(choice.draw(changed(manifest))))
    outcome(lambda: open_converted(target))
    line = {"id": "q", "question": "a", "words": ["a"], "pieces": ["a"], "piece_to_word": [0], "query_length": 1,
            "windows": [{"unique_id": 1, "doc_start": 0, "length": 1}], "answers": ["a"], "entities": [],
            "is_impossible": False}
    (tmp_path / "dev.examples.jsonl").write_text(json.dumps(choice.draw(changed(line))) + "\n")
    outcome(lambda: list(read_side_table(target)))
