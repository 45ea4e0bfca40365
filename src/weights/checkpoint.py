# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: saved atomically, loaded by name with every shape checked.

Beside ``NAME.ckpt`` is ``NAME.json`` with the network's sizes and the options of the run. A checkpoint ends with the
CRC-32 of its contents, which MindSpore writes and checks. ``NAME.safetensors`` is the same in another format, with a
SHA-256 in its header.
"""
from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn
from safetensors import SafetensorError

from src.config import KTNetConfig
from src.weights.folder import (
    CONFIG,
    WEIGHTS,
    ModelFolder,
    is_model_folder,
    read_folder,
    read_safetensors,
    read_weights,
    verify,
    write_safetensors,
)
from src.weights.names import network_shapes
from src.weights.sizes import config_path, load_config
from utils.memory import available_memory, free_memory
from utils.util import LOGGER, InputError, atomic_path, describe

AVERAGE_PREFIX = "ema."
# What checkpoints of the older port hold beside the weights, and the name it gave to self-matching's bias.
OLDER_PORT_EXTRAS = ("concept_ordinal", ".dense_2.", "bert.dense.")
OLDER_PORT_BIAS = "create_parameter_bias"
SAFETENSORS = ".safetensors"
CRC_MARK, CRC_DIGITS = b"crc_num", 10       # how MindSpore ends a checkpoint with a CRC
WORKPLACE = ".saving"                       # part of the name of the folder that a checkpoint is written in


def write_checkpoint(path: Path | str, parameters: Mapping[str, np.ndarray | Tensor]) -> None:
    """Save ``parameters``, atomically: as safetensors if the path ends so, else as a MindSpore checkpoint.

    Raises:
        InputError: it cannot be written, for instance because the disk is full; nothing is left behind.
    """
    path = Path(os.path.realpath(path))      # where a link leads to
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep_unfinished(path.parent)
    try:
        with _workplace(path) as folder, atomic_path(path) as temporary:
            whole = folder / "whole.ckpt"
            if path.suffix == SAFETENSORS:
                write_safetensors({name: value.asnumpy() if isinstance(value, Tensor) else value
                                   for name, value in parameters.items()}, whole)
            else:
                ms.save_checkpoint([{"name": name, "data": value if isinstance(value, Tensor) else Tensor(value)}
                                    for name, value in parameters.items()], str(whole), crc_check=True)
            os.replace(whole, temporary)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or describe(error)
        raise InputError(f"{path}: cannot be written ({reason}); nothing of it is left there") from None


@contextlib.contextmanager
def _workplace(path: Path) -> Iterator[Path]:
    """A folder beside ``path`` for MindSpore's own temporary files, locked while this process uses it."""
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}{WORKPLACE}-", dir=path.parent))
    lock = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):       # some network file systems have no locks: nothing is swept there
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sweep_unfinished(folder: Path) -> None:
    """Remove what killed processes left of checkpoints that they were writing in ``folder``."""
    for place in folder.glob(f".*{WORKPLACE}-*"):
        try:
            lock = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:      # another process is writing there
            continue
        else:
            name = place.name.rpartition(f"{WORKPLACE}-")[0]
            for leftover in folder.glob(f"{name}.*.part"):
                leftover.unlink(missing_ok=True)
            shutil.rmtree(place, ignore_errors=True)
            LOGGER.info("%s: removed, an unfinished checkpoint of a process that was stopped", place)
        finally:
            os.close(lock)


def free_cache_for(size: int) -> None:
    """Evict cached files: MindSpore refuses a checkpoint larger than free memory, reclaimable cache not counted.

    It reads the file more than once before it counts. Memory that is touched and given back is free afterwards; nothing
    is done where enough is free already.
    """
    free, available = free_memory(), available_memory()
    if free is not None and available is not None and free < 3 * size:
        np.ones(int(min(3 * size, 0.9 * available)), np.uint8)


