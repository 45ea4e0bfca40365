# SPDX-License-Identifier: Apache-2.0
"""Safe reading of the authors' ``.data`` files: pickles of plain data that often come over plain HTTP.

A pickle is a program for a stack machine. Before it runs, one pass over its opcodes admits those that build plain data,
refuses any other by name, and adds up the memory that the result will take: a file that would grow far beyond its size
is refused. Then Python's own unpickler runs it, with every import refused.
"""
from __future__ import annotations

import gc
import mmap
import pickle
import pickletools
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

import six

from utils.util import InputError

MAX_BYTES = 2 << 30       # of a file; the largest of the authors' has some 600 MB
MAX_GROWTH = 32           # bytes of memory a byte of the file may become; the authors' files reach 14
MAX_MEMORY = 8 << 30
MAX_DEPTH = 64            # nesting of one item
MAX_VALUES = 1 << 24      # values of one item, shared parts counted each time
MAX_DIGITS = {"INT": 21, "LONG": 21, "PUT": 21, "GET": 21, "FLOAT": 32}     # characters of a number written as text
FIX = "only plain data is read; make the file again with retrieve.py"

# Opcode -> bytes of memory of what it builds; what an opcode's operand holds is added.
_STRINGS = dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
                          "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"), 60)
_NUMBERS = dict.fromkeys(("INT", "LONG", "LONG1", "BININT", "BININT2", "FLOAT", "BINFLOAT"), 40)
_SINGLE = dict.fromkeys(("NONE", "NEWTRUE", "NEWFALSE", "BININT1", "GET", "BINGET", "LONG_BINGET"), 8)
_CONTAINERS = {**dict.fromkeys(("EMPTY_DICT", "DICT", "EMPTY_SET", "FROZENSET"), 240), "MARK": 40,
               **dict.fromkeys(("EMPTY_LIST", "LIST", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE"), 72)}
_OTHERS = dict.fromkeys(("PROTO", "FRAME", "STOP", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "APPEND", "APPENDS",
                         "SETITEM", "SETITEMS", "ADDITEMS"), 8)
_MEMORY = {**_STRINGS, **_NUMBERS, **_SINGLE, **_CONTAINERS, **_OTHERS}
_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
_ADMITTED = {code: opcode for code, opcode in _OPCODES.items() if opcode.name in _MEMORY}
_LENGTH_BYTES = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4: 4,
                 pickletools.TAKEN_FROM_ARGUMENT4U: 4, pickletools.TAKEN_FROM_ARGUMENT8U: 8}
_CHECKED = ("STOP", "FRAME", "LONG_BINPUT")      # have a fixed size and are looked at all the same


def _step(opcode: Any) -> int:
    """Bytes of an opcode with its operand where that is all there is to know, else 0."""
    size = opcode.arg.n if opcode.arg else 0
    return 0 if size < 0 or opcode.name in _CHECKED else 1 + size


_STEPS = [_step(_ADMITTED[code]) if code in _ADMITTED else 0 for code in range(256)]
_COSTS = [_MEMORY[_ADMITTED[code].name] if code in _ADMITTED else 0 for code in range(256)]


class _PlainUnpickler(pickle.Unpickler):
    """Python's unpickler without imports."""

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse."""
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def load_plain(path: Path, kind: type) -> Any:
    """Read a pickle of plain data.

    Args:
        path: the file.
        kind: what the outermost container must be, list or dict.

    Raises:
        InputError: the file is damaged, holds anything but plain data, or would take too much memory.
    """
    collecting = gc.isenabled()
    gc.disable()      # nothing here makes cycles, and looking for them costs more than the reading
    try:
        with open(path, "rb") as source:
            size = source.seek(0, 2)
            if not 0 < size <= MAX_BYTES:
                raise InputError(f"{path}: {size} bytes, at most {MAX_BYTES} are read; {FIX}")
            with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as data:
                _check_opcodes(path, data)
            source.seek(0)
            value = _PlainUnpickler(source, encoding="utf-8").load()
    except InputError:
        raise
    except (pickle.UnpicklingError, ValueError, LookupError, TypeError, AttributeError, EOFError, OverflowError,
            MemoryError, RecursionError) as error:
        raise InputError(f"{path}: a damaged pickle ({type(error).__name__}: {str(error)[:80]!r}); {FIX}") from None
    finally:
        if collecting:
            gc.enable()
    if type(value) is not kind:
        raise InputError(f"{path}: holds a {type(value).__name__} where a {kind.__name__} is expected; {FIX}")
    return value


def _check_opcodes(path: Path, data: mmap.mmap) -> None:
    """Refuse a program with an opcode that does not build plain data, or that builds too much."""
    steps, costs, size = _STEPS, _COSTS, len(data)
    at = memory = 0
    allowed = min(MAX_GROWTH * size + (1 << 16), MAX_MEMORY)
    while at < size:
        code = data[at]
        memory += costs[code]
        if memory > allowed:
            raise InputError(f"{path}: byte {at}: its {size} bytes would take more than {allowed} of memory; {FIX}")
        if steps[code]:
            at += steps[code]
        elif code == pickle.STOP[0]:
            if at + 1 != size:
                raise InputError(f"{path}: byte {at}: ends before the file does; {FIX}")
            return
        else:
            after = _check_operand(path, data, at)
            memory += after - at
            at = after
    raise InputError(f"{path}: cut short after {size} bytes; fetch the file again or make it with retrieve.py")


def _check_operand(path: Path, data: mmap.mmap, at: int) -> int:
    """Check an opcode whose operand varies in length, or says how much to reserve; returns where the next one is."""
    opcode = _ADMITTED.get(data[at])
    if opcode is None or opcode.arg is None:
        raise InputError(f"{path}: byte {at}: {_describe_opcode(data, at)}; {FIX}")
    size = opcode.arg.n
    line = size == pickletools.UP_TO_NEWLINE
    if line:
        after = data.find(b"\n", at) + 1 or len(data) + 1
    else:
        width = _LENGTH_BYTES.get(size, size)
        number = int.from_bytes(data[at + 1:at + 1 + width], "little")
        after = at + 1 + width + (number if width != size else 0)
        if opcode.name == "FRAME" and number > len(data) - after or opcode.name == "LONG_BINPUT" and number > at:
            raise InputError(f"{path}: byte {at}: {opcode.name} of {number} in a file of {len(data)} bytes; {FIX}")
    if after > len(data):
        raise InputError(f"{path}: byte {at}: cut short within {opcode.name}; fetch the file again")
    number_text = data[at + 1:after - 1] if opcode.name in MAX_DIGITS else b""
    if number_text and len(number_text) > MAX_DIGITS[opcode.name] or opcode.name == "LONG1" and after - at > 10:
        raise InputError(f"{path}: byte {at}: {opcode.name}: a number of more than 64 bits; {FIX}")
    if opcode.name == "PUT" and not (number_text.strip().isdigit() and int(number_text) <= at):
        raise InputError(f"{path}: byte {at}: PUT of {number_text!r} in a file of {len(data)} bytes; {FIX}")
    return after


def _describe_opcode(data: mmap.mmap, at: int) -> str:
    """An opcode that is refused, in words."""
    opcode = _OPCODES.get(data[at])
    if opcode is None:
        return f"0x{data[at]:02x} is no opcode of a pickle"
    if opcode.name in ("GLOBAL", "INST"):
        wanted = data[at + 1:at + 200].split(b"\n")[:2]
        return f"opcode {opcode.name} asks for {six.ensure_text(b'.'.join(wanted)[:80], errors='replace')!r}"
    return f"opcode {opcode.name} is not allowed"


def shape_problem(item: Any) -> str:
    """Whether one item is nested too deeply, holds itself or stands for a giant; what is wrong, or nothing."""
    level: list[Any] = [item]
    values = 0
    for _ in range(MAX_DEPTH):
        containers = [value for value in level if type(value) in (list, tuple, dict, set, frozenset)]
        if not containers:
            return ""
        values += sum(map(len, containers))
        if values > MAX_VALUES:
            return f"more than {MAX_VALUES} values in one item"
        level = list(chain.from_iterable(map(_children, containers)))
    return f"nested more than {MAX_DEPTH} deep"


def _children(container: Any) -> Iterable[Any]:
    return chain.from_iterable(container.items()) if type(container) is dict else container
