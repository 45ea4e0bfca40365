# SPDX-License-Identifier: Apache-2.0
"""The cells for CPU, forward and back, against the same mathematics in float64; and how their kernels are built."""
from __future__ import annotations

import hashlib
import math
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

ms = pytest.importorskip("mindspore")
from mindspore import Tensor, nn, ops  # noqa: E402

from src.bert import EncoderLayer, Gelu  # noqa: E402
from src.config import BertConfig  # noqa: E402
from src.cpu import kernels as cpu_kernels  # noqa: E402
from src.cpu.encoder import FusedEncoderLayer, InferenceEncoderLayer, encoder_classes  # noqa: E402
from src.cpu.head import FusedMemoryLayer, FusedSelfMatching, FusedSpanOutput  # noqa: E402
from src.cpu.inference import FeedForward, ProductAddNorm  # noqa: E402
from src.cpu.ops import (  # noqa: E402
    AddNorm,
    BiasGelu,
    Drop,
    FusedAttention,
    Lookup,
    MatchFactors,
    MatchSoftmax,
    ReadMemory,
    SpanScores,
)
from src.cpu.product import (  # noqa: E402
    JoinedProductAndResidual,
    ProductAndResidual,
    TileJoinedProductAndResidual,
    TileProduct,
    TileProductAndResidual,
    use_tiles,
)
from src.dropout import DropoutFactory, pick_masks  # noqa: E402
from src.layers import MemoryLayer, SpanOutput, TriLinearTwoTimeSelfAttentionLayer  # noqa: E402
from utils import device  # noqa: E402

torch = pytest.importorskip("torch")
needs_kernels = pytest.mark.skipif(cpu_kernels.library() is None, reason="no C++ compiler: no kernels to test")
# Widths that are no multiple of a vector register's, and row counts below and above the number of blocks of rows.
SHAPES = [(3, 24), (61, 31)]


@pytest.fixture(autouse=True, scope="module")
def graph_mode():
    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")


def numbers(tensor):
    """float32 or bfloat16 -> a float32 array."""
    return tensor.astype(ms.float32).asnumpy()


def assert_near(tensor, wanted, rtol=1e-5, atol=1e-5):
    """Both tolerances as for NumPy, but ``atol`` a share of the largest number; a bfloat16 may be rounded."""
    rtol = max(rtol, 2.0 ** -8) if tensor.dtype == ms.bfloat16 else rtol
    np.testing.assert_allclose(numbers(tensor), wanted, rtol=rtol, atol=atol * np.abs(wanted).max())


class Weighted(nn.Cell):
    """The output times fixed weights, summed: its gradient is the cell's with the weights as ``dout``."""

    def __init__(self, cell, weights):
        super().__init__()
        self.cell, self.weights = cell, Tensor(weights)

    def construct(self, *inputs):
        return (self.cell(*inputs) * self.weights).sum()


class WeightedPair(nn.Cell):
    """The same of a cell with two outputs."""

    def __init__(self, cell, *weights):
        super().__init__()
        self.cell, self.weights = cell, [Tensor(array) for array in weights]

    def construct(self, *inputs):
        first, second = self.cell(*inputs)
        return (first * self.weights[0]).sum() + (second * self.weights[1]).sum()


def check(cell, function, inputs, differentiated, random, forward=2e-6, backward=2e-5, scaled=False):
    """Compare a cell with a function of PyTorch in float64; gradients by the first ``differentiated`` inputs.

    ``scaled``: tolerances are shares of the largest number of an array, if that is larger than 1.
    """
    leaves = [torch.tensor(value, dtype=torch.float64 if value.dtype == np.float32 else torch.int64,
                           requires_grad=value.dtype == np.float32) for value in inputs]
    expected = function(*leaves)
    np.testing.assert_allclose(cell(*map(Tensor, inputs)).asnumpy(), expected.detach().numpy(), rtol=1e-5, atol=forward)
    dout = random.randn(*expected.shape).astype(np.float32)
    (expected * torch.tensor(dout, dtype=torch.float64)).sum().backward()
    found = ops.grad(Weighted(cell, dout), tuple(range(differentiated)))(*map(Tensor, inputs))
    for value, leaf in zip(found if isinstance(found, tuple) else (found,), leaves[:differentiated], strict=True):
        largest = max(1.0, float(leaf.grad.abs().max())) if scaled else 1.0
        np.testing.assert_allclose(numbers(value), leaf.grad.numpy(), rtol=1e-4, atol=backward * largest)


def dropout_masks(random, width, for_all):
    """A pool, step and layer."""
    if for_all:
        return np.ones((1, width), np.float32), np.int32([0]), np.int32([0])
    pool = (random.rand(101, width) > 0.3).astype(np.float32) / np.float32(0.7)
    return pool, np.int32([2_000_000_000]), np.int32([5])


def masks_of(rows, pool, step, layer):
    """The masks of so many rows, in PyTorch."""
    return pool[pick_masks(torch.arange(rows), step, layer, len(pool))]


