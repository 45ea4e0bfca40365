"""Examples to MindRecord: reads a data set with its knowledge and writes its features atomically.

The compact columns and the side files are described in ``src/reader/storage.py``.
"""
from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from src.conversion import Conversion
from src.feature_stream import Part, Summary, stream_features
from src.reader.batching_twomemory import warn_without_overlap
from src.reader.storage import (
    STORAGE_FORMAT,
    ConvertedFiles,
    check_features,
    largest_feature_bytes,
    manifest_digest,
    read_manifest,
    stored_columns,
    stored_schema,
)
from utils.util import LOGGER, InputError, file_digest, usual_mode, write_json

PUBLISHING = "publishing"    # in the temporary folder: from here on files without a manifest are this program's own
BLOCK_BYTES = 1 << 20        # header and smallest page of a MindRecord file: room for millions of features


def convert_all(conversions: Sequence[Conversion], num_workers: int | None = None, force: bool = False
                ) -> list[dict[str, Any]]:
    """Convert several splits, one after the other; those that are done already are left alone.

    Args:
        conversions: what to convert.
        num_workers: processes that build features beside the one that writes; by default one a core. Two is the most
            that are used; 1 builds them in the writing process.
        force: convert again what is done already.

    Returns:
        The manifests.

    Raises:
        InputError: an input is missing or broken, or an output cannot be written; nothing half-written stays.
    """
    for conversion in conversions:
        conversion.check_inputs()
    manifests = [None if force else conversion.finished() for conversion in conversions]
    todo = []
    for conversion, manifest in zip(conversions, manifests, strict=True):
        if manifest is None:
            todo.append(conversion)
        else:
            LOGGER.info("%s: converted already, %d features (--force converts again)", conversion.target,
                        manifest["rows"])
    streams = stream_features(todo, num_workers or os.cpu_count() or 1)
    with contextlib.closing(streams):
        made = iter([_convert(conversion, streams) for conversion in todo])
    return [next(made) if manifest is None else manifest for manifest in manifests]


def convert(conversion: Conversion, num_workers: int | None = None, force: bool = False) -> dict[str, Any]:
    """Convert one split; returns its manifest. As :func:`convert_all`."""
    return convert_all([conversion], num_workers, force)[0]


def bring_up_to_date(conversion: Conversion, manifest: dict[str, Any]) -> dict[str, Any]:
    """Check converted features against the data set and what was retrieved for it, and convert again what is stale.

    Only features at their usual path are converted again; those that the user named are refused. A data set that is
    neither named nor there is not missed: features may travel alone.

    Args:
        conversion: as the features were made.
        manifest: of the features.

    Returns:
        The manifest of the features that are there now.

    Raises:
        InputError: a data set that was named is not there, the features are of another data set or were made from
            another file and have been named, or a file of theirs has changed.
    """
    task, split, target = conversion.task, conversion.split, conversion.target
    made = manifest["settings"]
    if (made["dataset"], made["split"]) != (task.name, split):
        raise InputError(f"{target}: holds {made['dataset']} {made['split']} features, not {task.name} {split}; give "
                         "another file")
    if conversion.json_path != conversion.data.dataset_json(task, split) and not conversion.json_path.exists():
        raise InputError(f"{conversion.json_path}: no such file; give the data set, or leave the flag out")
    stale = conversion.changed_inputs(manifest, [
        role for role, (path, _) in conversion.input_files().items()
        if role.endswith(("examples", "retrieved")) and role in manifest["inputs"] and path.exists()])
    if not stale:
        check_features(target, manifest)
        return manifest
    if target != conversion.data.mindrecord(task, split):
        raise InputError(f"{stale[0]}: {target} was made from another file; give that one, or convert again")
    if [base["name"] for base in manifest["knowledge_bases"]] != [base.name for base in conversion.bases]:
        raise InputError(f"{stale[0]}: {target} was made from another file, with other knowledge bases; run "
                         "data_convert.py again with --kb_config")
    LOGGER.warning("%s: %s was made from another file: converting again", stale[0], target)
    return convert(conversion)


