# SPDX-License-Identifier: Apache-2.0
"""What a training step does with all weights at once, on CPU: the same mathematics as in :mod:`src.training.step`."""
from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import ParameterTuple, Tensor, nn

from src.cpu.kernels import kernel


class FusedAdam(nn.Cell):
    """Clipping, decoupled weight decay and Adam, in place and in one pass.

    Args:
        factors: of the learning rate, one for each weight.
        weight_decay: times the learning rate.
        max_grad_norm: global norm that the gradient is clipped to; 0 does not clip.
        betas: of the moments.
        epsilon: added to the root of the second moment.
    """

    def __init__(self, factors: Sequence[float], weight_decay: float, max_grad_norm: float,
                 betas: tuple[float, float], epsilon: float) -> None:
        super().__init__(auto_prefix=False)
        self.factors = Tensor(factors, ms.float32)
        self.settings = Tensor([weight_decay, max_grad_norm, *betas, epsilon], ms.float32)
        self.update = kernel("Adam", lambda *inputs: (1,), written=3 * len(factors), read=6 + len(factors))

    def construct(self, weights: ParameterTuple, first: ParameterTuple, second: ParameterTuple, learning_rate: Tensor,
                  scale: Tensor, power_1: Tensor, power_2: Tensor, gradients: tuple[Tensor, ...]) -> Tensor:
        """Update the weights and both moments; give the norm of the gradients times ``scale``, float32 scalar."""
        return self.update(*weights, *first, *second, learning_rate, scale, power_1, power_2, self.settings,
                           self.factors, *gradients).reshape(())


class FusedAverage(nn.Cell):
    """Moves averages to their weights, in place and in one pass: a -= share * (a - w).

    Args:
        count: how many there are.
        share: of the way that is gone.
    """

    def __init__(self, count: int, share: float) -> None:
        super().__init__(auto_prefix=False)
        self.share = Tensor([share], ms.float32)
        self.move = kernel("Average", lambda *inputs: (1,), written=count, read=1 + count)

    def construct(self, averages: ParameterTuple, weights: ParameterTuple) -> Tensor:
        """Change the averages; the result has no meaning."""
        return self.move(*averages, self.share, *weights)
