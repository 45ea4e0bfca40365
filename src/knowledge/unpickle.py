"""An interpreter for pickles of plain data: runs nothing, imports nothing, holds one item at a time.

A pickle is a program for a stack machine, and Python's own machine can be told to import and call anything. This one
knows only the opcodes that build dict, list, tuple, set, frozenset, str, bytes, int, float, bool and None; any other
opcode is refused by name. It streams: an item of the outermost container is handed out as soon as it is complete.

What makes streaming possible is that a pickler numbers every object it writes but refers back to few of them. One
vectorised look over the bytes finds all numbers that *could* be referred to (a small superset), and up to which byte;
only those objects are remembered, and only for that long.
"""
from __future__ import annotations

import codecs
import mmap
import os
import pickle
import pickletools
import re
import struct
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, NoReturn, Sequence

import numpy as np

from utils.util import InputError

MAX_ITEM_BYTES = 16 << 20         # of one item of the outermost container; a real one has a few thousand
MAX_ITEM_CONTAINERS = 1_000_000   # lists, dicts, tuples and sets in one item
MAX_ITEM_VALUES = 1 << 24         # values in one item when shared parts are counted each time
MAX_DEPTH = 64                    # nesting
MAX_SHARED = 1 << 22              # objects a file may refer back to
MAX_NUMBER_LENGTH = 32            # characters of a number written as text
MEND = "only plain data is read; make the file anew with retrieve.py"

_SCALARS = frozenset({str, bytes, int, float, bool, type(None)})
_CONTAINERS = frozenset({list, dict, tuple, set, frozenset})
_OUTER = object()                 # stands for the outermost container, which is never built
_NEVER = 1 << 62
_BLOCK = 1 << 20                  # bytes looked at, and pages of the file kept, at a time
_CACHED_PIECES = 1 << 14

# Short scalars in a row. Each begins with its opcode and none of the operands admitted here holds the byte 0x94
# (MEMOIZE), so there is one way to cut a run into pieces; a string's length byte is checked afterwards.
_PIECE = re.compile(rb"\x8c[\x00-\x7f][\x20-\x7e]*\x94|h[^\x94]|j[^\x94]{4}|K[^\x94]|M[^\x94]{2}|N")
# Runs are bounded because the regular expression engine remembers every repetition.
_PIECES = re.compile(rb"(?:" + _PIECE.pattern + rb"){1,2000}")
_SMALL_INTS = re.compile(rb"(?:K.){1,2000}", re.DOTALL)
_TEXT_GET = re.compile(rb"g([0-9]{1,10})\n")
_UINT32 = struct.Struct("<I")
_DOUBLE = struct.Struct(">d")


class References:
    """Which numbers of objects a pickle can refer back to, and up to which byte."""

    def __init__(self, buffer: mmap.mmap) -> None:
        self.numbers = np.empty(0, np.int64)     # sorted
        self.last_use = np.empty(0, np.int64)    # byte offsets
        for start in range(0, len(buffer), _BLOCK):
            self._look(buffer, start)
            release(buffer, start, start + _BLOCK)

    def _look(self, buffer: mmap.mmap, start: int) -> None:
        """Find LONG_BINGET ("j" and four bytes) and GET ("g", digits, line feed) that begin in one block."""
        overlap = 4     # holds the operand of an opcode at the block's end
        block = np.frombuffer(buffer[start:start + _BLOCK + overlap] + bytes(overlap), np.uint8)
        opcodes, behind = block[:-overlap], block[1:-overlap + 1]
        longs = np.flatnonzero(opcodes == ord("j"))
        longs = longs[block[longs + 4] <= len(buffer) >> 25]      # the highest byte: most text goes here
        numbers = np.zeros(len(longs), np.int64)
        for place in range(4):
            numbers |= block[longs + place + 1].astype(np.int64) << 8 * place
        gets = np.flatnonzero((opcodes == ord("g")) & (behind >= ord("0")) & (behind <= ord("9"))) + start
        texts = [match for offset in gets.tolist() if (match := _TEXT_GET.match(buffer, offset))]
        self._add(np.append(numbers, [int(match[1]) for match in texts]).astype(np.int64),
                  np.append(longs + start, [match.start() for match in texts]).astype(np.int64))

    def _add(self, numbers: np.ndarray, offsets: np.ndarray) -> None:
        possible = numbers * 2 <= offsets      # an object and its number take two bytes at least
        if possible.any() and len(self.numbers) <= MAX_SHARED:
            numbers = np.concatenate([self.numbers, numbers[possible]])
            last_use = np.concatenate([self.last_use, offsets[possible]])
            order = np.lexsort((last_use, numbers))
            numbers, last_use = numbers[order], last_use[order]
            last = np.append(numbers[1:] != numbers[:-1], True)
            self.numbers, self.last_use = numbers[last], last_use[last]

    def needed(self, numbers: Sequence[int], offset: int) -> np.ndarray:
        """Whether each of these numbers can be referred to at or after ``offset``; always for one-byte numbers."""
        wanted = np.asarray(numbers, np.int64)
        if not len(self.numbers):
            return wanted < 256
        places = np.minimum(np.searchsorted(self.numbers, wanted), len(self.numbers) - 1)
        return ((self.numbers[places] == wanted) & (self.last_use[places] >= offset)) | (wanted < 256)


