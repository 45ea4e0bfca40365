# SPDX-License-Identifier: Apache-2.0
"""The data sets as streams of items, whatever the files: the common envelope, rows of JSON or Parquet, or shards.

The envelope is a JSON object whose ``data`` is a long list. Rows are turned into such items by ``hub_rows.py``.
"""
from __future__ import annotations

import json
from collections.abc import Iterator
from json.decoder import JSONDecoder
from pathlib import Path
from typing import Any, NamedTuple

from src.reader.hub_rows import ROW_FIELDS, RowAdapter, is_parquet, parquet_rows
from utils.util import InputError, files_of, open_text

CHUNK = 1 << 20     # characters read at a time
CUT_MARGIN = 16     # characters: more than the longest word of JSON's grammar


class _Entry(NamedTuple):
    """Something read from a file: an item of the envelope, or a row."""

    place: str
    value: Any
    is_row: bool


def stream_items(path: Path | str) -> Iterator[tuple[str, Any]]:
    """Yield (place, item) for the items of a data set; memory holds one item at a time.

    Args:
        path: a file of any of the layouts, told by its content, or a folder of such files.

    Raises:
        InputError: the file is missing or of none of the layouts.
    """
    path = Path(path)
    files = files_of(path)
    if path.is_dir():
        _check_shards(path, files)
    rows = RowAdapter(path)
    for file in files:
        for place, value, is_row in _entries(file):
            if is_row:
                yield from rows.add(place, value)
            else:
                yield place, value
    yield from rows.finish()
    rows.report()


def _check_shards(folder: Path, files: list[Path]) -> None:
    splits = {name for file in files for name in ("train", "validation", "dev", "test") if file.name.startswith(name)}
    if not files:
        raise InputError(f"{folder}: no file in it; give a data set, or the folder of its shards")
    if len(splits) > 1:
        raise InputError(f"{folder}: holds shards of {' and '.join(sorted(splits))}; give a folder with those of one "
                         "split, or a file")


def _entries(path: Path) -> Iterator[_Entry]:
    """What one file holds.

    Raises:
        InputError: the file is missing, is not UTF-8, is not JSON, or of none of the layouts.
    """
    try:
        if path.is_file() and is_parquet(path):
            for place, row in parquet_rows(path):
                yield _Entry(place, row, True)
            return
        with open_text(path, "put the data set there; docs/data.md says where to get it") as source:
            yield from _scan(_Scanner(source, str(path)), str(path))
    except RecursionError:
        raise InputError(f"{path}: nested too deeply to be a data set") from None


def _scan(scanner: _Scanner, path: str) -> Iterator[_Entry]:
    """The items of an envelope, or the rows of JSON lines: their first object tells which."""
    if scanner.peek() != "{":
        raise InputError(f"{path}: not a data set (an object with the list \"data\", or rows of JSON)")
    row: dict[str, Any] = {}
    found = False
    for _ in scanner.members("{", "}"):
        if scanner.peek() != '"':
            raise scanner.error("expected a name in quotes")
        key = scanner.value()
        scanner.expect(":")
        if key != "data":
            value = scanner.value()
            row.update({key: value} if key in ROW_FIELDS else {})
            continue
        if scanner.peek() != "[":
            raise InputError(f"{path}: \"data\" is no list; is this file in the data set's own format?")
        found = True
        for number in scanner.members("[", "]"):
            yield _Entry(f"{path}: data[{number}]", scanner.value(), False)
    if not found and row:
        yield _Entry(f"{path}: row 0", row, True)
        number = 1
        while scanner.peek():
            yield _Entry(f"{path}: row {number}", scanner.value(), True)
            number += 1
    if scanner.peek():
        raise scanner.error("something follows the end of the object")
    if not found and not row:
        raise InputError(f"{path}: no list \"data\"; is this file in the data set's own format?")


class _Scanner:
    """Reads JSON values one by one from a text file, a block at a time."""

    def __init__(self, source: Any, path: str) -> None:
        self._source, self._path = source, path
        self._decode = JSONDecoder().raw_decode
        self._text = ""
        self._at = 0
        self._lines = 0          # complete lines before the text in hand
        self._columns = 0        # characters of its first line before it
        self._ended = False

    def peek(self) -> str:
        """The next character that is no white space; empty at the end of the file."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in " \t\r\n":
                    return self._text[self._at]
                self._at += 1
            if not self._more(CHUNK):
                return ""

    def expect(self, character: str) -> None:
        """Step over ``character``."""
        if self.peek() != character:
            raise self.error(f"expected {character!r}")
        self._at += 1

    def members(self, opening: str, closing: str) -> Iterator[int]:
        """Count through the members of a list or object; the caller reads each one."""
        self.expect(opening)
        number = 0
        while self.peek() != closing:
            if number:
                self.expect(",")
            yield number
            number += 1
        self._at += 1

    def value(self) -> Any:
        """The next value, of any kind."""
        self.peek()
        wanted = CHUNK
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # A value cut by the block's end fails near that end, or at the start of a string.
                cut = error.msg.startswith("Unterminated string") or error.pos > len(self._text) - CUT_MARGIN
                if cut and self._more(wanted):
                    wanted *= 2          # so that a long value is not parsed again for every block
                    continue
                self._at = error.pos
                raise self.error(error.msg) from None
            except ValueError as error:  # a number of thousands of digits
                raise self.error(str(error)) from None
            if end > len(self._text) - CUT_MARGIN and self._more(wanted):
                continue                 # a number could go on in the next block
            self._at = end
            return value

    def error(self, message: str) -> InputError:
        """A syntax error at the present place."""
        before = self._text[:self._at]
        line = self._lines + before.count("\n") + 1
        column = len(before) - before.rfind("\n") + (0 if "\n" in before else self._columns)
        return InputError(f"{self._path}: line {line}, column {column}: not JSON ({message}); "
                          "the file may be cut short: fetch it again")

    def _more(self, wanted: int) -> bool:
        """Read on; drops what was stepped over. False at the end of the file, where nothing changes."""
        block = "" if self._ended else self._source.read(wanted)
        if not block:
            self._ended = True
            return False
        dropped = self._text[:self._at]
        self._lines += dropped.count("\n")
        self._columns = len(dropped) - dropped.rfind("\n") - 1 + (0 if "\n" in dropped else self._columns)
        self._text = self._text[self._at:] + block
        self._at = 0
        return True
