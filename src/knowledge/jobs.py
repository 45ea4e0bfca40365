"""Rebuild stale outputs; never overwrite files that we did not create."""
from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Sequence

from utils.util import LOGGER, InputError, file_digest, read_json, write_json

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
    inputs = {_name(path, root): _state(path, known.get(_name(path, root))) for path in job.inputs}
    if job.output.exists() and not force:
        made = record.get("output")
        if not record or made and _digest(_state(job.output, made)) != _digest(made):
            LOGGER.info("%s: not made by retrieve.py, kept as it is (--force makes it again)", job.output)
            return False
        if made and _digests(inputs) == _digests(known) and record["settings"] == job.settings:
            LOGGER.info("%s: up to date", job.output)
            return False
    # An output that is found with no state in its record is ours, from a run that was stopped in between.
    write_json(record_path, {"output": {}, "inputs": inputs, "settings": job.settings})
    job.make()
    write_json(record_path, {"output": _state(job.output), "inputs": inputs, "settings": job.settings})
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


def _state(path: Path, known: Any = None) -> dict[str, Any]:
    """Size, time and digest of a file, or of a folder's files; ``known`` saves the digest if the rest is the same."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    stats = [file.stat() for file in files]
    state = {"size": sum(stat.st_size for stat in stats), "time": max((stat.st_mtime_ns for stat in stats), default=0)}
    if isinstance(known, dict) and {key: known.get(key) for key in state} == state:
        return known
    return {**state, "digest": [file_digest(file, "blake2b") for file in files if file.is_file()]}


def _digest(state: Any) -> Any:
    return state.get("digest") if isinstance(state, dict) else None


def _digests(states: dict[str, Any]) -> dict[str, Any]:
    return {path: _digest(state) for path, state in states.items()}
