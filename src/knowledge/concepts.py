# SPDX-License-Identifier: Apache-2.0
"""Concepts of a knowledge base: their names, which give the ids, and their vectors.

A vectors file has one concept per line: its name, then its numbers, separated by blanks. The concept in line i
(counted from 1) has id i; id 0 is the padding concept, whose vector is zero. The file may be packed (gzip), and may
begin with word2vec's header (number of concepts, numbers per concept), which is not counted.
"""
from __future__ import annotations

import codecs
import gzip
import hashlib
import re
import warnings
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import IO, NoReturn

import numpy as np

from src.config import KB_PAD_MULTIPLE
from utils.util import InputError, atomic_path

PARSED_LINES = 10_000      # lines of a vectors file whose numbers are parsed at a time
_FIX = "fetch the concept vectors or train them with train_kb_embedding.py"
_HEADER = re.compile(rb"([0-9]{1,12}) ([0-9]{1,9})\s*")
_NUMBER = re.compile(rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class _Line:
    """A concept's line: its number in the file, the name and the rest."""

    number: int
    name: bytes
    numbers: bytes


def _read_lines(path: Path | str) -> Iterator[_Line]:
    """Stream the concepts' lines of a vectors file, unpacked if need be, without word2vec's header.

    Raises:
        InputError: the file is missing, empty, damaged or shorter than its header says.
    """
    try:
        source: IO[bytes] = open(path, "rb")      # noqa: SIM115 - closed by the with below
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {_FIX}") from None
    with source:
        packed = source.read(2) == b"\x1f\x8b"
        source.seek(0)
        lines = enumerate(gzip.GzipFile(fileobj=source) if packed else source, 1)
        try:
            yield from _concept_lines(path, ((number, line.rstrip(b"\n")) for number, line in lines))
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise InputError(f"{path}: cut short or damaged (gzip); fetch it again") from None


def _concept_lines(path: Path | str, lines: Iterator[tuple[int, bytes]]) -> Iterator[_Line]:
    number, first = next(lines, (0, b""))
    _, second = ahead = next(lines, (0, b""))
    first = first.removeprefix(codecs.BOM_UTF8)
    header = _HEADER.fullmatch(first)
    promised = int(header[1]) if header and int(header[2]) > 1 and len(second.split()) == int(header[2]) + 1 else None
    count = 0
    for place, line in chain([(number, first)] if promised is None else [], [ahead], lines):
        if not line.strip():
            if next(lines, None) is not None:
                raise InputError(f"{path}: line {place}: no concept name at the start of the line")
            break
        name, _, numbers = line.partition(b" ")
        count += 1
        yield _Line(place, name, numbers)
    if not count:
        raise InputError(f"{path}: empty; {_FIX}")
    if promised not in (None, count):
        raise InputError(f"{path}: {count} concepts, its first line says {promised}; fetch the file again")


class _Names:
    """Collects the names of concepts, refusing empty, unreadable and duplicate ones."""

    def __init__(self, path: Path | str) -> None:
        self._path = path
        self.lines: dict[str, int] = {}      # name -> line

    def add(self, line: _Line) -> None:
        place = f"{self._path}: line {line.number}"
        try:
            name = line.name.decode("utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{place}: the name is not UTF-8; is this a text file?") from None
        if not name:
            raise InputError(f"{place}: no concept name at the start of the line")
        if self.lines.setdefault(name, line.number) != line.number:
            raise InputError(f"{place}: the concept {name[:80]!r} is already in line {self.lines[name]}; "
                             "remove one of them")


def read_concept_names(path: Path | str) -> list[str]:
    """Names of the concepts in the file's order: the name at index i has id i + 1.

    Raises:
        InputError: the file is missing or empty, a name is missing, unreadable or given twice (with the line).
    """
    names = _Names(path)
    for line in _read_lines(path):
        names.add(line)
    return list(names.lines)


def concept_ids(path: Path | str) -> dict[str, int]:
    """Name -> id of every concept of a vectors file; ids count from 1.

    Raises:
        InputError: as :func:`read_concept_names`.
    """
    return {name: number for number, name in enumerate(read_concept_names(path), 1)}


def concept_digest(names: Iterable[str]) -> str:
    """SHA-256 of the concepts' names in their order: two files with the same digest give every concept the same id."""
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode("utf-8") + b"\n")
    return digest.hexdigest()


