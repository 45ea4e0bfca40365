# SPDX-License-Identifier: Apache-2.0
"""Turns the inference harness's results into answers and scores."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from src.export.bin_files import BinManifest, ResultFiles, read_manifest
from src.reader.decoding import DecodingOptions, answer_and_score
from src.reader.examples import side_table_path
from src.reader.logits import Logits
from src.reader.storage import check_digest, open_converted
from src.weights.sizes import check_model
from utils.util import InputError, file_digest


def postprocess(mindrecord: Path | str, dataset: str, inputs: Path | str, results: Path | str, output: Path | str,
                save_logits: Path | None = None, model: Path | None = None, **choices: Any) -> dict[str, float]:
    """Decode the results as evaluation decodes its logits, and write the same files.

    Args:
        mindrecord: the converted dev split that the inputs were made of; only its side table is read.
        dataset: squad or record.
        inputs: the folder that preprocess.py wrote.
        results: the folder that the harness wrote, ``<dataset>_batch_1_<i>_0.bin``: float32 [2, 1, S].
        output: folder for predictions.json and the other results.
        save_logits: also write the logits as one .npz file.
        model: the exported network, if the features are to be compared with what it was made for.
        choices: n_best_size and the other options of :class:`src.reader.decoding.DecodingOptions`.

    Returns:
        ``{"exact_match": .., "f1": ..}``.

    Raises:
        InputError: features, inputs and results do not belong together, or a result is missing or truncated.
    """
    converted = open_converted(mindrecord)
    settings = converted["settings"]
    check_model(model, converted)
    check_digest(side_table_path(mindrecord), converted)
    options = DecodingOptions.for_features(settings, **choices)
    manifest = read_manifest(inputs)
    check_origin(manifest, Path(mindrecord), dataset, Path(inputs))
    logits = ResultFiles(results, manifest)
    if save_logits is not None:
        Logits.gather(logits, str(results)).save(save_logits)
    return answer_and_score(mindrecord, logits, output, options)


def check_origin(manifest: BinManifest, mindrecord: Path, dataset: str, inputs: Path) -> None:
    """Refuse inputs of another data set, or of features that were converted again since."""
    if manifest.dataset != dataset:
        raise InputError(f"{inputs}: holds inputs of {manifest.dataset}, not of {dataset}; run preprocess.py for "
                         f"{dataset}, or give another --dataset")
    if manifest.source != file_digest(mindrecord):
        raise InputError(f"{inputs}: was not made of {mindrecord}; run preprocess.py and the inference again")
