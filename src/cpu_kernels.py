"""Builds the kernels of cpu_kernels.cc with this machine's C++ compiler, once, and makes operators of them.

The library lies in ``.kernels`` beside ``src``, or for this process alone in a temporary folder where that cannot be
written. Its name tells what it was built from and for, so that a shared checkout serves different machines.
"""
from __future__ import annotations

import functools
import hashlib
import os
import platform
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import ops

from utils.util import LOGGER, atomic_path, describe

SOURCE = Path(__file__).with_suffix(".cc")
FOLDER = SOURCE.parents[1] / ".kernels"
# -fno-trapping-math: comparisons may be made for numbers that are not needed, which vectors do; no result changes.
OPTIONS = ("-std=c++17", "-O3", "-march=native", "-fno-trapping-math", "-fno-math-errno", "-fopenmp", "-shared",
           "-fPIC")


@functools.cache
def library() -> Path | None:
    """The built library; None, and a warning with the reason, where it cannot be built."""
    compiler = shlex.split(os.environ.get("CXX", "g++"))
    try:
        version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=True).stdout
        key = hashlib.sha256(repr((SOURCE.read_bytes(), version, OPTIONS, _processor())).encode()).hexdigest()
        built = FOLDER / f"cpu_kernels-{key[:16]}.so"
        if built.is_file():
            return built
        # MindSpore separates the library's path from the function by a colon.
        target = built if ":" not in str(built) and _is_writable(FOLDER) else Path(_own_folder().name) / built.name
        with atomic_path(target) as temporary:
            subprocess.run([*compiler, *OPTIONS, "-o", str(temporary), str(SOURCE)], capture_output=True, text=True,
                           check=True)
        return target
    except (OSError, IndexError) as error:          # no such compiler, or none at all
        reason = describe(error)
    except subprocess.CalledProcessError as error:
        reason = f"it cannot build {SOURCE.name}: {error.stderr.strip()[:300]}"
    LOGGER.warning("CPU: C++ compiler %s: %s; MindSpore's own operators are used, which take longer. Install g++, or "
                   "name another compiler by the environment variable CXX", " ".join(compiler) or "''", reason)
    return None


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


@functools.cache
def _own_folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="ktnet-kernels-")     # removed when the process ends


def _processor() -> str:
    """What -march=native looks at."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split("\n\n")[0].split("\n")
    except OSError:
        return platform.processor()
    return "\n".join(line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part")))


def available() -> bool:
    """Whether a network that is built now can use the kernels: it will run on CPU, and they are built."""
    return ms.get_context("device_target") == "CPU" and library() is not None


def kernel(name: str, out_shape: Callable[..., Any], outputs: int = 1) -> ops.Custom:
    """The operator of an exported kernel; all that it gives is float32.

    Args:
        name: as cpu_kernels.cc exports it.
        out_shape: the inputs' shapes -> the output's shape, or a tuple of the outputs' shapes.
        outputs: how many there are.
    """
    out_dtype = ms.float32 if outputs == 1 else (ms.float32,) * outputs
    return ops.Custom(f"{library()}:{name}", out_shape, out_dtype, func_type="aot")