def read_concept_vectors(path: Path | str) -> tuple[list[str], np.ndarray]:
    """Names and vectors of a file.

    Returns:
        The names and float32 [N, D]: row i belongs to id i + 1.

    Raises:
        InputError: the file is missing, a line has another width than the first, something that is no number, NaN or
            an infinite value, or a name is missing or given twice (with the line).
    """
    names = _Names(path)
    parts: list[np.ndarray] = []
    width = 0
    lines = _read_lines(path)
    while chunk := list(islice(lines, PARSED_LINES)):
        width = width or len(chunk[0].numbers.split())
        if width == 0:
            raise InputError(f"{path}: line {chunk[0].number}: no numbers after the name; is this a vectors file?")
        for line in chunk:
            names.add(line)
            if line.numbers.count(b" ") + 1 != width and len(line.numbers.split()) != width:
                raise InputError(f"{path}: line {line.number}: {len(line.numbers.split())} numbers, the lines above "
                                 f"have {width}; the file may be cut short")
        values = _parse_numbers(b" ".join(line.numbers for line in chunk))
        if values.size != len(chunk) * width or not np.isfinite(values).all():
            _refuse_numbers(path, chunk, width)
        parts.append(values.reshape(len(chunk), width))
    return list(names.lines), np.concatenate(parts)


def _parse_numbers(text: bytes) -> np.ndarray:
    """Numbers separated by blanks as float32; stops at the first word that is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)   # how NumPy says that it stopped early
        return np.fromstring(text.decode("latin-1"), np.float32, sep=" ")


def _refuse_numbers(path: Path | str, lines: Sequence[_Line], width: int) -> NoReturn:
    """Say which line has a word that is no finite number."""
    for line in lines:
        words = line.numbers.split()
        if len(words) != width:
            raise InputError(f"{path}: line {line.number}: {len(words)} numbers, the lines above have {width}; "
                             "the file may be cut short")
        for word in words:
            if not _NUMBER.fullmatch(word) or abs(float(word)) > np.finfo(np.float32).max:
                raise InputError(f"{path}: line {line.number}: {word.decode('utf-8', 'replace')[:40]!r} is no finite "
                                 "number; remove the line or train the vectors again")
    raise InputError(f"{path}: its numbers cannot be read; they must be separated by blanks")


def write_concept_vectors(path: Path | str, names: Sequence[str], vectors: np.ndarray) -> None:
    """Write a vectors file, atomically.

    Args:
        path: the file.
        names: N names without blanks.
        vectors: float [N, D].
    """
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as target:
        for name, vector in zip(names, vectors, strict=True):
            target.write(name + "".join(f" {value:.6g}" for value in vector.tolist()) + "\n")


def prune_vectors(source: Path | str, wanted: Collection[str], target: Path | str) -> tuple[int, int]:
    """Copy the lines of some concepts of a vectors file, in its order, atomically and line by line.

    Where no concept is wanted the first line is copied: a table has at least one row.

    Returns:
        The number of concepts in the new file and in the old one.
    """
    kept = whole = 0
    first: _Line | None = None
    with atomic_path(target) as temporary, open(temporary, "wb") as written:
        for line in _read_lines(source):
            whole += 1
            first = first or line
            if line.name.decode("utf-8", "replace") in wanted:
                kept += 1
                written.write(line.name + b" " + line.numbers + b"\n")
        if first is not None and not kept:
            kept = 1
            written.write(first.name + b" " + first.numbers + b"\n")
    return kept, whole


def round_up(number: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is at least ``number``."""
    return -(-number // multiple) * multiple


def padded_table(vectors: np.ndarray, multiple: int = KB_PAD_MULTIPLE) -> np.ndarray:
    """The network's embedding table: concept i in row i, zeros in row 0 (padding concept) and in all that is added.

    Args:
        vectors: float [N, D].
        multiple: rows and columns are padded to a multiple of this.

    Returns:
        float32 [N + 1 rounded up, D rounded up].
    """
    concepts, width = vectors.shape
    table = np.zeros((round_up(concepts + 1, multiple), round_up(width, multiple)), np.float32)
    table[1:concepts + 1, :width] = vectors
    return table