@needs_kernels
def test_gelu_is_exact():
    values = np.concatenate([np.linspace(-12, 12, 100_001), [-1e4, -40, 40, 1e4, 1e10, -1e10]]).astype(np.float32)
    exact = [0.5 * x * math.erfc(-x / math.sqrt(2)) for x in values.astype(np.float64)]
    found = BiasGelu()(Tensor(values[:, None]), Tensor(np.zeros(1, np.float32))).asnumpy()[:, 0]
    np.testing.assert_allclose(found, exact, rtol=3e-7, atol=6e-7)
    np.testing.assert_allclose(found, Gelu()(Tensor(values)).asnumpy(), rtol=1e-6, atol=1e-6)
    assert np.abs(found - torch.nn.functional.gelu(torch.tensor(values), approximate="tanh").numpy()).max() > 1e-4


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES)
def test_bias_and_gelu(shape):
    random = np.random.RandomState(0)
    rows, bias = (3 * random.randn(*shape)).astype(np.float32), random.randn(shape[1]).astype(np.float32)
    check(BiasGelu(), lambda rows, bias: torch.nn.functional.gelu(rows + bias), [rows, bias], 2, random)


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES)
def test_lookup(shape):
    random = np.random.RandomState(12)
    inputs = [random.randn(70, shape[1]).astype(np.float32), random.randint(0, 70, shape[0]).astype(np.int32)]
    check(Lookup(), lambda table, ids: table[ids], inputs, 1, random)


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES)
def test_dropout(shape):
    random = np.random.RandomState(2)
    inputs = [random.randn(*shape).astype(np.float32), *dropout_masks(random, shape[1], False)]
    check(Drop(), lambda rows, *masks: rows * masks_of(len(rows), *masks), inputs, 1, random)


@needs_kernels
@pytest.mark.parametrize("offset", [0.0, 3.0])              # rows whose mean is far from zero
@pytest.mark.parametrize("for_all", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_dropout_residual_and_layer_normalisation(shape, for_all, offset):
    random = np.random.RandomState(1)
    rows, residual = random.randn(2, *shape).astype(np.float32)
    bias, gamma, beta = random.randn(3, shape[1]).astype(np.float32)
    masks = dropout_masks(random, shape[1], for_all)

    def add_and_normalise(rows, bias, residual, gamma, beta, *masks):
        added = residual + (rows + bias) * masks_of(len(rows), *masks)
        return torch.nn.functional.layer_norm(added, (shape[1],), gamma, beta, 1e-6)

    check(AddNorm(1e-6), add_and_normalise, [rows, bias, residual + np.float32(offset), gamma, beta, *masks], 5,
          random)


def needs_tiles(monkeypatch):
    """Products are wanted in bfloat16, by a processor with a matrix unit."""
    if device.bfloat16_unit() != "AMX":
        pytest.skip("this processor has no AMX")
    ops.matmul(Tensor(np.ones((2, 2), np.float32)), Tensor(np.ones((2, 2), np.float32)))    # oneDNN has read it
    monkeypatch.setenv(device.PRODUCT_MODE, "BF16")


@pytest.fixture(params=["float32", "bfloat16"])
def products(request, monkeypatch):
    """How attention multiplies: with float32 products, or with those of the processor's matrix unit."""
    if request.param == "bfloat16":
        needs_tiles(monkeypatch)
    return request.param


@needs_kernels
@pytest.mark.parametrize("for_all", [False, True])
@pytest.mark.parametrize(("length", "heads", "width"), [(9, 3, 5), (64, 1, 16), (70, 2, 33), (150, 2, 64)])
def test_attention(products, length, heads, width, for_all):
    """Below, at and above a block of queries; widths and lengths that are no multiple of a vector register's."""
    random = np.random.RandomState(3)
    rows = random.randn(2 * length, 3 * heads * width).astype(np.float32)
    biases = random.randn(3, heads * width).astype(np.float32)
    mask = np.where(np.arange(length) < np.array([[length - 2], [4]]), 0.0, -10000.0).astype(np.float32)
    inputs = [rows, *biases, mask, *dropout_masks(random, length, for_all)]

    def attend(rows, query_bias, key_bias, value_bias, mask, *masks):
        biases = torch.cat((query_bias, key_bias, value_bias))
        query, key, value = (rows + biases).reshape(2, length, 3, heads, width).permute(2, 0, 3, 1, 4)
        kept = masks_of(2 * heads * length, *masks).reshape(2, heads, length, length)
        weights = torch.softmax(0.25 * query @ key.transpose(2, 3) + mask[:, None, None], -1) * kept
        return (weights @ value).transpose(1, 2).reshape(2 * length, heads * width)

    if products == "float32":
        check(FusedAttention(heads, 0.25), attend, inputs, 4, random, forward=1e-5, backward=1e-4)
        return
    with pytest.raises(AssertionError):         # it does round
        check(FusedAttention(heads, 0.25), attend, inputs, 4, np.random.RandomState(4), forward=1e-5, backward=1e-4)
    # The gradient by the key's bias is 0, in bfloat16 a sum over 300 queries of what rounding leaves.
    check(FusedAttention(heads, 0.25), attend, inputs, 4, random, forward=0.06, backward=0.2,
          scaled=True)


@needs_kernels
@pytest.mark.parametrize("masked", [0.0, -10000.0])
@pytest.mark.usefixtures("products")
def test_attention_forgets_what_was_in_its_scratch_memory(masked):
    """The last block of queries is shorter than those before it; keys of a whole sample may be masked alike."""
    random = np.random.RandomState(5)
    products, dout = random.randn(3 * 67, 24).astype(np.float32), random.randn(3 * 67, 8).astype(np.float32)
    inputs = [Tensor(array) for array in (products, *np.zeros((3, 8), np.float32), np.full((3, 67), masked, np.float32),
                                          np.ones((1, 67), np.float32), *np.zeros((2, 1), np.int32))]
    cell = FusedAttention(2, 1.0)
    together = [cell(*inputs), ops.grad(Weighted(cell, dout))(*inputs)]
    for sample in range(3):
        rows = slice(67 * sample, 67 * sample + 67)
        alone = [Tensor(products[rows]), *inputs[1:4], inputs[4][:1], *inputs[5:]]
        found = [cell(*alone), ops.grad(Weighted(cell, dout[rows]))(*alone)]
        for one, all_of_them in zip(found, together, strict=True):
            np.testing.assert_array_equal(one.asnumpy(), all_of_them.asnumpy()[rows])


def rounded(values):
    """float32 -> the nearest bfloat16, as float32."""
    return torch.tensor(values).bfloat16().float().numpy()


# Rows, depth and columns below, at and above the sizes of tiles and of blocks of rows and depth; a batch.
@needs_kernels
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("batch", "rows", "depth", "columns"), [
    ((), 1, 1, 1), ((), 32, 64, 32), ((), 37, 45, 70), ((), 1100, 33, 2), ((), 65, 1100, 33), ((3,), 20, 40, 17)])
