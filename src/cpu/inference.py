# SPDX-License-Identifier: Apache-2.0
"""The ends of both halves of an encoder layer that is not trained, one kernel each, on a processor with a matrix unit.

T = B * S rows, W hidden width, I feed-forward width, K any.
"""
from __future__ import annotations

from mindspore import Tensor, nn

from src.cpu.kernels import kernel
from src.cpu.ops import AddNorm, BiasGelu
from src.cpu.product import TileProduct, TileProductAndResidual
from src.dropout import no_mask


class ProductAddNorm(nn.Cell):
    """Layer normalisation of residual + x W^T + b. The gradient computes the product a second time."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.product, self.add_norm = TileProduct(transpose_b=True, by_weight=True), AddNorm(epsilon)
        self.forward = kernel("ProductAddNorm", lambda rows, weight, bias, residual, *others: residual)

    def construct(self, rows: Tensor, weight: Tensor, bias: Tensor, residual: Tensor, gamma: Tensor,
                  beta: Tensor) -> Tensor:
        """Take x [T, K], W [W, K], b [W], residual [T, W], gamma [W] and beta [W]; give [T, W]."""
        return self.forward(rows, weight, bias, residual, gamma, beta, self.add_norm.epsilon)

    def bprop(self, rows: Tensor, weight: Tensor, bias: Tensor, residual: Tensor, gamma: Tensor, beta: Tensor,
              out: Tensor, dout: Tensor) -> tuple[Tensor, ...]:
        """The gradient by all six."""
        by_product, by_bias, by_residual, by_gamma, by_beta = self.add_norm.gradient(
            self.product.forward(rows, weight), bias, residual, gamma, beta, *no_mask(bias.shape[0]),
            self.add_norm.epsilon, dout)
        by_rows, by_weight = self.product.gradient(rows, weight, by_product)
        return by_rows, by_weight, by_bias, by_residual, by_gamma, by_beta


class FeedForward(nn.Cell):
    """The second half of an encoder layer, layer normalisation of x + GELU(x W^T + b) W'^T + b'. What is between both
    products is never in memory; the gradient computes it a second time.
    """

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.product, self.bias_gelu, self.end = TileProductAndResidual(), BiasGelu(), ProductAddNorm(epsilon)
        self.forward = kernel("FeedForward", lambda rows, *others: rows)

    def construct(self, rows: Tensor, weight: Tensor, bias: Tensor, end_weight: Tensor, end_bias: Tensor, gamma: Tensor,
                  beta: Tensor) -> Tensor:
        """Take x [T, W], W [I, W], b [I], W' [W, I], b' [W], gamma [W] and beta [W]; give [T, W]."""
        return self.forward(rows, weight, bias, end_weight, end_bias, gamma, beta, self.end.add_norm.epsilon)

    def bprop(self, rows: Tensor, weight: Tensor, bias: Tensor, end_weight: Tensor, end_bias: Tensor, gamma: Tensor,
              beta: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, ...]:
        """The gradient by all seven."""
        product = self.product.forward(rows, weight)
        expanded = self.bias_gelu.forward(product, bias)
        by_expanded, by_end_weight, by_end_bias, by_residual, by_gamma, by_beta = self.end.bprop(
            expanded, end_weight, end_bias, rows, gamma, beta, out, dout)
        by_product, by_bias = self.bias_gelu.gradient(product, bias, by_expanded)
        by_rows, by_weight = self.product.gradient(rows, weight, by_product, by_residual)
        return by_rows, by_weight, by_bias, by_end_weight, by_end_bias, by_gamma, by_beta
