# SPDX-License-Identifier: Apache-2.0
"""One training step: gradient, clipping, Adam with decoupled weight decay, moving average, loss scaling."""
from __future__ import annotations

import os
from collections.abc import Sequence

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.common.initializer import initializer
from mindspore.ops.operations.math_ops import NPUClearFloatStatusV2, NPUGetFloatStatusV2

from src.cpu import kernels as cpu_kernels
from src.cpu.optimizer import FusedAdam, Widen
from src.KTNET import KTNETWithLoss
from src.settings import Recipe

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-6
LOSS_SCALE_GROWTH_STEPS = 1000      # good steps after which the loss scale doubles
LARGEST_LOSS_SCALE = 2.0 ** 24      # beyond which it does not grow


def learning_rate_at(step: int, total_steps: int, recipe: Recipe) -> float:
    """Learning rate of step ``step`` (from 0).

    After a linear rise over the warm-up it is peak x (1 - step / total_steps) with the schedule "linear", and the peak
    with "constant".
    """
    share = {"linear": 1.0 - step / total_steps, "constant": 1.0}[recipe.lr_schedule]
    warmup_steps = int(total_steps * recipe.warmup_proportion)
    if step < warmup_steps:
        return recipe.learning_rate * (step + 1) / warmup_steps
    return recipe.learning_rate * share


def zeros_like(parameters: Sequence[Parameter], prefix: str) -> ParameterTuple:
    """One float32 parameter of zeros for each of ``parameters``, named ``prefix.name``; not trained."""
    return ParameterTuple([Parameter(initializer("zeros", list(parameter.shape), ms.float32),
                                     name=f"{prefix}.{parameter.name}", requires_grad=False)
                           for parameter in parameters])


class MovingAverage(nn.Cell):
    """Exponential moving average of the weights.

    On CPU Adam's kernel moves it (``moves_with_adam``). Elsewhere this cell does, a graph of its own, which is cheaper
    than inside the step. It starts at zero; :meth:`corrected` divides by 1 - decay^n, so that after few steps it is no
    average with zeros.

    Args:
        parameters: what is averaged.
        recipe: ``ema_decay`` is the weight of the past.
        use_kernels: whether Adam's kernel moves it; None: wherever there is one.
    """

    def __init__(self, parameters: Sequence[Parameter], recipe: Recipe, use_kernels: bool | None = None) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ParameterTuple(parameters)
        self.averages = zeros_like(parameters, "ema")
        self.updates = Parameter(Tensor(0, ms.int32), name="ema_updates", requires_grad=False)
        self.decay = recipe.ema_decay
        self.share = Tensor(1.0 - self.decay, ms.float32)
        self.descend = ops.ApplyGradientDescent()    # a -= share * (a - w), in place
        self.count = len(parameters)
        self.moves_with_adam = cpu_kernels.available() if use_kernels is None else use_kernels

    def construct(self) -> Tensor:
        """Take the weights in as they are now."""
        for i in range(self.count):
            self.descend(self.averages[i], self.share, self.averages[i] - self.parameters[i])
        return ops.assign(self.updates, self.updates + 1)

    def corrected(self) -> dict[str, Tensor]:
        """The average as weights: parameter name -> float32 tensor; the weights themselves before the first update."""
        correction = 1.0 - self.decay ** int(self.updates.asnumpy())
        if correction == 0.0:
            return {parameter.name: Tensor(parameter.asnumpy()) for parameter in self.parameters}
        return {parameter.name: Tensor(average.asnumpy() / correction)
                for parameter, average in zip(self.parameters, self.averages, strict=True)}


