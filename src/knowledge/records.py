# SPDX-License-Identifier: Apache-2.0
"""Records of token and retrieval files, found by question id."""
from __future__ import annotations

import marshal
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.knowledge.formats import read_records
from utils.util import InputError


class RecordFinder:
    """Walks a streamed file beside the data set, whose order it normally has.

    Records that come too early wait, packed; in a file of another order they may all be waiting at some time.
    """

    def __init__(self, path: Path, json_path: Path, fix: str) -> None:
        """Open ``path``, whose records belong to the questions of ``json_path``; ``fix`` is for errors."""
        self._path, self._json_path, self._fix = path, json_path, fix
        self._records = read_records(path)
        self._waiting: dict[str, bytes] = {}

    def find(self, identity: str) -> Mapping[str, Any]:
        """The record of a question.

        Raises:
            InputError: the file has none, or is broken.
        """
        packed = self._waiting.pop(identity, None)
        if packed is not None:
            record: Mapping[str, Any] = marshal.loads(zlib.decompress(packed))
            return record
        for record in self._records:
            if record.get("id") == identity:
                return record
            self._waiting[str(record.get("id"))] = zlib.compress(marshal.dumps(record), 1)
        raise InputError(f"{self._path}: question {identity} of {self._json_path} is not in it: the file was made from "
                         f"another data set{'; ' if self._fix else ''}{self._fix}")
