"""The compact form of features on disk, and back to the dense columns of the feature table.

A stored feature has no padding: its word pieces, and for each knowledge base how many concepts each piece has and all
their ids in a row. That is a tenth of the dense form or less. NumPy only.
"""
from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, NamedTuple, Sequence

import numpy as np

from src.config import DEV_LABELS, PADDING_CONCEPT, TRAIN_LABELS, KnowledgeBase, MemoryConfig, feature_columns
from utils.util import InputError, read_json

PIECES, QUERY_END = "src_ids", "query_end"
GUARD = np.zeros(1, np.int32)     # MindRecord reads an empty array back as garbage: something must stand in it


class PieceConcepts(NamedTuple):
    """Concepts of a row of word pieces."""

    counts: np.ndarray    # int32 [pieces]: concepts of each piece
    ids: np.ndarray       # int32 [sum of counts]: piece after piece


def label_names(split: str) -> tuple[str, ...]:
    """Names of a split's label columns."""
    return tuple(column.name for column in (TRAIN_LABELS if split == "train" else DEV_LABELS))


def stored_columns(bases: Sequence[KnowledgeBase | MemoryConfig], split: str) -> tuple[str, ...]:
    """Names of the stored columns, each an int32 array of shape [-1].

    For ``src_ids`` that is [L], L the word pieces of the feature; ``query_end`` [1] is the number of pieces in segment
    0; ``<kb>_concept_counts`` is [L]; ``<kb>_concept_ids`` [1 + sum of counts], a guard element first; labels are [1].
    """
    knowledge = (name for base in bases for name in (_counts_name(base.name), base.column))
    return (PIECES, QUERY_END, *knowledge, *label_names(split))


def stored_schema(bases: Sequence[KnowledgeBase | MemoryConfig], split: str) -> dict[str, dict[str, Any]]:
    """The MindRecord schema of the stored columns."""
    return {name: {"type": "int32", "shape": [-1]} for name in stored_columns(bases, split)}


def _counts_name(base: str) -> str:
    return f"{base}_concept_counts"


def pack_feature(piece_ids: np.ndarray, query_end: int, concepts: Sequence[PieceConcepts],
                 labels: Sequence[int]) -> list[np.ndarray]:
    """One feature as stored, its arrays in the order of :func:`stored_columns`.

    Args:
        piece_ids: int32 [L], unpadded.
        query_end: word pieces in segment 0: [CLS], question and the first [SEP].
        concepts: one a knowledge base, for the L pieces.
        labels: start and end position, or the unique id.
    """
    packed = [piece_ids, np.array([query_end], np.int32)]
    for counts, ids in concepts:
        packed += (counts, np.concatenate((GUARD, ids)))
    packed += (np.array([label], np.int32) for label in labels)
    return packed


class FeatureExpander:
    """Turns stored columns into the dense columns of ``src.config.feature_columns``; picklable.

    ``bases`` may be any of the stored knowledge bases, in any order and with a smaller number of concepts:
    only the columns ``stored_names`` need be read. The call takes one array for each of them and returns one for each
    of ``column_names``: input_mask float32 [S], src_ids, pos_ids, sent_ids int32 [S], concept ids int32 [S, K, 1],
    labels int32 [1]. Padding is 0 everywhere but in pos_ids, which count on.
    """

    def __init__(self, bases: Sequence[KnowledgeBase | MemoryConfig], split: str, max_seq_len: int) -> None:
        self.stored_names = stored_columns(bases, split)
        self.column_names = tuple(column.name for column in feature_columns(bases, split, max_seq_len))
        self._widths = tuple(base.max_concepts for base in bases)
        self._length = max_seq_len
        self._positions = np.arange(max_seq_len, dtype=np.int32)

    def __call__(self, *stored: np.ndarray) -> tuple[np.ndarray, ...]:
        """Expand one feature.

        Raises:
            InputError: the feature is longer than ``max_seq_len``.
        """
        pieces, query_end = stored[0], stored[1][0]
        length = len(pieces)
        if length > self._length:
            raise InputError(f"max_seq_len {self._length}: a feature has {length} word pieces; give the length that "
                             "data_convert.py was run with, or convert again")
        mask = np.zeros(self._length, np.float32)
        mask[:length] = 1.0
        source = np.zeros(self._length, np.int32)
        source[:length] = pieces
        segments = np.zeros(self._length, np.int32)
        segments[query_end:length] = 1
        knowledge = [expand_concepts(stored[2 + 2 * number], stored[3 + 2 * number], self._length, width)
                     for number, width in enumerate(self._widths)]
        labels = stored[2 + 2 * len(self._widths):]
        return (mask, source, self._positions.copy(), segments, *knowledge, *labels)


def expand_concepts(counts: np.ndarray, guarded_ids: np.ndarray, max_seq_len: int, max_concepts: int) -> np.ndarray:
    """Concept ids of one feature: int32 [S, K, 1] from counts [L] and the guarded ids [1 + sum of counts]."""
    dense = np.full((max_seq_len, max_concepts, 1), PADDING_CONCEPT, np.int32)
    firsts = np.cumsum(counts) - counts                      # where each piece's ids begin
    rows = np.repeat(np.arange(len(counts)), counts)         # [sum of counts]
    places = np.arange(len(rows)) - firsts[rows]
    ids = guarded_ids[1:]
    if places.size and places.max() >= max_concepts:
        kept = places < max_concepts
        rows, places, ids = rows[kept], places[kept], ids[kept]
    dense.reshape(-1)[rows * max_concepts + places] = ids
    return dense


@dataclass(frozen=True)
class ConvertedFiles:
    """The files of one converted split, named after its MindRecord file."""

    mindrecord: Path

    @property
    def index(self) -> Path:
        """MindRecord's own index."""
        return self.mindrecord.with_name(self.mindrecord.name + ".db")

    @property
    def lengths(self) -> Path:
        """int32 [N]: unpadded length of every feature, in row order."""
        return self.mindrecord.with_suffix(".lengths.npy")

    @property
    def examples(self) -> Path:
        """The side table (dev only): one question a line."""
        return self.mindrecord.with_suffix(".examples.jsonl")

    @property
    def manifest(self) -> Path:
        """What the other files are and were made of; there only when they are whole."""
        return self.mindrecord.with_suffix(".manifest.json")


def open_converted(mindrecord: Path | str) -> dict[str, Any]:
    """Check that a converted split is whole, and return its manifest.

    To be called before MindSpore opens the file: its reader crashes the process on a damaged pair.

    Raises:
        InputError: a file is missing or has another size than the manifest says.
    """
    files = ConvertedFiles(Path(mindrecord))
    again = "run data_convert.py for this split"
    if not files.manifest.is_file():
        raise InputError(f"{files.manifest}: no such file; the features are not there or not whole: {again}")
    manifest = read_json(files.manifest)
    sizes = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(sizes, dict) or files.mindrecord.name not in sizes or "rows" not in manifest:
        raise InputError(f"{files.manifest}: not a manifest of converted features; {again}")
    for name, size in sizes.items():
        path = files.mindrecord.with_name(name)
        if not path.is_file():
            raise InputError(f"{path}: no such file; {again}")
        if path.stat().st_size != size:
            raise InputError(f"{path}: has {path.stat().st_size} bytes, not the {size} that were written; {again}")
    return manifest


def write_manifest_text(manifest: Mapping[str, Any]) -> str:
    """The manifest as it is written."""
    return json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