class AdamUpdate(nn.Cell):
    """Clips the gradient and applies Adam with decoupled weight decay (Loshchilov and Hutter, 2019).

    On CPU it is one kernel for all weights and their averages. Elsewhere the factor of clipping and loss scale is
    folded into the gradient, and the framework's kernel updates in place.

    Args:
        parameters: what is trained.
        recipe: how they learn.
        average: their moving average; updated here if ``moves_with_adam``.
        use_kernels: whether the kernels of :mod:`src.cpu` do it; None: as for the average, or wherever they can.
    """

    def __init__(self, parameters: ParameterTuple, recipe: Recipe, average: MovingAverage | None = None,
                 use_kernels: bool | None = None) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = parameters
        self.first_moments = zeros_like(parameters, "adam_m")
        self.second_moments = zeros_like(parameters, "adam_v")
        self.beta_1_power = Parameter(Tensor(1.0, ms.float32), name="beta_1_power", requires_grad=False)
        self.beta_2_power = Parameter(Tensor(1.0, ms.float32), name="beta_2_power", requires_grad=False)
        self.weight_decay, self.max_grad_norm = recipe.weight_decay, recipe.max_grad_norm
        self.factors = tuple(1.0 if parameter.name.startswith("bert.") else recipe.head_factor
                             for parameter in parameters)
        self.count = len(parameters)
        self.adam = ops.Adam()
        self.decay = ops.ApplyGradientDescent()      # p -= decay * p, in place
        self.half_square = ops.L2Loss()
        if use_kernels is None:
            use_kernels = cpu_kernels.available() if average is None else average.moves_with_adam
        self.average = average if use_kernels else None
        share = None if self.average is None else 1.0 - recipe.ema_decay
        self.fused = FusedAdam(self.factors, self.weight_decay, self.max_grad_norm, (BETA_1, BETA_2), EPSILON,
                               share) if use_kernels else None

    def construct(self, learning_rate: Tensor, gradients: tuple[Tensor, ...], scale: Tensor) -> Tensor:
        """Update once.

        Args:
            learning_rate: float32 scalar, of the encoder; times ``head_factor`` it is that of the other weights.
            gradients: one for each parameter.
            scale: float32 scalar that the gradients are to be multiplied by (the inverse of the loss scale).

        Returns:
            float32 scalar, the global norm of the gradient before clipping.
        """
        power_1 = ops.assign(self.beta_1_power, self.beta_1_power * BETA_1)
        power_2 = ops.assign(self.beta_2_power, self.beta_2_power * BETA_2)
        if self.fused is not None:
            averages = ()
            if self.average is not None:
                averages = self.average.averages
                ops.assign(self.average.updates, self.average.updates + 1)
            return self.fused(self.parameters, self.first_moments, self.second_moments, averages, learning_rate, scale,
                              power_1, power_2, gradients)
        squares = 0.0
        for gradient in gradients:
            squares = squares + 2.0 * self.half_square(gradient)
        norm = ops.sqrt(squares) * scale
        if self.max_grad_norm > 0.0:
            scale = scale * ops.minimum(1.0, self.max_grad_norm / (norm + 1e-12))
        for i in range(self.count):
            rate = learning_rate * self.factors[i]
            self.decay(self.parameters[i], rate * self.weight_decay, self.parameters[i])
            self.adam(self.parameters[i], self.first_moments[i], self.second_moments[i], power_1, power_2,
                      rate, BETA_1, BETA_2, EPSILON, gradients[i] * scale)
        return norm


class LossScale(nn.Cell):
    """Dynamic loss scale: halves after an overflow, doubles after a run of good steps."""

    def __init__(self, first: float) -> None:
        super().__init__(auto_prefix=False)
        self.scale = Parameter(Tensor(first, ms.float32), name="loss_scale", requires_grad=False)
        self.good_steps = Parameter(Tensor(0, ms.int32), name="loss_scale_good_steps", requires_grad=False)

    def construct(self, finite: Tensor) -> Tensor:
        """Adjust the scale to whether the last gradient was finite (bool scalar)."""
        good = ops.select(finite, self.good_steps + 1, ops.zeros_like(self.good_steps))
        grows = ops.greater_equal(good, LOSS_SCALE_GROWTH_STEPS)
        grows_further = ops.logical_and(grows, self.scale < LARGEST_LOSS_SCALE)
        raised = ops.select(grows_further, self.scale * 2.0, self.scale * 1.0)
        lowered = ops.maximum(self.scale * 0.5, 1.0)
        ops.assign(self.good_steps, ops.select(grows, ops.zeros_like(good), good))
        return ops.assign(self.scale, ops.select(finite, raised, lowered))


