# SPDX-License-Identifier: Apache-2.0
"""What is up to date: files are compared by content, and only read where size, time or inode differ.

:func:`file_stamp` and :func:`is_unchanged` serve callers that keep their own record (conversion's manifests);
:func:`run_job` also keeps the record, and never overwrites a file that it did not make.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from utils.util import LOGGER, InputError, file_digest, files_of, read_json, write_json

RECORDS = ".retrieve"      # below the data folder: how each file was made


@dataclass(frozen=True)
class Job:
    """One file to make.

    Args:
        output: the file.
        inputs: the files it depends on.
        make: writes the output, atomically.
        settings: what else it depends on, as plain values.
    """

    output: Path
    inputs: Sequence[Path]
    make: Callable[[], Any]
    settings: dict[str, Any] = field(default_factory=dict)


def file_stamp(path: Path | str) -> dict[str, int]:
    """Size, time of change and inode: while they stay the same a file is taken to be the same."""
    stats = [file.stat() for file in files_of(path)]
    return {"bytes": sum(status.st_size for status in stats), "inode": sum(status.st_ino for status in stats),
            "mtime_ns": max((status.st_mtime_ns for status in stats), default=0)}


def is_unchanged(path: Path | str, recorded: Mapping[str, Any]) -> bool:
    """Whether a file is the one whose stamp and MD5 are recorded; it is only read where the stamp differs."""
    stamp = file_stamp(path)
    if stamp["bytes"] != recorded.get("bytes"):
        return False
    return all(recorded.get(key) == value for key, value in stamp.items()) or file_digest(path) == recorded.get("md5")


def file_state(path: Path, known: Any = None) -> dict[str, Any]:
    """Stamp and MD5 of a file, or of a folder's files; the MD5 is taken from ``known`` if that has the same stamp."""
    stamp = file_stamp(path)
    if isinstance(known, dict) and "md5" in known and {key: known.get(key) for key in stamp} == stamp:
        return known
    return {**stamp, "md5": file_digest(path)}


def run_job(job: Job, root: Path, force: bool = False) -> bool:
    """Make a job's output unless it is up to date or was put there by someone else.

    A file counts as up to date when it and its inputs have the content they had when it was made; a file that this
    function has not made (or that was changed since) is kept as it is, unless ``force``.

    Args:
        job: what to make.
        root: the data folder.
        force: make it anyway.

    Returns:
        Whether the output was made.

    Raises:
        InputError: an input is missing or broken.
    """
    record_path = root / RECORDS / (job.output.relative_to(root).as_posix().replace("/", "--") + ".json")
    record = _read_record(record_path)
    for path in job.inputs:
        if not path.exists():
            raise InputError(f"{path}: no such file; it is needed for {job.output}")
    known = record.get("inputs", {})
    inputs = {_name(path, root): file_state(path, known.get(_name(path, root))) for path in job.inputs}
    if job.output.exists() and not force:
        if not record or not is_unchanged(job.output, record["output"]):
            LOGGER.info("%s: not made by retrieve.py, kept as it is (--force makes it again)", job.output)
            return False
        if _contents(inputs) == _contents(known) and record["settings"] == job.settings:
            LOGGER.info("%s: up to date", job.output)
            return False
    job.make()       # until it has ended the record stays: a file that is found after a kill is somebody else's
    write_json(record_path, {"output": file_state(job.output), "inputs": inputs, "settings": job.settings})
    LOGGER.info("%s: made", job.output)
    return True


def _name(path: Path, root: Path) -> str:
    """A path as the record has it: below the data folder by its place there, so that the folder can be moved."""
    return str(path.relative_to(root) if path.is_relative_to(root) else path.resolve())


def _read_record(path: Path) -> dict[str, Any]:
    """The record of an earlier run, or nothing if there is none that can be used."""
    try:
        record = read_json(path)
    except InputError:
        return {}
    if isinstance(record, dict) and all(isinstance(record.get(key), dict) for key in ("output", "inputs", "settings")):
        return record
    return {}


def _contents(states: Mapping[str, Any]) -> dict[str, Any]:
    return {path: state.get("md5") if isinstance(state, dict) else None for path, state in states.items()}
