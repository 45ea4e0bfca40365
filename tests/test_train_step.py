# SPDX-License-Identifier: Apache-2.0
"""The parts of a step against NumPy: schedule, clipping, Adam with decoupled decay, moving average, loss scale."""
from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

ms = pytest.importorskip("mindspore")
from mindspore import Parameter, ParameterTuple, Tensor, nn  # noqa: E402

from src.config import LrSchedule  # noqa: E402
from src.cpu import kernels as cpu_kernels  # noqa: E402
from src.dropout import POOL_ROWS, StatelessDropout, mask_pool  # noqa: E402
from src.KTNET import KTNET, KTNETWithLoss  # noqa: E402
from src.settings import Recipe  # noqa: E402
from src.training.step import (  # noqa: E402
    BETA_1,
    BETA_2,
    EPSILON,
    LARGEST_LOSS_SCALE,
    LOSS_SCALE_GROWTH_STEPS,
    AccumulateStep,
    AdamUpdate,
    ApplyStep,
    FiniteCheck,
    Gradients,
    LossScale,
    MovingAverage,
    TrainStep,
    Updater,
    learning_rate_at,
)
from testing.reference import TINY, random_columns, random_parameters  # noqa: E402
from utils import device  # noqa: E402


@pytest.fixture(autouse=True, scope="module")
def graph_mode():
    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")


def recipe(**values):
    return Recipe(**{"epoch": 1, "learning_rate": 1e-3, "loss_scale": 0.0, **values})


def make_parameters():
    random = np.random.RandomState(1)
    return ParameterTuple([Parameter(Tensor(random.randn(*shape).astype(np.float32)), name=name)
                           for name, shape in (("weight", (5, 3)), ("bias", (3,)))])


def reference_adam(weights, gradients, rate, decay, clip):
    """Adam (Kingma and Ba, 2015, algorithm 1) with decay beside it (Loshchilov and Hutter, 2019), in float64."""
    first = [np.zeros_like(weight) for weight in weights]
    second = [np.zeros_like(weight) for weight in weights]
    for step, parts in enumerate(gradients, 1):
        norm = np.sqrt(sum((part ** 2).sum() for part in parts))
        factor = min(1.0, clip / norm) if clip else 1.0
        for i, part in enumerate(parts):
            first[i] = BETA_1 * first[i] + (1 - BETA_1) * part * factor
            second[i] = BETA_2 * second[i] + (1 - BETA_2) * (part * factor) ** 2
            size = rate * np.sqrt(1 - BETA_2 ** step) / (1 - BETA_1 ** step)
            weights[i] = weights[i] * (1 - rate * decay) - size * first[i] / (np.sqrt(second[i]) + EPSILON)
    return weights


@pytest.fixture(params=[True, False], ids=["kernels", "operators"])
def use_kernels(request):
    """Whether the kernels for CPU update the weights, or the framework's operators."""
    if request.param and not cpu_kernels.available():
        pytest.skip("no C++ compiler: no kernels to test")
    return request.param


@pytest.mark.parametrize("kind", [ms.float32, ms.bfloat16])
@pytest.mark.parametrize(("decay", "clip"), [(0.0, 0.0), (0.01, 1.0), (0.5, 0.3)])
def test_adam_decay_and_clipping(use_kernels, decay, clip, kind):
    """The kernels take gradients of either type; the operators and the reference get the same numbers."""
    parameters = make_parameters()
    weights = [parameter.asnumpy().astype(np.float64) for parameter in parameters]
    random = np.random.RandomState(2)
    given = [[Tensor(random.randn(*weight.shape) * 8, type_) for weight, type_ in
              zip(weights, (kind, ms.float32), strict=True)] for _ in range(4)]
    wide = [[part.astype(ms.float32) for part in parts] for parts in given]
    gradients = [[part.asnumpy() / 8.0 for part in parts] for parts in wide]
    update = AdamUpdate(parameters, recipe(weight_decay=decay, max_grad_norm=clip),
                        use_kernels=use_kernels)
    for tensors, parts in zip(given if use_kernels else wide, gradients, strict=True):
        norm = update(Tensor(0.1, ms.float32), tuple(tensors), Tensor(0.125, ms.float32))
        assert norm.asnumpy() == pytest.approx(np.sqrt(sum((part ** 2).sum() for part in parts)), rel=1e-5)
    for parameter, expected in zip(parameters, reference_adam(weights, gradients, 0.1, decay, clip), strict=True):
        np.testing.assert_allclose(parameter.asnumpy(), expected, rtol=2e-5, atol=2e-6)


