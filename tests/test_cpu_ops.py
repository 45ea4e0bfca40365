"""The cells for CPU, forward and back, against the same mathematics in float64; and how their kernels are built."""
from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ms = pytest.importorskip("mindspore")
from mindspore import Tensor, nn, ops  # noqa: E402

from src import cpu_kernels  # noqa: E402
from src.bert import EncoderLayer, Gelu  # noqa: E402
from src.config import BertConfig  # noqa: E402
from src.cpu_encoder import FusedEncoderLayer, layer_class  # noqa: E402
from src.cpu_ops import AddNorm, BiasGelu, MaskedSoftmax, SplitHeads  # noqa: E402
from src.dropout import DropoutFactory  # noqa: E402

torch = pytest.importorskip("torch")
ROOT = Path(__file__).resolve().parents[1]
needs_kernels = pytest.mark.skipif(cpu_kernels.library() is None, reason="no C++ compiler: no kernels to test")
# Widths that are no multiple of a vector register's, and row counts below and above the number of blocks of rows.
SHAPES = [(3, 24), (61, 31)]


@pytest.fixture(autouse=True, scope="module")
def graph_mode():
    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")


class Weighted(nn.Cell):
    """The output times fixed weights, summed: its gradient is the cell's with the weights as ``dout``."""

    def __init__(self, cell, weights):
        super().__init__()
        self.cell, self.weights = cell, Tensor(weights)

    def construct(self, *inputs):
        return (self.cell(*inputs) * self.weights).sum()


def check(cell, function, inputs, differentiated, random, forward=2e-6, backward=2e-5):
    """Compare a cell with a function of PyTorch in float64; gradients by the first ``differentiated`` inputs."""
    leaves = [torch.tensor(value, dtype=torch.float64 if value.dtype == np.float32 else torch.int64,
                           requires_grad=value.dtype == np.float32) for value in inputs]
    expected = function(*leaves)
    np.testing.assert_allclose(cell(*map(Tensor, inputs)).asnumpy(), expected.detach().numpy(), rtol=1e-5, atol=forward)
    dout = random.randn(*expected.shape).astype(np.float32)
    (expected * torch.tensor(dout, dtype=torch.float64)).sum().backward()
    found = ops.grad(Weighted(cell, dout), tuple(range(differentiated)))(*map(Tensor, inputs))
    for value, leaf in zip(found if isinstance(found, tuple) else (found,), leaves[:differentiated], strict=True):
        np.testing.assert_allclose(value.asnumpy(), leaf.grad.numpy(), rtol=1e-4, atol=backward)