def release(buffer: mmap.mmap, start: int, stop: int) -> None:
    """Let the system take back pages that were read, so that they do not count as this process's memory."""
    if hasattr(mmap, "MADV_DONTNEED"):
        start -= start % mmap.PAGESIZE
        stop = min(stop, len(buffer))
        if stop > start:
            buffer.madvise(mmap.MADV_DONTNEED, start, stop - start)


class _Cache(dict[bytes, Any]):
    """A short scalar's bytes -> its value; equal words become one object."""

    def __init__(self, reader: Machine) -> None:
        super().__init__()
        self.reader = reader

    def __missing__(self, piece: bytes) -> Any:
        value = self.reader.scalar(piece)
        if type(value) in _CONTAINERS:
            self.reader.shared = True     # has to be noticed every time, so it is not kept here
        else:
            if len(self) >= _CACHED_PIECES:
                self.clear()
            self[piece] = value
        return value


class Machine:
    """One pass over one file: a stack machine whose handlers take an opcode's offset and return the next opcode's.

    Args:
        path: for messages.
        buffer: the whole file.
        kind: what the outermost container must be, list or dict.
    """

    def __init__(self, path: Path, buffer: mmap.mmap, kind: type) -> None:
        self.path, self.buffer, self.kind, self.size = path, buffer, kind, len(buffer)
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []      # the stacks below each MARK
        self.ready: list[Any] = []            # complete items of the outermost container
        self.references = References(buffer)
        if len(self.references.numbers) > MAX_SHARED:
            raise InputError(f"{path}: refers back to more than {MAX_SHARED} objects; {MEND}")
        self.wanted = np.union1d(np.arange(256), self.references.numbers)
        self.place = self.next_wanted = 0     # the next object to remember: its place in wanted, its number
        self.counter = 0                      # the next number a MEMOIZE or PUT gives
        self.numbering = ""                   # which of the two the file uses
        self.memo: dict[int, Any] = {}
        self.memo_limit = 4096                # tidied up when it has grown to this
        self.cache = _Cache(self)
        self.released = 0
        self._start_item(0)
        named: dict[int, Callable[[int], int]] = {code: getattr(self, name) for code, name in _HANDLERS.items()}
        self.handlers = [named.get(code, self._refuse_opcode) for code in range(256)]

    def items(self) -> Iterator[Any]:
        """Complete items of the outer list, or (key, value) pairs of the outer dict.

        Raises:
            InputError: with the file, the byte and the opcode.
        """
        buffer, handlers, ready = self.buffer, self.handlers, self.ready
        offset = 0
        while offset >= 0:
            if offset >= self.end:
                self._refuse_end(offset)
            following = handlers[buffer[offset]](offset)
            if following > self.end:
                self._refuse_end(offset)
            offset = following
            if ready:
                self._check_shape()
                yield from ready
                ready.clear()
                self._start_item(offset)

    def _start_item(self, offset: int) -> None:
        """Forget what belongs to the item before."""
        self.item_start = offset
        self.end = min(self.size, offset + MAX_ITEM_BYTES)    # past it the file is cut short or the item a giant
        self.containers = self.links = 0
        self.shared = self.slow = False
        if len(self.memo) > self.memo_limit:
            numbers = list(self.memo)
            for number, needed in zip(numbers, self.references.needed(numbers, offset).tolist(), strict=True):
                if not needed:
                    del self.memo[number]
            self.memo_limit = 2 * len(self.memo) + 4096
        if offset - self.released > _BLOCK:
            release(self.buffer, self.released, offset)
            self.released = offset

    def _check_shape(self) -> None:
        """Refuse items that are deep, circular or beyond measure; only these two signs can make them so."""
        if self.shared or self.links > MAX_DEPTH:
            problem = shape_problem(self.ready)
            if problem:
                raise InputError(f"{self.path}: byte {self.item_start}: {problem}; {MEND}")

    # --- refusals --------------------------------------------------------------------------------------------------

    def _refuse(self, offset: int, reason: str) -> NoReturn:
        code = self.buffer[offset]
        known = pickletools.code2op.get(chr(code))   # type: ignore[attr-defined]
        name = f"opcode {known.name}" if known else f"0x{code:02x}"
        raise InputError(f"{self.path}: byte {offset}: {name} {reason}; {MEND}")

    def _refuse_end(self, offset: int) -> NoReturn:
        if self.end < self.size:
            raise InputError(f"{self.path}: byte {self.item_start}: an item of more than {MAX_ITEM_BYTES} bytes; "
                             f"{MEND}")
        raise InputError(f"{self.path}: byte {min(offset, self.size)}: cut short, the file ends at byte {self.size}; "
                         "fetch it again or make it anew with retrieve.py")

    def _refuse_opcode(self, offset: int) -> NoReturn:
        code = self.buffer[offset:offset + 1]
        wanted: list[Any] = []
        if code in (b"c", b"i"):     # GLOBAL, INST
            wanted = [name.decode("ascii", "replace")
                      for name in self.buffer[offset + 1:offset + 300].split(b"\n")[:2]]
        elif code == b"\x93":        # STACK_GLOBAL
            wanted = self.stack[-2:]
        if wanted:
            name = ascii(".".join(str(part)[:99] for part in wanted if part is not _OUTER))[1:-1]
            self._refuse(offset, f"asks for {name}, which would run code")
        self._refuse(offset, "is not allowed" if chr(code[0]) in pickletools.code2op      # type: ignore[attr-defined]
                     else "is no opcode")

    # --- numbers of objects ----------------------------------------------------------------------------------------

    def _number(self, offset: int, style: str, values: Sequence[Any], first: int) -> None:
        """Give ``values`` the numbers ``first``, ``first + 1``, ...; remember those that can be referred to."""
        if not values:
            self._refuse(offset, "has nothing to number")
        if self.numbering != style:
            if self.numbering:
                self._refuse(offset, "mixes two ways of numbering objects")
            self.numbering = style
            if style == "put":     # numbers can be given anew, so runs with references cannot use the cache
                self.handlers[ord("h")], self.handlers[ord("j")] = self._get, self._get
        if first != self.counter:
            self._seek(int(np.searchsorted(self.wanted, first)))
        self.counter = first + len(values)
        while self.next_wanted < self.counter:
            self.memo[self.next_wanted] = values[self.next_wanted - first]
            self._seek(self.place + 1)

    def _seek(self, place: int) -> None:
        self.place = place
        self.next_wanted = int(self.wanted[place]) if place < len(self.wanted) else _NEVER

    def _memoize(self, offset: int) -> int:
        if self.counter < self.next_wanted and self.numbering == "memoize" and self.stack:
            self.counter += 1
        else:
            self._number(offset, "memoize", self.stack[-1:], self.counter)
        return offset + 1

    def _put(self, offset: int) -> int:
        number, stop = self._operand_number(offset)
        if number == self.counter < self.next_wanted and self.numbering == "put" and self.stack:
            self.counter += 1
        else:
            self._number(offset, "put", self.stack[-1:], number)
        return stop

    def _get(self, offset: int) -> int:
        number, stop = self._operand_number(offset)
        value = self.memo.get(number, _OUTER)
        if value is _OUTER:
            self._refuse(offset, f"refers to object {number}, which does not exist or is not complete")
        self.shared = self.shared or type(value) in _CONTAINERS
        self.stack.append(value)
        return stop

    def _operand_number(self, offset: int) -> tuple[int, int]:
        """The number behind a PUT or GET of any kind, and where the operand ends."""
        code = self.buffer[offset]
        if code in b"jr":
            raw, stop = self._raw(offset, 1, 4)
            return int.from_bytes(raw, "little"), stop
        if code in b"hq":
            raw, stop = self._raw(offset, 1, 1)
            return raw[0], stop
        number, stop = self._text_number(offset)
        if number < 0:
            self._refuse(offset, "has a negative number")
        return number, stop

    # --- scalars ---------------------------------------------------------------------------------------------------

    def scalar(self, piece: bytes) -> Any:
        """The value of one short scalar as cut by ``_PIECE``.

        Raises:
            KeyError: the string's length is another, or the object referred to is not there.
        """
        if piece[0] == 0x8c:
            if len(piece) != piece[1] + 3:
                raise KeyError(piece)
            return piece[2:-1].decode("ascii")
        if piece == b"N":
            return None
        number = int.from_bytes(piece[1:], "little")
        if piece[0] in b"KM":
            return number
        value = self.memo[number]
        if value is _OUTER:
            raise KeyError(piece)
        return value

    def _run(self, offset: int) -> int:
        """Short strings, numbers and references in a row: nine tenths of a file."""
        match = None if self.slow or self.numbering == "put" else _PIECES.match(self.buffer, offset, self.end)
        if match is None:
            return self._single[self.buffer[offset]](self, offset)
        pieces = _PIECE.findall(match[0])
        cache = self.cache
        try:
            values = [cache[piece] for piece in pieces]
        except KeyError:
            return self._careful_run(offset, pieces)
        strings = match[0].count(b"\x94")
        if self.counter + strings <= self.next_wanted and self.numbering:
            self.counter += strings
        elif strings:
            self._number(offset, "memoize", [value for piece, value in zip(pieces, values, strict=True)
                                             if piece[0] == 0x8c], self.counter)
        self.stack += values
        return match.end()

    def _careful_run(self, offset: int, pieces: list[bytes]) -> int:
        """The same piece by piece: for references into the run itself, and up to a piece that is none."""
        for piece in pieces:
            try:
                value = self.cache[piece]
            except KeyError:
                self.slow = True      # no pickler writes such pieces: opcode by opcode to the item's end
                break
            self.stack.append(value)
            if piece[0] == 0x8c:
                self._number(offset, "memoize", [value], self.counter)
            offset += len(piece)
        return offset

    def _small_ints(self, offset: int) -> int:
        match = _SMALL_INTS.match(self.buffer, offset, self.end)
        if match is None:
            self._refuse_end(offset)
        self.stack += match[0][1::2]
        return match.end()

    def _short_text(self, offset: int) -> int:
        """SHORT_BINUNICODE, one or more; as files without numbers (our own) have them."""
        buffer, push = self.buffer, self.stack.append
        while True:
            stop = offset + 2 + self._byte(offset + 1)
            if stop >= self.end:
                self._refuse_end(offset)
            raw = buffer[offset + 2:stop]
            push(raw.decode("ascii") if raw.isascii() else self._decode(offset, raw))
            if buffer[stop] != 0x8c:
                return stop
            offset = stop

    def _numbered_text(self, offset: int) -> int:
        """BINUNICODE with its LONG_BINPUT, one or more: what files of protocols 1 to 3 consist of."""
        buffer, push, limit = self.buffer, self.stack.append, self.end - 10
        while True:
            stop = offset + 5 + _UINT32.unpack_from(buffer, offset + 1)[0] if offset < limit else self.end
            if stop > limit:
                return self._counted(offset)
            raw = buffer[offset + 5:stop]
            push(raw.decode("ascii") if raw.isascii() else self._decode(offset, raw))
            if buffer[stop] != ord("r"):
                return stop
            if _UINT32.unpack_from(buffer, stop + 1)[0] == self.counter < self.next_wanted and self.numbering == "put":
                self.counter += 1
            else:
                self._put(stop)
            offset = stop + 5
            if buffer[offset] != ord("X"):
                return offset

    def _byte(self, offset: int) -> int:
        if offset >= self.end:
            self._refuse_end(offset)
        return self.buffer[offset]

    def _raw(self, offset: int, header: int, length: int) -> tuple[bytes, int]:
        """``length`` bytes behind ``header`` bytes, and where they end; a false length allocates nothing."""
        stop = offset + header + length
        if stop > self.end:
            self._refuse_end(offset)
        return self.buffer[offset + header:stop], stop

    def _decode(self, offset: int, raw: bytes) -> str:
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            self._refuse(offset, "holds a string that is not UTF-8")

    def _counted(self, offset: int) -> int:
        """Strings and bytes with a length in front."""
        width, is_text = _COUNTED[self.buffer[offset]]
        raw, start = self._raw(offset, 1, width)
        raw, stop = self._raw(start, 0, int.from_bytes(raw, "little"))
        self.stack.append(self._decode(offset, raw) if is_text else raw)
        return stop

    def _whole(self, offset: int) -> int:
        """BININT, BININT1, BININT2."""
        width = {ord("K"): 1, ord("M"): 2, ord("J"): 4}[self.buffer[offset]]
        raw, stop = self._raw(offset, 1, width)
        self.stack.append(int.from_bytes(raw, "little", signed=width == 4))
        return stop

    def _long_whole(self, offset: int) -> int:
        """LONG1: eight bytes at most, for larger numbers could be made to collide in a dict."""
        length = self._byte(offset + 1)
        if length > 8:
            self._refuse(offset, f"holds a number of {length} bytes")
        raw, stop = self._raw(offset, 2, length)
        self.stack.append(int.from_bytes(raw, "little", signed=True))
        return stop

    def _float(self, offset: int) -> int:
        raw, stop = self._raw(offset, 1, 8)
        self.stack.append(_DOUBLE.unpack(raw)[0])
        return stop

    def _constant(self, offset: int) -> int:
        self.stack.append(_CONSTANTS[self.buffer[offset]])
        return offset + 1

    def _line(self, offset: int) -> tuple[bytes, int]:
        """The text behind an opcode of protocol 0, and where the next line begins."""
        stop = self.buffer.find(b"\n", offset + 1, self.end)
        if stop < 0:
            self._refuse_end(self.end)
        return self.buffer[offset + 1:stop], stop + 1

    def _text_number(self, offset: int) -> tuple[int, int]:
        line, stop = self._line(offset)
        if self.buffer[offset] == ord("L"):
            line = line.removesuffix(b"L")
        if len(line) > MAX_NUMBER_LENGTH or not re.fullmatch(rb"-?[0-9]+", line) or abs(int(line)) >> 64:
            self._refuse(offset, "holds no whole number of 64 bits")
        return int(line), stop

    def _text_whole(self, offset: int) -> int:
        number, stop = self._text_number(offset)
        is_bool = self.buffer[offset:stop] in (b"I00\n", b"I01\n")
        self.stack.append(bool(number) if is_bool else number)
        return stop

    def _text_float(self, offset: int) -> int:
        line, stop = self._line(offset)
        try:
            self.stack.append(float(line[:MAX_NUMBER_LENGTH]))
        except ValueError:
            self._refuse(offset, "holds no number")
        return stop

    def _text_string(self, offset: int) -> int:
        """UNICODE and STRING: with escapes, the latter in quotes."""
        line, stop = self._line(offset)
        try:
            if self.buffer[offset] == ord("V"):
                value = line.decode("raw_unicode_escape")
            else:
                if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
                    self._refuse(offset, "holds a string without quotes")
                value = self._decode(offset, codecs.escape_decode(line[1:-1])[0])
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            self._refuse(offset, "holds a broken escape")
        self.stack.append(value)
        return stop

    # --- containers ------------------------------------------------------------------------------------------------

    def _push(self, offset: int, value: Any) -> int:
        self.containers += 1
        if self.containers > MAX_ITEM_CONTAINERS:
            self._refuse(offset, f"is one of more than {MAX_ITEM_CONTAINERS} lists, dicts, tuples and sets in one item")
        self.stack.append(value)
        return offset + 1

    def _push_or_start(self, offset: int, value: Any) -> int:
        """A list or dict, or the outermost container when there is nothing yet."""
        if self.stack or self.marks or value:
            return self._push(offset, value)
        if type(value) is not self.kind:
            raise InputError(f"{self.path}: holds a {type(value).__name__} where a {self.kind.__name__} is expected; "
                             "is this the right file?")
        self.stack.append(_OUTER)
        return offset + 1

    def _empty_list(self, offset: int) -> int:
        return self._push_or_start(offset, [])

    def _empty_dict(self, offset: int) -> int:
        if len(self.stack) == len(self.marks) == 1 and type(self.stack[0]) is dict and self.marks[0][-1:] == [_OUTER]:
            # In a list of dicts the second one begins: nothing can be put into the first any more.
            self._finish(offset, self.stack)
            self.stack = []
        return self._push_or_start(offset, {})

    def _empty_set(self, offset: int) -> int:
        return self._push(offset, set())

    def _empty_tuple(self, offset: int) -> int:
        return self._push(offset, ())

    def _mark(self, offset: int) -> int:
        if len(self.marks) >= MAX_DEPTH:
            self._refuse(offset, f"is nested more than {MAX_DEPTH} deep")
        self.marks.append(self.stack)
        self.stack = []
        return offset + 1

    def _to_mark(self, offset: int) -> list[Any]:
        if not self.marks:
            self._refuse(offset, "has no MARK")
        values, self.stack = self.stack, self.marks.pop()
        return values

    def _pop(self, offset: int, count: int) -> list[Any]:
        """Take ``count`` values off the stack, never the outermost container."""
        values = self.stack[-count:]
        if len(values) < count or values[0] is _OUTER:
            self._refuse(offset, "finds nothing on the stack")
        del self.stack[-count:]
        for value in values:
            if type(value) in _CONTAINERS:
                self.links += 1
        return values

    def _target(self, offset: int, kind: type) -> Any:
        target = self.stack[-1] if self.stack else None
        if type(target) is not kind and not (target is _OUTER and self.kind is kind):
            self._refuse(offset, f"finds no {kind.__name__} to put something into")
        return target

    def _finish(self, offset: int, values: list[Any]) -> None:
        """Hand out items of the outermost container."""
        if self.kind is list:
            self.ready += values
        else:
            self._check_keys(offset, values[::2])
            self.ready += zip(values[::2], values[1::2], strict=True)

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
            self._refuse(offset, "finds a key without a value")
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
        """Keys and elements of sets: scalars and flat tuples, for hashing a deep one would overrun the C stack."""
        for key in keys:
            if type(key) not in _SCALARS and not (type(key) is tuple and all(type(part) in _SCALARS for part in key)):
                self._refuse(offset, f"finds a {type(key).__name__} as a key or an element of a set")

    def _add_items(self, offset: int) -> int:
        values = self._to_mark(offset)
        self._check_keys(offset, values)
        self._target(offset, set).update(values)
        return offset + 1

    def _frozenset(self, offset: int) -> int:
        values = self._to_mark(offset)
        self._check_keys(offset, values)
        return self._push(offset, frozenset(values))

    def _tuple(self, offset: int) -> int:
        return self._push(offset, tuple(self._to_mark(offset)))

    def _small_tuple(self, offset: int) -> int:
        return self._push(offset, tuple(self._pop(offset, self.buffer[offset] - 0x84)))

    def _list(self, offset: int) -> int:
        return self._push_or_start(offset, self._to_mark(offset))

    def _dict(self, offset: int) -> int:
        values = self._to_mark(offset)
        following = self._push_or_start(offset, {})
        return self._update(offset, values) if values else following

    # --- frame and end ---------------------------------------------------------------------------------------------

    def _proto(self, offset: int) -> int:
        version = self._byte(offset + 1)
        if offset or version > pickle.HIGHEST_PROTOCOL:
            self._refuse(offset, f"{version} is unknown, or not at the start of the file")
        return 2

    def _frame(self, offset: int) -> int:
        raw, stop = self._raw(offset, 1, 8)
        if stop + int.from_bytes(raw, "little") > self.size:
            self._refuse_end(self.size)
        return stop

    def _stop(self, offset: int) -> int:
        if self.marks or self.stack != [_OUTER]:
            self._refuse(offset, f"comes before a {self.kind.__name__} is complete")
        if offset + 1 != self.size:
            self._refuse(offset, f"comes {self.size - offset - 1} bytes before the file's end")
        return -1

    _single: dict[int, Callable[[Machine, int], int]] = {
        0x8c: _short_text, ord("h"): _get, ord("j"): _get, ord("K"): _whole, ord("M"): _whole, ord("N"): _constant}


