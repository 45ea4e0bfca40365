# SPDX-License-Identifier: Apache-2.0
"""Devices: graph mode, the device, and the engine that connects several of them."""
from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.util import LOGGER, InputError

VISIBLE = {"GPU": "CUDA_VISIBLE_DEVICES", "Ascend": "ASCEND_RT_VISIBLE_DEVICES"}
DEVICE_FILES = {"Ascend": "davinci[0-9]*", "GPU": "nvidia[0-9]*"}      # in the order of preference
CALL_DEPTH = 10_000      # of a graph that is compiled; MindSpore's own limit is too low for the 24 layers of BERT-large


# oneDNN, which multiplies matrices on CPU, reads this variable before its first product and never again.
PRODUCT_MODE = "ONEDNN_DEFAULT_FPMATH_MODE"
MODES = {"float32": "STRICT", "bfloat16": "BF16"}
BFLOAT16_FLAGS = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}     # of a processor that multiplies it faster


@dataclass(frozen=True)
class Devices:
    """This process's place among the processes of a run."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0      # among the processes of this host
    target: str = "CPU"      # what the network runs on

    @property
    def is_first(self) -> bool:
        """Whether this process writes checkpoints and results."""
        return self.rank == 0

    @property
    def is_first_of_host(self) -> bool:
        """Whether this process is the first of its host."""
        return self.local_rank == 0

    def sum(self, value: float) -> float:
        """Add up a number (a float32) over all processes, which wait for each other here."""
        if self.count == 1:
            return value
        import mindspore as ms
        from mindspore import nn, ops

        class Sum(nn.Cell):
            """One AllReduce."""

            def __init__(self) -> None:
                super().__init__(auto_prefix=False)
                self.reduce = ops.AllReduce()

            def construct(self, number: ms.Tensor) -> ms.Tensor:
                """Add up."""
                return self.reduce(number)

        return float(Sum()(ms.Tensor([value], ms.float32)).asnumpy()[0])


def local_rank() -> int:
    """This process's device, which is its number on its host, as its starter says: mpirun, or msrun and rank tables."""
    for name in ("OMPI_COMM_WORLD_LOCAL_RANK", "DEVICE_ID"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def count_devices(target: str, folder: Path = Path("/dev")) -> int:
    """Devices of this host that a run may use, as far as the driver's tool or its device files tell."""
    found = len(list(folder.glob(DEVICE_FILES[target])))
    if target == "GPU":
        try:
            listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True).stdout
            found = sum(line.startswith("GPU ") for line in listed.splitlines())
        except (OSError, subprocess.SubprocessError):
            pass
    visible = os.environ.get(VISIBLE[target])
    return found if visible is None else min(found, len([entry for entry in visible.split(",") if entry.strip()]))


def choose_target(wanted: str) -> str:
    """The device for "auto": Ascend where this host has one, else GPU, else CPU. A named one must be there.

    Raises:
        InputError: it is not.
    """
    if wanted == "auto":
        return next((target for target in DEVICE_FILES if count_devices(target)), "CPU")
    if wanted != "CPU" and not count_devices(wanted):
        raise InputError(f"--device_target {wanted}: this host has none (no /dev/{DEVICE_FILES[wanted]}, or "
                         f"{VISIBLE[wanted]} hides it); leave the flag out to take what is there")
    return wanted