def read_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """Read a checkpoint of either format: parameter name -> its value.

    Raises:
        InputError: the file is missing, damaged, or there is too little memory for it.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such checkpoint file")
    if Path(path).suffix == SAFETENSORS:
        return {name: Tensor(values) for name, values in read_safetensors(Path(path)).items()}
    free_cache_for(Path(path).stat().st_size)
    try:
        return ms.load_checkpoint(str(path), crc_check=_has_crc(Path(path)))
    except (ValueError, RuntimeError, TypeError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        if "memory" in reason:
            raise InputError(f"{path}: too little memory to read it ({reason}); end other programs and try again"
                             ) from None
        raise InputError(f"{path}: not a complete MindSpore checkpoint ({reason}); save or copy it again") from None


def _has_crc(path: Path) -> bool:
    """Whether the file ends with a CRC; files of MindSpore's own and of earlier versions need not."""
    length = len(CRC_MARK) + CRC_DIGITS
    if path.stat().st_size < length:
        return False
    with open(path, "rb") as source:
        source.seek(-length, os.SEEK_END)
        return source.read(len(CRC_MARK)) == CRC_MARK


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has been read."""

    path: Path
    values: Mapping[str, Tensor]        # by our names
    config: KTNetConfig | None          # the sizes saved beside it; None if there are none
    is_older_port: bool                 # self-matching weights were never saved there


def open_checkpoint(path: Path | str) -> Checkpoint:
    """Read a checkpoint and the sizes beside it, or a model folder.

    Raises:
        InputError: one of the files cannot be used.
    """
    if is_model_folder(path):
        return open_model_folder(read_folder(path))
    config = load_config(path)
    stored = read_checkpoint(path)
    older = any(mark in name for name in stored for mark in (*OLDER_PORT_EXTRAS, OLDER_PORT_BIAS))
    checkpoint = Checkpoint(Path(path), {name.replace(OLDER_PORT_BIAS, "bias"): value
                                         for name, value in stored.items()}, config, older)
    if config is not None:
        check_sizes({name: tuple(value.shape) for name, value in checkpoint.values.items()}, config, path,
                    config_path(path))
    return checkpoint


def open_model_folder(folder: ModelFolder) -> Checkpoint:
    """Check a model folder and read its weights.

    Raises:
        InputError: see :func:`src.weights.folder.verify`; or the weights are not those of its sizes.
    """
    verify(folder)
    weights = read_weights(folder)
    check_sizes({name: values.shape for name, values in weights.items()}, folder.network, folder.path / WEIGHTS,
                folder.path / CONFIG)
    return Checkpoint(folder.path, {name: Tensor(values) for name, values in weights.items()}, folder.network, False)


def check_sizes(shapes: Mapping[str, tuple[int, ...]], config: KTNetConfig, weights: Path | str,
                sizes: Path | str) -> None:
    """Compare the shapes of a file of weights with the sizes beside it, before a network of these sizes is built.

    Raises:
        InputError: the two do not belong together.
    """
    advice = "the two do not belong together: copy both again from where the network was trained"
    expected = network_shapes(config)
    for name, shape in expected.items():
        if name not in shapes:
            raise InputError(f"{sizes}: asks for {name}, which {weights} lacks; {advice}")
        if shapes[name] != shape:
            raise InputError(f"{sizes}: {name} should be {list(shape)}, in {weights} it is {list(shapes[name])}; "
                             f"{advice}")
    for name in shapes:
        if name.removeprefix(AVERAGE_PREFIX) not in expected:
            raise InputError(f"{sizes}: has no {name}, which {weights} holds; {advice}")


def open_encoder(path: Path | str) -> Checkpoint:
    """Read a pretrained encoder, which has no sizes beside it.

    Raises:
        InputError: it is invalid.
    """
    return Checkpoint(Path(path), read_checkpoint(path), None, False)


@dataclass
class LoadReport:
    """What loading did."""

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)    # parameters of the network that the checkpoint lacks
    ignored: list[str] = field(default_factory=list)    # what the checkpoint has beside them

    @property
    def is_exact(self) -> bool:
        """Whether the checkpoint has what the network needs, and nothing else."""
        return not (self.missing or self.ignored)

    def __str__(self) -> str:
        text = f"{len(self.loaded)} parameters loaded"
        if self.missing:
            text += f"; not in the checkpoint, so random: {_shorten(self.missing)}"
        if self.ignored:
            text += f"; not used: {_shorten(self.ignored)}"
        return text


def _shorten(names: list[str], most: int = 6) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def load_weights(network: nn.Cell, checkpoint: Checkpoint, use_average: bool = False, prefix: str = "") -> LoadReport:
    """Set the network's parameters from a checkpoint.

    Args:
        network: whose parameters of the same names are set.
        checkpoint: one of the older port need not have every parameter: the others keep their initial values.
        use_average: take the moving average of a weight where the checkpoint has one.
        prefix: only parameters whose names begin so are wanted ("bert." for an encoder).

    Raises:
        InputError: a parameter of another shape, one that is missing, or one that holds NaN or infinite values.
    """
    stored, path, report = checkpoint.values, checkpoint.path, LoadReport()
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
        if not np.isfinite(values).all():
            raise InputError(f"{path}: {source} holds NaN or infinite values: the weights are broken; take an earlier "
                             "checkpoint, or convert the encoder again")
        parameter.set_data(Tensor(values))
        report.loaded.append(name)
    known = {name for loaded in report.loaded for name in (loaded, AVERAGE_PREFIX + loaded)}
    report.ignored = [name for name in stored if name not in known]
    if report.missing and not (checkpoint.is_older_port and report.loaded):
        raise InputError(f"{path}: lacks {_shorten(report.missing)}: not a checkpoint of this network")
    return report


def checkpoints_in(folder: Path, task: str) -> list[Path]:
    """The checkpoints KTNET_{task}-{epoch}_{step}.ckpt or .safetensors of a folder, the oldest first."""
    places = {}
    for path in folder.glob(f"KTNET_{task}-*"):
        match = re.fullmatch(rf"KTNET_{task}-(\d+)_(\d+)\.(?:ckpt|safetensors)", path.name)
        if match:
            places[path] = (int(match[1]), int(match[2]))
    return sorted(places, key=lambda path: places[path])


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint and the files beside it."""
    path.unlink(missing_ok=True)
    config_path(path).unlink(missing_ok=True)
