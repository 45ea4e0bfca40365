# SPDX-License-Identifier: Apache-2.0
"""The logits of an evaluation: two numbers for every position of every feature."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from utils.util import InputError, atomic_path

LogitsByFeature = Mapping[int, tuple[np.ndarray, np.ndarray]]
"""unique_id -> (start logits [S], end logits [S]), floating point; :class:`Logits` or any other mapping."""


class Logits(Mapping[int, tuple[np.ndarray, np.ndarray]]):
    """The logits of all features as two arrays, looked up by unique id.

    Args:
        unique_ids: whole numbers [N] (or [N, 1]).
        start_logits, end_logits: floating point [N, S].
        source: where they come from, for error messages.

    Raises:
        InputError: shapes or types do not fit, or a unique id occurs twice.
    """

    def __init__(self, unique_ids: np.ndarray, start_logits: np.ndarray, end_logits: np.ndarray,
                 source: str = "logits") -> None:
        ids = unique_ids[:, 0] if unique_ids.ndim == 2 and unique_ids.shape[1] == 1 else unique_ids
        if ids.ndim != 1 or not np.issubdtype(ids.dtype, np.integer):
            raise InputError(f"{source}: unique ids are {ids.dtype} {list(ids.shape)}; whole numbers [N] are wanted")
        for name, values in (("start", start_logits), ("end", end_logits)):
            if values.ndim != 2 or len(values) != len(ids) or not np.issubdtype(values.dtype, np.floating):
                raise InputError(f"{source}: {name} logits are {values.dtype} {list(values.shape)}; floating-point "
                                 f"numbers [{len(ids)}, S] are wanted, a row a unique id")
        self.rows = {int(unique_id): row for row, unique_id in enumerate(ids)}
        if len(self.rows) < len(ids):
            values, counts = np.unique(ids, return_counts=True)
            raise InputError(f"{source}: unique id {values[counts > 1][0]} occurs twice; run the evaluation again")
        self.start_logits, self.end_logits = start_logits, end_logits

    def __getitem__(self, unique_id: int) -> tuple[np.ndarray, np.ndarray]:
        row = self.rows[unique_id]
        return self.start_logits[row], self.end_logits[row]

    def __iter__(self) -> Iterator[int]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def gather(cls, logits: LogitsByFeature, source: str = "logits") -> Logits:
        """Read all features of another mapping into two arrays."""
        starts, ends = zip(*logits.values(), strict=True) if logits else ((), ())
        ids = np.fromiter(logits, np.int64, len(logits))
        return cls(ids, np.array(starts, ndmin=2), np.array(ends, ndmin=2), source)

    def save(self, path: Path | str) -> None:
        """Write ``unique_id`` [N], ``start_logits`` and ``end_logits`` [N, S] as a .npz file, atomically."""
        with atomic_path(path) as temporary, open(temporary, "wb") as target:
            np.savez(target, unique_id=np.fromiter(self.rows, np.int64, len(self.rows)),
                     start_logits=self.start_logits, end_logits=self.end_logits)

    @classmethod
    def load(cls, path: Path | str) -> Logits:
        """The inverse of :meth:`save`.

        Raises:
            InputError: no such file, or it does not hold these three arrays.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(arrays["unique_id"], arrays["start_logits"], arrays["end_logits"], str(path))
        except FileNotFoundError:
            raise InputError(f"{path}: no such file") from None
        except InputError:
            raise
        except Exception as error:    # zipfile, zlib and NumPy each have their own for a broken file
            raise InputError(f"{path}: not a file of logits ({error}); write one with --save_logits") from None