@pytest.mark.skipif(not cpu_kernels.library(), reason="no C++ compiler: no kernels to test")
def test_moments_do_not_decay_to_denormal_numbers():
    parameters = make_parameters()
    update = AdamUpdate(parameters, recipe(), use_kernels=True)
    moments = (update.first_moments[0], update.second_moments[0])
    for moment in moments:
        moment.set_data(Tensor(np.resize(np.float32([1.05e-30, 1e-20]), (5, 3))))
    nothing = tuple(Tensor(np.zeros(parameter.shape, np.float32)) for parameter in parameters)
    update(Tensor(0.1, ms.float32), nothing, Tensor(1.0, ms.float32))
    for moment, decay in zip(moments, (0.9, 0.999), strict=True):
        kept = 1.05e-30 * decay if decay > 0.99 else 0.0
        np.testing.assert_allclose(moment.asnumpy().ravel()[:2], [kept, 1e-20 * decay], rtol=1e-5)
    assert update.first_moments[1].asnumpy().max() == 0.0


def test_schedule():
    rates = [learning_rate_at(step, 100, recipe(learning_rate=2.0)) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (step + 1) for step in range(10)])
    assert rates[10:] == pytest.approx([2.0 * (1 - step / 100) for step in range(10, 100)])
    assert learning_rate_at(0, 3, recipe(learning_rate=2.0, warmup_proportion=0.0)) == 2.0


@pytest.mark.parametrize("schedule", get_args(LrSchedule))
def test_every_schedule_starts_at_the_peak(schedule):
    assert learning_rate_at(0, 20, recipe(learning_rate=2.0, lr_schedule=schedule, warmup_proportion=0.0)) == 2.0


def test_constant_rate_after_the_warm_up():
    rates = [learning_rate_at(step, 20, recipe(learning_rate=2.0, lr_schedule="constant")) for step in range(20)]
    assert rates == [1.0, *[2.0] * 19]
    at_once = recipe(learning_rate=2.0, lr_schedule="constant", warmup_proportion=0.0)
    assert [learning_rate_at(step, 20, at_once) for step in (0, 19)] == [2.0, 2.0]


def test_new_layers_have_a_rate_of_their_own(use_kernels):
    random = np.random.RandomState(3)
    values = random.randn(4, 3)
    parameters = ParameterTuple([Parameter(Tensor(values, ms.float32), name=name) for name in ("bert.weight", "head")])
    update = AdamUpdate(parameters, recipe(max_grad_norm=0.0, learning_rate=0.01, head_learning_rate=0.1),
                        use_kernels=use_kernels)
    gradients = [random.randn(4, 3) for _ in range(2)]
    update(Tensor(0.01, ms.float32), tuple(Tensor(part, ms.float32) for part in gradients), Tensor(1.0, ms.float32))
    for parameter, gradient, rate in zip(parameters, gradients, (0.01, 0.1), strict=True):
        expected, = reference_adam([values.copy()], [[gradient]], rate, 0.01, 0.0)
        np.testing.assert_allclose(parameter.asnumpy(), expected, rtol=2e-5, atol=2e-6)


def test_moving_average(use_kernels):
    parameters = make_parameters()
    average = MovingAverage(parameters, recipe(ema_decay=0.9), use_kernels)
    assert all((average.corrected()[parameter.name].asnumpy() == parameter.asnumpy()).all() for parameter in parameters)
    update = AdamUpdate(parameters, recipe(ema_decay=0.9, weight_decay=0.5), average, use_kernels)
    random = np.random.RandomState(4)
    seen = []
    for _ in range(3):
        update(Tensor(0.1, ms.float32), tuple(Tensor(random.randn(*parameter.shape), ms.float32)
                                              for parameter in parameters), Tensor(1.0, ms.float32))
        if not use_kernels:
            average()
        seen.append([parameter.asnumpy().copy() for parameter in parameters])
    weights = np.array([0.9 ** (2 - i) for i in range(3)])
    assert average.updates.asnumpy() == 3 and len({weight.tobytes() for weight, *_ in seen}) == 3
    for parameter, values in zip(parameters, zip(*seen, strict=True), strict=True):
        np.testing.assert_allclose(average.corrected()[parameter.name].asnumpy(),
                                   np.tensordot(weights / weights.sum(), np.array(values), 1), rtol=1e-5)


