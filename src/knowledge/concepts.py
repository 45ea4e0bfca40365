# SPDX-License-Identifier: Apache-2.0
"""Concepts of a knowledge base: their names, which give the ids, and their vectors.

A vectors file has one concept per line: its name, then its numbers, separated by blanks. The concept in line i
(counted from 1) has id i; id 0 is the padding concept, whose vector is zero.
"""
from __future__ import annotations

import codecs
import hashlib
import re
import warnings
from pathlib import Path
from typing import Iterable, NoReturn, Sequence

import numpy as np

from src.config import KB_PAD_MULTIPLE
from utils.util import InputError, atomic_path

_NUMBER = re.compile(rb"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def _read_lines(path: Path | str) -> list[bytes]:
    """The lines of a vectors file, without their ends."""
    try:
        text = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; fetch the concept vectors or train them with "
                         "train_kb_embedding.py") from None
    lines = text.removeprefix(codecs.BOM_UTF8).split(b"\n")
    if lines[-1].strip() == b"":
        lines.pop()
    if not lines:
        raise InputError(f"{path}: empty; fetch the concept vectors or train them with train_kb_embedding.py")
    return lines


def _decode_names(path: Path | str, names: Sequence[bytes]) -> list[str]:
    """Names as strings, refusing empty, unreadable and duplicate ones."""
    try:
        texts = b"\n".join(names).decode("utf-8").split("\n")
    except UnicodeDecodeError:
        line = next(line for line, name in enumerate(names, 1) if name.decode("utf-8", "replace").count("\ufffd"))
        raise InputError(f"{path}: line {line}: the name is not UTF-8; is this a text file?") from None
    if len(set(texts)) < len(texts) or "" in texts:
        seen: dict[str, int] = {}
        for line, name in enumerate(texts, 1):
            if not name:
                raise InputError(f"{path}: line {line}: no concept name at the start of the line")
            if name in seen:
                raise InputError(f"{path}: line {line}: the concept {name[:80]!r} is already in line {seen[name]}; "
                                 "remove one of them")
            seen[name] = line
    return texts


def read_concept_names(path: Path | str) -> list[str]:
    """Names of the concepts in the file's order: the name at index i has id i + 1.

    Raises:
        InputError: the file is missing or empty, a name is missing, unreadable or given twice (with the line).
    """
    return _decode_names(path, [line.partition(b" ")[0] for line in _read_lines(path)])


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
    lines = _read_lines(path)
    parts = [line.partition(b" ") for line in lines]
    names = _decode_names(path, [name for name, _, _ in parts])
    width = len(parts[0][2].split())
    if width == 0:
        raise InputError(f"{path}: line 1: no numbers behind the name; is this a vectors file?")
    for number, (_, _, numbers) in enumerate(parts, 1):
        if numbers.count(b" ") + 1 != width and len(numbers.split()) != width:
            raise InputError(f"{path}: line {number}: {len(numbers.split())} numbers, the lines above have {width}; "
                             "the file may be cut short")
    vectors = _parse_numbers(b" ".join(numbers for _, _, numbers in parts))
    if vectors.size != len(names) * width or not np.isfinite(vectors).all():
        _refuse_numbers(path, [numbers for _, _, numbers in parts], width)
    return names, vectors.reshape(len(names), width)


def _parse_numbers(text: bytes) -> np.ndarray:
    """Numbers separated by blanks as float32; stops at the first word that is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)   # how NumPy says that it stopped early
        return np.fromstring(text.decode("latin-1"), np.float32, sep=" ")


def _refuse_numbers(path: Path | str, lines: Sequence[bytes], width: int) -> NoReturn:
    """Say which line has a word that is no finite number."""
    for number, line in enumerate(lines, 1):
        words = line.split()
        if len(words) != width:
            raise InputError(f"{path}: line {number}: {len(words)} numbers, the lines above have {width}; "
                             "the file may be cut short")
        for word in words:
            if not _NUMBER.fullmatch(word) or abs(float(word)) > np.finfo(np.float32).max:
                raise InputError(f"{path}: line {number}: {word.decode('utf-8', 'replace')[:40]!r} is no finite "
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
