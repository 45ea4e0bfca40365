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
from src.reader.storage import STORAGE_FORMAT, ConvertedFiles, largest_feature_bytes, stored_columns, stored_schema
from utils.util import LOGGER, InputError, usual_mode, write_json

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
    stamps = [conversion.check_inputs() for conversion in conversions]
    manifests = [None if force else conversion.finished(stamp)
                 for conversion, stamp in zip(conversions, stamps, strict=True)]
    todo = []
    for number, (conversion, manifest) in enumerate(zip(conversions, manifests, strict=True)):
        if manifest is None:
            todo.append(number)
        else:
            LOGGER.info("%s: converted already, %d features (--force converts again)", conversion.target,
                        manifest["rows"])
    streams = stream_features([conversions[number] for number in todo], num_workers or os.cpu_count() or 1)
    with contextlib.closing(streams):
        for number in todo:
            manifests[number] = _convert(conversions[number], stamps[number], streams)
    return [manifest for manifest in manifests if manifest is not None]


def convert(conversion: Conversion, num_workers: int | None = None, force: bool = False) -> dict[str, Any]:
    """Convert one split; returns its manifest. As :func:`convert_all`."""
    return convert_all([conversion], num_workers, force)[0]


def _convert(conversion: Conversion, stamps: Mapping[str, Mapping[str, int]],
             streams: Iterator[Iterator[Part | Summary]]) -> dict[str, Any]:
    with temporary_folder(conversion.target) as folder:
        written = ConvertedFiles(folder / conversion.target.name)
        try:
            summary = write_files(written, conversion, next(streams))
            manifest = describe_conversion(conversion, summary, stamps)
            publish(written, ConvertedFiles(conversion.target), manifest)
        except OSError as error:
            raise InputError(f"{conversion.target}: cannot be written ({error.strerror or error}); free some space or "
                             "choose another folder") from None
    conversion.warn_unofficial(summary.digests["examples"])
    counts = manifest["counts"]
    LOGGER.info("%s: %d features of %d questions; skipped questions: %s; windows without the whole answer: %d",
                conversion.target, manifest["rows"], counts["questions"],
                ", ".join(f"{number} ({reason})" for reason, number in counts["skipped"].items()) or "none",
                counts["dropped_windows"])
    return manifest


def describe_conversion(conversion: Conversion, summary: Summary, stamps: Mapping[str, Mapping[str, int]]
                        ) -> dict[str, Any]:
    """The manifest, but for the sizes of the files."""
    inputs = {role: {**stamp, "md5": summary.digests[role]} for role, stamp in stamps.items()}
    bases = [{**base, "concepts": concepts.count, "concepts_sha256": concepts.digest,
              "vectors_md5": inputs[f"{base['name']} vectors"]["md5"]}
             for base, concepts in zip(conversion.knowledge(), summary.concepts, strict=True)]
    tally = summary.tally
    return {"format": STORAGE_FORMAT, "rows": tally.features, "settings": conversion.settings(),
            "vocab_md5": inputs["vocabulary"]["md5"], "knowledge_bases": bases,
            "counts": {"questions": tally.questions, "features": tally.features, "skipped": dict(tally.skipped),
                       "dropped_windows": tally.dropped_windows},
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
def temporary_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside ``target`` that only this process uses; what a killed run left in it is removed."""
    folder = target.parent / f".{target.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"{target}: its folder cannot be written ({error.strerror or error}); fix the permissions "
                         "or choose another folder") from None
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{target}: another process is converting it; wait until it has ended") from None
        try:
            for leftover in folder.iterdir():
                leftover.unlink()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def publish(written: ConvertedFiles, files: ConvertedFiles, manifest: Mapping[str, Any]) -> None:
    """Publish atomically: readers never mistake a mix of old and new files for a complete set.

    The manifest goes first and comes last; MindRecord's index goes before its data is replaced and comes after.
    """
    pairs = [(source, target) for source, target in zip(written.parts(), files.parts(), strict=True)
             if source.exists()]
    sizes = {target.name: source.stat().st_size for source, target in pairs}
    for path in (files.manifest, *reversed(files.parts())):
        path.unlink(missing_ok=True)
    for source, target in pairs:
        os.chmod(source, usual_mode())
        with open(source, "rb") as data:
            os.fsync(data.fileno())
        os.replace(source, target)
    write_json(files.manifest, {**manifest, "files": sizes})