def dropout_mask(random, rows, width, for_all):
    """A pool, and what is picked of it."""
    if for_all:
        return np.ones((1, width), np.float32), np.zeros(1, np.int32)
    pool = (random.rand(7, width) > 0.3).astype(np.float32) / np.float32(0.7)
    return pool, random.randint(0, 7, rows).astype(np.int32)


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
@pytest.mark.parametrize("offset", [0.0, 3.0])              # rows whose mean is far from zero
@pytest.mark.parametrize("for_all", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_dropout_residual_and_layer_normalisation(shape, for_all, offset):
    random = np.random.RandomState(1)
    rows, residual = random.randn(2, *shape).astype(np.float32)
    bias, gamma, beta = random.randn(3, shape[1]).astype(np.float32)
    pool, picked = dropout_mask(random, shape[0], shape[1], for_all)

    def add_and_normalise(rows, bias, residual, gamma, beta, pool, picked):
        added = residual + (rows + bias) * pool[picked]
        return torch.nn.functional.layer_norm(added, (shape[1],), gamma, beta, 1e-6)

    check(AddNorm(1e-6), add_and_normalise, [rows, bias, residual + np.float32(offset), gamma, beta, pool, picked], 5,
          random)


@needs_kernels
def test_heads():
    random = np.random.RandomState(2)
    rows, bias = random.randn(2 * 9, 3 * 5).astype(np.float32), random.randn(3 * 5).astype(np.float32)
    check(SplitHeads(3, 5), lambda rows, bias, mask: (rows + bias).reshape(2, 9, 3, 5).transpose(1, 2),
          [rows, bias, np.zeros((2, 9), np.float32)], 2, random)


@needs_kernels
@pytest.mark.parametrize("for_all", [False, True])
@pytest.mark.parametrize("length", [9, 40])
def test_softmax_with_mask_and_dropout(length, for_all):
    random = np.random.RandomState(3)
    scores = (5 * random.randn(2, 3, length, length)).astype(np.float32)
    mask = np.where(np.arange(length) < np.array([[length - 2], [4]]), 0.0, -10000.0).astype(np.float32)
    pool, picked = dropout_mask(random, 6 * length, length, for_all)

    def attend(scores, mask, pool, picked):
        return torch.softmax(0.25 * scores + mask[:, None, None], -1) * pool[picked].reshape(
            scores.shape if len(picked) > 1 else (1, 1, 1, length))

    check(MaskedSoftmax(0.25), attend, [scores, mask, pool, picked], 1, random)


class Layer(nn.Cell):
    """A layer of the encoder, and its mask as the layer wants it."""

    def __init__(self, kind, config, is_training):
        super().__init__()
        self.layer = kind(config, DropoutFactory(is_training, seed=3), ms.float32)

    def construct(self, hidden, mask):
        return self.layer(hidden, self.layer.spread(mask), Tensor(5, ms.int32))


@needs_kernels
@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
@pytest.mark.parametrize("rate", [0.0, 0.2])
@pytest.mark.parametrize("is_training", [False, True])
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


PROBE = """
import mindspore as ms
import numpy as np
from src import cpu_kernels
ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")
path = cpu_kernels.library()
print(path)
if path is not None:
    from src.cpu_ops import BiasGelu
    rows = ms.Tensor(np.linspace(-4, 4, 1 << 16).reshape(-1, 64).astype(np.float32))
    print(BiasGelu()(rows, ms.Tensor(np.zeros(64, np.float32))).asnumpy().tobytes().hex()[:4000])
"""


def probe(folder=cpu_kernels.FOLDER, **environment):
    """What a new process builds and computes, with the kernels of ``folder``: its path and its numbers."""
    code = PROBE.replace("path =", f"cpu_kernels.FOLDER = cpu_kernels.Path({str(folder)!r})\npath =")
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True,
                            env={**os.environ, **environment})
    assert result.returncode == 0, result.stderr
    path, *numbers = result.stdout.split("\n")
    return path, numbers


@needs_kernels
def test_source_gives_no_warnings():
    subprocess.run(["g++", "-std=c++17", "-fopenmp", "-Wall", "-Wextra", "-Werror", "-fsyntax-only",
                    str(cpu_kernels.SOURCE)], check=True)


@needs_kernels
def test_kernels_are_built_once_and_whole(tmp_path):
    folder = tmp_path / "with space"
    folder.mkdir()
    path, numbers = probe(folder)
    built = Path(path).stat().st_mtime_ns
    assert Path(path).parent == folder and [item.name for item in folder.iterdir()] == [Path(path).name]
    assert probe(folder) == (path, numbers) and Path(path).stat().st_mtime_ns == built


@needs_kernels
@pytest.mark.parametrize("folder", ["not:for/MindSpore", "a file/kernels"])
def test_kernels_are_built_elsewhere_where_the_folder_does_not_serve(tmp_path, folder):
    (tmp_path / "not:for").mkdir()
    (tmp_path / "a file").write_text("")
    path, numbers = probe(tmp_path / folder)
    assert not Path(path).exists() and numbers == probe()[1]        # removed when the process has ended


@needs_kernels
def test_results_do_not_depend_on_threads():
    assert probe(OMP_NUM_THREADS="1")[1] == probe(OMP_NUM_THREADS="3")[1]


@pytest.mark.parametrize("compiler", ["no-such-compiler --fast", "", "false"])
def test_without_a_compiler_the_frameworks_operators_are_used(monkeypatch, caplog, compiler):
    monkeypatch.setenv("CXX", compiler)
    cpu_kernels.library.cache_clear()
    monkeypatch.setattr(cpu_kernels.LOGGER, "propagate", True)
    try:
        assert layer_class(ms.float32) is EncoderLayer
        assert "g++" in caplog.text and (compiler or "''") in caplog.text
    finally:
        cpu_kernels.library.cache_clear()


@needs_kernels
def test_source_that_does_not_compile_is_told(monkeypatch, caplog, tmp_path):
    source = tmp_path / "cpu_kernels.cc"
    source.write_text("int broken(")
    monkeypatch.setattr(cpu_kernels, "SOURCE", source)
    monkeypatch.setattr(cpu_kernels, "FOLDER", tmp_path / "built")
    monkeypatch.setattr(cpu_kernels.LOGGER, "propagate", True)
    assert cpu_kernels.library.__wrapped__() is None and "cannot build cpu_kernels.cc" in caplog.text
    assert not any((tmp_path / "built").iterdir())
