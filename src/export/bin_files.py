# SPDX-License-Identifier: Apache-2.0
"""Raw files between Python and the inference harness: folders, names, sizes and the manifest that describes them.

preprocess.py writes ``<folder>/<NN>_data/<dataset>_batch_1_<i>.bin``, one folder an input of the network in the order
of the feature table, one file per feature; the harness answers with ``<dataset>_batch_1_<i>_0.bin``, float32 [2, 1, S].
All numbers are little-endian and without a header.
"""
from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.config import MAX_SIZE, TASKS, FeatureColumn
from utils.util import InputError, read_json, write_json

MANIFEST = "manifest.json"                # there only when every file is
UNFINISHED = "manifest.unfinished.json"   # the same, while files are being written
LOGITS_DTYPE = np.dtype("<f4")


@dataclass(frozen=True)
class BinManifest:
    """What the inputs are; file ``i`` of every folder belongs to ``unique_ids[i]``."""

    dataset: str                        # squad, record
    source: str                         # identifies the converted features that the inputs were made of
    columns: tuple[FeatureColumn, ...]
    unique_ids: tuple[int, ...]

    @property
    def count(self) -> int:
        """Features."""
        return len(self.unique_ids)

    @property
    def folders(self) -> tuple[str, ...]:
        """Names of the columns' folders."""
        return tuple(f"{number:02d}_data" for number in range(len(self.columns)))

    @property
    def max_seq_len(self) -> int:
        """S: the length of the first input."""
        return self.columns[0].shape[0]

    def stem(self, number: int) -> str:
        """File name of feature ``number``, without its ending."""
        return f"{self.dataset}_batch_1_{number}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; inputs are described for readers in other languages."""
        inputs = [{"folder": folder, **dataclasses.asdict(column), "bytes": file_size(column)}
                  for folder, column in zip(self.folders, self.columns, strict=True)]
        return {"dataset": self.dataset, "source": self.source, "count": self.count, "inputs": inputs,
                "unique_ids": list(self.unique_ids)}

    @classmethod
    def from_dict(cls, values: Any) -> BinManifest:
        """The inverse of :meth:`to_dict`.

        Raises:
            ValueError: it is none.
        """
        if not isinstance(values, dict) or not isinstance(values.get("inputs"), list):
            raise ValueError("no list of inputs")
        columns = tuple(_read_column(entry) for entry in values["inputs"])
        dataset, source, unique_ids = values.get("dataset"), values.get("source"), values.get("unique_ids")
        if not isinstance(dataset, str) or dataset not in TASKS:
            raise ValueError("no such data set")
        if not isinstance(source, str) or not columns or not columns[0].shape:
            raise ValueError("no inputs")
        if not isinstance(unique_ids, list) or any(type(number) is not int for number in unique_ids):
            raise ValueError("no list of unique ids")
        return cls(dataset, source, columns, tuple(unique_ids))


def _read_column(entry: Any) -> FeatureColumn:
    if not isinstance(entry, dict):
        raise ValueError("an input is no object")
    name, shape, dtype = entry.get("name"), entry.get("shape"), entry.get("dtype")
    if not isinstance(name, str) or dtype not in ("float32", "int32") or not isinstance(shape, list) \
            or any(type(size) is not int or not 1 <= size <= MAX_SIZE for size in shape):
        raise ValueError("an input has no name, shape and dtype")
    return FeatureColumn(name, tuple(shape), dtype)


def little_endian(column: FeatureColumn) -> np.dtype:
    """The dtype of a column's file."""
    return np.dtype(column.dtype).newbyteorder("<")


def file_size(column: FeatureColumn) -> int:
    """Bytes of one feature's file."""
    return math.prod(column.shape) * little_endian(column).itemsize


def file_sizes(folder: Path) -> dict[str, int]:
    """Name -> size in bytes of the files in a folder; none where there is no folder."""
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}


def read_manifest(folder: Path | str, name: str = MANIFEST) -> BinManifest:
    """Read the manifest of a folder of inputs.

    Raises:
        InputError: it is missing (the inputs are incomplete) or broken.
    """
    path = Path(folder) / name
    if not path.is_file():
        raise InputError(f"{path}: no such file; the inputs are missing or incomplete; run preprocess.py")
    try:
        return BinManifest.from_dict(read_json(path))
    except (ValueError, TypeError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise InputError(f"{path}: not a manifest of inputs ({reason}); remove {folder} and run preprocess.py again"
                         ) from None


def write_manifest(folder: Path | str, manifest: BinManifest, name: str = MANIFEST) -> None:
    """Write the manifest, atomically."""
    write_json(Path(folder) / name, manifest.to_dict())


class ResultFiles(Mapping[int, tuple[np.ndarray, np.ndarray]]):
    """The harness's results: unique id -> start and end logits, float32 [S] each, read when asked for.

    Raises:
        InputError: a result is missing, has another size than float32 [2, 1, S], or is none of these inputs'.
    """

    def __init__(self, folder: Path | str, manifest: BinManifest) -> None:
        self.folder, self.length = Path(folder), manifest.max_seq_len
        self.names = {unique_id: f"{manifest.stem(number)}_0.bin"
                      for number, unique_id in enumerate(manifest.unique_ids)}
        self._check(file_sizes(self.folder), manifest)

    def _check(self, sizes: Mapping[str, int], manifest: BinManifest) -> None:
        missing = [name for name in self.names.values() if name not in sizes]
        if missing:
            raise InputError(f"{self.folder / missing[0]}: no such file ({len(missing)} of {manifest.count} results "
                             "are missing); run the inference again")
        wanted = 2 * self.length * LOGITS_DTYPE.itemsize
        for name in self.names.values():
            if sizes[name] != wanted:
                raise InputError(f"{self.folder / name}: has {sizes[name]} bytes, not the {wanted} of float32 "
                                 f"[2, 1, {self.length}]; was the model exported for this length, and did it finish?")
        named_as_ours = re.compile(rf"{manifest.dataset}_batch_1_\d+_0\.bin")     # others are another data set's
        surplus = sorted(filter(named_as_ours.fullmatch, sizes.keys() - set(self.names.values())))
        if surplus:
            raise InputError(f"{self.folder / surplus[0]}: belongs to no input ({manifest.count} {manifest.dataset} "
                             "features); empty the folder and run the inference again")

    def __getitem__(self, unique_id: int) -> tuple[np.ndarray, np.ndarray]:
        start, end = np.fromfile(self.folder / self.names[unique_id], LOGITS_DTYPE).reshape(2, self.length)
        return start, end

    def __iter__(self) -> Iterator[int]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
