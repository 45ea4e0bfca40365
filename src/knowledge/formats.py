"""The ``.data`` files: pickled plain data, read without running anything and without holding the file.

Such files come from other people over plain HTTP, and a pickle is a program. The interpreter here knows only the
opcodes that build dict, list, tuple, set, frozenset, str, bytes, int, float, bool and None; every other opcode is
refused by name, and there is no way from a file to an import. It streams: an item of the outer list is handed out
as soon as it is complete, so memory does not grow with the file.

What makes streaming possible is that Python's pickler numbers every object it writes but refers back to few of them.
One vectorised look over the bytes finds all numbers that *could* be referred to (a small superset), and how far into
the file; only those objects are remembered, and only for that long.
"""
from __future__ import annotations

import codecs
import io
import mmap
import os
import pickle
import pickletools
import re
import struct
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, NoReturn, Sequence

import numpy as np

from utils.util import InputError, atomic_path

MAX_ITEM_BYTES = 16 << 20         # of one item of the outer container; a real one has a few thousand
MAX_ITEM_CONTAINERS = 1_000_000   # lists, dicts, tuples and sets in one item
MAX_ITEM_OBJECTS = 1 << 24        # values of one item when shared parts are counted each time
MAX_DEPTH = 64                    # nesting
MAX_SHARED = 1 << 24              # objects a file may refer back to
MAX_TEXT_NUMBER = 32              # characters of a number written as text

_SCALARS = frozenset({str, bytes, int, float, bool, type(None)})
_CONTAINERS = frozenset({list, dict, tuple, set, frozenset})
_OUTER = object()                 # stands for the outer container, which is never built
_NEVER = 1 << 62
_BLOCK = 1 << 22                  # bytes looked at, and pages kept, at a time
_WORDS_KEPT = 1 << 16
_MEMOIZED_STRINGS = re.compile(rb"(?:\x8c[\x00-\x7f][\x20-\x7e]*\x94)+")
_SMALL_INTS = re.compile(rb"(?:K.)+", re.DOTALL)
_TEXT_GET = re.compile(rb"g([0-9]{1,10})\n")
_UINT32 = struct.Struct("<I")
_INT32 = struct.Struct("<i")
_UINT64 = struct.Struct("<Q")
_DOUBLE = struct.Struct(">d")


class _References:
    """Which memo numbers a pickle can refer back to, and up to which byte."""

    def __init__(self, buffer: mmap.mmap) -> None:
        self.numbers = np.empty(0, np.uint32)
        self.last_use = np.empty(0, np.int64)
        for start in range(0, len(buffer), _BLOCK):
            # The overlap holds the operand of an opcode at the block's end.
            block = np.frombuffer(buffer[start:start + _BLOCK + 4], np.uint8)
            offsets = np.flatnonzero(block[:-4] == ord("j"))
            numbers = sum(block[offsets + place].astype(np.uint32) << np.uint32(8 * (place - 1))
                          for place in range(1, 5)) if len(offsets) else np.empty(0, np.uint32)
            texts = [(int(match[1]), place) for place in np.flatnonzero(block[:-1] == ord("g"))
                     if (match := _TEXT_GET.match(buffer, start + int(place)))] if _may_have_text(block) else []
            self._add(np.append(numbers, [number for number, _ in texts]).astype(np.int64),
                      np.append(offsets, [place for _, place in texts]).astype(np.int64) + start)
            _release(buffer, start, start + _BLOCK)

    def _add(self, numbers: np.ndarray, offsets: np.ndarray) -> None:
        """Merge references found in one block."""
        possible = numbers * 2 <= offsets      # an object and its number take two bytes at least
        numbers, offsets = numbers[possible], offsets[possible]
        if len(numbers):
            # Later entries are later in the file: after the reversal, unique's first entry is the last use.
            everything = np.concatenate([self.numbers, numbers.astype(np.uint32)])[::-1]
            self.numbers, first = np.unique(everything, return_index=True)
            self.last_use = np.concatenate([self.last_use, offsets])[::-1][first]

    def used_after(self, numbers: Sequence[int], offset: int) -> np.ndarray:
        """For each number of the table: can it be referred to at or after ``offset``? Numbers below 256 always."""
        wanted = np.asarray(numbers, np.int64)
        places = np.minimum(np.searchsorted(self.numbers, wanted), max(len(self.numbers) - 1, 0))
        late = self.last_use[places] >= offset if len(self.numbers) else np.zeros(len(wanted), bool)
        return late | (wanted < 256)


