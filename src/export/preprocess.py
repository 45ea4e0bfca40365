# SPDX-License-Identifier: Apache-2.0
"""MindRecord to raw files for the inference harness; an interrupted run resumes where it stopped."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from src.config import DEV_LABELS, FeatureColumn, MemoryConfig, feature_columns
from src.dataset import create_dev_dataset
from src.export.bin_files import (
    MANIFEST,
    UNFINISHED,
    BinManifest,
    file_size,
    file_sizes,
    little_endian,
    read_manifest,
    write_manifest,
)
from src.reader.examples import read_side_table
from src.reader.storage import check_features, open_converted
from src.weights.sizes import check_model
from utils.progress import follow
from utils.util import LOGGER, InputError, file_digest, lock_folder

UNIQUE_ID = DEV_LABELS[0].name
ENDINGS = (".bin", ".bin.part")    # complete, and being written


def preprocess(mindrecord: Path | str, dataset: str, folder: Path | str, unused: Iterable[str] = (),
               model: Path | None = None) -> BinManifest:
    """Write every dev feature as raw files, unless they are there already.

    Args:
        mindrecord: the converted dev split.
        dataset: squad or record; must be what the split was converted from.
        folder: where the inputs' folders are made.
        unused: names of knowledge bases that the exported network does not read.
        model: the exported network, if the features are to be compared with what it was made for.

    Returns:
        The manifest, as written to ``folder``.

    Raises:
        InputError: the features are incomplete, of another data set or not for this network, or ``folder`` holds
            other files.
    """
    folder = Path(folder)
    converted = open_converted(mindrecord)
    settings = converted["settings"]
    if (settings["dataset"], settings["split"]) != (dataset, "dev"):
        raise InputError(f"{mindrecord}: holds {settings['dataset']} {settings['split']} features, not {dataset} dev; "
                         "give another file or --dataset")
    check_model(model, converted)
    bases = [MemoryConfig(name=base["name"], rows=base["concepts"] + 1, width=0, max_concepts=base["max_concepts"])
             for base in converted["knowledge_bases"] if base["name"] not in set(unused)]
    check_features(mindrecord, converted)
    unique_ids = tuple(window.unique_id for example in read_side_table(mindrecord) for window in example.windows)
    manifest = BinManifest(dataset, file_digest(mindrecord), feature_columns(bases, "dev", settings["max_seq_len"]),
                           unique_ids)
    lock = lock_folder(folder, f"--preprocess_path {folder}: another process is writing there; wait until it has "
                               "ended, or give another folder")
    try:
        if is_finished(folder, manifest):
            LOGGER.info("%s: the %d features are there already", folder, manifest.count)
            return manifest
        clear_folder(folder, manifest)
        rows = create_dev_dataset(mindrecord, do_shuffle=False, batch_size=1, max_seq_len=manifest.max_seq_len,
                                  knowledge_bases=bases)
        write_inputs(folder, manifest, rows.create_dict_iterator(num_epochs=1, output_numpy=True))
    finally:
        os.close(lock)
    LOGGER.info("%s: %d features, %d inputs each", folder, manifest.count, len(manifest.columns))
    return manifest


def is_finished(folder: Path, manifest: BinManifest) -> bool:
    """Whether ``folder`` holds exactly these inputs, each file complete."""
    if not (folder / MANIFEST).is_file() or read_manifest(folder) != manifest:
        return False
    for name, column in zip(manifest.folders, manifest.columns, strict=True):
        if file_sizes(folder / name) != {f"{manifest.stem(number)}.bin": file_size(column)
                                         for number in range(manifest.count)}:
            return False
    return True


def clear_folder(folder: Path, manifest: BinManifest) -> None:
    """Remove the files of an earlier run with other inputs, which its manifest lists, and nothing else.

    Raises:
        InputError: there are other files where the inputs go.
    """
    for name in (MANIFEST, UNFINISHED):
        if (folder / name).is_file():
            earlier = read_manifest(folder, name)
            if earlier != manifest:
                remove_inputs(folder, earlier)
            if earlier != manifest or name == MANIFEST:
                (folder / name).unlink()
    ours = {manifest.stem(number) + ending for number in range(manifest.count) for ending in ENDINGS}
    for place in sorted(folder.glob("[0-9][0-9]_data")):
        strangers = sorted(file_sizes(place).keys() - (ours if place.name in manifest.folders else set()))
        if strangers:
            raise InputError(f"{place / strangers[0]}: was not written by this program; remove it or give another "
                             "--preprocess_path")


def remove_inputs(folder: Path, manifest: BinManifest) -> None:
    """Remove the files that a manifest lists, and folders that become empty."""
    for place in manifest.folders:
        for number in range(manifest.count):
            for ending in ENDINGS:
                (folder / place / f"{manifest.stem(number)}{ending}").unlink(missing_ok=True)
        with contextlib.suppress(OSError):    # absent, or not empty
            (folder / place).rmdir()


def write_inputs(folder: Path, manifest: BinManifest, rows: Iterable[Mapping[str, np.ndarray]]) -> None:
    """Write one file per feature and input; the manifest is written last.

    Args:
        folder: where the inputs' folders are made.
        manifest: what is to be written.
        rows: one feature each, in any order; the manifest's columns with a leading batch axis of 1.

    Raises:
        InputError: the rows are not the features that the manifest lists.
    """
    write_manifest(folder, manifest, UNFINISHED)
    for place in manifest.folders:
        (folder / place).mkdir(exist_ok=True)
    waiting = {unique_id: number for number, unique_id in enumerate(manifest.unique_ids)}
    for row in follow(rows, folder.name, manifest.count, "features"):
        unique_id = int(row[UNIQUE_ID].item())
        number = waiting.pop(unique_id, None)
        if number is None:
            raise InputError(f"side table: unique id {unique_id} of the MindRecord file is not in it; "
                             "run data_convert.py again")
        for place, column in zip(manifest.folders, manifest.columns, strict=True):
            write_input(folder / place / f"{manifest.stem(number)}.bin", column, row[column.name])
    if waiting:
        raise InputError(f"side table: unique id {next(iter(waiting))} is not in the MindRecord file; "
                         "run data_convert.py again")
    os.replace(folder / UNFINISHED, folder / MANIFEST)


def write_input(path: Path, column: FeatureColumn, value: np.ndarray) -> None:
    """Write one input of one feature, unless an earlier run did.

    Files are renamed but not flushed to the disk one by one, which would take minutes: readers check their sizes.
    """
    if value.shape != (1, *column.shape) or value.dtype != np.dtype(column.dtype):
        raise InputError(f"{column.name}: the data set yields {value.dtype} {list(value.shape)}, not {column.dtype} "
                         f"{[1, *column.shape]}; run data_convert.py again")
    if path.is_file() and path.stat().st_size == file_size(column):
        return
    temporary = path.with_name(path.name + ".part")
    value.astype(little_endian(column), copy=False).tofile(temporary)
    os.replace(temporary, path)
