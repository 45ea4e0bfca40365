# SPDX-License-Identifier: Apache-2.0
"""The ``.data`` files: retrieved knowledge and word-level tokens, as JSON lines or as the authors' pickles.

Three shapes travel in them (see docs/knowledge.md): token files and files of retrieved entities hold one dict per
question; synset files hold one dict from words to concept names. The project writes JSON: one line per question, and a
dict of words as one line. The authors' files under the same names are pickles; the first byte tells which it is.
"""
from __future__ import annotations

import io
import json
import pickle
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

import six

from src.knowledge.pickles import load_plain, shape_problem
from utils.util import InputError, atomic_path, open_text, parse_json

Format = Literal["json", "pickle"]
MAX_LINE = 64 << 20      # characters of one item as JSON
_FIX = "fetch the file again or make it with retrieve.py"


def read_records(path: Path | str) -> Iterator[dict[str, Any]]:
    """Stream the dicts of a file with one item per question (token files, NELL files).

    JSON is read line by line; a pickle is loaded whole and given back item by item.

    Raises:
        InputError: the file is missing, cut short, no list of dicts, or a pickle of anything but plain data. Items
            before the fault have been yielded by then.
    """
    for place, item in _read_items(Path(path), list):
        if type(item) is not dict:
            raise InputError(f"{place} is a {type(item).__name__}, not a dict; is this the right file?")
        problem = shape_problem(item)
        if problem:
            raise InputError(f"{place}: {problem}; {_FIX}")
        yield item


def read_mapping(path: Path | str) -> dict[str, list[str]]:
    """Read a dict from strings to lists of strings (the synsets of words).

    Raises:
        InputError: as :func:`read_records`, or a value is not a list of strings.
    """
    items = list(_read_items(Path(path), dict))
    if len(items) != 1 or type(items[0][1]) is not dict:
        raise InputError(f"{path}: holds no single dict of words; is this the right file?")
    mapping = {}
    for key, values in items[0][1].items():
        if type(key) not in (str, bytes) or type(values) is not list or not all(
                type(value) in (str, bytes) for value in values):
            raise InputError(f"{path}: the entry {_short(key)} is not a list of strings; is this the right file?")
        try:
            mapping[six.ensure_text(key)] = [six.ensure_text(value) for value in values]
        except UnicodeDecodeError:
            raise InputError(f"{path}: the entry {_short(key)} is not UTF-8; {_FIX}") from None
    return mapping


def _short(key: Any) -> str:
    return repr(key)[:60] if type(key) in (str, bytes, int, float) else f"of type {type(key).__name__}"


def _read_items(path: Path, kind: type) -> Iterator[tuple[str, Any]]:
    """(place, item) of a JSON file's lines or of a pickled list; a pickled dict is one item."""
    if not path.is_file():
        raise InputError(f"{path}: " + ("not a file" if path.exists() else f"no such file; {_FIX}"))
    with open(path, "rb") as source:
        start = source.read(1)
    if not start:
        raise InputError(f"{path}: empty; {_FIX}")
    if start in b"{\xef":      # an object, or a byte order mark before one
        yield from _read_lines(path)
        return
    value = load_plain(path, kind)
    if kind is dict:
        yield str(path), value
        return
    value.reverse()
    for number in range(len(value)):      # each item is let go when the next one is asked for
        yield f"{path}: item {number}", value.pop()


def _read_lines(path: Path) -> Iterator[tuple[str, Any]]:
    with open_text(path, _FIX) as source:
        number = 0
        while line := source.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                raise InputError(f"{path}: line {number}: more than {MAX_LINE} characters; {_FIX}")
            yield f"{path}: line {number}", parse_json(line, f"{path}: line {number}")


def _dump_json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _dump_plain(value: Any, target: IO[bytes]) -> None:
    pickler = pickle.Pickler(target, protocol=4)
    pickler.fast = True     # no numbering of objects: a reader then has nothing to remember
    pickler.dump(value)


def write_records(path: Path | str, items: Iterable[dict[str, Any]], form: Format = "json") -> int:
    """Write an iterable of dicts, item by item, atomically.

    Args:
        path: the file.
        items: one per question.
        form: JSON lines, or a pickled list as the authors have it.

    Returns:
        The number of items.
    """
    count = 0
    with atomic_path(path) as temporary, open(temporary, "wb") as target:
        target.write(b"" if form == "json" else b"\x80\x04]")
        for item in items:
            target.write(_dump_json(item) if form == "json" else _pickled_item(item))
            count += 1
        target.write(b"" if form == "json" else b".")
    return count


def _pickled_item(item: dict[str, Any]) -> bytes:
    """A pickle of one item: without its PROTO, and with an APPEND in the place of its STOP (so its frame fits)."""
    single = io.BytesIO()
    _dump_plain(item, single)
    return single.getvalue()[2:-1] + b"a"


def write_mapping(path: Path | str, mapping: dict[str, list[str]], form: Format = "json") -> None:
    """Write a dict from words to lists of concept names, atomically."""
    with atomic_path(path) as temporary, open(temporary, "wb") as target:
        if form == "json":
            target.write(_dump_json(mapping))
        else:
            _dump_plain(mapping, target)


def _is_list_of(values: Any, kind: type) -> bool:
    return type(values) is list and all(type(value) is kind for value in values)


def retrieved_item_problem(item: dict[str, Any]) -> str:
    """What is wrong with one item of a file of retrieved entities (NELL and the like), or nothing."""
    if type(item.get("id")) not in (str, int):
        return "has no id"
    for key in ("document_entities", "query_entities"):
        if not _is_list_of(item.get(key), dict):
            return f"{key} is no list of entities"
        for entity in item[key]:
            first, last = entity.get("token_start"), entity.get("token_end")
            if type(first) is not int or type(last) is not int or not 0 <= first <= last:
                return f"{key}: token_start {_short(first)} and token_end {_short(last)} are no span of words"
            if not _is_list_of(entity.get("retrieved_concepts"), str):
                return f"{key}: retrieved_concepts is not a list of strings"
    return ""
