# SPDX-License-Identifier: Apache-2.0
"""Evaluation: features to logits, logits to answers, answers to exact match and F1.

Reads the MindRecord file and the side table beside it; never the data set's JSON.
"""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import Tensor, nn

from src.batch_plan import choose_buckets
from src.config import MemoryConfig
from src.dataset import create_dev_dataset, feature_lengths
from src.reader.decoding import DecodingOptions, answer_and_score
from src.reader.logits import Logits
from src.settings import DecodingSettings, EvaluationSettings
from utils.device import CompiledLengths
from utils.progress import Progress
from utils.util import LOGGER

UNCOMPUTED_LOGIT = -10000.0     # of positions beyond the length that a batch was padded to


def compute_logits(network: nn.Cell, data_file: Path | str, memories: Sequence[MemoryConfig], batch_size: int,
                   buckets: Sequence[int]) -> Logits:
    """Run the network over every feature of a dev file.

    Args:
        network: :class:`src.KTNET.KTNET` for inference.
        data_file: MindRecord file.
        memories: whose concepts the network takes.
        batch_size: features of a batch; a partial batch is filled, so that each bucket is compiled once.
        buckets: lengths that batches are padded to; the last one is the width of the result.

    Returns:
        float32 start and end logits [N, S] by unique id; UNCOMPUTED_LOGIT beyond a batch's bucket.
    """
    lengths = feature_lengths(data_file)
    batch_size = min(batch_size, len(lengths))
    dataset = create_dev_dataset(data_file, batch_size=batch_size, knowledge_bases=memories, buckets=buckets)
    unique_ids = np.empty(len(lengths), np.int64)
    logits = np.full((2, len(lengths), buckets[-1]), UNCOMPUTED_LOGIT, np.float32)
    done = 0
    compiled = CompiledLengths(network)
    with Progress("evaluation", len(lengths), "features") as progress:
        for batch in dataset.create_dict_iterator(num_epochs=1, output_numpy=True):
            ids = batch.pop("unique_id").reshape(-1)
            filled = [np.resize(column, (batch_size, *column.shape[1:])) if len(ids) < batch_size else column
                      for column in batch.values()]
            inputs = [Tensor(column) for column in filled]
            compiled.prepare(inputs[0].shape[1], *inputs)
            scores = network(*inputs).asnumpy()
            rows = slice(done, done + len(ids))
            unique_ids[rows] = ids
            logits[:, rows, :scores.shape[2]] = scores[:, :len(ids)]
            done += len(ids)
            progress.update(len(ids))
    return Logits(unique_ids, logits[0], logits[1])


def decoding_options(decoding: DecodingSettings, converted: Mapping[str, Any]) -> DecodingOptions:
    """Decoding options from the flags and the settings ``converted`` of the features.

    Padding is ignored: answers must not depend on the length that a batch was padded to.
    """
    return DecodingOptions.for_features(converted, ignore_padding=True, **decoding.choices())


def evaluate(network: nn.Cell, memories: Sequence[MemoryConfig], settings: EvaluationSettings,
             manifest: Mapping[str, Any], output: Path) -> dict[str, float]:
    """Evaluate a network on the dev split; prints the scores as one JSON line.

    Args:
        network: :class:`src.KTNET.KTNET` for inference.
        memories: whose concepts the network takes.
        settings: of the evaluation, with its features' own sizes.
        manifest: of the converted split.
        output: folder for predictions.json, nbest_predictions.json and eval_result.json.

    Returns:
        exact_match and f1, in percent.
    """
    run, save_logits, max_seq_len = settings.run, settings.decoding.save_logits, settings.features.max_seq_len
    data_file = run.predict_mindrecord_file
    # A file of logits has a logit for every position, so there is only the full length then.
    buckets = (max_seq_len,) if save_logits else choose_buckets(feature_lengths(data_file), max_seq_len, run.buckets)
    LOGGER.info("evaluating %s on %s, padded to %s word pieces", settings.checkpoint.load_checkpoint_path, data_file,
                ", ".join(map(str, buckets)))
    logits = compute_logits(network, data_file, memories, run.batch_size, buckets)
    if save_logits:
        logits.save(save_logits)
    result = answer_and_score(data_file, logits, output, decoding_options(settings.decoding, manifest["settings"]))
    print(json.dumps(result), flush=True)
    return result