def saturates() -> bool:
    """Whether float16 stops at its largest number on this device, where elsewhere it becomes infinite.

    So does the Ascend 910, and its successors when ``MS_ASCEND_CHECK_OVERFLOW_MODE`` asks for it: an overflow is then
    told by a status of the device alone.
    """
    if ms.get_context("device_target") != "Ascend":
        return False
    from mindspore._c_expression import MSContext  # as mindspore.amp asks; there is no public way

    supports = MSContext.get_instance().ascend_soc_supports_feature
    return supports("amp_loss_scale_train_classic_target") or (
        supports("train_hq_dtype_line") and os.environ.get("MS_ASCEND_CHECK_OVERFLOW_MODE") == "SATURATION_MODE")


class FiniteCheck(nn.Cell):
    """Tells whether nothing has overflowed since it was asked last, on any device.

    Args:
        devices: number of devices.
    """

    def __init__(self, devices: int) -> None:
        super().__init__(auto_prefix=False)
        self.true = Tensor(True, ms.bool_)
        self.saturates = saturates()
        if self.saturates:
            self.no_overflow = Tensor([0] * 8, ms.int32)
            self.get_status, self.clear_status = NPUGetFloatStatusV2(), NPUClearFloatStatusV2()
            self.reduce = ops.AllReduce() if devices > 1 else None

    def construct(self, gradients: tuple[Tensor, ...]) -> Tensor:
        """Give a bool scalar; the gradients are those that the devices have averaged already."""
        if self.saturates:
            found = self.get_status(ops.depend(self.no_overflow, gradients))
            if self.reduce is not None:
                found = self.reduce(found)
            cleared = self.clear_status(ops.depend(self.no_overflow, found))
            return ops.equal(ops.depend(found, cleared), self.no_overflow).all()
        finite = self.true
        for gradient in gradients:
            finite = ops.logical_and(finite, ops.isfinite(gradient).all())
        return finite


