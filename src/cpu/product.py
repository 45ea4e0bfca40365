# SPDX-License-Identifier: Apache-2.0
"""Matrix products of a network on CPU: the framework's, or kernels for the processor's matrix unit."""
from __future__ import annotations

from mindspore import Tensor, nn, ops

from src.bert import Linear
from src.cpu.kernels import kernel
from src.layers import MemoryLayer


class TileProduct(nn.Cell):
    """x y or x y^T with factors rounded to bfloat16 and float32 sums, on a processor with a matrix unit. Like the
    framework's own product of that kind, but about twice as fast, as its kernel rounds what it multiplies next.

    Args:
        transpose_b: whether y is given transposed.
        by_weight: y is a weight, and the gradient by it is rounded to bfloat16, half as large: only the optimizer
            reads it.
    """

    def __init__(self, transpose_b: bool = False, by_weight: bool = False) -> None:
        super().__init__()
        name, column = ("ProductTransposed", -2) if transpose_b else ("Product", -1)

        def out_shape(x: list[int], y: list[int]) -> list[int]:
            return [*x[:-1], y[column]]

        self.forward = kernel(name, out_shape)
        self.gradient = kernel(f"{name}Gradient", lambda x, y, *others: (x, y), outputs=2, rounded=int(by_weight))

    def construct(self, x: Tensor, y: Tensor) -> Tensor:
        """Take [M, K] and [K, N] (transposed: [N, K]), or a batch of each; give [M, N]."""
        return self.forward(x, y)

    def bprop(self, x: Tensor, y: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient by both factors."""
        return self.gradient(x, y, dout)


class ProductAndResidual(nn.Cell):
    """x y^T, and x again, to be added to what is computed from the product."""

    def __init__(self) -> None:
        super().__init__()
        self.matmul = ops.MatMul(transpose_b=True)

    def construct(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Take [M, K] and [N, K]; give [M, N] and [M, K]."""
        return self.matmul(x, y), x


class TileProductAndResidual(TileProduct):
    """The same by :class:`TileProduct`. The gradient by x is one kernel, whoever uses x later."""

    def __init__(self) -> None:
        super().__init__(transpose_b=True, by_weight=True)

    def construct(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """As :class:`ProductAndResidual`."""
        return self.forward(x, y), x

    def bprop(self, x: Tensor, y: Tensor, out: tuple[Tensor, Tensor],
              dout: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The gradient by both factors."""
        return self.gradient(x, y, dout[0], dout[1])


class JoinedProductAndResidual(nn.Cell):
    """x times the transposes of three matrices, side by side, and x again."""

    def __init__(self) -> None:
        super().__init__()
        self.matmul = ops.MatMul(transpose_b=True)

    def construct(self, x: Tensor, first: Tensor, second: Tensor, third: Tensor) -> tuple[Tensor, Tensor]:
        """Take [M, K] and [N, K] three times; give [M, 3 * N] and [M, K]."""
        return self.matmul(x, ops.concat((first, second, third), 0)), x


class TileJoinedProductAndResidual(nn.Cell):
    """The same with factors rounded to bfloat16, as in :class:`TileProduct`; the matrices are read where they are."""

    def __init__(self) -> None:
        super().__init__()
        self.forward = kernel("JoinedProduct", lambda x, y, *others: [x[0], 3 * y[0]])
        self.gradient = kernel("JoinedProductGradient", lambda x, y, *others: (x, y, y, y), outputs=4, rounded=3)

    def construct(self, x: Tensor, first: Tensor, second: Tensor, third: Tensor) -> tuple[Tensor, Tensor]:
        """As :class:`JoinedProductAndResidual`."""
        return self.forward(x, first, second, third), x

    def bprop(self, x: Tensor, first: Tensor, second: Tensor, third: Tensor, out: tuple[Tensor, Tensor],
              dout: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """The gradient by all factors."""
        return self.gradient(x, first, second, third, dout[0], dout[1])


def use_tiles(network: nn.Cell) -> None:
    """Compute a network's products by :class:`TileProduct`, but the small ones of a memory's attention."""
    for _, cell in list(network.cells_and_names()):
        for name, part in list(cell.name_cells().items()):
            for plain, tiled in ((ProductAndResidual, TileProductAndResidual),
                                 (JoinedProductAndResidual, TileJoinedProductAndResidual)):
                if isinstance(part, plain):
                    setattr(cell, name, tiled())
        for name in ("matmul", "product", "product_transposed"):
            operator = getattr(cell, name, None)
            if isinstance(operator, (ops.MatMul, ops.BatchMatMul)) and not isinstance(cell, MemoryLayer):
                setattr(cell, name, TileProduct(operator.transpose_b, by_weight=isinstance(cell, Linear)))