def _convert(conversion: Conversion, streams: Iterator[Iterator[Part | Summary]]) -> dict[str, Any]:
    stamps = conversion.check_inputs()
    with temporary_folder(conversion.target) as (folder, was_publishing):
        written = ConvertedFiles(folder / conversion.target.name)
        try:
            summary = write_files(written, conversion, next(streams))
            if conversion.check_inputs() != stamps:
                raise InputError(f"{conversion.json_path} or another input changed while it was being converted; "
                                 "convert again")
            if not was_publishing:
                set_aside_foreign(ConvertedFiles(conversion.target))
            manifest = publish(written, ConvertedFiles(conversion.target),
                               describe_conversion(conversion, summary, stamps))
        except OSError as error:
            raise InputError(f"{conversion.target}: cannot be written ({error.strerror or error}); free some space or "
                             "choose another folder") from None
    conversion.warn_unofficial(summary.digests["examples"])
    report(conversion, summary)
    return manifest


def report(conversion: Conversion, summary: Summary) -> None:
    """Log what became of the questions, and what did not fit."""
    tally = summary.tally
    LOGGER.info("%s: %d features of %d questions; skipped questions: %s; windows without the whole answer: %d",
                conversion.target, tally.features, tally.questions,
                ", ".join(f"{number} ({reason})" for reason, number in tally.skipped.items()) or "none",
                tally.dropped_windows)
    for base, cut in zip(conversion.bases, summary.cut, strict=True):
        if cut["words"]:
            LOGGER.warning("%s: %d words have more than %d concepts of %s: %d concepts are ignored (--kb_config with a "
                           "greater max_concepts keeps them)", conversion.target, cut["words"], base.max_concepts,
                           base.label, cut["concepts"])
    warn_without_overlap(tally, conversion.windows)


def describe_conversion(conversion: Conversion, summary: Summary, stamps: Mapping[str, Mapping[str, int]]
                        ) -> dict[str, Any]:
    """The manifest, but for sizes and digests of the written files."""
    inputs = {role: {**stamp, "md5": summary.digests[role]} for role, stamp in stamps.items()}
    bases = [{**base, "concepts": concepts.count, "concepts_sha256": concepts.digest,
              "vectors_md5": inputs[f"{base['name']} vectors"]["md5"]}
             for base, concepts in zip(conversion.knowledge(), summary.concepts, strict=True)]
    tally = summary.tally
    return {"format": STORAGE_FORMAT, "rows": tally.features, "settings": conversion.settings(),
            "vocab_md5": inputs["vocabulary"]["md5"], "knowledge_bases": bases,
            "counts": {"questions": tally.questions, "features": tally.features, "skipped": dict(tally.skipped),
                       "dropped_windows": tally.dropped_windows, "questions_without_overlap": tally.without_overlap,
                       "cut_concepts": {base.name: {"words": cut["words"], "concepts": cut["concepts"]}
                                        for base, cut in zip(conversion.bases, summary.cut, strict=True)}},
            "inputs": inputs}


def write_files(written: ConvertedFiles, conversion: Conversion, parts: Iterator[Part | Summary]) -> Summary:
    """Write data, lengths and side table into the temporary folder."""
    names = stored_columns(conversion.bases, conversion.split)
    writer = _open_writer(written.mindrecord, conversion)
    lengths: list[np.ndarray] = []
    summary: Summary | None = None
    with open(written.examples, "w", encoding="utf-8") as table, \
            tqdm(desc=str(conversion.target), unit=" questions", disable=None) as progress:
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

    writer = FileWriter(str(path), 1)
    largest = largest_feature_bytes(conversion.bases, conversion.windows.max_seq_len)
    writer.set_header_size(BLOCK_BYTES)
    writer.set_page_size(max(BLOCK_BYTES, 1 << (largest - 1).bit_length()))     # a page must hold any feature
    writer.add_schema(stored_schema(conversion.bases, conversion.split), "KT-NET features, unpadded")
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
        lock = _lock_folder(folder, target)
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


def _lock_folder(folder: Path, target: Path) -> int:
    """Make a folder if needed and lock it; returns the lock, an open file descriptor.

    A folder that another process has removed meanwhile is not the one at that path any more: then once again.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        lock = -1
        try:
            lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.stat(folder)):
                return lock
        except BlockingIOError:
            os.close(lock)
            raise InputError(f"{target}: another process is converting it; wait until it has ended") from None
        except FileNotFoundError:
            pass
        if lock >= 0:
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
    for source, _ in pairs:
        os.chmod(source, usual_mode())
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
