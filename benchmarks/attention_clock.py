# SPDX-License-Identifier: Apache-2.0
"""How much of attention's time in bfloat16 its products take: its kernel is built with a clock around each of them."""
from __future__ import annotations

import ctypes
import os
import shlex
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.config import BertConfig

TURNS = 20


def share_of_products(bert: BertConfig, batch: int, length: int) -> float:
    """Share of attention's time, forward and back, that its products take, copying their factors into tiles included.

    Args:
        bert: sizes of the encoder.
        batch: samples.
        length: word pieces of each.
    """
    library, inputs, gradient = build(), draw_inputs(bert, batch, length), draw(batch * length, bert.hidden_size)
    outputs = [np.empty_like(array) for array in (gradient, *inputs[:4])]
    shares = []
    for _ in range(TURNS):
        start = read_ticks(library)
        call(library.Attention, [*inputs, outputs[0]])
        call(library.AttentionGradient, [*inputs, gradient, *outputs[1:]])
        products, end, threads = read_ticks(library)
        shares.append(products / float(end - start[1]) / threads)
    return statistics.median(shares)


def build() -> ctypes.CDLL:
    """The kernel with its clock."""
    from src.cpu.kernels import OPTIONS, SOURCES

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "clock.so"
        sources = (Path(__file__).with_suffix(".cc"), SOURCES / "attention.cc")
        subprocess.run([*shlex.split(os.environ.get("CXX") or "g++"), *OPTIONS, f"-I{SOURCES}", "-o", str(path),
                        *map(str, sources)], check=True)
        return ctypes.CDLL(str(path))


def draw(*shape: int) -> np.ndarray:
    """Random numbers, float32."""
    return np.random.RandomState(0).standard_normal(shape).astype(np.float32)


def draw_inputs(bert: BertConfig, batch: int, length: int) -> list[np.ndarray]:
    """Inputs of the kernel, as src/cpu/attention.h lists them."""
    from src.dropout import mask_pool

    heads, width = bert.num_attention_heads, bert.hidden_size
    return [draw(batch * length, 3 * width), *(draw(width) for _ in range(3)), np.zeros((batch, length), np.float32),
            np.full(heads, (width // heads) ** -0.5, np.float32),
            mask_pool(bert.attention_probs_dropout_prob, length, 0).asnumpy(), *np.ones((2, 1), np.int32)]


def call(kernel: ctypes._CFuncPtr, arrays: Sequence[np.ndarray]) -> None:
    """Call a kernel as MindSpore does: number of tensors, tensors, ranks, shapes, and three that are not read."""
    count = len(arrays)
    shapes = [(ctypes.c_int64 * array.ndim)(*array.shape) for array in arrays]
    kernel(count, (ctypes.c_void_p * count)(*(array.ctypes.data for array in arrays)),
           (ctypes.c_int * count)(*(array.ndim for array in arrays)),
           (ctypes.c_void_p * count)(*map(ctypes.addressof, shapes)), None, None, None)


def read_ticks(library: ctypes.CDLL) -> tuple[int, int, int]:
    """Ticks that the products of all threads took since the last call, the time in ticks, and the number of threads."""
    numbers = (ctypes.c_uint64 * 3)()
    library.ReadTicks(numbers)
    return tuple(numbers)