def test_products_of_tiles(monkeypatch, batch, rows, depth, columns, transposed):
    needs_tiles(monkeypatch)
    random = np.random.RandomState(8)
    left = rounded(random.randn(*batch, rows, depth).astype(np.float32))
    right = rounded(random.randn(*batch, *((columns, depth) if transposed else (depth, columns))).astype(np.float32))
    dout = rounded(random.randn(*batch, rows, columns).astype(np.float32))
    cell = TileProduct(transposed)
    x, y, dz = (array.astype(np.float64) for array in (left, right, dout))
    expected = x @ (y.swapaxes(-1, -2) if transposed else y)
    by_left = dz @ (y if transposed else y.swapaxes(-1, -2))
    by_right = dz.swapaxes(-1, -2) @ x if transposed else x.swapaxes(-1, -2) @ dz
    inputs = Tensor(left), Tensor(right)
    found = [cell(*inputs), *ops.grad(Weighted(cell, dout), (0, 1))(*inputs)]
    for value, wanted in zip(found, (expected, by_left, by_right), strict=True):
        assert_near(value, wanted)
    if not batch:
        by_weight = ops.grad(Weighted(TileProduct(transposed, by_weight=True), dout), 1)(*inputs)
        assert by_weight.dtype == ms.bfloat16 and by_weight.shape == right.shape
        np.testing.assert_array_equal(numbers(by_weight), rounded(found[2].asnumpy()))


@needs_kernels
@pytest.mark.parametrize(("rows", "depth", "columns"), [(5, 7, 9), (64, 96, 32), (70, 40, 1100)])
def test_a_product_of_tiles_adds_the_residual_s_gradient(monkeypatch, rows, depth, columns):
    needs_tiles(monkeypatch)
    random = np.random.RandomState(10)
    left, right, dout = (rounded(random.randn(*shape).astype(np.float32))
                         for shape in ((rows, depth), (columns, depth), (rows, columns)))
    residual = random.randn(rows, depth).astype(np.float32)
    cell, inputs = TileProductAndResidual(), [Tensor(left), Tensor(right)]
    found = [*cell(*inputs), *ops.grad(WeightedPair(cell, dout, residual), (0, 1))(*inputs)]
    x, y, dz = (array.astype(np.float64) for array in (left, right, dout))
    for value, wanted in zip(found, (x @ y.T, left, dz @ y + residual, dz.T @ x), strict=True):
        assert_near(value, wanted)


