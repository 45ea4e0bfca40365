# SPDX-License-Identifier: Apache-2.0
"""Cells with gradients of their own, for CPU: attention, embeddings, what lies between the encoder's products, memory,
self-matching and span.

MindSpore's CPU kernels of dense products run at full speed, but what lies between them takes many passes over memory,
some of them on one thread. The cells here take one pass each, forward and back (:mod:`src.cpu.kernels`). They compute
in float32. On GPU and Ascend the framework's own operators are used instead.

Shapes: T = B * S rows, W width, B batch, N heads, S sequence, A head width, D concept width, K concepts of a word
piece, U fused width. Dropout masks are given as a pool float32 [P, W], step and layer, both int32 [1] or scalars, from
which the kernels compute the mask of each row (:func:`src.dropout.pick_masks`).
"""
from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from src.cpu.kernels import kernel


class Lookup(nn.Cell):
    """Rows of a table. MindSpore's own gradient is computed on one thread."""

    def __init__(self) -> None:
        super().__init__()
        self.gradient = kernel("LookupGradient", lambda table, ids, dout: table)

    def construct(self, table: Tensor, ids: Tensor) -> Tensor:
        """Take [R, W] and int32 [T]; give [T, W]."""
        return ops.gather(table, ids, 0)

    def bprop(self, table: Tensor, ids: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient by the table."""
        return self.gradient(table, ids, dout), ops.zeros_like(ids)


class BiasGelu(nn.Cell):
    """GELU of x + b: v * Phi(v), with Phi to 1e-7."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = kernel("BiasGelu", lambda rows, bias: rows)
        self.gradient = kernel("BiasGeluGradient", lambda rows, bias, dout: (rows, bias), outputs=2)

    def construct(self, rows: Tensor, bias: Tensor) -> Tensor:
        """Take [T, W] and [W]; give [T, W]."""
        return self.forward(rows, bias)

    def bprop(self, rows: Tensor, bias: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient by rows and bias."""
        return self.gradient(rows, bias, dout)


class Drop(nn.Cell):
    """x times the dropout masks of its rows."""

    def __init__(self) -> None:
        super().__init__()
        self.multiply = kernel("Drop", lambda rows, *masks: rows)

    def construct(self, rows: Tensor, pool: Tensor, step: Tensor, layer: Tensor) -> Tensor:
        """Take [T, W] and the dropout masks; give [T, W]."""
        return self.multiply(rows, pool, step, layer)

    def bprop(self, rows: Tensor, pool: Tensor, step: Tensor, layer: Tensor, out: Tensor,
              dout: Tensor) -> tuple[Tensor, ...]:
        """The gradient by the rows; masks are constants."""
        return self.multiply(dout, pool, step, layer), ops.zeros_like(pool), ops.zeros_like(step), ops.zeros_like(layer)


class AddNorm(nn.Cell):
    """Layer normalisation of residual + dropout(x + b)."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = Tensor([epsilon], ms.float32)      # added to the variance
        self.forward = kernel("AddNorm", lambda rows, *others: rows)
        self.gradient = kernel("AddNormGradient", lambda rows, bias, *others: (rows, bias, rows, bias, bias), outputs=5)

    def construct(self, rows: Tensor, bias: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor, pool: Tensor,
                  step: Tensor, layer: Tensor) -> Tensor:
        """Take x [T, W], b [W], residual [T, W], gamma [W], beta [W] and the dropout masks; give [T, W]."""
        return self.forward(rows, bias, residual, gamma, beta, pool, step, layer, self.epsilon)

    def bprop(self, rows: Tensor, bias: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor, pool: Tensor,
              step: Tensor, layer: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, ...]:
        """The gradient by all but the dropout masks."""
        gradients = self.gradient(rows, bias, residual, gamma, beta, pool, step, layer, self.epsilon, dout)
        return (*gradients, ops.zeros_like(pool), ops.zeros_like(step), ops.zeros_like(layer))


class FusedAttention(nn.Cell):
    """Scaled dot-product attention, from the products q, k, v without their biases to the context.

    D = P * dropout mask, P = softmax(scale * q k^T + mask), context = D v, one head of one sample at a time: no
    [B, N, S, S] is kept in memory, and P is computed a second time for the gradient.
    """

    def __init__(self, heads: int, scale: float) -> None:
        super().__init__()
        self.scale = Tensor([scale] * heads, ms.float32)      # its length says how many heads there are
        self.forward = kernel("Attention", lambda products, bias, *others: (products[0], bias[0]))
        self.gradient = kernel("AttentionGradient", lambda products, bias, *others: (products, bias, bias, bias),
                               outputs=4)

    def construct(self, products: Tensor, query_bias: Tensor, key_bias: Tensor, value_bias: Tensor, mask: Tensor,
                  pool: Tensor, step: Tensor, layer: Tensor) -> Tensor:
        """Take q, k, v side by side [T, 3 * N * A], their biases [N * A], the keys' mask [B, S] and the dropout masks
        of [B * N * S, S]; give [T, N * A].
        """
        return self.forward(products, query_bias, key_bias, value_bias, mask, self.scale, pool, step, layer)

    def bprop(self, products: Tensor, query_bias: Tensor, key_bias: Tensor, value_bias: Tensor, mask: Tensor,
              pool: Tensor, step: Tensor, layer: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, ...]:
        """The gradient by q, k, v and their biases; masks are constants."""
        gradients = self.gradient(products, query_bias, key_bias, value_bias, mask, self.scale, pool, step, layer, dout)
        return (*gradients, ops.zeros_like(mask), ops.zeros_like(pool), ops.zeros_like(step), ops.zeros_like(layer))


class ReadMemory(nn.Cell):
    """What word pieces read from a memory: sum_k softmax_k(p . m_k) m_k over the sentinel m_0 and their concepts."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = kernel("Memory", lambda projected, *others: projected)
        self.gradient = kernel("MemoryGradient", lambda projected, sentinel, *others: (projected, sentinel), outputs=2)

    def construct(self, projected: Tensor, sentinel: Tensor, concept_ids: Tensor, table: Tensor) -> Tensor:
        """Take p [T, D], sentinel [D], int32 ids [T, K], 0 for none, and the concepts' vectors [R, D]; give [T, D]."""
        return self.forward(projected, sentinel, concept_ids, table)

    def bprop(self, projected: Tensor, sentinel: Tensor, concept_ids: Tensor, table: Tensor, out: Tensor,
              dout: Tensor) -> tuple[Tensor, ...]:
        """The gradient by p and the sentinel; the concepts' vectors are constants."""
        by_projected, by_sentinel = self.gradient(projected, sentinel, concept_ids, table, dout)
        return by_projected, by_sentinel, ops.zeros_like(concept_ids), ops.zeros_like(table)


class MatchFactors(nn.Cell):
    """What self-matching multiplies and adds: u * w_mul and u . w_2."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = kernel("MatchFactors", lambda rows, *weights: (rows, rows[:1]), outputs=2)
        self.gradient = kernel("MatchFactorsGradient", lambda rows, diagonal, *others: (rows, diagonal, diagonal),
                               outputs=3)

    def construct(self, rows: Tensor, diagonal: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Take u [T, U], w_mul [U] and w_2 [U]; give [T, U] and [T]."""
        return self.forward(rows, diagonal, vector)

    def bprop(self, rows: Tensor, diagonal: Tensor, vector: Tensor, out: tuple[Tensor, Tensor],
              dout: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient by all three."""
        return self.gradient(rows, diagonal, vector, dout[0], dout[1])


class MatchSoftmax(nn.Cell):
    """softmax_j(r_ij + c_j)."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = kernel("MatchSoftmax", lambda scores, columns: scores)
        self.gradient = kernel("MatchSoftmaxGradient", lambda out, dout: (out, out[:2]), outputs=2)

    def construct(self, scores: Tensor, columns: Tensor) -> Tensor:
        """Take r [B, S, S] and c [B, S]; give [B, S, S]."""
        return self.forward(scores, columns)

    def bprop(self, scores: Tensor, columns: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient by both."""
        return self.gradient(out, dout)


class SpanScores(nn.Cell):
    """The products of :class:`src.layers.SpanOutput` with W_o, of u, v and u * v, without o."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = kernel("SpanScores", lambda rows, *others: ([rows[0], 2], [rows[0], 2]), outputs=2)
        self.gradient = kernel("SpanScoresGradient", lambda rows, matched, weight, *others: (rows, matched, weight),
                               outputs=3)

    def construct(self, rows: Tensor, matched: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Take u [T, U], v [T, U] and W_o [2, 6 * U]; give [T, 2], the logits without what is read from other word
        pieces, and [T, 2], what others read.
        """
        return self.forward(rows, matched, weight)

    def bprop(self, rows: Tensor, matched: Tensor, weight: Tensor, out: tuple[Tensor, Tensor],
              dout: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient by all three."""
        return self.gradient(rows, matched, weight, dout[0], dout[1])
