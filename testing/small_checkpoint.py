# SPDX-License-Identifier: Apache-2.0
"""A whole KT-NET checkpoint of a tiny network, with weights that none of its equations can do without."""
from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from src.config import KTNetConfig
from testing.reference import random_parameters


def make_checkpoint(path: Path, config: KTNetConfig, seed: int = 5) -> dict[str, np.ndarray]:
    """Write a checkpoint with its sizes beside it; returns the averaged weights, which are those to be exported."""
    from src.weights.checkpoint import AVERAGE_PREFIX, write_checkpoint
    from src.weights.sizes import save_config

    averages = random_parameters(config, seed)
    raw = random_parameters(config, seed + 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    tables = {name: averages.pop(name) for name in list(averages) if name.startswith("embedding_")}
    write_checkpoint(path, {**raw, **tables, **{AVERAGE_PREFIX + name: value for name, value in averages.items()}})
    save_config(path, config, {})
    return {**averages, **tables}


def with_activation(config: KTNetConfig, name: str) -> KTNetConfig:
    """The same sizes with another activation."""
    return dataclasses.replace(config, bert=dataclasses.replace(config.bert, hidden_act=name))
