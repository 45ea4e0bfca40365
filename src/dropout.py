# SPDX-License-Identifier: Apache-2.0
"""Dropout that gives the same masks for the same seed, step and layer.

MindSpore's dropout kernel for CPU differs from run to run whatever the seed, so that a resumed training would not reach
the same weights. On CPU the masks are therefore rows of a constant pool, chosen by a hash of row, layer and step: this
needs no state and is cheaper than drawing new numbers.
"""
from __future__ import annotations

import functools

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

POOL_ROWS = 4093         # a prime, so that the quadratic hash below spreads over all rows


@functools.cache
def mask_pool(rate: float, width: int, seed: int) -> Tensor:
    """Draw the masks: float32 [POOL_ROWS, width] of 0 (dropped, with probability ``rate``) and 1 / (1 - rate)."""
    kept = np.random.RandomState(seed).random_sample((POOL_ROWS, width)) >= rate
    return Tensor((kept / (1.0 - rate)).astype(np.float32))


@ops.constexpr(check=False)
def constant_pool(rate: float, width: int, seed: int) -> Tensor:
    """The masks as a constant of the graph being compiled (slicing a wider pool would copy it in every step)."""
    return mask_pool(rate, width, seed)


def pick_masks(row: Tensor, step: Tensor, layer: int, masks: int = POOL_ROWS) -> Tensor:
    """For the numbers of a tensor's rows, int32 [rows], those of their masks in a pool; as in src/cpu/kernels.h."""
    step = step % masks         # the products stay within int32
    slope, shift = (step * 2027 + layer * 733) % masks, (step * 1361 + layer * 3319) % masks
    row = row * 1009 % masks
    return (row * row + row * slope + shift) % masks


def no_mask(width: int) -> tuple[Tensor, Tensor, Tensor]:
    """A mask that drops nothing, as :meth:`StatelessDropout.mask` gives it: a pool of one row of ones."""
    return ops.ones((1, width), ms.float32), ops.zeros((1,), ms.int32), ops.zeros((1,), ms.int32)


class StatelessDropout(nn.Cell):
    """Dropout whose mask depends only on (seed, layer, step, row); nothing is dropped outside of training.

    Args:
        rate: probability of dropping an element.
        layer: number of this dropout in the network; different layers draw different masks.
        seed: seed of the pool, shared by all layers of the same width.
    """

    def __init__(self, rate: float, layer: int, seed: int) -> None:
        super().__init__()
        self.rate, self.layer, self.seed = rate, layer, seed
        self.number = Tensor([layer], ms.int32)

    def construct(self, inputs: Tensor, step: Tensor) -> Tensor:
        """Drop elements of ``inputs`` [..., W] float; ``step`` is an int32 scalar tensor."""
        if not self.training:
            return inputs
        rows = 1
        for size in inputs.shape[:-1]:
            rows = rows * size
        picked = pick_masks(ops.arange(0, rows, 1, dtype=ms.int32), step, self.layer)
        pool = constant_pool(self.rate, inputs.shape[-1], self.seed)
        return inputs * ops.gather(pool, picked, 0).reshape(inputs.shape).astype(inputs.dtype)

    def mask(self, width: int, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The masks of a tensor's rows, for a kernel that picks them.

        Returns:
            The pool, float32 [P, W], 0 where an element is dropped and 1 / (1 - rate) elsewhere, step and layer, int32.
        """
        if not self.training:
            return no_mask(width)
        return constant_pool(self.rate, width, self.seed), step, self.number


class DeviceDropout(nn.Cell):
    """MindSpore's own dropout, for GPU and Ascend; ignores the step, which it takes for the same interface."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(p=rate)

    def construct(self, inputs: Tensor, step: Tensor) -> Tensor:
        """Drop elements of ``inputs`` [..., W] float."""
        return self.dropout(inputs)


class NoDropout(nn.Cell):
    """Dropout at inference: nothing is dropped."""

    def construct(self, inputs: Tensor, step: Tensor) -> Tensor:
        """Return ``inputs`` unchanged."""
        return inputs

    def mask(self, width: int, step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As for :class:`StatelessDropout`."""
        return no_mask(width)


class DropoutFactory:
    """Create the dropouts of one network, each with its own layer number.

    Args:
        is_training: False makes every dropout a no-op.
        seed: seed of the masks (CPU).
    """

    def __init__(self, is_training: bool, seed: int = 0) -> None:
        self.is_training = is_training
        self.seed = seed
        self.layers = 0

    def __call__(self, rate: float) -> nn.Cell:
        """The next dropout."""
        if not self.is_training or rate == 0.0:
            return NoDropout()
        if ms.get_context("device_target") != "CPU":
            return DeviceDropout(rate)
        self.layers += 1
        return StatelessDropout(rate, self.layers, self.seed)
