"""The cells with gradients of their own against the same mathematics in float64."""
from __future__ import annotations

import math

import numpy as np
import pytest

ms = pytest.importorskip("mindspore")
from mindspore import Tensor, nn, ops  # noqa: E402

from src.bert import Gelu  # noqa: E402
from src.cpu_ops import AttentionWithDropout, NormaliseRows  # noqa: E402

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True, scope="module")
def graph_mode():
    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")


class Weighted(nn.Cell):
    """The first output times fixed weights, summed: its gradient is the cell's with the weights as ``dout``."""

    def __init__(self, cell, weights):
        super().__init__()
        self.cell, self.weights = cell, Tensor(weights)

    def construct(self, *inputs):
        return (self.cell(*inputs)[0] * self.weights).sum()


def gradients(cell, inputs, dout, count):
    found = ops.grad(Weighted(cell, dout), tuple(range(count)))(*map(Tensor, inputs))
    return [value.asnumpy() for value in (found if isinstance(found, tuple) else (found,))]


def torch_gradients(function, inputs, dout, count):
    """The same by PyTorch in float64."""
    leaves = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in inputs]
    (function(*leaves) * torch.tensor(dout, dtype=torch.float64)).sum().backward()
    return [leaf.grad.numpy() for leaf in leaves[:count]]


def test_gelu_is_exact():
    values = np.concatenate([np.linspace(-12, 12, 100_001), [-1e4, -40, 40, 1e4, 1e10, -1e10]]).astype(np.float32)
    exact = [0.5 * x * math.erfc(-x / math.sqrt(2)) for x in values.astype(np.float64)]
    found = Gelu()(Tensor(values)).asnumpy()
    np.testing.assert_allclose(found, exact, rtol=3e-7, atol=6e-7)
    assert np.abs(found - torch.nn.functional.gelu(torch.tensor(values), approximate="tanh").numpy()).max() > 1e-4


def test_gradient_of_gelu():
    class Single(nn.Cell):
        def __init__(self):
            super().__init__()
            self.gelu = Gelu()

        def construct(self, inputs):
            return (self.gelu(inputs),)

    random = np.random.RandomState(0)
    values, dout = (3 * random.randn(2, 5000)).astype(np.float32)
    expected = torch_gradients(torch.nn.functional.gelu, [values], dout, 1)
    np.testing.assert_allclose(gradients(Single(), [values], dout, 1)[0], expected[0], rtol=2e-6, atol=5e-6)


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_gradient_of_layer_normalisation(offset):
    random = np.random.RandomState(1)
    rows, dout = random.randn(2, 60, 24).astype(np.float32)
    rows += offset                                                 # rows whose mean is far from zero
    gamma, beta = random.randn(2, 24).astype(np.float32)
    found = gradients(NormaliseRows(24, 1e-12), [rows, gamma, beta], dout, 3)

    def normalise(rows, gamma, beta):
        return torch.nn.functional.layer_norm(rows, (24,), gamma, beta, 1e-12)

    for value, expected in zip(found, torch_gradients(normalise, [rows, gamma, beta], dout, 3), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=2e-5)


def test_attention_with_dropout_and_its_gradient():
    random = np.random.RandomState(2)
    query, key, value, dout = random.randn(4, 2, 3, 9, 5).astype(np.float32)
    mask = np.where(np.arange(9) < 7, 0.0, -10000.0).astype(np.float32)[:, None] * np.ones((2, 3, 1, 1), np.float32)
    keep = (random.rand(2, 3, 9, 9) > 0.3).astype(np.float32) / np.float32(0.7)
    inputs = [query, key, value, mask, keep]

    def attend(query, key, value, mask, keep):
        return (torch.softmax(query @ key.transpose(2, 3) + mask.transpose(2, 3), -1) * keep) @ value

    found = AttentionWithDropout()(*map(Tensor, inputs))[0].asnumpy()
    expected = attend(*(torch.tensor(item, dtype=torch.float64) for item in inputs)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    for value, exact in zip(gradients(AttentionWithDropout(), inputs, dout, 3),
                            torch_gradients(attend, inputs, dout, 3), strict=True):
        np.testing.assert_allclose(value, exact, rtol=1e-4, atol=1e-5)