def bfloat16_unit() -> str | None:
    """What multiplies bfloat16 in this machine's processor; None where nothing does."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").partition("\n\n")[0].split())
    except OSError:
        return None
    return next((name for flag, name in BFLOAT16_FLAGS.items() if flag in flags), None)


def choose_compute_type(target: str, wanted: str) -> str:
    """The type of the inputs of matrix products, and on CPU the setting that makes oneDNN use it.

    On CPU all tensors but some gradients (src/cpu/product.py, TileProduct) are float32; bfloat16 means that the inputs
    of a product are rounded to it. ``auto`` follows the environment variable ONEDNN_DEFAULT_FPMATH_MODE where it is
    set.

    Args:
        target: Ascend, GPU or CPU.
        wanted: auto, float32, bfloat16 or float16.

    Raises:
        InputError: the processor is no faster with this type.
    """
    if target != "CPU":
        return "float16" if wanted == "auto" else wanted
    unit, chosen = bfloat16_unit(), wanted
    if wanted == "auto" and PRODUCT_MODE in os.environ:
        chosen = "bfloat16" if os.environ[PRODUCT_MODE].upper() in ("BF16", "ANY") else "float32"
    elif wanted == "auto":
        chosen = "float32" if unit is None else "bfloat16"
        if unit is not None:
            LOGGER.info("compute type: bfloat16 for the inputs of matrix products, as this processor has %s; "
                        "--compute_type float32 is more exact", unit)
    elif wanted == "float16" or (wanted == "bfloat16" and unit is None):
        raise InputError(f"--compute_type {wanted}: this processor is no faster with it; give float32 or auto")
    os.environ[PRODUCT_MODE] = MODES[chosen]
    return chosen


def set_up_device(wanted: str, device_id: int = 0, device_num: int | None = None) -> Devices:
    """Choose graph mode and the device; join the other processes of a distributed run.

    Args:
        wanted: auto, Ascend, GPU or CPU.
        device_id: number of the device; a distributed run takes its process's own.
        device_num: devices that a distributed run has; None for a run on one.

    Raises:
        InputError: the device is not there, or other processes were started than --device_num says.
    """
    target = choose_target(wanted)
    import mindspore as ms

    distributed = device_num is not None
    try:
        ms.set_context(mode=ms.GRAPH_MODE)
        ms.set_recursion_limit(CALL_DEPTH)
        if target == "CPU" or (distributed and "MS_ROLE" in os.environ):    # msrun has said which device
            if ms.get_context("device_target") != target:       # once a kernel has run, it cannot be set
                ms.set_device(target)
        else:
            ms.set_device(target, local_rank() if distributed else device_id)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        if wanted == "auto" and not distributed:
            LOGGER.warning("this host has %s, but this MindSpore cannot use it (%s): running on CPU", target,
                           reason[:200])
            return set_up_device("CPU")
        raise InputError(f"--device_target {target}: this MindSpore cannot use it ({reason}); "
                         "give --device_target CPU or install the build for the device") from None
    if not distributed:
        return Devices(target=target)
    from mindspore import communication
    join_processes(communication.init)
    devices = Devices(communication.get_rank(), communication.get_group_size(), local_rank(), target)
    if device_num != devices.count:
        raise InputError(f"--device_num {device_num}: {devices.count} processes were started; give that number")
    ms.set_auto_parallel_context(parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=True,
                                 device_num=devices.count)
    os.environ.setdefault("RANK_ID", str(devices.rank))
    return devices


def join_processes(connect: Callable[[], None]) -> None:
    """Connect the processes of a distributed run; msrun has put where they meet into the environment.

    Raises:
        InputError: they did not meet, or this is the only one.
    """
    start = time.monotonic()
    try:
        connect()
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().split("\n")[0].partition(". ")[0]
        place = f"{os.environ.get('MS_SCHED_HOST')}:{os.environ.get('MS_SCHED_PORT')}"
        if "MS_ROLE" not in os.environ:
            raise InputError(f"--is_distribute True: no other process to join ({reason}); start the run with msrun, "
                             "mpirun or a rank table, as scripts/run_*_distribute*.sh do") from None
        raise InputError(f"--is_distribute True: the {os.environ.get('MS_WORKER_NUM')} processes of the run did not "
                         f"all meet at {place} within {time.monotonic() - start:.0f} s ({reason}); look for the first "
                         "error in the logs of the others; several hosts need the same MASTER_ADDR and MASTER_PORT, "
                         "which no firewall may close") from None


class CompiledLengths:
    """Compiles a network once for every length that occurs, and says how long that took.

    Args:
        network: a MindSpore cell.
    """

    def __init__(self, network: Any) -> None:
        self.network = network
        self.lengths: set[int] = set()

    def prepare(self, length: int, *arguments: Any) -> None:
        """Compile for the shapes of ``arguments`` when ``length``, in word pieces, is new."""
        if length in self.lengths:
            return
        start = time.perf_counter()
        self.network.compile(*arguments)
        self.lengths.add(length)
        LOGGER.info("compiled for %d word pieces in %.1f s", length, time.perf_counter() - start)