def _may_have_text(block: np.ndarray) -> bool:
    """Whether a block can hold a GET written as text: a "g" and a digit behind it."""
    behind = block[1:]
    return bool(np.any((block[:-1] == ord("g")) & (behind >= ord("0")) & (behind <= ord("9"))))


def _release(buffer: mmap.mmap, start: int, stop: int) -> None:
    """Let the system take back pages that were read, so that they do not count as this process's memory."""
    if hasattr(mmap, "MADV_DONTNEED"):
        start -= start % mmap.PAGESIZE
        stop = min(stop, len(buffer))
        if stop > start:
            buffer.madvise(mmap.MADV_DONTNEED, start, stop - start)


class _Words(dict[bytes, str]):
    """Length byte and ASCII text -> string; equal words become one object."""

    def __missing__(self, piece: bytes) -> str:
        if len(piece) != piece[0] + 1:
            raise KeyError(piece)
        if len(self) >= _WORDS_KEPT:
            self.clear()
        word = self[piece] = piece[1:].decode("ascii")
        return word


class _Reader:
    """One pass over one file: a stack machine whose handlers take the offset of an opcode and return the next one."""

    def __init__(self, path: Path, buffer: mmap.mmap, kind: type) -> None:
        self.path, self.buffer, self.kind = path, buffer, kind
        self.size = len(buffer)
        self.end = min(self.size, MAX_ITEM_BYTES)   # reading past it means a cut file or a giant item
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []            # the stacks below each MARK
        self.ready: list[Any] = []                  # complete items of the outer container
        self.pairs: list[tuple[Any, Any]] = []
        self.words = _Words()
        self.references = _References(buffer)
        if len(self.references.numbers) > MAX_SHARED:
            raise InputError(f"{path}: refers back to more than {MAX_SHARED} objects; this is no data file")
        self.wanted = np.union1d(np.arange(256), self.references.numbers)
        self.place = 0                              # in wanted
        self.next_wanted = 0
        self.counter = 0                            # the next number MEMOIZE or PUT gives
        self.numbering: str | None = None
        self.memo: dict[int, Any] = {}
        self.memo_limit = 4096                      # tidy up when it has grown to this
        self.released = 0
        self._start_item(0)
        handlers: dict[int, Callable[[int], int]] = {code: getattr(self, name) for code, name in _HANDLERS.items()}
        self.handlers = [handlers.get(code, self._refuse_opcode) for code in range(256)]

    # --- control ---------------------------------------------------------------------------------------------------

    def items(self) -> Iterator[Any]:
        """Complete items of the outer list, or (key, value) pairs of the outer dict."""
        buffer, handlers, ready = self.buffer, self.handlers, self.ready
        offset = 0
        while offset >= 0:
            if offset >= self.end:
                self._refuse_end(offset)
            try:
                following = handlers[buffer[offset]](offset)
            except (IndexError, struct.error):
                # An operand or a stack that is not there.
                if offset + 16 > self.size:
                    self._refuse_end(offset)
                self._refuse(offset, "its operands are missing")
            offset = following
            if ready:
                self._check_shape(offset)
                yield from ready
                ready.clear()
                self._start_item(max(offset, 0))

    def _start_item(self, offset: int) -> None:
        """Forget what belongs to the item before."""
        self.item_start = offset
        self.end = min(self.size, offset + MAX_ITEM_BYTES)
        self.containers = self.links = 0
        self.shared = self.slow = False
        if len(self.memo) > self.memo_limit:
            keys = list(self.memo)
            keep = self.references.used_after(keys, offset)
            self.memo = {key: self.memo[key] for key, kept in zip(keys, keep, strict=True) if kept}
            self.memo_limit = 2 * len(self.memo) + 4096
        if offset - self.released > _BLOCK:
            _release(self.buffer, self.released, offset - offset % mmap.PAGESIZE)
            self.released = offset

    def _check_shape(self, offset: int) -> None:
        """Refuse items that are deep, circular or that grow beyond measure when their shared parts are counted."""
        if self.shared or self.links > MAX_DEPTH:
            problem = _shape_problem(self.ready)
            if problem:
                self._refuse(self.item_start, problem, named=False)

    def _refuse(self, offset: int, reason: str, named: bool = True) -> NoReturn:
        name = f"{_opcode_name(self.buffer[offset])}: " if named else ""
        raise InputError(f"{self.path}: byte {offset}: {name}{reason}; "
                         "only plain data is read, make the file anew with retrieve.py")

    def _refuse_end(self, offset: int) -> NoReturn:
        if self.end < self.size:
            self._refuse(self.item_start, f"an item of more than {MAX_ITEM_BYTES} bytes", named=False)
        raise InputError(f"{self.path}: byte {offset}: cut short, the file has {self.size} bytes; "
                         "fetch it again or make it anew with retrieve.py")

    def _refuse_opcode(self, offset: int) -> NoReturn:
        code = self.buffer[offset:offset + 1]
        if code in (b"c", b"i"):
            names = self.buffer[offset + 1:offset + 300].split(b"\n")[:2]
            what = ".".join(name.decode("ascii", "backslashreplace") for name in names)
            self._refuse(offset, f"asks for {what}, which would run code")
        if code == b"\x93" and len(self.stack) > 1:
            self._refuse(offset, f"asks for {str(self.stack[-2])[:99]}.{str(self.stack[-1])[:99]}, "
                                 "which would run code")
        self._refuse(offset, "is not allowed")

    # --- numbers of objects ----------------------------------------------------------------------------------------

    def _number(self, offset: int, style: str, values: Sequence[Any], first: int) -> None:
        """Objects ``first``, ``first + 1``, ... of the memo are ``values``; keep those that can be referred to."""
        if self.numbering != style:
            if self.numbering is not None:
                self._refuse(offset, "mixes two ways of numbering objects")
            self.numbering = style
        if first < self.counter or self.next_wanted < first:   # out of order, as no pickler writes
            self._seek(first)
        self.counter = first + len(values)
        while self.next_wanted < self.counter:
            self.memo[self.next_wanted] = values[self.next_wanted - first]
            self._seek(self.next_wanted + 1, self.place + 1)

    def _seek(self, number: int, place: int = -1) -> None:
        self.place = place if place >= 0 else int(np.searchsorted(self.wanted, number))
        self.next_wanted = int(self.wanted[self.place]) if self.place < len(self.wanted) else _NEVER

    def _memoize(self, offset: int) -> int:
        if self.counter < self.next_wanted and self.numbering == "memoize":
            self.counter += 1
        else:
            self._number(offset, "memoize", self.stack[-1:], self.counter)
        return offset + 1

    def _put(self, offset: int, number: int, stop: int) -> int:
        if number == self.counter < self.next_wanted and self.numbering == "put":
            self.counter += 1
        else:
            self._number(offset, "put", self.stack[-1:], number)
        return stop

    def _short_put(self, offset: int) -> int:
        return self._put(offset, self.buffer[offset + 1], offset + 2)

    def _long_put(self, offset: int) -> int:
        return self._put(offset, _UINT32.unpack_from(self.buffer, offset + 1)[0], offset + 5)

    def _text_put(self, offset: int) -> int:
        number, stop = self._text_number(offset)
        if number < 0:
            self._refuse(offset, "a negative number")
        return self._put(offset, number, stop)

    def _get(self, offset: int, number: int, stop: int) -> int:
        try:
            value = self.memo[number]
        except KeyError:
            self._refuse(offset, f"object {number} does not exist")
        if value is _OUTER:
            self._refuse(offset, "the outer container holds itself")
        if type(value) in _CONTAINERS:
            self.shared = True
        self.stack.append(value)
        return stop

    def _short_get(self, offset: int) -> int:
        return self._get(offset, self.buffer[offset + 1], offset + 2)

    def _long_get(self, offset: int) -> int:
        return self._get(offset, _UINT32.unpack_from(self.buffer, offset + 1)[0], offset + 5)

    def _text_get(self, offset: int) -> int:
        return self._get(offset, *self._text_number(offset))

    # --- values ----------------------------------------------------------------------------------------------------

    def _short_text(self, offset: int) -> int:
        """Strings up to 255 bytes, as many as follow each other: nine tenths of a token file."""
        buffer, push = self.buffer, self.stack.append
        while True:
            stop = offset + 2 + buffer[offset + 1]
            if stop >= self.end:
                self._refuse_end(offset)
            if buffer[stop] == 0x94 and not self.slow:
                match = _MEMOIZED_STRINGS.match(buffer, offset, self.end)
                if match:
                    return self._string_run(offset, match.end())
            push(self._decode(offset, buffer[offset + 2:stop]))
            if buffer[stop] != 0x8c:
                return stop
            offset = stop

    def _string_run(self, offset: int, stop: int) -> int:
        # ASCII holds no 0x94, so the cuts are certain once every piece has the length that its first byte says.
        pieces = self.buffer[offset + 1:stop - 1].split(b"\x94\x8c")
        try:
            words = [self.words[piece] for piece in pieces]
        except KeyError:
            self.slow = True      # legal, but written by no pickler: string by string to the item's end
            return self._short_text(offset)
        self._number(offset, "memoize", words, self.counter)
        self.stack += words
        return stop

    def _decode(self, offset: int, raw: bytes) -> str:
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            self._refuse(offset, "a string that is not UTF-8")

    def _raw(self, offset: int, header: int, length: int) -> tuple[bytes, int]:
        """The operand of ``length`` bytes behind ``header`` bytes, and where it ends; nothing is allocated in vain."""
        stop = offset + header + length
        if stop > self.end:
            self._refuse_end(offset)
        return self.buffer[offset + header:stop], stop

    def _text(self, offset: int) -> int:
        raw, stop = self._raw(offset, 5, _UINT32.unpack_from(self.buffer, offset + 1)[0])
        self.stack.append(self._decode(offset, raw))
        return stop

    def _long_text(self, offset: int) -> int:
        raw, stop = self._raw(offset, 9, _UINT64.unpack_from(self.buffer, offset + 1)[0])
        self.stack.append(self._decode(offset, raw))
        return stop

    def _old_short_text(self, offset: int) -> int:
        raw, stop = self._raw(offset, 2, self.buffer[offset + 1])
        self.stack.append(self._decode(offset, raw))
        return stop

    def _short_bytes(self, offset: int) -> int:
        raw, stop = self._raw(offset, 2, self.buffer[offset + 1])
        self.stack.append(raw)
        return stop

    def _bytes(self, offset: int) -> int:
        raw, stop = self._raw(offset, 5, _UINT32.unpack_from(self.buffer, offset + 1)[0])
        self.stack.append(raw)
        return stop

    def _long_bytes(self, offset: int) -> int:
        raw, stop = self._raw(offset, 9, _UINT64.unpack_from(self.buffer, offset + 1)[0])
        self.stack.append(raw)
        return stop

    def _line(self, offset: int) -> tuple[bytes, int]:
        stop = self.buffer.find(b"\n", offset + 1, self.end)
        if stop < 0:
            self._refuse_end(offset)
        return self.buffer[offset + 1:stop], stop + 1

    def _text_number(self, offset: int) -> tuple[int, int]:
        line, stop = self._line(offset)
        if self.buffer[offset] == ord("L") and line.endswith(b"L"):
            line = line[:-1]
        if len(line) > MAX_TEXT_NUMBER or not re.fullmatch(rb"-?[0-9]+", line):
            self._refuse(offset, "not a whole number, or one too large")
        return int(line), stop

    def _text_int(self, offset: int) -> int:
        value: int | bool
        value, stop = self._text_number(offset)
        if self.buffer[offset:stop] in (b"I00\n", b"I01\n"):
            value = bool(value)
        self.stack.append(value)
        return stop

    def _text_float(self, offset: int) -> int:
        line, stop = self._line(offset)
        try:
            self.stack.append(float(line[:MAX_TEXT_NUMBER + 1]) if len(line) <= MAX_TEXT_NUMBER else float("x"))
        except ValueError:
            self._refuse(offset, "not a number")
        return stop

    def _escaped_text(self, offset: int) -> int:
        line, stop = self._line(offset)
        try:
            self.stack.append(line.decode("raw_unicode_escape"))
        except UnicodeDecodeError:
            self._refuse(offset, "a broken escape")
        return stop

    def _quoted_text(self, offset: int) -> int:
        line, stop = self._line(offset)
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            self._refuse(offset, "a string without quotes")
        try:
            raw = codecs.escape_decode(line[1:-1])[0]
        except ValueError:
            self._refuse(offset, "a broken escape")
        self.stack.append(self._decode(offset, raw))
        return stop

    def _small_ints(self, offset: int) -> int:
        stop = _SMALL_INTS.match(self.buffer, offset, self.end)
        if stop is None:
            self._refuse_end(offset)
        self.stack += self.buffer[offset + 1:stop.end():2]
        return stop.end()

    def _int16(self, offset: int) -> int:
        self.stack.append(self.buffer[offset + 1] | self.buffer[offset + 2] << 8)
        return offset + 3

    def _int32(self, offset: int) -> int:
        self.stack.append(_INT32.unpack_from(self.buffer, offset + 1)[0])
        return offset + 5

    def _long_int(self, offset: int) -> int:
        length = self.buffer[offset + 1]
        if length > 8:
            self._refuse(offset, f"a number of {length} bytes")
        raw, stop = self._raw(offset, 2, length)
        self.stack.append(int.from_bytes(raw, "little", signed=True))
        return stop

    def _float(self, offset: int) -> int:
        self.stack.append(_DOUBLE.unpack_from(self.buffer, offset + 1)[0])
        return offset + 9

    def _none(self, offset: int) -> int:
        self.stack.append(None)
        return offset + 1

    def _true(self, offset: int) -> int:
        self.stack.append(True)
        return offset + 1

    def _false(self, offset: int) -> int:
        self.stack.append(False)
        return offset + 1

    # --- containers ------------------------------------------------------------------------------------------------

    def _push_container(self, offset: int, value: Any) -> int:
        self.containers += 1
        if self.containers > MAX_ITEM_CONTAINERS:
            self._refuse(offset, f"more than {MAX_ITEM_CONTAINERS} lists, dicts, tuples and sets in one item")
        self.stack.append(value)
        return offset + 1

    def _start(self, offset: int, kind: type) -> int:
        """The outer container."""
        if kind is not self.kind:
            raise InputError(f"{self.path}: holds a {kind.__name__} where a {self.kind.__name__} is expected; "
                             "is this the right file?")
        self.stack.append(_OUTER)
        return offset + 1

    def _empty_list(self, offset: int) -> int:
        if not self.stack and not self.marks:
            return self._start(offset, list)
        return self._push_container(offset, [])

    def _empty_dict(self, offset: int) -> int:
        if not self.stack and not self.marks:
            return self._start(offset, dict)
        if len(self.marks) == 1 and self.stack and type(self.stack[-1]) is dict and self.marks[0][-1] is _OUTER:
            # A dict directly behind a dict: nothing can be put into the first one any more.
            self._finish(offset, self.stack)
            self.stack = []
        return self._push_container(offset, {})

    def _empty_set(self, offset: int) -> int:
        return self._push_container(offset, set())

    def _empty_tuple(self, offset: int) -> int:
        return self._push_container(offset, ())

    def _mark(self, offset: int) -> int:
        if len(self.marks) >= MAX_DEPTH:
            self._refuse(offset, f"nested more than {MAX_DEPTH} deep")
        self.marks.append(self.stack)
        self.stack = []
        return offset + 1

    def _to_mark(self, offset: int) -> list[Any]:
        if not self.marks:
            self._refuse(offset, "without a MARK")
        values, self.stack = self.stack, self.marks.pop()
        if _OUTER in values[:1]:
            self._refuse(offset, "the outer container inside another")
        return values

    def _pop(self, offset: int, count: int) -> list[Any]:
        """Take ``count`` values off the stack, never the outer container."""
        values = self.stack[-count:]
        if len(values) < count or values[0] is _OUTER:
            self._refuse(offset, "its operands are missing")
        del self.stack[-count:]
        self.links += any(type(value) in _CONTAINERS for value in values)
        return values

    def _target(self, offset: int, kind: type) -> Any:
        target = self.stack[-1] if self.stack else None
        if target is _OUTER and self.kind is kind:
            return target
        if type(target) is not kind:
            self._refuse(offset, f"there is no {kind.__name__} to put it into")
        return target

    def _finish(self, offset: int, values: list[Any]) -> None:
        """Hand out items of the outer container."""
        if self.kind is list:
            self.ready.extend(values)
        else:
            if any(type(key) is not str for key in values[::2]):
                self._refuse(offset, "a key that is no string")
            self.ready.extend(zip(values[::2], values[1::2], strict=True))

    def _extend(self, offset: int, values: list[Any]) -> int:
        target = self._target(offset, list)
        if target is _OUTER:
            self._finish(offset, values)
        else:
            target += values
        return offset + 1

    def _append(self, offset: int) -> int:
        return self._extend(offset, self._pop(offset, 1))

    def _appends(self, offset: int) -> int:
        return self._extend(offset, self._to_mark(offset))

    def _update(self, offset: int, values: list[Any]) -> int:
        target = self._target(offset, dict)
        if len(values) % 2:
            self._refuse(offset, "a key without a value")
        if target is _OUTER:
            self._finish(offset, values)
        else:
            self._check_keys(offset, values[::2])
            target.update(zip(values[::2], values[1::2], strict=True))
        return offset + 1

    def _set_item(self, offset: int) -> int:
        return self._update(offset, self._pop(offset, 2))

    def _set_items(self, offset: int) -> int:
        return self._update(offset, self._to_mark(offset))

    def _check_keys(self, offset: int, keys: Iterable[Any]) -> None:
        """Hashing a deep tuple would overrun the C stack: flat tuples only."""
        for key in keys:
            if type(key) not in _SCALARS and not (type(key) is tuple and all(type(part) in _SCALARS for part in key)):
                self._refuse(offset, f"a {type(key).__name__} as key or element of a set")

    def _add_items(self, offset: int) -> int:
        values = self._to_mark(offset)
        self._check_keys(offset, values)
        self._target(offset, set).update(values)
        return offset + 1

    def _frozenset(self, offset: int) -> int:
        values = self._to_mark(offset)
        self._check_keys(offset, values)
        return self._push_container(offset, frozenset(values))

    def _tuple(self, offset: int) -> int:
        return self._push_container(offset, tuple(self._to_mark(offset)))

    def _small_tuple(self, offset: int) -> int:
        return self._push_container(offset, tuple(self._pop(offset, self.buffer[offset] - 0x84)))

    def _list(self, offset: int) -> int:
        values = self._to_mark(offset)
        if not self.stack and not self.marks and not values:
            return self._start(offset, list)
        return self._push_container(offset, values)

    def _dict(self, offset: int) -> int:
        values = self._to_mark(offset)
        if not self.stack and not self.marks and not values:
            return self._start(offset, dict)
        self._push_container(offset, {})
        return self._update(offset, values)

    # --- frame and end ---------------------------------------------------------------------------------------------

    def _proto(self, offset: int) -> int:
        if offset or self.buffer[1] > pickle.HIGHEST_PROTOCOL:
            self._refuse(offset, "an unknown protocol, or in the middle of the file")
        return 2

    def _frame(self, offset: int) -> int:
        if offset + 9 + _UINT64.unpack_from(self.buffer, offset + 1)[0] > self.size:
            self._refuse_end(self.size)
        return offset + 9

    def _stop(self, offset: int) -> int:
        if self.marks or len(self.stack) != 1 or self.stack[0] is not _OUTER:
            self._refuse(offset, f"the file holds no {self.kind.__name__}")
        if offset + 1 != self.size:
            self._refuse(offset, f"{self.size - offset - 1} bytes behind the end")
        return -1


