# SPDX-License-Identifier: Apache-2.0
"""The network that also returns the attention of its memories, for the viewer."""
from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.config import MemoryConfig
from src.dataset import create_dev_dataset
from src.KTNET import KTNET

MEASURED_FEATURES = 128      # of a dev set: enough for a mean


class KTNETAttention(KTNET):
    """KT-NET that also returns the attention of every memory; a separate class, so that the others stay as fast."""

    def construct(self, input_mask: Tensor, src_ids: Tensor, pos_ids: Tensor, sent_ids: Tensor,
                  *concept_ids: Tensor) -> tuple[Tensor, ...]:
        """Score every position, and return what every word piece read from the knowledge bases.

        Args:
            input_mask: as for :class:`src.KTNET.KTNET`, like the others.
            src_ids: int32 [B, S].
            pos_ids: int32 [B, S].
            sent_ids: int32 [B, S].
            concept_ids: int32 [B, S, K, 1] for each knowledge base.

        Returns:
            The logits float32 [2, B, S], then for each knowledge base the attention float32 [B, S, 1 + K]: the
            sentinel's weight, then those of the concepts. The row of a word piece without concepts is meaningless.
        """
        hidden = self.bert(input_mask, src_ids, pos_ids, sent_ids, self.first_step)        # [B*S, H]
        results = (self.score_hidden(hidden, input_mask, *concept_ids),)                   # [2, B, S]
        for number, ids in enumerate(concept_ids):
            flat = ids.reshape((-1, ids.shape[2]))                                         # [B*S, K]
            weights = self.memories[number].attend(hidden, flat, self.embeddings[number](flat))
            results = results + (weights.reshape((-1, ids.shape[1], weights.shape[2])),)   # [B, S, 1 + K]
        return results


class MemoryWeights(nn.Cell):
    """How much weight each memory of a network puts on concepts instead of on its sentinel.

    Args:
        network: for inference.
    """

    def __init__(self, network: KTNET) -> None:
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, input_mask: Tensor, src_ids: Tensor, pos_ids: Tensor, sent_ids: Tensor,
                  *concept_ids: Tensor) -> tuple[Tensor, ...]:
        """Take the network's arguments.

        Returns:
            For each knowledge base two float32 scalars: the weight on concepts, summed over the word pieces that have
            some, and the number of these word pieces.
        """
        network = self.network
        hidden = network.bert(input_mask, src_ids, pos_ids, sent_ids, network.first_step)  # [B*S, H]
        results = ()
        for number, ids in enumerate(concept_ids):
            flat = ids.reshape((-1, ids.shape[2]))                                         # [B*S, K]
            weights = network.memories[number].attend(hidden, flat, network.embeddings[number](flat))
            has_concepts = ops.greater(flat[:, 0], 0).astype(ms.float32)                   # [B*S]
            on_concepts = (1.0 - weights[:, 0, 0]) * has_concepts
            results = results + (on_concepts.sum(), has_concepts.sum())
        return results


def measure_memory_weights(network: KTNET, data_file: Path | str, memories: Sequence[MemoryConfig], batch_size: int,
                           length: int) -> dict[str, float]:
    """The mean weight on concepts over word pieces that have some, for the first features of a dev file.

    Args:
        network: for inference.
        data_file: MindRecord file.
        memories: whose concepts the network takes.
        batch_size: features of a batch.
        length: that batches are padded to.

    Returns:
        Name of the memory -> mean weight; without those for which no word piece has a concept.
    """
    batch_size = min(batch_size, MEASURED_FEATURES)
    dataset = create_dev_dataset(data_file, batch_size=batch_size, knowledge_bases=memories, buckets=(length,))
    weigh = MemoryWeights(network)
    sums = np.zeros((len(memories), 2))
    batches = dataset.create_dict_iterator(num_epochs=1, output_numpy=True)
    for batch in itertools.islice(batches, max(1, MEASURED_FEATURES // batch_size)):
        batch.pop("unique_id")
        # A partial batch is filled up, so that one graph is compiled; features that count twice hardly matter.
        inputs = [Tensor(np.resize(column, (batch_size, *column.shape[1:]))) for column in batch.values()]
        sums += np.array([value.asnumpy() for value in weigh(*inputs)]).reshape(-1, 2)
    return {memory.name: float(weight / pieces)
            for memory, (weight, pieces) in zip(memories, sums, strict=True) if pieces}


def describe_memory_weights(weights: Mapping[str, float], labels: Mapping[str, str]) -> str:
    """The weights in one line.

    >>> describe_memory_weights({"wn": 0.412, "nell": 0.9}, {"wn": "WordNet", "nell": "NELL"})
    'WordNet: 0.41 of the weight on concepts, NELL: 0.90 of the weight on concepts (the rest on the sentinels)'
    """
    if not weights:
        return "no word piece of the first features has a concept"
    parts = [f"{labels.get(name, name)}: {weight:.2f} of the weight on concepts" for name, weight in weights.items()]
    return f"{', '.join(parts)} (the rest on the sentinels)"
