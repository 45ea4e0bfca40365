# SPDX-License-Identifier: Apache-2.0
"""The compact form of features on disk, and back to the dense columns of the feature table.

A stored feature has no padding: its word pieces, and for each knowledge base how many concepts each piece has and all
their ids in a row. That is a tenth of the dense form or less. NumPy only.
"""
from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from src.config import (
    DEV_LABELS,
    PADDING_CONCEPT,
    SPLITS,
    TASKS,
    TRAIN_LABELS,
    KnowledgeBase,
    MemoryConfig,
    Shard,
    feature_columns,
)
from utils.util import InputError, file_digest, json_digest, read_json

STORAGE_FORMAT = 1    # of the stored columns; a manifest names it
AGAIN = "run data_convert.py for this split"
SETTING_KINDS = {"dataset": str, "split": str, "lower_case": bool, "max_seq_len": int, "doc_stride": int,
                 "max_query_length": int, "version_2_with_negative": bool}
BASE_KINDS = {"name": str, "label": str, "max_concepts": int, "concepts": int}
TEXT = "text"     # name of the stored column with the word pieces


class PieceConcepts(NamedTuple):
    """Concepts of a row of word pieces."""

    counts: np.ndarray    # int32 [pieces]: concepts of each piece
    ids: np.ndarray       # int32 [sum of counts]: piece after piece


def stored_columns(bases: Sequence[KnowledgeBase | MemoryConfig], split: str) -> tuple[str, ...]:
    """Names of the stored columns, each an int32 array of shape [-1] that is never empty.

    L word pieces of a feature are stored as

    * ``text``: the number of pieces in segment 0, the labels of ``split``, then the L pieces;
    * ``<kb>_concepts``, for each knowledge base: L counts, then the concepts of all pieces in a row.

    Few columns, because MindRecord's writer takes most of its time by column; one for each knowledge base, because
    a reader may want only some of them.
    """
    del split     # the labels' number differs, the columns do not
    return (TEXT, *(f"{base.name}_concepts" for base in bases))


def stored_schema(bases: Sequence[KnowledgeBase | MemoryConfig], split: str) -> dict[str, dict[str, Any]]:
    """The MindRecord schema of the stored columns."""
    return {name: {"type": "int32", "shape": [-1]} for name in stored_columns(bases, split)}


def label_count(split: str) -> int:
    """Labels of a feature: start and end position, or the unique id."""
    return len(TRAIN_LABELS if split == "train" else DEV_LABELS)


def pack_feature(piece_ids: np.ndarray, query_end: int, concepts: Sequence[PieceConcepts],
                 labels: Sequence[int]) -> list[np.ndarray]:
    """One feature as stored, its arrays in the order of :func:`stored_columns`.

    Args:
        piece_ids: int32 [L], unpadded.
        query_end: word pieces in segment 0: [CLS], question and the first [SEP].
        concepts: one per knowledge base, for the L pieces.
        labels: start and end position, or the unique id.
    """
    return [np.concatenate((np.array([query_end, *labels], np.int32), piece_ids)),
            *map(np.concatenate, concepts)]


def largest_feature_bytes(bases: Sequence[KnowledgeBase | MemoryConfig], max_seq_len: int) -> int:
    """Most bytes that a stored feature of ``max_seq_len`` word pieces can take."""
    numbers = 3 + max_seq_len + sum(max_seq_len * (1 + base.max_concepts) for base in bases)
    return np.dtype(np.int32).itemsize * numbers