_CONSTANTS = {ord("N"): None, 0x88: True, 0x89: False}
_COUNTED = {ord("X"): (4, True), 0x8d: (8, True), ord("T"): (4, True), ord("U"): (1, True),     # width, text?
            ord("B"): (4, False), 0x8e: (8, False), ord("C"): (1, False)}
_HANDLERS = {
    0x80: "_proto", 0x95: "_frame", ord("."): "_stop",
    0x94: "_memoize", ord("q"): "_put", ord("r"): "_put", ord("p"): "_put",
    ord("h"): "_run", ord("j"): "_run", ord("g"): "_get",
    0x8c: "_run", ord("N"): "_run", ord("M"): "_run", ord("K"): "_small_ints", ord("J"): "_whole", 0x8a: "_long_whole",
    **dict.fromkeys(_COUNTED, "_counted"), ord("X"): "_numbered_text",
    0x88: "_constant", 0x89: "_constant", ord("G"): "_float",
    ord("V"): "_text_string", ord("S"): "_text_string", ord("I"): "_text_whole", ord("L"): "_text_whole",
    ord("F"): "_text_float",
    ord("]"): "_empty_list", ord("}"): "_empty_dict", 0x8f: "_empty_set", ord(")"): "_empty_tuple",
    ord("("): "_mark", ord("a"): "_append", ord("e"): "_appends", ord("s"): "_set_item", ord("u"): "_set_items",
    0x90: "_add_items", 0x91: "_frozenset", ord("t"): "_tuple", 0x85: "_small_tuple", 0x86: "_small_tuple",
    0x87: "_small_tuple", ord("l"): "_list", ord("d"): "_dict",
}


