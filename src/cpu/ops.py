"""Cells with gradients of their own, for CPU: what lies between an encoder layer's matrix products.

MindSpore's CPU kernels of products run at full speed, but what lies between them takes many passes over memory, some
of them on one thread. The cells here take one pass each, forward and back (:mod:`src.cpu.kernels`). They compute in
float32. On GPU and Ascend the framework's own operators are used instead.

Shapes: T = B * S rows, W width, B batch, N heads, S sequence, A head width. A dropout mask is given as a pool float32
[P, W] and int32 ``picked``, for each row the row of the pool that it is multiplied by, or [1] for all rows the same.
"""
from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from src.cpu.kernels import kernel


class BiasGelu(nn.Cell):
    """GELU of x + b: v * Phi(v), as exact as float32 is."""

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


class AddNorm(nn.Cell):
    """Layer normalisation of residual + dropout(x + b)."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = Tensor([epsilon], ms.float32)      # added to the variance
        self.forward = kernel("AddNorm", lambda rows, *others: rows)
        self.gradient = kernel("AddNormGradient", lambda rows, bias, *others: (rows, bias, rows, bias, bias), outputs=5)

    def construct(self, rows: Tensor, bias: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor, pool: Tensor,
                  picked: Tensor) -> Tensor:
        """Take x [T, W], b [W], residual [T, W], gamma [W], beta [W] and the dropout mask; give [T, W]."""
        return self.forward(rows, bias, residual, gamma, beta, pool, picked, self.epsilon)

    def bprop(self, rows: Tensor, bias: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor, pool: Tensor,
              picked: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, ...]:
        """The gradient by all but the dropout mask."""
        gradients = self.gradient(rows, bias, residual, gamma, beta, pool, picked, self.epsilon, dout)
        return (*gradients, ops.zeros_like(pool), ops.zeros_like(picked))


class SplitHeads(nn.Cell):
    """x + b, cut into heads."""

    def __init__(self, heads: int, head_size: int) -> None:
        super().__init__()
        self.forward = kernel("SplitHeads", lambda rows, bias, mask: (mask[0], heads, mask[1], head_size))
        self.gradient = kernel("SplitHeadsGradient", lambda dout: (
            (dout[0] * dout[2], dout[1] * dout[3]), (dout[1] * dout[3],)), outputs=2)

    def construct(self, rows: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
        """Take x [T, N * A], b [N * A] and, for its shape alone, the mask [B, S]; give [B, N, S, A]."""
        return self.forward(rows, bias, mask)

    def bprop(self, rows: Tensor, bias: Tensor, mask: Tensor, out: Tensor,
              dout: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient by rows and bias."""
        by_rows, by_bias = self.gradient(dout)
        return by_rows, by_bias, ops.zeros_like(mask)


class MaskedSoftmax(nn.Cell):
    """Attention weights with their dropout: D = P * dropout mask, P = softmax(scale * scores + mask).

    The gradient by the scores is scale (D * dD - P rowsum(D * dD)); P is computed a second time for it, which costs no
    more than keeping it.
    """

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = Tensor([scale], ms.float32)
        self.forward = kernel("MaskedSoftmax", lambda scores, *others: scores)
        self.gradient = kernel("MaskedSoftmaxGradient", lambda scores, *others: scores)

    def construct(self, scores: Tensor, mask: Tensor, pool: Tensor, picked: Tensor) -> Tensor:
        """Take scores [B, N, S, S], the keys' mask [B, S] and the dropout mask; give D [B, N, S, S]."""
        return self.forward(scores, mask, self.scale, pool, picked)

    def bprop(self, scores: Tensor, mask: Tensor, pool: Tensor, picked: Tensor, out: Tensor,
              dout: Tensor) -> tuple[Tensor, ...]:
        """The gradient by the scores; masks are constants."""
        by_scores = self.gradient(scores, mask, self.scale, pool, picked, dout)
        return by_scores, ops.zeros_like(mask), ops.zeros_like(pool), ops.zeros_like(picked)
