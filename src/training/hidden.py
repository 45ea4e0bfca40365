# SPDX-License-Identifier: Apache-2.0
"""The output of a frozen encoder for every feature, computed once and kept for all epochs.

The first stage trains nothing below the memories, so without dropout the encoder's output for a feature never changes,
and an epoch costs no more than the new layers.
"""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import Tensor

from src.batch_plan import bucket_of
from src.config import MemoryConfig
from src.dataset import create_train_dataset, feature_lengths, plan_device_rows
from src.KTNET import KTNET
from utils.device import CompiledLengths
from utils.progress import Progress

FLOAT = 4                    # bytes
LARGEST_SHARE = 0.5          # of the available memory that may be filled


def encoded_bytes(lengths: np.ndarray, buckets: Sequence[int], width: int) -> int:
    """Bytes that the output for all features takes: [bucket, H] float32 each."""
    return int(np.asarray(buckets)[bucket_of(lengths, buckets)].sum()) * width * FLOAT


class EncodedFeatures:
    """The encoder's output for every feature of a training file.

    Args:
        network: whose encoder is frozen and has no dropout.
        data_file: MindRecord file.
        memories: knowledge bases of the features.
        batch_size: features that are encoded at a time.
        buckets: lengths that batches are padded to.
    """

    def __init__(self, network: KTNET, data_file: Path | str, memories: Sequence[MemoryConfig], batch_size: int,
                 buckets: Sequence[int]) -> None:
        self.width = network.bert.bert_embedding_lookup.embedding_table.shape[1]
        self.outputs: list[np.ndarray | None] = [None] * len(feature_lengths(data_file))
        plan: dict[str, Any] = {"batch_size": batch_size, "buckets": buckets, "do_shuffle": False}
        dataset = create_train_dataset(data_file, knowledge_bases=memories, **plan)
        compiled = CompiledLengths(network.bert)
        names = ("input_mask", "src_ids", "pos_ids", "sent_ids")
        rows = plan_device_rows(data_file, **plan)
        with Progress("encoding", len(rows), "batches") as progress:
            for batch_rows, batch in zip(rows, dataset.create_dict_iterator(num_epochs=1), strict=True):
                arguments = [*(batch[name] for name in names), network.first_step]
                length = batch["input_mask"].shape[1]
                compiled.prepare(length, *arguments)
                hidden = network.bert(*arguments).asnumpy().reshape(batch_size, length, self.width)
                for row, output in zip(batch_rows, hidden, strict=True):
                    if self.outputs[row] is None:                # the last batch repeats some to be full
                        self.outputs[row] = output.copy()
                progress.update()

    @property
    def bytes(self) -> int:
        """Bytes that the outputs take."""
        return sum(output.nbytes for output in self.outputs if output is not None)

    def batch(self, rows: np.ndarray, length: int) -> Tensor:
        """The output for some features, float32 [B*S, H]; zero beyond the length that a feature was padded to here.

        A feature may have been padded to more here than in this batch: the last features of a bucket join a longer one.
        """
        hidden = np.zeros((len(rows), length, self.width), np.float32)
        for place, row in zip(hidden, rows, strict=True):
            output = self.outputs[row]
            place[:len(output)] = output[:length]
        return Tensor(hidden.reshape(-1, self.width))