class Gradients(nn.Cell):
    """Loss and gradient of a batch, averaged over the devices.

    Args:
        network: backbone with its loss.
        parameters: what is trained.
        devices: number of devices.
        widens: whether gradients that are given in bfloat16 are to become float32.
    """

    def __init__(self, network: KTNETWithLoss, parameters: ParameterTuple, devices: int, widens: bool) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.widen = Widen() if widens and cpu_kernels.multiply_tiles() else None
        self.reduce = nn.DistributedGradReducer(parameters, mean=True, degree=devices) if devices > 1 else None
        self.value_and_grad = ops.value_and_grad(self.scaled_loss, None, parameters)

    def scaled_loss(self, scale: Tensor, step: Tensor, *columns: Tensor) -> Tensor:
        """The loss that is differentiated."""
        return self.network(step, *columns) * scale

    def construct(self, scale: Tensor, step: Tensor, *columns: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Give the loss of this device's batch and the mean gradient, both times ``scale``."""
        loss, gradients = self.value_and_grad(scale, step, *columns)
        if self.widen is not None:
            gradients = self.widen(gradients)
        if self.reduce is not None:
            gradients = self.reduce(gradients)
        return loss, gradients


class Updater(nn.Cell):
    """Applies a gradient unless it overflowed, and keeps the loss scale.

    Args:
        parameters: what is trained.
        recipe: how they learn; a loss scale of 0 computes without one (float32).
        devices: number of devices whose gradients are averaged.
        average: as for :class:`AdamUpdate`.
    """

    def __init__(self, parameters: ParameterTuple, recipe: Recipe, devices: int = 1,
                 average: MovingAverage | None = None) -> None:
        super().__init__(auto_prefix=False)
        self.update = AdamUpdate(parameters, recipe, average)
        self.scaled = recipe.loss_scale > 0.0
        self.reads_bfloat16 = self.update.fused is not None and not self.scaled
        if self.reads_bfloat16:
            cpu_kernels.copy_no_weights()       # all gradients are there before Adam changes anything
        self.loss_scale = LossScale(recipe.loss_scale) if self.scaled else None
        self.is_finite = FiniteCheck(devices) if self.scaled else None
        self.one = Tensor(1.0, ms.float32)
        self.true = Tensor(True, ms.bool_)

    def scale(self) -> Tensor:
        """What the loss is to be multiplied by now: float32 scalar."""
        return self.loss_scale.scale * 1.0 if self.scaled else self.one

    def construct(self, learning_rate: Tensor, gradients: tuple[Tensor, ...], scale: Tensor) -> tuple[Tensor, Tensor]:
        """Update with gradients that are ``scale`` times too large; give the gradient's norm and whether it overflowed.

        After an overflow nothing changes but the loss scale.
        """
        if not self.scaled:
            return self.update(learning_rate, gradients, self.one / scale), ops.logical_not(self.true)
        finite = self.is_finite(gradients)
        norm = self.one * 0.0
        if finite:
            norm = self.update(learning_rate, gradients, self.one / scale)
        self.loss_scale(finite)
        return norm, ops.logical_not(finite)


class GradientStep(nn.Cell):
    """What every step has: a gradient and something to update with it.

    Args:
        network: backbone with its loss.
        recipe: how its weights learn.
        devices: number of devices.
        average: as for :class:`AdamUpdate`.
    """

    accumulates = False

    def __init__(self, network: KTNETWithLoss, recipe: Recipe, devices: int = 1,
                 average: MovingAverage | None = None) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ParameterTuple(network.trainable_params())
        self.updater = Updater(self.parameters, recipe, devices, average)
        widens = self.accumulates or devices > 1 or not self.updater.reads_bfloat16
        self.gradients = Gradients(network, self.parameters, devices, widens)


class TrainStep(GradientStep):
    """Gradient and update in one graph."""

    def construct(self, learning_rate: Tensor, step: Tensor, *columns: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Train on one batch.

        Args:
            learning_rate: float32 scalar.
            step: int32 scalar, picks the dropout masks.
            columns: the network's inputs, then start_positions and end_positions int32 [B, 1].

        Returns:
            loss (float32), gradient norm (float32), overflow (bool), loss scale (float32); all scalars.
        """
        scale = self.updater.scale()
        loss, gradients = self.gradients(scale, step, *columns)
        norm, overflow = self.updater(learning_rate, gradients, scale)
        return loss / scale, norm, overflow, scale


class AccumulateStep(GradientStep):
    """Adds the gradient of one part of a batch to a sum; :class:`ApplyStep` updates with the sum."""

    accumulates = True

    def __init__(self, network: KTNETWithLoss, recipe: Recipe, devices: int = 1,
                 average: MovingAverage | None = None) -> None:
        super().__init__(network, recipe, devices, average)
        self.sums = zeros_like(self.parameters, "gradient_sum")
        self.count = len(self.parameters)

    def construct(self, step: Tensor, *columns: Tensor) -> Tensor:
        """Take one part in (arguments as for :class:`TrainStep`); give its loss, a float32 scalar."""
        scale = self.updater.scale()
        loss, gradients = self.gradients(scale, step, *columns)
        for i in range(self.count):
            ops.assign_add(self.sums[i], gradients[i])
        return loss / scale


class ApplyStep(nn.Cell):
    """Updates with the mean of the gradients that an :class:`AccumulateStep` has summed, and empties the sum.

    Args:
        accumulated: what holds the sums.
        parts: how many parts were summed.
    """

    def __init__(self, accumulated: AccumulateStep, parts: int) -> None:
        super().__init__(auto_prefix=False)
        self.updater = accumulated.updater
        self.sums = accumulated.sums
        self.count = accumulated.count
        self.parts = float(parts)

    def construct(self, learning_rate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give the gradient norm (float32), overflow (bool) and the loss scale (float32); all scalars."""
        scale = self.updater.scale()
        gradients = ()
        for i in range(self.count):
            gradients = gradients + (self.sums[i] * 1.0,)
        norm, overflow = self.updater(learning_rate, gradients, scale * self.parts)
        for i in range(self.count):
            ops.assign(self.sums[i], ops.zeros_like(gradients[i]))
        return norm, overflow, scale
