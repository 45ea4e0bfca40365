# SPDX-License-Identifier: Apache-2.0
"""KT-NET: BERT, one memory per knowledge base, self-matching, answer span (Yang et al., ACL 2019, figure 2)."""
from __future__ import annotations

from collections.abc import Mapping

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.bert import BertModel, EmbeddingLookup
from src.config import KTNetConfig
from src.cpu import kernels as cpu_kernels
from src.cpu.encoder import encoder_classes
from src.cpu.head import FusedMemoryLayer, FusedSelfMatching, FusedSpanOutput
from src.cpu.product import use_tiles
from src.dropout import DropoutFactory
from src.layers import MemoryLayer, SpanOutput, TriLinearTwoTimeSelfAttentionLayer


class KTNET(nn.Cell):
    """From a batch of features to start and end logits.

    1. BERT encodes question and passage:                    h  [B*S, H]
    2. each memory reads its knowledge base:                 u = [h ; memory_1 ; ...]  [B, S, U]
    3. self-matching relates every word piece to all others: A  [B, S, S]
    4. the output layer scores starts and ends:              logits  [2, B, S]

    Args:
        config: all sizes.
        tables: knowledge base name -> concept vectors, float32 [rows, D]; zeros where absent, for a checkpoint to fill.
        is_training: whether dropout is on.
        compute_type: type of the matrix products; float16 on GPU and Ascend.
        seed: seed of the dropout masks.
        use_kernels: whether the kernels of :mod:`src.cpu` compute the layers; None: wherever they can.
    """

    def __init__(self, config: KTNetConfig, tables: Mapping[str, np.ndarray] | None = None, is_training: bool = False,
                 compute_type: ms.Type = ms.float32, seed: int = 0,
                 use_kernels: bool | None = None) -> None:
        super().__init__()
        bert, std, tables = config.bert, config.bert.initializer_range, tables or {}
        dropouts = DropoutFactory(is_training, seed)
        self.first_step = Tensor(0, ms.int32)
        if use_kernels is None:
            use_kernels = compute_type == ms.float32 and cpu_kernels.available()
        memory_layer, self_matching, span_output = (
            (FusedMemoryLayer, FusedSelfMatching, FusedSpanOutput) if use_kernels else
            (MemoryLayer, TriLinearTwoTimeSelfAttentionLayer, SpanOutput))
        self.bert = BertModel(bert, dropouts, compute_type,
                              **(encoder_classes(bert, is_training) if use_kernels else {}))
        self.embeddings, self.memories = [], []
        for memory in config.memories:
            table = Tensor(tables.get(memory.name, np.zeros((memory.rows, memory.width), np.float32)))
            vectors = EmbeddingLookup(table, requires_grad=False)      # concept vectors are frozen, as in the paper
            layer = memory_layer(bert.hidden_size, memory.width, std, compute_type)
            setattr(self, f"embedding_{memory.name}", vectors)
            setattr(self, f"MemoryLayer_{memory.name}", layer)
            self.embeddings.append(vectors)
            self.memories.append(layer)
        self.TriLinearTwoTimeSelfAttentionLayer = self_matching(config.fused_width, compute_type)
        self.dense1 = span_output(config.fused_width, std, compute_type)
        if use_kernels and cpu_kernels.multiply_tiles():
            use_tiles(self)

    def construct(self, input_mask: Tensor, src_ids: Tensor, pos_ids: Tensor, sent_ids: Tensor,
                  *concept_ids: Tensor) -> Tensor:
        """Score every position as start and as end.

        Args:
            input_mask: float32 [B, S], 1 for word pieces and 0 for padding.
            src_ids: int32 [B, S], word pieces.
            pos_ids: int32 [B, S], positions.
            sent_ids: int32 [B, S], segments.
            concept_ids: one int32 [B, S, K, 1] for each knowledge base, 0 where there is no concept.

        Returns:
            float32 [2, B, S]: start logits, end logits.
        """
        return self.score(self.first_step, input_mask, src_ids, pos_ids, sent_ids, *concept_ids)

    def score(self, step: Tensor, input_mask: Tensor, src_ids: Tensor, pos_ids: Tensor, sent_ids: Tensor,
              *concept_ids: Tensor) -> Tensor:
        """As construct; ``step``, an int32 scalar, selects the dropout masks in training."""
        hidden = self.bert(input_mask, src_ids, pos_ids, sent_ids, step)                   # [B*S, H]
        return self.score_hidden(hidden, input_mask, *concept_ids)                         # [2, B, S]

    def score_hidden(self, hidden: Tensor, input_mask: Tensor, *concept_ids: Tensor) -> Tensor:
        """From the encoder's output float32 [B*S, H] to the logits float32 [2, B, S]."""
        parts = (hidden,)
        for number, ids in enumerate(concept_ids):
            ids = ids.reshape((-1, ids.shape[2]))                                          # [B*S, K]
            table = self.embeddings[number].embedding_table                                # [R, D]
            parts = parts + (self.memories[number](hidden, ids, table),)                   # [B*S, D]
        fused = ops.concat(parts, 1) if len(parts) > 1 else hidden                         # [B*S, U]
        fused = fused.reshape((-1, input_mask.shape[1], fused.shape[1]))                   # [B, S, U]
        attention = self.TriLinearTwoTimeSelfAttentionLayer(fused, input_mask)             # [B, S, S]
        return self.dense1(fused, attention)                                               # [2, B, S]


class KTNETWithLoss(nn.Cell):
    """The network for training: the mean of the start and end cross-entropies over positions.

    Args:
        network: the backbone.
        frozen: the encoder is not trained, and its gradient is not computed.
    """

    def __init__(self, network: KTNET, frozen: bool = False) -> None:
        super().__init__(auto_prefix=False)              # parameters keep the backbone's names
        self.network, self.frozen = network, frozen
        self.cross_entropy = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")

    def construct(self, step: Tensor, *columns: Tensor) -> Tensor:
        """Loss of a batch: float32 scalar.

        Args:
            step: int32 scalar, picks the dropout masks.
            columns: the network's inputs, then start_positions and end_positions int32 [B, 1].
        """
        hidden = self.network.bert(columns[0], columns[1], columns[2], columns[3], step)   # [B*S, H]
        if self.frozen:
            hidden = ops.stop_gradient(hidden)
        return self.span_loss(hidden, columns[0], columns[4:-2], columns[-2], columns[-1])

    def span_loss(self, hidden: Tensor, input_mask: Tensor, concept_ids: tuple[Tensor, ...], starts: Tensor,
                  ends: Tensor) -> Tensor:
        """From the encoder's output float32 [B*S, H] to the loss."""
        logits = self.network.score_hidden(hidden, input_mask, *concept_ids)               # [2, B, S]
        start_loss = self.cross_entropy(logits[0], starts.reshape((-1,)))
        end_loss = self.cross_entropy(logits[1], ends.reshape((-1,)))
        return (start_loss + end_loss) / 2


class HeadWithLoss(KTNETWithLoss):
    """The layers after the encoder, for training on precomputed encoder outputs."""

    def construct(self, step: Tensor, *columns: Tensor) -> Tensor:
        """Loss of a batch: float32 scalar.

        Args:
            step: int32 scalar, not used.
            columns: the encoder's output float32 [B*S, H], input_mask, the concept ids and both positions.
        """
        return self.span_loss(columns[0], columns[1], columns[2:-2], columns[-2], columns[-1])