_HANDLERS = {
    0x80: "_proto", 0x95: "_frame", ord("."): "_stop",
    0x94: "_memoize", ord("q"): "_short_put", ord("r"): "_long_put", ord("p"): "_text_put",
    ord("h"): "_short_get", ord("j"): "_long_get", ord("g"): "_text_get",
    0x8c: "_short_text", ord("X"): "_text", 0x8d: "_long_text", ord("V"): "_escaped_text",
    ord("S"): "_quoted_text", ord("U"): "_old_short_text", ord("T"): "_text",
    ord("C"): "_short_bytes", ord("B"): "_bytes", 0x8e: "_long_bytes",
    ord("K"): "_small_ints", ord("M"): "_int16", ord("J"): "_int32", 0x8a: "_long_int",
    ord("I"): "_text_int", ord("L"): "_text_int", ord("G"): "_float", ord("F"): "_text_float",
    ord("N"): "_none", 0x88: "_true", 0x89: "_false",
    ord("]"): "_empty_list", ord("}"): "_empty_dict", 0x8f: "_empty_set", ord(")"): "_empty_tuple",
    ord("("): "_mark", ord("a"): "_append", ord("e"): "_appends", ord("s"): "_set_item", ord("u"): "_set_items",
    0x90: "_add_items", 0x91: "_frozenset", ord("t"): "_tuple", 0x85: "_small_tuple", 0x86: "_small_tuple",
    0x87: "_small_tuple", ord("l"): "_list", ord("d"): "_dict",
}