class FeatureBatch(NamedTuple):
    """Stored features end to end: quick to hand from process to process."""

    columns: list[np.ndarray]    # for each stored column int32 [sum of sizes]
    sizes: list[np.ndarray]      # for each stored column int64 [features]

    @classmethod
    def pack(cls, features: Sequence[Sequence[np.ndarray]]) -> FeatureBatch:
        """Join features as :func:`pack_feature` makes them."""
        by_column = list(zip(*features, strict=True))
        return cls([np.concatenate(arrays) for arrays in by_column],
                   [np.fromiter(map(len, arrays), np.int64, len(arrays)) for arrays in by_column])

    def lengths(self, split: str) -> np.ndarray:
        """Word pieces of each feature: int32 [features]."""
        return (self.sizes[0] - 1 - label_count(split)).astype(np.int32) if self.sizes else np.zeros(0, np.int32)

    def rows(self, names: Sequence[str]) -> list[dict[str, np.ndarray]]:
        """The features one by one, column by name."""
        columns = []
        for flat, sizes in zip(self.columns, self.sizes, strict=True):
            ends = np.cumsum(sizes).tolist()
            columns.append([flat[start:end] for start, end in zip([0, *ends], ends, strict=False)])
        return [dict(zip(names, arrays, strict=True)) for arrays in zip(*columns, strict=True)]


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
        self._head = 1 + label_count(split)
        self._widths = tuple(base.max_concepts for base in bases)
        self._length = max_seq_len
        self._positions = np.arange(max_seq_len, dtype=np.int32)

    def length(self, text: np.ndarray) -> int:
        """Word pieces of a stored feature, by its ``text`` column."""
        return len(text) - self._head

    def __call__(self, text: np.ndarray, *concepts: np.ndarray) -> tuple[np.ndarray, ...]:
        """Expand one feature.

        Raises:
            InputError: the feature is longer than ``max_seq_len``.
        """
        query_end, labels, pieces = text[0], text[1:self._head], text[self._head:]
        length = len(pieces)
        if length > self._length:
            raise InputError(f"--max_seq_len {self._length}: a feature has {length} word pieces; give the length that "
                             "data_convert.py was run with, or convert again")
        mask = np.zeros(self._length, np.float32)
        mask[:length] = 1.0
        source = np.zeros(self._length, np.int32)
        source[:length] = pieces
        segments = np.zeros(self._length, np.int32)
        segments[query_end:length] = 1
        knowledge = (expand_concepts(stored[:length], stored[length:], self._length, width)
                     for stored, width in zip(concepts, self._widths, strict=True))
        return (mask, source, self._positions.copy(), segments, *knowledge,
                *(labels[number:number + 1].copy() for number in range(self._head - 1)))


def expand_concepts(counts: np.ndarray, ids: np.ndarray, max_seq_len: int, max_concepts: int) -> np.ndarray:
    """Concept ids of one feature, padded: int32 [S, K, 1] from counts [L] and ids [sum of counts]."""
    dense = np.full((max_seq_len, max_concepts, 1), PADDING_CONCEPT, np.int32)
    rows = np.repeat(np.arange(len(counts)), counts)                            # [sum of counts]
    places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    if len(counts) and counts.max() > max_concepts:
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
        """The side table (dev only): one question per line."""
        return self.mindrecord.with_suffix(".examples.jsonl")

    def parts(self) -> tuple[Path, ...]:
        """All of them but the manifest, the index last: the order in which they are published."""
        return self.mindrecord, self.lengths, self.examples, self.index

    @property
    def manifest(self) -> Path:
        """Describes the other files and their sources; exists only if they are complete."""
        return self.mindrecord.with_suffix(".manifest.json")


def feature_paths(name: Path | str) -> tuple[Path, ...]:
    """The MindRecord files that a flag names: one, or several separated by commas; each may be a pattern with ``*``.

    Raises:
        InputError: no file fits a pattern, or a file comes twice.
    """
    parts = [Path(part) for part in str(name).split(",")]
    several = any("*" in part.name or part.exists() for part in parts)      # a folder's name may hold a comma
    if Path(name).exists() or not several:
        return (Path(name),)
    found: list[Path] = []
    for part in parts:
        fits = sorted(part.parent.glob(part.name)) if "*" in part.name else [part]
        if not fits:
            raise InputError(f"{part}: no file fits this pattern; make the parts with data_convert.py --shard")
        found += fits
    twice = [path for number, path in enumerate(found) if path in found[:number]]
    if twice:
        raise InputError(f"{twice[0]}: is named twice; give every file of features once")
    return tuple(found)


def features_digest(name: Path | str) -> str:
    """MD5 of a MindRecord file; of several, the MD5 of theirs."""
    digests = [file_digest(path) for path in feature_paths(name)]
    return digests[0] if len(digests) == 1 else hashlib.md5(" ".join(digests).encode()).hexdigest()  # noqa: S324


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest's content but for the digest itself."""
    return json_digest({key: value for key, value in manifest.items() if key != "manifest_sha256"})


