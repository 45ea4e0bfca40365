"""The ``.data`` files: pickled lists and dicts of plain data, read safely and item by item, written the same way.

Three shapes travel in them (see docs/knowledge.md): token files and files of retrieved entities are lists of dicts,
one a question; synset files are one dict from words to concept names. They often come from other people over plain
HTTP: :mod:`src.knowledge.unpickle` reads them, Python's own unpickler never does.
"""
from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any, Iterable, Iterator

from src.knowledge.unpickle import stream
from utils.util import InputError, atomic_path


def read_records(path: Path | str) -> Iterator[dict[str, Any]]:
    """Stream the dicts of a pickled list (token files, NELL files); memory stays flat.

    Raises:
        InputError: the file is missing, cut short, no pickle of a list of dicts, or holds anything but plain data;
            the message names the byte and the opcode. Items before the fault have been handed out by then.
    """
    for number, item in enumerate(stream(path, list)):
        if type(item) is not dict:
            raise InputError(f"{path}: item {number} is a {type(item).__name__}, not a dict; is this the right file?")
        yield item


def read_mapping(path: Path | str) -> dict[str, list[str]]:
    """Read a pickled dict from strings to lists of strings (the synsets of words).

    Raises:
        InputError: as :func:`read_records`, or a value is no list of strings.
    """
    mapping = dict(stream(path, dict))
    for key, values in mapping.items():
        if type(key) is not str or type(values) is not list or not all(type(value) is str for value in values):
            raise InputError(f"{path}: the entry {str(key)[:60]!r} is no list of strings; is this the right file?")
    return mapping


def _dump_plain(value: Any, target: Any) -> None:
    pickler = pickle.Pickler(target, protocol=4)
    pickler.fast = True     # no numbering of objects: a reader then has nothing to remember
    pickler.dump(value)


def write_records(path: Path | str, items: Iterable[dict[str, Any]]) -> int:
    """Write an iterable of dicts as a pickled list, item by item, at once or not at all.

    Returns:
        The number of items.
    """
    count = 0
    with atomic_path(path) as temporary, open(temporary, "wb") as target:
        target.write(b"\x80\x04]")
        for item in items:
            single = io.BytesIO()
            _dump_plain(item, single)
            # A pickle of one item: without its PROTO, and with an APPEND in the place of its STOP (so its frame fits).
            target.write(single.getvalue()[2:-1] + b"a")
            count += 1
        target.write(b".")
    return count


def write_mapping(path: Path | str, mapping: dict[str, list[str]]) -> None:
    """Write a dict from words to lists of concept names, at once or not at all."""
    with atomic_path(path) as temporary, open(temporary, "wb") as target:
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
                return f"{key}: token_start {first!r} and token_end {last!r} are no span of words"
            if not _is_list_of(entity.get("retrieved_concepts"), str):
                return f"{key}: retrieved_concepts is no list of strings"
    return ""
