# SPDX-License-Identifier: Apache-2.0
"""KT-NET's own layers: memory over a knowledge base, self-matching, answer span (Yang et al., ACL 2019, section 2).

Shapes: B batch, S sequence, T = B * S word pieces of the batch, H encoder width, D concept width, K concepts of a word
piece, U fused width.
"""
from __future__ import annotations

import math

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Uniform, initializer

from src.bert import Linear, normal

NO_CONCEPT_SCORE = -1e6      # added to the scores of rows that hold no concept
PADDING_SCORE = -1e6         # added to the scores of padding in self-matching


class MemoryLayer(nn.Cell):
    """Attention of every word piece over its own concepts and a sentinel (paper, section 2.2.2, equations 1 to 3).

    With p = h W, memory rows m_0 = sentinel and m_1 .. m_K = concept vectors: output = sum_k softmax_k(p . m_k) m_k.
    A word piece without concepts outputs 0. The sentinel is never concatenated to the vectors, only its score to
    theirs, which saves a copy of [T, K, D].
    """

    def __init__(self, hidden_size: int, width: int, std: float, compute_type: ms.Type = ms.float32) -> None:
        super().__init__()
        self.dense_1 = Linear(hidden_size, width, std, has_bias=False, compute_type=compute_type)
        self.sentinel = Parameter(initializer("zeros", [width], ms.float32))
        self.product = ops.BatchMatMul()
        self.product_transposed = ops.BatchMatMul(transpose_b=True)

    def attend(self, hidden: Tensor, concept_ids: Tensor, concepts: Tensor) -> Tensor:
        """Attention weights: float32 [T, 1, 1 + K], the sentinel's first.

        Args:
            hidden: float32 [T, H], the encoder's output.
            concept_ids: int32 [T, K].
            concepts: float32 [T, K, D], the concepts' vectors.
        """
        query = ops.expand_dims(self.dense_1(hidden), 1)                                   # [T, 1, D]
        empty = ops.expand_dims(ops.equal(concept_ids, 0).astype(ms.float32), 1)           # [T, 1, K]
        scores = self.product_transposed(query, concepts) + empty * NO_CONCEPT_SCORE       # [T, 1, K]
        sentinel_score = ops.reduce_sum(query * self.sentinel, 2).reshape((-1, 1, 1))      # [T, 1, 1]
        return ops.softmax(ops.concat((sentinel_score, scores), 2), -1)                    # [T, 1, 1 + K]

    def construct(self, hidden: Tensor, concept_ids: Tensor, table: Tensor) -> Tensor:
        """Read the memory.

        Args:
            hidden: float32 [T, H], the encoder's output.
            concept_ids: int32 [T, K]; 0 is no concept, and concepts come first.
            table: float32 [R, D], the vectors of all concepts.

        Returns:
            float32 [T, D].
        """
        concepts = ops.gather(table, concept_ids, 0)                                       # [T, K, D]
        attention = self.attend(hidden, concept_ids, concepts)                             # [T, 1, 1 + K]
        read = self.product(attention[:, :, 1:], concepts)                                 # [T, 1, D]
        read = read + attention[:, :, :1] * self.sentinel                                  # [T, 1, D]
        has_concepts = ops.greater(concept_ids[:, :1], 0).astype(ms.float32)               # [T, 1]
        return read.reshape((-1, read.shape[2])) * has_concepts                            # [T, D]


class TriLinearTwoTimeSelfAttentionLayer(nn.Cell):
    """Self-matching weights (paper, section 2.2.3).

    r_ij = w_1 . u_i + w_2 . u_j + (w_mul * u_i) . u_j + b, A = softmax_j r over the word pieces that are not padding.
    w_1 . u_i and b are the same for every j and cancel in the softmax. They are parameters, because the model and its
    checkpoints have them, but they are never computed and their gradient is exactly 0.

    As in the authors' code the weights are initialised as Xavier uniform: w_1, w_2 as a matrix [U, 1], w_mul as [U, U].
    """

    def __init__(self, width: int, compute_type: ms.Type = ms.float32) -> None:
        super().__init__()
        vector, diagonal = Uniform(math.sqrt(6 / (1 + width))), Uniform(math.sqrt(6 / (2 * width)))
        self.weight_1 = Parameter(initializer(vector, [width], ms.float32))
        self.weight_2 = Parameter(initializer(vector, [width], ms.float32))
        self.weight_mul = Parameter(initializer(diagonal, [width], ms.float32))
        self.bias = Parameter(initializer("zeros", [1], ms.float32))
        self.compute_type = compute_type
        self.product_transposed = ops.BatchMatMul(transpose_b=True)
        self.matmul = ops.MatMul()

    def construct(self, fused: Tensor, input_mask: Tensor) -> Tensor:
        """Take u float32 [B, S, U] and the mask float32 [B, S]; give A float32 [B, S, S]."""
        rows = fused.reshape((-1, fused.shape[2]))                                                     # [B*S, U]
        column_scores = self.matmul(rows, self.weight_2.reshape((-1, 1))).reshape(input_mask.shape)    # [B, S]
        scaled = (rows * self.weight_mul).reshape(fused.shape).astype(self.compute_type)
        scores = self.product_transposed(scaled, fused.astype(self.compute_type)).astype(ms.float32)   # [B, S, S]
        column_scores = column_scores + (1.0 - input_mask) * PADDING_SCORE                             # [B, S]
        return ops.softmax(scores + ops.expand_dims(column_scores, 1), -1)                             # [B, S, S]


class SpanOutput(nn.Cell):
    """Start and end logits o W_o + b_o with o = [u, v, u*v, u-v, v', u-v'], v = A u, v' = A A u (section 2.2.4).

    o is six times as wide as u, and A A costs S^3: with W_o cut into six blocks W1 .. W6 the same logits are
    u (W1 + W4 + W6) + v (W2 - W4) + (u*v) W3 + A (v (W5 - W6)) + b_o, which needs neither.
    """

    def __init__(self, width: int, std: float, compute_type: ms.Type = ms.float32) -> None:
        super().__init__()
        self.weight = Parameter(initializer(normal(std), [2, 6 * width], ms.float32))
        self.bias = Parameter(initializer("zeros", [2], ms.float32))
        self.width = width
        self.compute_type = compute_type
        self.product = ops.BatchMatMul()
        self.matmul = ops.MatMul(transpose_b=True)

    def project(self, rows: Tensor, weight: Tensor) -> Tensor:
        """[B, S, U] times [2, U] transposed -> [B, S, 2]."""
        return self.matmul(rows.reshape((-1, self.width)), weight).reshape((-1, rows.shape[1], 2))

    def construct(self, fused: Tensor, attention: Tensor) -> Tensor:
        """Take u float32 [B, S, U] and A float32 [B, S, S]; give float32 [2, B, S]."""
        block = self.weight.reshape((2, 6, self.width))                                    # [2, 6, U]
        matched = self.product(attention.astype(self.compute_type), fused.astype(self.compute_type))
        matched = matched.astype(ms.float32)                                               # v [B, S, U]
        logits = self.project(fused, block[:, 0] + block[:, 3] + block[:, 5])              # [B, S, 2]
        logits = logits + self.project(matched, block[:, 1] - block[:, 3])
        logits = logits + self.project(fused * matched, block[:, 2])
        logits = logits + self.product(attention, self.project(matched, block[:, 4] - block[:, 5]))
        return ops.transpose(logits + self.bias, (2, 0, 1))                                # [2, B, S]