def manifest_problem(manifest: Any) -> str:
    """What is wrong with the content of a manifest, or nothing."""
    if isinstance(manifest, dict) and manifest.get("manifest_sha256", digest := manifest_digest(manifest)) != digest:
        return "it was changed"
    missing = _lacks(manifest, {"format": int, "rows": int, "files": dict, "settings": dict, "knowledge_bases": list,
                                "inputs": dict})
    if missing:
        return f"no {missing}"
    if any(type(size) is not int or Path(name).name != name for name, size in manifest["files"].items()):
        return "files are no names with sizes"
    if missing := _lacks(manifest["settings"], SETTING_KINDS):
        return f"settings: no {missing}"
    if manifest["settings"]["dataset"] not in TASKS or manifest["settings"]["split"] not in SPLITS:
        return "settings: no such dataset and split"
    try:
        Shard.read(str(manifest["settings"].get("shard", "1/1")))
    except ValueError as error:
        return f"settings: {error}"
    for place, kinds in (("knowledge_bases", BASE_KINDS), ("inputs", {"bytes": int, "md5": str})):
        entries = manifest[place]
        for entry in entries.values() if isinstance(entries, dict) else entries:
            if missing := _lacks(entry, kinds):
                return f"{place}: no {missing}"
    if not isinstance(manifest.get("md5", {}), dict):
        return "md5 is no object"
    return ""


def _lacks(values: Any, kinds: Mapping[str, type]) -> str:
    """The first of these keys that is not there with its kind, or nothing."""
    return next((key for key, kind in kinds.items()
                 if not isinstance(values, dict) or type(values.get(key)) is not kind), "")


def check_digest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Compare a converted file, as a whole, with what was written: a changed bit would go unnoticed.

    Raises:
        InputError: it differs.
    """
    digest = manifest.get("md5", {}).get(path.name)
    if digest is not None and file_digest(path) != digest:
        raise InputError(f"{path}: has changed since it was written (its MD5 differs); run data_convert.py --force for "
                         "this split")


def check_features(mindrecord: Path | str, manifest: Mapping[str, Any]) -> None:
    """Check all of a split's files against their digests: once at the start of a training or an evaluation.

    Raises:
        InputError: one has changed.
    """
    for path in ConvertedFiles(Path(mindrecord)).parts():
        if path.name in manifest["files"]:
            check_digest(path, manifest)


def read_manifest(files: ConvertedFiles) -> dict[str, Any]:
    """The manifest of a converted split; whether the other files are there is not looked at.

    Raises:
        InputError: it is missing or broken, or of another version's features.
    """
    if not files.manifest.is_file():
        raise InputError(f"{files.manifest}: no such file; the features are missing or incomplete: {AGAIN}")
    manifest: dict[str, Any] = read_json(files.manifest)
    problem = manifest_problem(manifest)
    if not problem and files.mindrecord.name not in manifest["files"]:
        problem = "of other files"
    if problem:
        raise InputError(f"{files.manifest}: not a manifest of converted features ({problem}); {AGAIN}")
    if manifest["format"] != STORAGE_FORMAT:
        raise InputError(f"{files.manifest}: features in format {manifest['format']}, this version reads "
                         f"{STORAGE_FORMAT}; {AGAIN}")
    return manifest


def open_converted(mindrecord: Path | str) -> dict[str, Any]:
    """Check that a converted split is complete, and return its manifest.

    To be called before MindSpore opens the file: its reader crashes the process on a damaged pair.

    Raises:
        InputError: a file is missing or has another size than the manifest says.
    """
    files = ConvertedFiles(Path(mindrecord))
    manifest = read_manifest(files)
    for name, size in manifest["files"].items():
        path = files.mindrecord.with_name(name)
        if not path.is_file():
            raise InputError(f"{path}: no such file; {AGAIN}")
        if path.stat().st_size != size:
            raise InputError(f"{path}: has {path.stat().st_size} bytes, not the {size} that were written; {AGAIN}")
    return manifest
