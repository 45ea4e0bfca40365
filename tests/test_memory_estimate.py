# SPDX-License-Identifier: Apache-2.0
"""The memory estimate: its counts against the network's, and what it says when memory is short."""
from __future__ import annotations

import dataclasses
import math

import pytest

from src.config import BertConfig, KTNetConfig, MemoryConfig
from src.training.memory_estimate import (
    FUSED_LAYERS,
    PLAIN_LAYERS,
    check_memory,
    count_weights,
    estimate_training_memory,
)
from testing.reference import TINY, parameter_shapes
from utils import memory
from utils.util import InputError

MEMORIES = (MemoryConfig("wn", 40944, 112, 49), MemoryConfig("nell", 288, 112, 27))
LARGE = KTNetConfig(BertConfig(28996, 1024, 24, 16, 4096), MEMORIES)
MINILM = KTNetConfig(BertConfig(30522, 384, 6, 12, 1536), MEMORIES)


@pytest.mark.parametrize("config", [TINY, LARGE, MINILM, dataclasses.replace(MINILM, memories=())])
def test_weights_are_those_of_the_network(config):
    shapes = parameter_shapes(config)
    tables = {name: math.prod(shape) for name, shape in shapes.items() if name.startswith("embedding_")}
    weights = {name: math.prod(shape) for name, shape in shapes.items() if name not in tables}
    assert count_weights(config) == (sum(weights.values()), sum(tables.values()))


@pytest.mark.parametrize(("config", "batch", "buckets", "kept", "measured", "above"), [
    (MINILM, 8, (384,), FUSED_LAYERS, 2.02e9, 0.2),
    (MINILM, 8, (384,), PLAIN_LAYERS, 5.1e9, 0.4)])
def test_estimates_are_near_measured_peaks(config, batch, buckets, kept, measured, above):
    estimate = estimate_training_memory(config, batch, buckets, use_ema=True, accumulates=False, frozen=False,
                                        kept=kept)
    assert measured <= estimate.total <= (1 + above) * measured


def test_too_little_memory_is_refused_with_advice():
    estimate = estimate_training_memory(LARGE, 32, (384,), use_ema=True, accumulates=False, frozen=False)
    with pytest.raises(InputError, match=r"--batch_size.*--force_memory True"):
        check_memory(estimate, 24e9, force=False)
    check_memory(estimate, 24e9, force=True)
    check_memory(estimate, None, force=False)
    less = estimate_training_memory(LARGE, 1, (384,), use_ema=False, accumulates=False, frozen=True)
    check_memory(less, 24e9, force=False)
    assert less.total < estimate.total / 4


@pytest.mark.parametrize(("free", "available", "touched"), [
    (1e6, 1e9, 3000), (1e3, 1e9, 3000), (1e3, 2e3, 1800), (None, None, 0)])
def test_cache_makes_way_for_a_checkpoint(monkeypatch, free, available, touched):
    checkpoint = pytest.importorskip("src.weights.checkpoint")
    sizes = []
    monkeypatch.setattr(checkpoint, "free_memory", lambda: free)
    monkeypatch.setattr(checkpoint, "available_memory", lambda: available)
    monkeypatch.setattr(checkpoint.np, "ones", lambda size, _: sizes.append(size))
    checkpoint.free_cache_for(1000)
    assert sizes == ([touched] if touched and free < touched else [])


# ---------------------------------------------------------------------------------------------------------- cgroups
GB = 1 << 30


def make_machine(monkeypatch, root, groups, folders, meminfo="MemTotal: 1 kB\nMemFree: 8388608 kB\n"
                                                             "MemAvailable: 16777216 kB\n"):
    """A machine with 16 GB available, 8 of them free, and these cgroups."""
    for folder, files in folders.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (root / folder / name).write_text(str(text))
    for attribute, text in (("CGROUPS", groups), ("MEMINFO", meminfo)):
        path = root / attribute
        path.write_text(text)
        monkeypatch.setattr(memory, attribute, path)
    monkeypatch.setattr(memory, "MOUNT", root / "mount")


def version_1(limit, used, cache):
    return {"memory.limit_in_bytes": limit, "memory.usage_in_bytes": used,
            "memory.stat": f"cache 1\ntotal_inactive_file {cache}\n"}


def version_2(limit, used, cache):
    return {"memory.max": limit, "memory.current": used, "memory.stat": f"anon 5\ninactive_file {cache}\n"}


@pytest.mark.parametrize(("groups", "folders", "available", "free"), [
    ("", {}, 16 * GB, 8 * GB),
    ("0::/job/1", {"mount/job/1": version_2(4 * GB, 3 * GB, GB), "mount/job": version_2("max", 3 * GB, 0)},
     2 * GB, GB),
    ("0::/job/1", {"mount/job/1": version_2("max", 3 * GB, 0), "mount/job": version_2(5 * GB, 3 * GB, 0)},
     2 * GB, 2 * GB),                                           # the limit of a cgroup around it
    ("0::/", {"mount": version_2(GB, 2 * GB, 0)}, 0, 0),        # already beyond it
    ("2:cpu:/x\n4:memory:/job\n0::/", {"mount/memory/job": version_1(6 * GB, 2 * GB, 0)}, 4 * GB, 4 * GB),
    ("4:memory:/docker/abc", {"mount/memory": version_1(6 * GB, 2 * GB, GB)}, 5 * GB, 4 * GB),    # a container's mount
    ("4:memory:/job", {"mount/memory/job": version_1(1 << 63, 2 * GB, 0)}, 16 * GB, 8 * GB),      # no limit
    ("4:memory:/job", {"mount/memory/job": {"memory.limit_in_bytes": "?"}}, 16 * GB, 8 * GB)])
def test_the_limit_of_a_cgroup_counts(monkeypatch, tmp_path, groups, folders, available, free):
    make_machine(monkeypatch, tmp_path, groups, folders)
    assert memory.available_memory() == available and memory.free_memory() == free


def test_a_training_is_refused_by_the_cgroup_s_limit(monkeypatch, tmp_path):
    make_machine(monkeypatch, tmp_path, "0::/", {"mount": version_2(GB, 0, 0)})
    estimate = estimate_training_memory(LARGE, 1, (384,), use_ema=True, accumulates=False, frozen=False)
    with pytest.raises(InputError, match=r"1\.1 GB are available"):
        check_memory(estimate, memory.available_memory(), force=False)


def test_a_machine_that_tells_nothing(monkeypatch, tmp_path):
    make_machine(monkeypatch, tmp_path, "", {}, meminfo="nothing")
    assert memory.available_memory() is None and memory.free_memory() is None
