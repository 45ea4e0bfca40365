"""Checkpoints: saved whole or not at all, loaded by name with every shape checked.

Beside ``NAME.ckpt`` lies ``NAME.json`` with the network's sizes and the options of the run.
"""
from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from src.config import KTNetConfig
from src.training.memory_estimate import available_memory, free_memory
from utils.util import InputError, atomic_path, read_json, write_json

AVERAGE_PREFIX = "ema."
# What checkpoints of the older port hold beside the weights, and the name it gave to self-matching's bias.
OLDER_PORT_EXTRAS = ("concept_ordinal", ".dense_2.", "bert.dense.")
OLDER_PORT_BIAS = "create_parameter_bias"


def write_checkpoint(path: Path | str, parameters: Mapping[str, np.ndarray | Tensor]) -> None:
    """Save ``parameters`` as a MindSpore checkpoint, whole or not at all."""
    entries = [{"name": name, "data": value if isinstance(value, Tensor) else Tensor(value)}
               for name, value in parameters.items()]
    with atomic_path(path) as temporary:
        suffixed = temporary.with_suffix(".ckpt")   # save_checkpoint appends the suffix where it is missing
        try:
            ms.save_checkpoint(entries, str(suffixed))
            os.replace(suffixed, temporary)
        finally:
            suffixed.unlink(missing_ok=True)


def free_cache_for(size: int) -> None:
    """Turn file cache into free memory: MindSpore refuses a checkpoint of more bytes than are free, cache not counted.

    It reads the file more than once before it counts. Memory that is touched and given back is free afterwards; nothing
    is done where enough is free already.
    """
    free, available = free_memory(), available_memory()
    if free is not None and available is not None and free < 3 * size:
        np.ones(int(min(3 * size, 0.9 * available)), np.uint8)


def read_checkpoint(path: Path | str) -> dict[str, Parameter]:
    """Read a checkpoint: parameter name -> parameter.

    Raises:
        InputError: the file is missing, is no whole checkpoint, or there is too little memory for it.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such checkpoint file")
    free_cache_for(Path(path).stat().st_size)
    try:
        return ms.load_checkpoint(str(path))
    except (ValueError, RuntimeError, TypeError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        if "memory" in reason:
            raise InputError(f"{path}: too little memory to read it ({reason}); end other programs and try again"
                             ) from None
        raise InputError(f"{path}: not a whole MindSpore checkpoint ({reason}); save or copy it again") from None


@dataclass
class LoadReport:
    """What loading did."""

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)    # parameters of the network that the checkpoint lacks
    ignored: list[str] = field(default_factory=list)    # what the checkpoint has beside them

    def __str__(self) -> str:
        text = f"{len(self.loaded)} parameters loaded"
        if self.missing:
            text += f"; not in the checkpoint: {_shorten(self.missing)}"
        if self.ignored:
            text += f"; not used: {_shorten(self.ignored)}"
        return text


def _shorten(names: list[str], most: int = 6) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def load_weights(network: nn.Cell, path: Path | str, use_average: bool = False, prefix: str = "",
                 must_have: bool = True) -> LoadReport:
    """Set the network's parameters from a checkpoint.

    Args:
        network: whose parameters of the same names are set.
        path: the checkpoint; one of the older port will do.
        use_average: take the moving average of a weight where the checkpoint has one.
        prefix: only parameters whose names begin so are wanted ("bert." for an encoder).
        must_have: whether a missing parameter is an error; otherwise it keeps its initial value and is reported.

    Raises:
        InputError: no checkpoint, a parameter of another shape, or one that is missing.
    """
    stored = {name.replace(OLDER_PORT_BIAS, "bias"): value for name, value in read_checkpoint(path).items()}
    report = LoadReport()
    for parameter in network.get_parameters():
        name = parameter.name
        if not name.startswith(prefix):
            continue
        source = AVERAGE_PREFIX + name if use_average and AVERAGE_PREFIX + name in stored else name
        if source not in stored:
            report.missing.append(name)
            continue
        values = stored[source].asnumpy().astype(np.float32)
        if values.shape != tuple(parameter.shape):
            raise InputError(f"{path}: {name} is {list(values.shape)}, the network's is {list(parameter.shape)}: the "
                             "checkpoint was made with other sizes; give its --bert_config_path and knowledge bases")
        parameter.set_data(Tensor(values))
        report.loaded.append(name)
    known = {name for loaded in report.loaded for name in (loaded, AVERAGE_PREFIX + loaded)}
    report.ignored = [name for name in stored if name not in known]
    if report.missing and (must_have or not report.loaded):
        raise InputError(f"{path}: lacks {_shorten(report.missing)}: not a checkpoint of this network")
    return report


def is_older_port(path: Path | str) -> bool:
    """Whether a checkpoint bears the marks of the older port, whose self-matching weights were never saved."""
    return any(mark in name for name in read_checkpoint(path) for mark in (*OLDER_PORT_EXTRAS, OLDER_PORT_BIAS))


def config_path(checkpoint: Path | str) -> Path:
    """Where a checkpoint's sizes and options lie."""
    return Path(checkpoint).with_suffix(".json")


def save_config(checkpoint: Path | str, network: KTNetConfig, options: Mapping[str, Any]) -> None:
    """Write the network's sizes and the run's options beside a checkpoint."""
    write_json(config_path(checkpoint), {"network": network.to_dict(), "options": dict(options)})


def load_config(checkpoint: Path | str) -> KTNetConfig | None:
    """The sizes saved beside a checkpoint; None if there are none (a checkpoint of the older port).

    Raises:
        InputError: the file is broken.
    """
    path = config_path(checkpoint)
    if not path.is_file():
        return None
    values = read_json(path)
    return KTNetConfig.from_dict(values.get("network") if isinstance(values, dict) else None, path)


def checkpoints_in(folder: Path, task: str) -> list[Path]:
    """The checkpoints KTNET_{task}-{epoch}_{step}.ckpt of a folder, the oldest first."""
    places = {}
    for path in folder.glob(f"KTNET_{task}-*.ckpt"):
        match = re.fullmatch(rf"KTNET_{task}-(\d+)_(\d+)\.ckpt", path.name)
        if match:
            places[path] = (int(match[1]), int(match[2]))
    return sorted(places, key=lambda path: places[path])


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint and what lies beside it."""
    path.unlink(missing_ok=True)
    config_path(path).unlink(missing_ok=True)
