# SPDX-License-Identifier: Apache-2.0
"""KT-NET's own layers as they are computed on CPU: the same parameters and the same mathematics as in
:mod:`src.layers`, with one kernel for what lies between two matrix products. The kernels compute in float32.
"""
from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, ops

from src.cpu.ops import MatchFactors, MatchSoftmax, ReadMemory, SpanScores
from src.layers import PADDING_SCORE, MemoryLayer, SpanOutput, TriLinearTwoTimeSelfAttentionLayer


class FusedMemoryLayer(MemoryLayer):
    """Attention of every word piece over its own concepts and a sentinel."""

    def __init__(self, hidden_size: int, width: int, std: float, compute_type: ms.Type = ms.float32) -> None:
        super().__init__(hidden_size, width, std, compute_type)
        self.read = ReadMemory()

    def construct(self, hidden: Tensor, concept_ids: Tensor, table: Tensor) -> Tensor:
        """As :class:`src.layers.MemoryLayer`."""
        return self.read(self.dense_1.product(hidden), self.sentinel, concept_ids, table)


class FusedSelfMatching(TriLinearTwoTimeSelfAttentionLayer):
    """Self-matching weights."""

    def __init__(self, width: int, compute_type: ms.Type = ms.float32) -> None:
        super().__init__(width, compute_type)
        self.factors, self.softmax = MatchFactors(), MatchSoftmax()

    def construct(self, fused: Tensor, input_mask: Tensor) -> Tensor:
        """As :class:`src.layers.TriLinearTwoTimeSelfAttentionLayer`."""
        rows = fused.reshape((-1, fused.shape[2]))                                         # [B*S, U]
        scaled, columns = self.factors(rows, self.weight_mul, self.weight_2)               # [B*S, U], [B*S]
        scores = self.product_transposed(scaled.reshape(fused.shape), fused)               # [B, S, S]
        return self.softmax(scores, columns.reshape(input_mask.shape) + (1.0 - input_mask) * PADDING_SCORE)


class FusedSpanOutput(SpanOutput):
    """Start and end logits."""

    def __init__(self, width: int, std: float, compute_type: ms.Type = ms.float32) -> None:
        super().__init__(width, std, compute_type)
        self.scores = SpanScores()

    def construct(self, fused: Tensor, attention: Tensor) -> Tensor:
        """As :class:`src.layers.SpanOutput`."""
        matched = self.product(attention, fused)                                           # v [B, S, U]
        rows, matched_rows = fused.reshape((-1, self.width)), matched.reshape((-1, self.width))
        scores, reads = self.scores(rows, matched_rows, self.weight)                       # [B*S, 2] both
        shape = (fused.shape[0], fused.shape[1], 2)
        logits = scores.reshape(shape) + self.product(attention, reads.reshape(shape))     # [B, S, 2]
        return ops.transpose(logits + self.bias, (2, 0, 1))                                # [2, B, S]
