# SPDX-License-Identifier: Apache-2.0
"""The files of one converted split: written aside, published atomically, never over files from elsewhere.

The compact columns and the side files are described in ``src/reader/storage.py``.
"""
from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from src.conversion import Conversion
from src.feature_stream import Part, Summary
from src.reader.storage import (
    ConvertedFiles,
    largest_feature_bytes,
    manifest_digest,
    read_manifest,
    stored_columns,
    stored_schema,
)
from utils.progress import Progress
from utils.util import LOGGER, InputError, file_digest, lock_folder, mode_for, write_json

PUBLISHING = "publishing"    # in the temporary folder: from here on files without a manifest are this program's own
BLOCK_BYTES = 1 << 20        # header and smallest page of a MindRecord file: room for millions of features


def write_files(written: ConvertedFiles, conversion: Conversion, parts: Iterator[Part | Summary]) -> Summary:
    """Write data, lengths and side table into the temporary folder."""
    names = stored_columns(conversion.bases, conversion.split)
    writer = _open_writer(written.mindrecord, conversion)
    lengths: list[np.ndarray] = []
    summary: Summary | None = None
    with open(written.examples, "w", encoding="utf-8") as table, \
            Progress(f"converting {conversion.target}", None, "questions") as progress:
        for part in parts:
            if isinstance(part, Summary):
                summary = part
                break
            rows = part.features.rows(names)
            if rows:
                _call_writer(partial(writer.write_raw_data, rows), conversion.target)
                lengths.append(part.features.lengths(conversion.split))
            table.writelines(part.lines)
            progress.update(part.questions)
    assert summary is not None
    if not summary.tally.features:
        raise InputError(f"{conversion.json_path}: none of its {summary.tally.questions} questions gives a feature; "
                         "is this the right file?")
    _call_writer(writer.commit, conversion.target)
    np.save(written.lengths, np.concatenate(lengths))
    if conversion.split == "train":
        written.examples.unlink()
    return summary


def _open_writer(path: Path, conversion: Conversion) -> Any:
    from mindspore.mindrecord import FileWriter  # 1.2 seconds and 0.4 GB: not before it is needed
    from mindspore.mindrecord.common.exceptions import MindRecordException

    longest = conversion.windows.max_seq_len
    largest = largest_feature_bytes(conversion.bases, longest)
    try:
        writer = FileWriter(str(path), 1)
        writer.set_header_size(BLOCK_BYTES)
        writer.set_page_size(max(BLOCK_BYTES, 1 << (largest - 1).bit_length()))     # a page must hold any feature
        writer.add_schema(stored_schema(conversion.bases, conversion.split), "KT-NET features, unpadded")
    except (MindRecordException, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{conversion.target}: MindRecord takes no file of this name with features of {longest} word "
                         f"pieces ({reason}); give another name or a smaller --max_seq_len") from None
    return writer


def _call_writer(call: Callable[[], Any], target: Path) -> None:
    try:
        call()
    except RuntimeError as error:      # MindRecord's own errors, a full disk among them
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{target}: MindRecord could not write it ({reason}); is the disk full?") from None


@contextlib.contextmanager
def temporary_folder(target: Path) -> Iterator[tuple[Path, bool]]:
    """An empty folder beside ``target`` that only this process uses.

    What a killed run left in it is removed.

    Yields:
        The folder, and whether the killed run was about to publish: files without a manifest are ours then.
    """
    folder = target.parent / f".{target.name}.part"
    try:
        lock = lock_folder(folder, f"{target}: another process is converting it; wait until it has ended")
    except OSError as error:
        raise InputError(f"{target}: its folder cannot be written ({error.strerror or error}); fix the permissions "
                         "or choose another folder") from None
    try:
        was_publishing = (folder / PUBLISHING).exists()
        for leftover in folder.iterdir():
            if leftover.name != PUBLISHING:
                leftover.unlink()
        yield folder, was_publishing
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        if not (folder / PUBLISHING).exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def set_aside_foreign(files: ConvertedFiles) -> None:
    """Move a MindRecord file that this program has not written, with its index, into a folder of its own beside it.

    MindRecord wants the pair under the names that it was written with, so the folder has the number.
    """
    if not files.mindrecord.exists():
        return
    try:
        sizes = read_manifest(files)["files"]
        if sizes[files.mindrecord.name] == files.mindrecord.stat().st_size:
            return
    except InputError:
        pass
    number = 1
    while (folder := files.mindrecord.with_name(f"{files.mindrecord.stem}-kept-{number}")).exists():
        number += 1
    folder.mkdir()
    for path in (files.mindrecord, files.index):
        if path.exists():
            os.replace(path, folder / path.name)
    LOGGER.warning("%s: was not written by this program; moved to %s", files.mindrecord, folder)


def publish(written: ConvertedFiles, files: ConvertedFiles, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Publish atomically: readers never mistake a mix of old and new files for a complete set.

    The manifest goes first and comes last; MindRecord's index goes before its data is replaced and comes after.

    Returns:
        The manifest, with sizes and digests of the files.
    """
    pairs = [(source, target) for source, target in zip(written.parts(), files.parts(), strict=True)
             if source.exists()]
    whole = {**manifest, "files": {target.name: source.stat().st_size for source, target in pairs},
             "md5": {target.name: file_digest(source) for source, target in pairs}}
    whole["manifest_sha256"] = manifest_digest(whole)
    for source, target in pairs:
        os.chmod(source, mode_for(target))
        with open(source, "rb") as data:
            os.fsync(data.fileno())
    marker = written.mindrecord.with_name(PUBLISHING)
    marker.touch()
    for path in (files.manifest, *reversed(files.parts())):
        path.unlink(missing_ok=True)
    for source, target in pairs:
        os.replace(source, target)
    write_json(files.manifest, whole)
    marker.unlink()
    return whole