@needs_kernels
@pytest.mark.parametrize(("rows", "depth", "columns"), [(5, 7, 9), (64, 96, 32), (1100, 40, 70)])
def test_joined_products(monkeypatch, rows, depth, columns):
    """Parts whose rows are no multiple of a tile's, and more rows than are handled together."""
    needs_tiles(monkeypatch)
    random = np.random.RandomState(14)
    left, dout = (rounded(random.randn(rows, width).astype(np.float32)) for width in (depth, 3 * columns))
    rights = rounded(random.randn(3, columns, depth).astype(np.float32))
    residual = random.randn(rows, depth).astype(np.float32)
    inputs = [Tensor(array) for array in (left, *rights)]
    x, y, dz = (array.astype(np.float64) for array in (left, rights.reshape(-1, depth), dout))
    for cell in (TileJoinedProductAndResidual(), JoinedProductAndResidual()):
        found = [*cell(*inputs), *ops.grad(WeightedPair(cell, dout, residual), (0, 1, 2, 3))(*inputs)]
        for value, wanted in zip(found, (x @ y.T, left, dz @ y + residual, *np.split(dz.T @ x, 3)), strict=True):
            assert_near(value, wanted)


# Rows, hidden and feed-forward width: below tiles' sizes, at them, and above what is handled together.
HALVES = pytest.mark.parametrize(("rows", "width", "inner"), [(3, 5, 9), (64, 96, 32), (150, 40, 500), (131, 70, 33)])


def half_layer(random, rows, width, inner):
    """Rounded weights of [W, I] and [I, W], biases and norm, rounded rows [T, W] and [T, I]."""
    weights = [rounded((random.randn(*shape) / math.sqrt(shape[1])).astype(np.float32))
               for shape in ((width, inner), (inner, width))]
    vectors = [random.randn(size).astype(np.float32) for size in (width, inner, width, width)]
    return weights, vectors, [rounded(random.randn(rows, size).astype(np.float32)) for size in (width, inner)]


@needs_kernels
@HALVES
def test_product_and_layer_normalisation(monkeypatch, rows, width, inner):
    needs_tiles(monkeypatch)
    random = np.random.RandomState(15)
    (weight, _), (bias, _, gamma, beta), (residual, inputs) = half_layer(random, rows, width, inner)

    def end(inputs, weight, bias, residual, gamma, beta):
        return torch.nn.functional.layer_norm(residual + inputs @ weight.T + bias, (width,), gamma, beta, 1e-6)

    check(ProductAddNorm(1e-6), end, [inputs, weight, bias, residual, gamma, beta], 6, random, forward=1e-5,
          backward=0.03, scaled=True)


@needs_kernels
@HALVES
def test_feed_forward(monkeypatch, rows, width, inner):
    """What is between both products is rounded, here too; one that lies between two numbers may go either way."""
    needs_tiles(monkeypatch)
    random = np.random.RandomState(16)
    (end_weight, weight), (end_bias, bias, gamma, beta), (inputs, _) = half_layer(random, rows, width, inner)

    def feed_forward(inputs, weight, bias, end_weight, end_bias, gamma, beta):
        expanded = torch.nn.functional.gelu(inputs @ weight.T + bias)
        expanded = expanded + (expanded.bfloat16().double() - expanded).detach()
        return torch.nn.functional.layer_norm(inputs + expanded @ end_weight.T + end_bias, (width,), gamma, beta, 1e-6)

    check(FeedForward(1e-6), feed_forward, [inputs, weight, bias, end_weight, end_bias, gamma, beta], 7, random,
          forward=5e-3, backward=0.03, scaled=True)


@needs_kernels
def test_gelu_of_the_feed_forward_kernel(monkeypatch):
    """Little more than its rounding to bfloat16 away from the exact one, and exactly 0 far below."""
    needs_tiles(monkeypatch)
    values = np.concatenate([np.linspace(-6, 6, 2001), [-1e4, -40, -12, 12]]).astype(np.float32)
    exact = np.array([0.5 * x * math.erfc(-x / math.sqrt(2)) for x in values.astype(np.float64)])
    zeros, identity = np.zeros(len(values), np.float32), np.eye(len(values), dtype=np.float32)
    # Of a row of zeros: the layer normalisation of GELU(bias).
    found = FeedForward(1e-6)(*map(Tensor, (zeros[None], 0 * identity, values, identity, zeros, zeros + 1, zeros)))
    found = found.asnumpy()[0]
    np.testing.assert_allclose(found * exact.std() + exact.mean(), exact, rtol=2.0 ** -8, atol=1e-3)
    assert (found[values < -5.9] == found[values == 0.0]).all()


@needs_kernels
def test_products_of_tiles_round_like_the_framework_s(monkeypatch):
    needs_tiles(monkeypatch)
    random = np.random.RandomState(9)
    left, right = random.randn(2, 50, 60).astype(np.float32)
    found = TileProduct(True)(Tensor(left), Tensor(right)).asnumpy()
    np.testing.assert_allclose(found, rounded(left) @ rounded(right).T, rtol=1e-5, atol=1e-4)
    assert np.abs(found - left @ right.T).max() > 1e-3


