# SPDX-License-Identifier: Apache-2.0
"""NELL: the beliefs about an entity.

NELL's belief export is a tab-separated file of many gigabytes. Only the promoted generalizations are of use ("Barack
Obama is a politician"); they are kept in a small sorted file in which an entity is found without loading it.
"""
from __future__ import annotations

import codecs
import gzip
import heapq
import mmap
import re
import string
import tempfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from src.knowledge.entity_retrieval import Belief
from src.knowledge.wordnet_db import WordNet
from utils.progress import Progress
from utils.util import InputError, atomic_path

RELATION = b"generalizations"
MIN_PROBABILITY = 0.9
COLUMNS = 5                     # entity, relation, value, iteration, probability; more follow
BLOCK = 1 << 23                 # bytes of the export read at a time
SORTED_LINES = 200_000          # lines sorted in memory at a time


def entity_key(entity: str) -> str:
    """What an entity of the export is looked up by: its last part, without the filling that NELL's names have.

    NELL writes an "n" before a number; it goes only where nothing but digits follows it in the first ``_`` piece.

    >>> entity_key("concept:personus:barack__obama_"), entity_key("concept:date:n1985_05"), entity_key("x:y:n49ers")
    ('barack_obama', '1985_05', 'n49ers')
    """
    name = entity.rpartition(":")[2]
    if re.fullmatch("n[0-9]*", name.partition("_")[0]):
        name = name[1:]
    return "_".join(part for part in name.split("_") if part)


def build_belief_file(export: Path, target: Path) -> int:
    """Keep the promoted generalizations of a belief export, sorted by entity.

    Args:
        export: the export, as text or ``.gz``; memory use does not depend on its size.
        target: lines of key, entity and category, separated by tabs.

    Returns:
        The number of beliefs kept.

    Raises:
        InputError: the export is missing, cut short, or a row lacks columns or has no probability (with its line).
    """
    count = 0
    with atomic_path(target) as temporary, open(temporary, "wb") as kept:
        before = b""
        for line in _sort_lines(f"{entity_key(entity)}\t{entity}\t{category}\n".encode()
                                for entity, category in promoted_beliefs(export)):
            if line != before:
                kept.write(line)
                count += 1
            before = line
        if not count:
            raise InputError(f"{export}: no row with the relation {RELATION.decode()} and a probability of at least "
                             f"{MIN_PROBABILITY}; is this NELL's belief export?")
    return count


