"""The data sets' common envelope: a JSON object whose ``data`` is a long list, streamed item by item."""
from __future__ import annotations

import json
import re
from json.decoder import JSONDecoder
from pathlib import Path
from typing import Any, Iterator, Type, TypeVar

from src.reader.examples import Answer
from utils.util import InputError, open_text

T = TypeVar("T")
SURROGATE = re.compile("[\ud800-\udfff]")
CHUNK = 1 << 20     # characters read at a time
CUT_MARGIN = 16     # characters: more than the longest word of JSON's grammar
KIND_NAMES = {dict: "an object", list: "a list", str: "a text", int: "a whole number", bool: "true or false"}


def take(item: Any, key: str, kind: Type[T], place: str) -> T:
    """``item[key]``, which must be there and of ``kind``.

    Args:
        item: what was read; it must be a dictionary itself.
        key: the field.
        kind: dict, list, str, int or bool (a bool is no int here).
        place: file and path of the item, for the error: ``dev.json: data[3].paragraphs[0]``.

    Raises:
        InputError: the field is missing or of another kind.
    """
    if not isinstance(item, dict):
        raise InputError(f"{place}: is {_short(item)}; it must be an object with the field {key!r}")
    value = item.get(key)
    if type(value) is not kind:
        if key not in item:
            raise InputError(f"{place}: the field {key!r} is missing; is this file in the data set's own format?")
        raise InputError(f"{place}.{key}: is {_short(value)}; it must be {KIND_NAMES[kind]}")
    if isinstance(value, str) and not value.isascii() and SURROGATE.search(value):
        raise InputError(f"{place}.{key}: holds half a surrogate pair, which is no character; remove it")
    return value


def _short(value: Any) -> str:
    try:
        text = json.dumps(value)
    except (ValueError, RecursionError):      # a number of thousands of digits, nested too deeply
        return "not readable"
    return text if len(text) <= 40 else text[:37] + "..."


def make_answer(text: str, start: int, passage: str, place: str) -> Answer:
    """An answer whose characters lie inside its passage.

    Raises:
        InputError: they do not, or the text is empty.
    """
    if not text.strip():
        raise InputError(f"{place}: the answer's text is empty; remove the answer")
    if start < 0 or start + len(text) > len(passage):
        raise InputError(f"{place}: the answer {_short(text)} takes characters {start} to {start + len(text) - 1}, the "
                         f"passage has 0 to {len(passage) - 1}; fix the answer's offset")
    return Answer(text=text, start=start)


def stream_items(path: Path | str) -> Iterator[tuple[str, Any]]:
    """Yield (place, item) for the items of the ``data`` list; memory holds one item at a time.

    Raises:
        InputError: the file is missing, is not UTF-8, is not JSON, or has no list ``data``.
    """
    try:
        with open_text(path, "put the data set there (the README lists the downloads)") as source:
            scanner = _Scanner(source, str(path))
            yield from _scan_envelope(scanner, str(path))
    except RecursionError:
        raise InputError(f"{path}: nested too deeply to be a data set") from None


def _scan_envelope(scanner: _Scanner, path: str) -> Iterator[tuple[str, Any]]:
    found = False
    if scanner.peek() != "{":
        raise InputError(f"{path}: not a data set (an object with the list \"data\")")
    for _ in scanner.members("{", "}"):
        if scanner.peek() != '"':
            raise scanner.error("expected a name in quotes")
        key = scanner.value()
        scanner.expect(":")
        if key != "data":
            scanner.value()
            continue
        if scanner.peek() != "[":
            raise InputError(f"{path}: \"data\" is no list; is this file in the data set's own format?")
        found = True
        for number in scanner.members("[", "]"):
            yield f"{path}: data[{number}]", scanner.value()
    if scanner.peek():
        raise scanner.error("something follows the end of the object")
    if not found:
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