@needs_kernels
def test_a_network_s_products_are_of_tiles_where_bfloat16_is_wanted(monkeypatch):
    def kinds():
        layer = FusedEncoderLayer(BertConfig(20, 24, 1, 3, 40), DropoutFactory(False), ms.float32)
        if cpu_kernels.multiply_tiles():
            use_tiles(layer)
        return ([type(cell.matmul) for _, cell in layer.cells_and_names() if hasattr(cell, "matmul")],
                {type(layer.attention_product), type(layer.intermediate_product)})

    def layer_class(is_training, **sizes):
        return encoder_classes(BertConfig(20, 24, 1, 3, 40, **sizes), is_training)["layer_class"]

    monkeypatch.delenv(device.PRODUCT_MODE, raising=False)
    assert kinds() == ([ops.MatMul] * 8, {JoinedProductAndResidual, ProductAndResidual})
    assert layer_class(is_training=False) is FusedEncoderLayer
    needs_tiles(monkeypatch)
    assert kinds() == ([TileProduct] * 6, {TileJoinedProductAndResidual, TileProductAndResidual})
    assert layer_class(is_training=False) is InferenceEncoderLayer
    assert layer_class(is_training=True) is layer_class(is_training=False, hidden_act="relu") is FusedEncoderLayer
    memory = FusedMemoryLayer(8, 13, 0.5)
    use_tiles(memory)
    assert isinstance(memory.dense_1.matmul, TileProduct) and isinstance(memory.product, ops.BatchMatMul)


def memory_inputs(random, tokens=45, width=13, most=6, rows=30):
    """p, sentinel, ids with none, some and all places taken, vectors."""
    counts = random.randint(0, most + 1, tokens)
    ids = np.where(np.arange(most) < counts[:, None], random.randint(1, rows, (tokens, most)), 0).astype(np.int32)
    ids[0], ids[1] = 0, np.arange(1, most + 1)
    return (random.randn(tokens, width).astype(np.float32), random.randn(width).astype(np.float32), ids,
            random.randn(rows, width).astype(np.float32))


@needs_kernels
def test_memory():
    random = np.random.RandomState(6)
    inputs = memory_inputs(random)

    def read(projected, sentinel, ids, table):
        rows = torch.cat([sentinel.expand(len(ids), 1, -1), table[ids]], 1)
        scores = (rows * projected[:, None]).sum(-1)
        empty = torch.cat([torch.zeros_like(ids[:, :1]), ids == 0], 1)
        weights = torch.softmax(scores.masked_fill(empty.bool(), -torch.inf), -1)
        return (weights[..., None] * rows).sum(1) * (ids[:, :1] > 0)

    check(ReadMemory(), read, list(inputs), 2, random)


@needs_kernels
def test_the_fused_memory_layer_is_the_plain_one():
    """Same parameters, same results and gradients; an id that is none of the vectors' reads nothing beyond them."""
    random = np.random.RandomState(7)
    _, _, ids, table = memory_inputs(random)
    hidden, dout = (Tensor(random.randn(45, size).astype(np.float32)) for size in (8, 13))
    layers = [kind(8, 13, 0.5) for kind in (MemoryLayer, FusedMemoryLayer)]
    assert [(p.name, p.shape) for p in layers[0].get_parameters()] == [
        (p.name, p.shape) for p in layers[1].get_parameters()]
    weights = [Tensor(random.randn(*parameter.shape).astype(np.float32)) for parameter in layers[0].get_parameters()]
    results = []
    for layer in layers:
        for parameter, weight in zip(layer.get_parameters(), weights, strict=True):
            parameter.set_data(weight)
        by_hidden, by_weights = ops.grad(Weighted(layer, dout.asnumpy()), 0, ms.ParameterTuple(
            layer.trainable_params()))(hidden, Tensor(ids), Tensor(table))
        results.append([layer(hidden, Tensor(ids), Tensor(table)), by_hidden, *by_weights])
    for plain, fused in zip(*results, strict=True):
        np.testing.assert_allclose(fused.asnumpy(), plain.asnumpy(), rtol=1e-5, atol=1e-5)
    ids[1, 1:] = 10**9
    assert np.isfinite(layers[1](hidden, Tensor(ids), Tensor(table)).asnumpy()).all()