def _sort_lines(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Sort any number of lines with little memory: sorted parts on disk, then merged."""
    with ExitStack() as files:
        parts: list[Iterable[bytes]] = []
        chunk: list[bytes] = []
        for line in lines:
            chunk.append(line)
            if len(chunk) == SORTED_LINES:
                part = files.enter_context(tempfile.TemporaryFile())
                part.writelines(sorted(chunk))
                part.seek(0)
                parts.append(part)
                chunk = []
        yield from heapq.merge(*parts, sorted(chunk))


def promoted_beliefs(export: Path) -> Iterator[Belief]:
    """Stream the promoted generalizations of an export."""
    width = 0                   # tabs in a row
    number = 1                  # line number of the block's first row
    for block in _read_rows(export):
        if not width:
            width = block.partition(b"\n")[0].count(b"\t")
        rows = block.count(b"\n")
        if block.count(b"\t") != width * rows:      # some row has fewer or more columns than the first
            _check_rows(export, block, number)
        yield from _promoted_in(export, block, number)
        number += rows


def _read_rows(export: Path) -> Iterator[bytes]:
    """Blocks of whole rows, each row with its line end."""
    try:
        source: IO[bytes] = open(export, "rb")   # noqa: SIM115 - closed by the with below
    except FileNotFoundError:
        raise InputError(f"{export}: no such file; give NELL's belief export with --nell_beliefs") from None
    with source, Progress("NELL beliefs", export.stat().st_size, "bytes") as progress:
        rows: Any = gzip.GzipFile(fileobj=source) if export.suffix == ".gz" else source
        rest = b""
        while True:
            try:
                block = rows.read(BLOCK)
            except (EOFError, zlib.error, gzip.BadGzipFile):
                raise InputError(f"{export}: cut short or damaged (gzip); fetch it again") from None
            if not progress.done:
                block = block.removeprefix(codecs.BOM_UTF8)
            progress.update(source.tell() - progress.done)
            if not block:
                break
            head, end, tail = block.rpartition(b"\n")
            if end:
                yield rest + head + end
                rest = tail
            else:
                rest += tail
                if len(rest) > 4 * BLOCK:
                    raise InputError(f"{export}: a row of more than {len(rest)} bytes; is this NELL's belief export?")
        if rest:
            yield rest + b"\n"


def _cut_short(export: Path, line: int, row: bytes) -> InputError:
    columns = row.count(b"\t") + 1
    return InputError(f"{export}: line {line} is cut short: {columns} columns of at least {COLUMNS}; "
                      "fetch the export again")


def _check_rows(export: Path, block: bytes, number: int) -> None:
    for line, row in enumerate(block.split(b"\n")[:-1], number):
        if row.count(b"\t") + 1 < COLUMNS:
            raise _cut_short(export, line, row)


def _promoted_in(export: Path, block: bytes, number: int) -> Iterator[Belief]:
    """The promoted generalizations of one block, found without looking at the other rows."""
    wanted = b"\t" + RELATION + b"\t"
    place = block.find(wanted)
    while place >= 0:
        start, stop = block.rfind(b"\n", 0, place) + 1, block.find(b"\n", place)
        fields = block[start:stop].split(b"\t")
        if len(fields) < COLUMNS:
            raise _cut_short(export, number + block.count(b"\n", 0, start), block[start:stop])
        if fields[1] == RELATION and _probability(export, block, start, number, fields[4]) >= MIN_PROBABILITY:
            yield Belief(fields[0].decode("utf-8", "replace"), fields[2].decode("utf-8", "replace"))
        place = block.find(wanted, stop)


def _probability(export: Path, block: bytes, start: int, number: int, text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        line = number + block.count(b"\n", 0, start)
        raise InputError(f"{export}: line {line}: the probability is {text[:20].decode('utf-8', 'replace')!r}, "
                         "no number; fetch the export again") from None


class BeliefFile:
    """Looks entities up in a file made by :func:`build_belief_file`, by binary search on its bytes.

    Raises:
        InputError: the file does not end with a whole line; a broken line is found when its entity is looked up.
    """

    def __init__(self, path: Path) -> None:
        self._broken = InputError(f"{path}: cut short or damaged; make it again with: retrieve.py --step nell --force")
        with open(path, "rb") as source:
            try:
                self._lines = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ)
            except ValueError:          # an empty file
                raise self._broken from None
        if self._lines[-1:] != b"\n":
            raise self._broken
        self.find = lru_cache(maxsize=1 << 16)(self._find)

    def __enter__(self) -> BeliefFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.find.cache_clear()
        self._lines.close()

    def _find(self, key: str) -> tuple[Belief, ...]:
        """All beliefs about the entities with this key."""
        prefix = key.encode() + b"\t"
        low, high = 0, len(self._lines)       # line starts: those before low are too small, those from high are not
        while low < high:
            middle = self._lines.rfind(b"\n", low, (low + high) // 2) + 1 or low
            stop = self._lines.find(b"\n", middle) + 1
            if self._lines[middle:stop] < prefix:
                low = stop
            else:
                high = middle
        beliefs = []
        while self._lines[low:low + len(prefix)] == prefix:
            stop = self._lines.find(b"\n", low)
            try:
                _, entity, category = self._lines[low:stop].decode().split("\t")
            except ValueError:
                raise self._broken from None
            beliefs.append(Belief(entity, category))
            low = stop + 1
        return tuple(beliefs)


class NellFinder:
    """Uncased words -> NELL's beliefs about the entity they name.

    Args:
        beliefs: a file made by :func:`build_belief_file`.
        categories: those that have a vector.
        wordnet: gives the base forms of one-word entities.
    """

    def __init__(self, beliefs: BeliefFile, categories: Collection[str], wordnet: WordNet) -> None:
        self._beliefs, self.concepts, self._wordnet = beliefs, frozenset(categories), wordnet

    def find(self, words: tuple[str, ...]) -> list[Belief]:
        """Beliefs about an entity given as uncased tokens.

        Punctuation marks are no part of its name, but count when an entity of one word is also tried as its base form.
        """
        keys = ["_".join(word for word in words if not (len(word) == 1 and word in string.punctuation))]
        if len(words) == 1:
            keys += self._wordnet.lemmas(words[0])
        return list(dict.fromkeys(belief for key in keys if key for belief in self._beliefs.find(key)))