def shape_problem(roots: list[Any]) -> str:
    """What is wrong with the nesting of these values, or nothing: walks every container once, without recursion."""
    sizes: dict[int, int] = {}      # values below a container, shared ones counted each time; 0 while it is open
    depths: dict[int, int] = {}
    todo: list[tuple[Any, bool]] = [(roots, False)]
    while todo:
        value, leaving = todo.pop()
        inner = [child for child in (value.values() if type(value) is dict else value) if type(child) in _CONTAINERS]
        if leaving:
            sizes[id(value)] = len(value) + 1 + sum(sizes[id(child)] for child in inner)
            depths[id(value)] = 1 + max((depths[id(child)] for child in inner), default=0)
            if depths[id(value)] > MAX_DEPTH:
                return f"nested more than {MAX_DEPTH} deep"
            if sizes[id(value)] > MAX_ITEM_VALUES:
                return f"more than {MAX_ITEM_VALUES} values in one item"
        elif id(value) not in sizes:
            sizes[id(value)] = 0
            todo.append((value, True))
            todo += [(child, False) for child in inner]
            if any(sizes.get(id(child)) == 0 for child in inner):
                return "a container that holds itself"
    return ""


def stream(path: Path | str, kind: type) -> Iterator[Any]:
    """Items of a pickled list, or (key, value) pairs of a pickled dict, one after the other.

    Args:
        path: the file.
        kind: list or dict.

    Raises:
        InputError: the file is missing, cut short or holds anything but plain data; the message names the byte and
            the opcode. What came before the fault has been handed out by then.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: " + ("not a file" if path.exists() else "no such file; make it with retrieve.py"))
    with open(path, "rb") as source:
        if os.fstat(source.fileno()).st_size == 0:
            raise InputError(f"{path}: empty; make it anew with retrieve.py")
        with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as buffer:
            yield from Machine(path, buffer, kind).items()