class Joined(nn.Cell):
    """All results of a cell, one after the other."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def construct(self, *inputs):
        first, second = self.cell(*inputs)
        return ops.concat((first.reshape((-1,)), second.reshape((-1,))))


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES)
def test_what_self_matching_multiplies(shape):
    random = np.random.RandomState(8)
    inputs = [random.randn(*size).astype(np.float32) for size in (shape, shape[1:], shape[1:])]
    check(Joined(MatchFactors()), lambda rows, diagonal, vector: torch.cat(
        ((rows * diagonal).flatten(), rows @ vector)), inputs, 3, random, forward=1e-5, backward=1e-5)


@needs_kernels
@pytest.mark.parametrize("length", [1, 16, 37])
def test_softmax_of_self_matching(length):
    random = np.random.RandomState(9)
    columns = np.where(np.arange(length) < np.array([[length], [1], [20]]), random.randn(3, length), -1e6)
    inputs = [3 * random.randn(3, length, length).astype(np.float32), columns.astype(np.float32)]
    check(MatchSoftmax(), lambda scores, columns: torch.softmax(scores + columns[:, None], -1), inputs, 2, random)


@needs_kernels
@pytest.mark.parametrize("shape", SHAPES)
def test_scores_of_the_span(shape):
    random = np.random.RandomState(10)
    inputs = [random.randn(*size).astype(np.float32) for size in (shape, shape, (2, 6 * shape[1]))]

    def score(rows, matched, weight):
        block = weight.reshape(2, 6, shape[1])
        features = torch.cat((rows, matched, rows * matched, rows - matched, rows), 1)
        scores = features @ block[:, [0, 1, 2, 3, 5]].reshape(2, -1).T
        return torch.cat((scores.flatten(), (matched @ (block[:, 4] - block[:, 5]).T).flatten()))

    check(Joined(SpanScores()), score, inputs, 3, random, forward=1e-4, backward=1e-4)


class Head(nn.Cell):
    """Self-matching and the span."""

    def __init__(self, matching, span):
        super().__init__()
        self.matching, self.span = matching(29), span(29, 0.3)

    def construct(self, fused, mask):
        return self.span(fused, self.matching(fused, mask))


@needs_kernels
def test_the_fused_head_is_the_plain_one():
    """Same parameters, same results and gradients."""
    random = np.random.RandomState(11)
    fused, dout = random.randn(2, 23, 29).astype(np.float32), random.randn(2, 2, 23).astype(np.float32)
    mask = Tensor((np.arange(23) < np.array([[23], [9]])).astype(np.float32))
    heads = [Head(TriLinearTwoTimeSelfAttentionLayer, SpanOutput), Head(FusedSelfMatching, FusedSpanOutput)]
    for theirs, ours in zip(*(head.get_parameters() for head in heads), strict=True):
        assert (ours.name, ours.shape) == (theirs.name, theirs.shape)
        ours.set_data(Tensor(theirs.asnumpy()))
    results = []
    for head in heads:
        by_fused, by_weights = ops.grad(Weighted(head, dout), 0, ms.ParameterTuple(
            head.trainable_params()))(Tensor(fused), mask)
        results.append([head(Tensor(fused), mask), by_fused, *by_weights])
    for plain, ours in zip(*results, strict=True):
        np.testing.assert_allclose(ours.asnumpy(), plain.asnumpy(), rtol=1e-4, atol=2e-5)


class Layer(nn.Cell):
    """A layer of the encoder, and its mask as the layer wants it."""

    def __init__(self, kind, config, is_training):
        super().__init__()
        self.layer = kind(config, DropoutFactory(is_training, seed=3), ms.float32)
        self.set_train(is_training)

    def construct(self, hidden, mask):
        return self.layer(hidden, self.layer.spread(mask), Tensor(5, ms.int32))


@needs_kernels
@pytest.mark.parametrize("is_training, rate, activation", [
    (False, 0.2, "gelu"), (True, 0.2, "gelu"), (True, 0.0, "gelu"), (True, 0.2, "gelu_new"), (True, 0.2, "relu")])
def test_the_fused_layer_is_the_plain_one(is_training, rate, activation):
    """Same parameters, same dropout masks, same results and gradients."""
    config = BertConfig(20, 24, 1, 3, 40, hidden_act=activation, hidden_dropout_prob=rate,
                        attention_probs_dropout_prob=rate, initializer_range=0.3)
    random = np.random.RandomState(4)
    hidden, dout = (Tensor(random.randn(2 * 11, 24).astype(np.float32)) for _ in range(2))
    mask = Tensor(np.where(np.arange(11) < np.array([[11], [7]]), 0.0, -10000.0).astype(np.float32))
    plain, fused = Layer(EncoderLayer, config, is_training), Layer(FusedEncoderLayer, config, is_training)
    assert [(p.name, p.shape) for p in plain.get_parameters()] == [(p.name, p.shape) for p in fused.get_parameters()]
    for ours, theirs in zip(fused.get_parameters(), plain.get_parameters(), strict=True):
        theirs.set_data(Tensor(random.randn(*theirs.shape).astype(np.float32) * 0.3))
        ours.set_data(Tensor(theirs.asnumpy()))
    np.testing.assert_allclose(fused(hidden, mask).asnumpy(), plain(hidden, mask).asnumpy(), rtol=1e-5, atol=1e-5)

    def gradients(layer):
        weighted = Weighted(layer, dout.asnumpy())
        return ops.grad(weighted, 0, ms.ParameterTuple(layer.trainable_params()))(hidden, mask)

    (by_hidden, by_weights), (expected, expected_weights) = gradients(fused), gradients(plain)
    for value, other in zip([by_hidden, *by_weights], [expected, *expected_weights], strict=True):
        np.testing.assert_allclose(value.asnumpy(), other.asnumpy(), rtol=1e-4, atol=5e-5)


@needs_kernels
def test_the_layer_for_inference_is_the_trained_one(monkeypatch):
    needs_tiles(monkeypatch)
    config = BertConfig(20, 24, 1, 3, 40, initializer_range=0.3)
    random = np.random.RandomState(17)
    hidden, dout = random.randn(2, 2 * 70, 24).astype(np.float32)
    mask = np.where(np.arange(70) < np.array([[70], [7]]), 0.0, -10000.0).astype(np.float32)
    layers = [Layer(kind, config, False) for kind in (FusedEncoderLayer, InferenceEncoderLayer)]
    for ours, first in zip(layers[1].get_parameters(), layers[0].get_parameters(), strict=True):
        assert ours.name == first.name
        ours.set_data(Tensor(first.asnumpy()))
    results = []
    for layer in layers:
        use_tiles(layer)
        by_hidden, by_weights = ops.grad(Weighted(layer, dout), 0, ms.ParameterTuple(layer.trainable_params()))(
            Tensor(hidden), Tensor(mask))
        results.append([layer(Tensor(hidden), Tensor(mask)), by_hidden, *by_weights])
    for plain, ours in zip(*results, strict=True):
        assert_near(ours, numbers(plain), rtol=0.0, atol=0.01)


# --- building --------------------------------------------------------------------------------------------------------


@pytest.fixture
def build(monkeypatch, caplog):
    """A function that builds anew, in a folder and with settings of the module and of the environment.

    It does not optimize, which takes most of the time, unless OPTIONS are given.
    """
    monkeypatch.setattr(cpu_kernels.LOGGER, "propagate", True)
    monkeypatch.setattr(cpu_kernels, "OPTIONS", (*cpu_kernels.OPTIONS, "-O0"))

    def builder(compiler=None, **settings):
        for name, value in settings.items():
            monkeypatch.setattr(cpu_kernels, name, value)
        if compiler is not None:
            monkeypatch.setenv("CXX", compiler)
        cpu_kernels.library.cache_clear()
        return cpu_kernels.library()

    yield builder
    cpu_kernels.library.cache_clear()


@needs_kernels
def test_source_gives_no_warnings(build, tmp_path):
    strict = (*cpu_kernels.OPTIONS[:-1], "-Wall", "-Wextra", "-Werror")        # optimized: more warnings
    assert build(FOLDER=tmp_path, OPTIONS=strict).parent == tmp_path


@needs_kernels
def test_kernels_are_built_once_and_whole(build, tmp_path):
    folder = tmp_path / "with space"
    path = build(FOLDER=folder)
    time = path.stat().st_mtime_ns
    assert list(folder.iterdir()) == [path]
    assert build() == path and path.stat().st_mtime_ns == time
    assert build(OPTIONS=("-DOTHER", *cpu_kernels.OPTIONS)) != path     # another name for what is built otherwise
    sources = shutil.copytree(cpu_kernels.SOURCES, tmp_path / "sources")
    names = {build(FOLDER=folder, SOURCES=sources).name}
    for changed in ("attention.cc", "kernels.h"):
        with open(sources / changed, "a", encoding="ascii") as file:
            file.write("// another version\n")
        names.add(build().name)
    assert len(names) == 3


@needs_kernels
@pytest.mark.parametrize("folder", ["not:for/MindSpore", "a file/kernels", "broken"])
def test_kernels_are_built_elsewhere_where_the_folder_does_not_serve(build, tmp_path, folder):
    (tmp_path / "not:for").mkdir()
    (tmp_path / "a file").write_text("")
    name = build(FOLDER=tmp_path / "whole").name
    (tmp_path / "broken").mkdir()
    digest = hashlib.sha256(b"no library").hexdigest()[:cpu_kernels.KEY_DIGITS]
    other = f"{name.rpartition('-')[0]}-{digest}.so"
    (tmp_path / "broken" / other).write_text("no library")      # such as one of another system
    path = build(FOLDER=tmp_path / folder)
    assert path.name.startswith(name.rpartition("-")[0]) and tmp_path not in path.parents


@needs_kernels
def test_a_library_cut_short_is_built_again(build, caplog, tmp_path):
    """It must not be loaded: that would end this process with SIGBUS."""
    whole = build(FOLDER=tmp_path)
    data = whole.read_bytes()
    whole.unlink()                                              # it is loaded here: do not cut its memory
    whole.write_bytes(data[:len(data) // 2])
    again = build(FOLDER=tmp_path)
    assert again.parent == tmp_path and len(again.read_bytes()) == len(data)
    assert "damaged, built again" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == [again.name]


@pytest.mark.parametrize("compiler", ["no-such-compiler --fast", "false", 'g++ "'])
def test_without_a_compiler_the_frameworks_operators_are_used(build, caplog, compiler):
    assert build(compiler) is None and not cpu_kernels.available()
    warning, = caplog.messages
    assert "g++" in warning and compiler in warning and "\n" not in warning


@needs_kernels
def test_source_that_does_not_compile_is_told(build, caplog, tmp_path):
    (tmp_path / "broken.cc").write_text("int broken(")
    assert build(SOURCES=tmp_path, FOLDER=tmp_path / "built") is None
    warning, = caplog.messages
    assert "broken.cc:1" in warning and not any((tmp_path / "built").iterdir())


# Run with different numbers of threads: digests of what sums over rows.
DIGESTS = """
import ctypes, hashlib, sys
import numpy as np

