# SPDX-License-Identifier: Apache-2.0
"""Where a training step's time goes, from MindSpore's profiler, and the time that its dense products need at least."""
from __future__ import annotations

import csv
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from src.config import BertConfig

# The first pattern that an operator's full name matches says what it belongs to.
PARTS = {"products": r"/(Batch)?MatMul-op|Tile(Joined)?Product", "attention": r"FusedAttention|/attention-Attention/",
         "norms and activations": r"AddNorm|BiasGelu|LayerNorm|layernorm|activation", "memories": r"MemoryLayer_",
         "embedding": r"bert_embedding", "head": r"/network-KTNET", "optimizer": r""}
PRODUCT_TURNS = 20      # MindSpore's CPU kernels try numbers of threads in their first runs


def part_of(operator: str) -> str:
    """What an operator belongs to, by its full name.

    >>> part_of("Default/gradients-Gradients/network-KTNETWithLoss/network-KTNET/dense1-SpanOutput/MatMul-op7")
    'products'
    """
    return next(part for part, pattern in PARTS.items() if re.search(pattern, operator))


def shares(folder: Path, steps: int) -> dict[str, float]:
    """Seconds a step of every part, from what the profiler left in a folder."""
    seconds = dict.fromkeys(PARTS, 0.0)
    for path in folder.rglob("cpu_op_detail_info_*.csv"):
        with open(path, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                seconds[part_of(row["full_op_name"])] += float(row["op_total_time(ms)"]) / 1000 / steps
    return seconds


def profile(run: Callable[[int], float], steps: int) -> dict[str, float]:
    """Seconds a step of every part, "framework" for what no operator takes, and "step" for all.

    Args:
        run: runs that many steps; seconds.
        steps: how many.
    """
    import mindspore as ms

    with tempfile.TemporaryDirectory() as name:
        profiler = ms.Profiler(output_path=name)
        step = run(steps) / steps
        profiler.stop()
        parts = shares(Path(name), steps)
    return {**parts, "framework": max(step - sum(parts.values()), 0.0), "step": step}


def product_limit(bert: BertConfig, tokens: int) -> float:
    """Seconds that the encoder's dense products of a training step take at the speed of its largest, alone."""
    from mindspore import Tensor, ops

    from src.cpu.kernels import multiply_tiles
    from src.cpu.product import TileProduct

    random, product = np.random.RandomState(0), TileProduct() if multiply_tiles() else ops.MatMul()
    left = Tensor(random.randn(tokens, bert.hidden_size).astype(np.float32))
    right = Tensor(random.randn(bert.hidden_size, bert.intermediate_size).astype(np.float32))
    times = []
    for _ in range(PRODUCT_TURNS):
        start = time.perf_counter()
        product(left, right).asnumpy()
        times.append(time.perf_counter() - start)
    widths = 4 * bert.hidden_size + 2 * bert.intermediate_size         # of q, k, v, the context, and back and forth
    products = 3 * bert.num_hidden_layers * widths / bert.intermediate_size     # forward, and two for the gradients
    return products * min(times)