def _opcode_name(code: int) -> str:
    known = pickletools.code2op.get(chr(code))   # type: ignore[attr-defined]
    return f"opcode {known.name}" if known else f"0x{code:02x} is no opcode"


def _children(value: Any) -> Iterable[Any]:
    return [*value, *value.values()] if type(value) is dict else value


def _shape_problem(roots: list[Any]) -> str:
    """What is wrong with the nesting of these values, or nothing: walks every container once, without recursion."""
    sizes: dict[int, int] = {}      # values below a container, shared ones counted each time; 0 while it is open
    depths: dict[int, int] = {}
    todo: list[tuple[Any, bool]] = [(roots, False)]
    while todo:
        value, leaving = todo.pop()
        inner = [child for child in _children(value) if type(child) in _CONTAINERS]
        if leaving:
            sizes[id(value)] = len(value) + 1 + sum(sizes[id(child)] for child in inner)
            depths[id(value)] = 1 + max((depths[id(child)] for child in inner), default=0)
            if depths[id(value)] > MAX_DEPTH:
                return f"nested more than {MAX_DEPTH} deep"
            if sizes[id(value)] > MAX_ITEM_OBJECTS:
                return f"more than {MAX_ITEM_OBJECTS} values in one item"
        elif id(value) not in sizes:
            sizes[id(value)] = 0
            todo.append((value, True))
            todo += [(child, False) for child in inner]
            if any(sizes.get(id(child)) == 0 for child in inner):
                return "a container that holds itself"
    return ""