library, random = ctypes.CDLL(sys.argv[1]), np.random.RandomState(0)

def run(name, inputs, outputs, changed=0):
    arrays = [random.randn(*shape).astype(np.float32) for shape in inputs[:-1]]
    arrays += [np.random.RandomState(1).randn(*inputs[-1]).astype(np.float32)]
    arrays += [np.full(shape, np.nan, np.float32) for shape in outputs]
    if name == "AddNormGradient":
        arrays[6:8] = STEP_AND_LAYER
        arrays[8] = np.array([1e-6], np.float32)
    if name == "AttentionGradient":
        arrays[7:9] = STEP_AND_LAYER
    if name == "AdamAndAverage":
        arrays[4:6] = [np.abs(array) for array in arrays[4:6]]
        arrays[10:12] = [np.array([power], np.float32) for power in (0.9, 0.999)]
        arrays[12] = np.array([0.01, 1.0, 0.9, 0.999, 1e-6, 0.1], np.float32)
    if name == "LookupGradient":
        arrays[1] = (np.arange(777) ** 2 % 70).astype(np.int32)
    if name == "MemoryGradient":
        arrays[2] = np.arange(777 * 9).reshape(777, 9).astype(np.int32) % 50
    count = len(arrays)
    shapes = [(ctypes.c_int64 * array.ndim)(*array.shape) for array in arrays]
    getattr(library, name)(count, (ctypes.c_void_p * count)(*[array.ctypes.data for array in arrays]),
                           (ctypes.c_int * count)(*[array.ndim for array in arrays]),
                           (ctypes.c_void_p * count)(*map(ctypes.addressof, shapes)), None, None, None)
    given = arrays[:changed] + arrays[-len(outputs):]
    assert all(np.isfinite(array).all() for array in given)
    print(name, [hashlib.sha256(array.tobytes()).hexdigest() for array in given])

