# SPDX-License-Identifier: Apache-2.0
"""What a training step does with all weights at once, on CPU: the same mathematics as in :mod:`src.training.step`."""
from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import ParameterTuple, Tensor, nn

from src.cpu.kernels import kernel


class Widen(nn.Cell):
    """Gradients as float32, of which some are bfloat16 (:class:`src.cpu.product.TileProduct`). Casts would be dropped:
    MindSpore takes a gradient for as wide as its weight.
    """

    def __init__(self) -> None:
        super().__init__(auto_prefix=False)
        self.widen = kernel("Widen", lambda gradient: gradient)

    def construct(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Take them in any shapes."""
        widened: tuple[Tensor, ...] = ()
        for gradient in gradients:
            widened = widened + (self.widen(gradient),)
        return widened


class FusedAdam(nn.Cell):
    """Clipping, decoupled weight decay, Adam and the moving average, in place and in one pass.

    Args:
        factors: of the learning rate, one for each weight.
        weight_decay: times the learning rate.
        max_grad_norm: global norm that the gradient is clipped to; 0 does not clip.
        betas: of the moments.
        epsilon: added to the root of the second moment.
        share: how far an average moves towards its weight; None: there are no averages.
    """

    def __init__(self, factors: Sequence[float], weight_decay: float, max_grad_norm: float,
                 betas: tuple[float, float], epsilon: float, share: float | None) -> None:
        super().__init__(auto_prefix=False)
        self.factors = Tensor(factors, ms.float32)
        self.settings = Tensor([weight_decay, max_grad_norm, *betas, epsilon, share or 0.0], ms.float32)
        name, changed = ("Adam", 3) if share is None else ("AdamAndAverage", 4)
        self.update = kernel(name, lambda *inputs: (1,), written=changed * len(factors), read=6 + len(factors))

    def construct(self, weights: ParameterTuple, first: ParameterTuple, second: ParameterTuple,
                  averages: tuple[Tensor, ...], learning_rate: Tensor, scale: Tensor, power_1: Tensor, power_2: Tensor,
                  gradients: tuple[Tensor, ...]) -> Tensor:
        """Update the weights, both moments and the averages, if there are any; give the norm of the gradients times
        ``scale``, float32 scalar. Gradients are float32 or bfloat16.
        """
        return self.update(*weights, *first, *second, *averages, learning_rate, scale, power_1, power_2, self.settings,
                           self.factors, *gradients).reshape(())