def test_an_overflow_changes_nothing_but_the_loss_scale():
    parameters = make_parameters()
    before = [parameter.asnumpy().copy() for parameter in parameters]
    average = MovingAverage(parameters, recipe(ema_decay=0.9))
    updater = Updater(parameters, recipe(loss_scale=1024.0, ema_decay=0.9), average=average)
    broken = (Tensor(np.full((5, 3), np.inf, np.float32)), Tensor(np.ones(3, np.float32)))
    _, overflow = updater(Tensor(0.1, ms.float32), broken, Tensor(1024.0, ms.float32))
    assert overflow.asnumpy() and updater.loss_scale.scale.asnumpy() == 512.0
    assert all((parameter.asnumpy() == old).all() for parameter, old in zip(parameters, before, strict=True))
    assert not any(moment.asnumpy().any() for moment in (*updater.update.first_moments, *average.averages))
    assert average.updates.asnumpy() == 0
    good = (Tensor(np.ones((5, 3), np.float32)), Tensor(np.ones(3, np.float32)))
    _, overflow = updater(Tensor(0.1, ms.float32), good, Tensor(512.0, ms.float32))
    assert not overflow.asnumpy() and (parameters[0].asnumpy() != before[0]).all()


@pytest.mark.parametrize("status", [0, 4])
def test_where_float16_saturates_the_devices_status_tells_of_an_overflow(monkeypatch, status):
    """As on the Ascend 910; the two operators of its status, which CPU lacks, have stand-ins."""
    class Status(nn.Cell):
        def construct(self, given):
            return given + Tensor([0, status] + [0] * 6, ms.int32)

    monkeypatch.setattr("src.training.step.saturates", lambda: True)
    check = FiniteCheck(1)
    check.get_status, check.clear_status = Status(), nn.Identity()
    finite = check((Tensor(np.full((5, 3), 65504, np.float32)), Tensor(np.ones(3, np.float32))))
    assert bool(finite.asnumpy()) == (status == 0)


def test_the_loss_scale_grows_after_a_run_of_good_steps():
    scale = LossScale(8.0)
    for _ in range(LOSS_SCALE_GROWTH_STEPS):
        scale(Tensor(True))
    assert scale.scale.asnumpy() == 16.0 and scale.good_steps.asnumpy() == 0
    scale(Tensor(False))
    assert scale.scale.asnumpy() == 8.0
    largest = LossScale(LARGEST_LOSS_SCALE)
    for _ in range(LOSS_SCALE_GROWTH_STEPS):
        largest(Tensor(True))
    assert largest.scale.asnumpy() == LARGEST_LOSS_SCALE


def test_dropout_depends_on_step_and_layer_alone():
    rows = Tensor(np.ones((300, 40), np.float32))
    dropout = StatelessDropout(0.25, 1, 9).set_train()
    first, again, later = (dropout(rows, Tensor(step, ms.int32)).asnumpy() for step in (3, 3, 4))
    other = StatelessDropout(0.25, 2, 9).set_train()(rows, Tensor(3, ms.int32)).asnumpy()
    assert (first == again).all() and (first != later).any() and (first != other).any()
    assert set(np.unique(first)) == {np.float32(0.0), np.float32(1 / 0.75)}
    assert abs((first == 0).mean() - 0.25) < 0.02
    assert len({row.tobytes() for row in first}) > 290          # rows draw masks of their own
    assert mask_pool(0.25, 64, 9).shape == (POOL_ROWS, 64)