STEP_AND_LAYER = np.int32([[7], [3]])
T, W = 777, 40
run("LookupGradient", [(70, W), (T,), (T, W)], [(70, W)])
run("BiasGeluGradient", [(T, W), (W,), (T, W)], [(T, W), (W,)])
run("AddNormGradient", [(T, W), (W,), (T, W), (W,), (W,), (5, W), (1,), (1,), (1,), (T, W)],
    [(T, W), (W,), (T, W), (W,), (W,)])
run("AttentionGradient", [(T, 3 * W)] + [(W,)] * 3 + [(7, 111), (4,), (5, 111), (1,), (1,), (T, W)],
    [(T, 3 * W)] + [(W,)] * 3)
run("MemoryGradient", [(T, W), (W,), (T, 9), (50, W), (T, W)], [(T, W), (W,)])
run("MatchFactorsGradient", [(T, W), (W,), (W,), (T, W), (T,)], [(T, W), (W,), (W,)])
run("MatchSoftmaxGradient", [(7, 111, 111)] * 2, [(7, 111, 111), (7, 111)])
run("SpanScoresGradient", [(T, W), (T, W), (2, 6 * W), (T, 2), (T, 2)], [(T, W), (T, W), (2, 6 * W)])
if library.MultipliesTiles():
    run("ProductTransposedGradient", [(T, W), (33, W), (T, 33)], [(T, W), (33, W)])
    run("JoinedProductGradient", [(T, W), (33, W), (33, W), (33, W), (T, 99), (T, W)], [(T, W)] + [(33, W)] * 3)
    run("FeedForward", [(T, W), (33, W), (33,), (W, 33), (W,), (W,), (W,), (1,)], [(T, W)])
    run("ProductAddNorm", [(T, 33), (W, 33), (W,), (T, W), (W,), (W,), (1,)], [(T, W)])
BOTH = [(T, W), (7,)]
run("AdamAndAverage", BOTH * 4 + [(1,), (1,), (1,), (1,), (6,), (2,)] + BOTH, [(1,)], changed=8)
"""


@needs_kernels
def test_results_do_not_depend_on_threads(products):
    digests = {subprocess.run([sys.executable, "-c", DIGESTS, str(cpu_kernels.library())], check=True, text=True,
                              capture_output=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": count}).stdout
               for count in "1237"}
    assert len(digests) == 1 and digests.pop().count("[") == (9 if products == "float32" else 13)