def _read(path: Path | str, kind: type) -> Iterator[Any]:
    path = Path(path)
    try:
        source = open(path, "rb")   # noqa: SIM115 - closed by the with below
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; make it with retrieve.py") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder where a file is expected") from None
    with source:
        if os.fstat(source.fileno()).st_size == 0:
            raise InputError(f"{path}: empty; make it anew with retrieve.py")
        with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            yield from _Reader(path, buffer, kind).items()


def read_records(path: Path | str) -> Iterator[dict[str, Any]]:
    """Stream the dicts of a pickled list (token files, NELL files); memory stays flat.

    Raises:
        InputError: the file is missing, cut short, no pickle of a list of dicts, or holds anything but plain data;
            the message names the byte and the opcode. Items before the fault have been handed out by then.
    """
    for number, item in enumerate(_read(path, list)):
        if type(item) is not dict:
            raise InputError(f"{path}: item {number} is a {type(item).__name__}, not a dict; is this the right file?")
        yield item


def read_mapping(path: Path | str) -> dict[str, list[str]]:
    """Read a pickled dict from strings to lists of strings (the synsets of words).

    Raises:
        InputError: as :func:`read_records`, or a value is no list of strings.
    """
    mapping = dict(_read(path, dict))
    for key, values in mapping.items():
        if type(values) is not list or not all(type(value) is str for value in values):
            raise InputError(f"{path}: the entry {key[:60]!r} is no list of strings; is this the right file?")
    return mapping