def test_nothing_is_dropped_outside_of_training():
    rows = Tensor(np.arange(12, dtype=np.float32).reshape(3, 4))
    dropout = StatelessDropout(0.5, 1, 9).set_train(False)
    assert (dropout(rows, Tensor(3, ms.int32)).asnumpy() == rows.asnumpy()).all()
    pool = dropout.mask(4, Tensor(3, ms.int32))[0].asnumpy()
    assert pool.shape == (1, 4) and (pool == 1).all()


def make_network(compute_type, is_training):
    network = KTNET(TINY, is_training=is_training, compute_type=compute_type)
    weights = random_parameters(TINY, 3)
    for parameter in network.get_parameters():
        parameter.set_data(Tensor(weights[parameter.name].astype(np.float32)))
    return network


@pytest.mark.slow
def test_float16_as_on_gpu_and_ascend():
    columns = random_columns(TINY, 4, 3)
    labels = [Tensor(columns.pop(name)) for name in ("start_positions", "end_positions")]
    inputs = [Tensor(column) for column in columns.values()]
    exact, half = (make_network(kind, False)(*inputs).asnumpy() for kind in (ms.float32, ms.float16))
    assert 0 < np.abs(exact - half).max() < 5e-3
    # Far too large a loss scale overflows and is halved until it fits; the loss then falls.
    step = TrainStep(KTNETWithLoss(make_network(ms.float16, True)), recipe(loss_scale=2.0 ** 24))
    results = [[float(value.asnumpy()) for value in step(Tensor(1e-3, ms.float32), Tensor(number, ms.int32), *inputs,
                                                         *labels)] for number in range(16)]
    losses, _, overflows, scales = zip(*results, strict=True)
    skipped = int(sum(overflows))
    assert 0 < skipped < 12 and overflows[0]
    assert list(scales) == [2.0 ** (24 - sum(overflows[:number])) for number in range(16)]
    assert np.isfinite(losses).all() and np.mean(losses[-2:]) < np.mean(losses[:2])


def test_every_step_reads_gradients_in_bfloat16(monkeypatch):
    """Those by weights of products, where the processor has a matrix unit; elsewhere they are float32 throughout.

    The mean of a batch's gradient and itself is that gradient. What sums or compares gradients gets float32.
    """
    if device.bfloat16_unit() != "AMX":
        pytest.skip("this processor has no AMX")
    if not cpu_kernels.available():
        pytest.skip("no C++ compiler: no kernels to test")
    monkeypatch.setenv(device.PRODUCT_MODE, "BF16")
    columns = random_columns(TINY, 4, 3)
    labels = [Tensor(columns.pop(name)) for name in ("start_positions", "end_positions")]
    inputs = [*map(Tensor, columns.values()), *labels]
    rate, step_number, one = Tensor(1e-3, ms.float32), Tensor(5, ms.int32), Tensor(1.0, ms.float32)

    def network():
        return KTNETWithLoss(make_network(ms.float32, True))

    results = []
    for parts in (0, 2):
        loss = network()
        if parts:
            accumulated = AccumulateStep(loss, recipe())
            for _ in range(parts):
                accumulated(step_number, *inputs)
            norm, _, _ = ApplyStep(accumulated, parts)(rate)
        else:
            _, norm, _, _ = TrainStep(loss, recipe())(rate, step_number, *inputs)
        results.append([norm.asnumpy(), *(parameter.asnumpy() for parameter in loss.trainable_params())])
    for at_once, summed in zip(*results, strict=True):
        np.testing.assert_array_equal(at_once, summed)
    TrainStep(network(), recipe(loss_scale=4.0))(rate, step_number, *inputs)      # which looks for an overflow
    loss = network()
    weights = ParameterTuple(loss.trainable_params())
    (_, narrow), (_, wide) = (Gradients(loss, weights, 1, widens)(one, step_number, *inputs)
                              for widens in (False, True))
    assert {gradient.dtype for gradient in narrow} == {ms.float32, ms.bfloat16}
    assert {gradient.dtype for gradient in wide} == {ms.float32}
    for one_of_them, other in zip(narrow, wide, strict=True):
        np.testing.assert_array_equal(one_of_them.astype(ms.float32).asnumpy(), other.asnumpy())
