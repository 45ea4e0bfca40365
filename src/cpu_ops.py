"""Cells with gradients of their own, for CPU: the same mathematics from kernels that run on all cores.

MindSpore's CPU kernels differ widely in speed. Products, same-shape sums and row reductions run at full speed; the
kernels of erf and of layer normalisation run on one thread, and a reduction over the last dimension of a
large tensor is slower than the product that made it. On GPU and Ascend the framework's own operators are used instead.

Shapes: T = B * S rows, W width, B batch, N heads, S sequence, A head width.
"""
from __future__ import annotations

import math

from mindspore import Tensor, nn, ops

INVERSE_ROOT_2_PI = 1.0 / math.sqrt(2.0 * math.pi)


class AddBias(nn.Cell):
    """x + b for every row. The kernel for this is 15 times faster than a broadcast sum, and a sum over the rows ten
    times faster than the kernel's own gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bias_add = ops.BiasAdd()

    def construct(self, rows: Tensor, bias: Tensor) -> Tensor:
        """Take float32 [T, W] and [W]; give float32 [T, W]."""
        return self.bias_add(rows, bias)

    def bprop(self, rows: Tensor, bias: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient by rows and bias."""
        return dout, ops.reduce_sum(dout, 0)


class GeluPolynomial(nn.Cell):
    """x * Phi(x) and Phi(x), as exact as float32 is.

    log(Phi / (1 - Phi)) is an odd and smooth function, so Phi(x) = sigmoid(x P(x^2)). With P of degree 6
    (``benchmarks/fit_gelu.py``) Phi is off by 2e-7 at most and x Phi(x) by 6e-7, the rounding of float32 included.
    """

    COEFFICIENTS = (1.59576843e+00, 7.26685670e-02, -6.62599859e-05, -1.10480317e-04, 7.93821889e-06,
                    -2.66892817e-07, 3.61123281e-09)         # of 1, x^2, x^4, ...

    def construct(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Any float32 shape; Phi(x) is given for the gradient."""
        square = inputs * inputs
        polynomial = square * self.COEFFICIENTS[6] + self.COEFFICIENTS[5]
        for coefficient in self.COEFFICIENTS[4::-1]:
            polynomial = polynomial * square + coefficient
        probability = ops.sigmoid(inputs * polynomial)
        return inputs * probability, probability

    def bprop(self, inputs: Tensor, outputs: tuple[Tensor, Tensor], gradients: tuple[Tensor, Tensor]) -> tuple[Tensor]:
        """(Phi(x) + x phi(x)) times the gradient by the first output; the second is not differentiated."""
        density = ops.exp(inputs * inputs * -0.5)
        return ((inputs * density * INVERSE_ROOT_2_PI + outputs[1]) * gradients[0],)


class NormaliseRows(nn.Cell):
    """Layer normalisation: y = (x - mean) r gamma + beta with r = 1 / sqrt(variance + epsilon).

    With g = gamma dy, the gradient by x is r g - r mean(g) - (x - mean) r^3 mean(g (x - mean)); all means over a row
    are products with a vector here.

    Args:
        width: W.
        epsilon: added to the variance.
    """

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.width, self.epsilon = width, epsilon
        self.row_mean = ops.ReduceMean(keep_dims=True)
        self.add_bias = AddBias()
        self.matmul = ops.MatMul()
        self.matmul_transposed = ops.MatMul(transpose_a=True)

    def construct(self, rows: Tensor, gamma: Tensor, beta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take float32 [T, W], [W], [W]; give y [T, W] and, for the gradient, mean and variance [T, 1]."""
        mean = self.row_mean(rows, 1)                                                      # [T, 1]
        centred = rows - self.matmul(mean, ops.ones_like(gamma).reshape((1, -1)))          # [T, W]
        variance = self.row_mean(centred * centred, 1)                                     # [T, 1]
        factors = self.matmul(ops.rsqrt(variance + self.epsilon), gamma.reshape((1, -1)))  # r gamma [T, W]
        return self.add_bias(centred * factors, beta), mean, variance

    def bprop(self, rows: Tensor, gamma: Tensor, beta: Tensor, outputs: tuple[Tensor, Tensor, Tensor],
              gradients: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The gradient by rows, gamma and beta; mean and variance are not differentiated."""
        dout, mean = gradients[0], outputs[1]
        scale = ops.rsqrt(outputs[2] + self.epsilon)                                       # r [T, 1]
        weights = (gamma / self.width).reshape((-1, 1))                                    # [W, 1]
        products = dout * rows                                                             # [T, W]
        mean_g = self.matmul(dout, weights)                                                # [T, 1]
        mean_gx = self.matmul(products, weights) - mean * mean_g                           # of g (x - mean) [T, 1]
        slope = scale * scale * scale * mean_gx                                            # [T, 1]
        shift = slope * mean - scale * mean_g                                              # [T, 1]
        by_rows = dout * self.matmul(scale, gamma.reshape((1, -1))) - rows * slope + shift
        by_gamma = self.matmul_transposed(scale, products) - self.matmul_transposed(scale * mean, dout)
        return by_rows, by_gamma.reshape((-1,)), ops.reduce_sum(dout, 0)


class MaskedScores(nn.Cell):
    """q k^T + m for every key, as one product: the keys have the mask as one more element, the queries a 1.

    A sum over the scores would read and write [B, N, S, S] once more.
    """

    def __init__(self) -> None:
        super().__init__()
        self.product_transposed = ops.BatchMatMul(transpose_b=True)
        self.concat = ops.Concat(3)

    def construct(self, query: Tensor, key: Tensor, mask: Tensor) -> Tensor:
        """Take [B, N, S, A] twice and the keys' mask [B, N, S, 1], all of one float type; give [B, N, S, S]."""
        return self.product_transposed(self.concat((query, ops.ones_like(mask))), self.concat((key, mask)))


class AttentionWithDropout(nn.Cell):
    """Attention with the weights' dropout: O = D v with D = P * keep and P = softmax(q k^T + mask).

    The gradient by the scores is D * dD - P * rowsum(dO * O) (as in FlashAttention, Dao et al., 2022, appendix B.2):
    the sum runs over the head width instead of over S, and P * rowsum(..) is never made, since only its products with k
    and q are needed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scores = MaskedScores()
        self.product = ops.BatchMatMul()
        self.product_bt = ops.BatchMatMul(transpose_b=True)
        self.product_at = ops.BatchMatMul(transpose_a=True)
        self.row_sum = ops.ReduceSum(keep_dims=True)

    def construct(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor,
                  keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Attend.

        Args:
            query: float32 [B, N, S, A], scaled.
            key: float32 [B, N, S, A].
            value: float32 [B, N, S, A].
            mask: float32 [B, N, S, 1], added to the scores of each key.
            keep: float32 [B, N, S, S], 0 where a weight is dropped.

        Returns:
            O [B, N, S, A] and, for the gradient, P and D [B, N, S, S]; all float32.
        """
        weights = ops.softmax(self.scores(query, key, mask), -1)
        dropped = weights * keep
        return self.product(dropped, value), weights, dropped

    def bprop(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, keep: Tensor,
              outputs: tuple[Tensor, Tensor, Tensor],
              gradients: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The gradient by query, key and value; mask and keep are constants."""
        dout, (context, weights, dropped) = gradients[0], outputs
        row_sums = self.row_sum(dout * context, 3)                                         # [B, N, S, 1]
        direct = dropped * self.product_bt(dout, value)                                    # [B, N, S, S]
        by_query = self.product(direct, key) - self.product(weights, key) * row_sums
        by_key = self.product_at(direct, query) - self.product_at(weights, query * row_sums)
        return by_query, by_key, self.product_at(dropped, dout), ops.zeros_like(mask), ops.zeros_like(keep)