def _dump_plain(value: Any, target: Any) -> None:
    pickler = pickle.Pickler(target, protocol=4)
    pickler.fast = True     # no numbering of objects: readers then need no memory for it
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


def token_item_problem(item: dict[str, Any]) -> str:
    """What is wrong with one item of a token file, or nothing.

    The converter names file and question; this names the key: a key is missing or of the wrong kind, a word index or
    an entity's place lies outside the words, or word pieces and their indices differ in number.
    """
    if type(item.get("id")) not in (str, int):
        return "has no id"
    for side in ("query", "document"):
        for key in (f"{side}_tokens", f"{side}_subtokens"):
            if not _is_list_of(item.get(key), str):
                return f"{key} is no list of strings"
        indices, entities = item.get(f"{side}_sub_to_ori_index"), item.get(f"{side}_entities")
        words = len(item[f"{side}_tokens"])
        if type(indices) is not list or not _is_list_of(indices, int):
            return f"{side}_sub_to_ori_index is no list of whole numbers"
        if len(indices) != len(item[f"{side}_subtokens"]):
            return f"{side}_subtokens and {side}_sub_to_ori_index differ in length"
        if indices and not 0 <= min(indices) <= max(indices) < words:
            return f"{side}_sub_to_ori_index points outside the words"
        if type(entities) is not list:
            return f"{side}_entities is no list"
        for entity in entities:
            if (type(entity) is not tuple or [type(part) for part in entity] != [str, int, int]
                    or not 0 <= entity[1] <= entity[2] < words):
                return f"{side}_entities holds {str(entity)[:60]}, which is no (text, first word, last word)"
    return ""


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
