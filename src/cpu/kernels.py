# SPDX-License-Identifier: Apache-2.0
"""Builds the kernels of this folder (*.cc) with this machine's C++ compiler, once, and makes operators of them.

The library is kept in ``.kernels`` beside ``src``, or in a temporary folder of this process if that cannot be used.
Its name tells what it was built from and for, so that machines can share a checkout, and the digest of its contents:
loading a library that was cut short would kill the process.
"""
from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import ops
from mindspore.ops.signature import make_sig, sig_rw

from utils.util import LOGGER, atomic_path, describe, file_digest

SOURCES = Path(__file__).parent        # of what is built, *.cc, and what that includes, *.h
FOLDER = SOURCES.parents[1] / ".kernels"
# -fno-trapping-math: comparisons may be made for numbers that are not needed, which vectors do; no result changes.
OPTIONS = ("-std=c++17", "-O3", "-march=native", "-fno-trapping-math", "-fno-math-errno", "-fopenmp", "-shared",
           "-fPIC")
KEY_DIGITS = 16     # of each digest in the library's name


@functools.cache
def library() -> Path | None:
    """The built library, which can be loaded; None, and a warning with the reason, where there is none."""
    compiler = os.environ.get("CXX") or "g++"
    try:
        command = shlex.split(compiler)
        version = _run([*command, "--version"])
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        _do_without(compiler, error)
        return None
    contents = [path.read_bytes() for pattern in ("*.cc", "*.h") for path in sorted(SOURCES.glob(pattern))]
    key = hashlib.sha256(repr((contents, command, version, OPTIONS, _processor())).encode()).hexdigest()
    reason: Exception
    for folder in _folders():
        try:
            built = _find(folder, key[:KEY_DIGITS]) or _build(folder, key[:KEY_DIGITS], command)
            ctypes.CDLL(str(built))
            return built
        except subprocess.CalledProcessError as error:      # it would not build elsewhere either
            _do_without(compiler, error)
            return None
        except OSError as error:    # a folder that cannot be written or that no library may be loaded from, a full disk
            reason = error
    _do_without(compiler, reason)
    return None


def _find(folder: Path, key: str) -> Path | None:
    """The library that was built for ``key``; one that does not have the digest of its name is removed."""
    for path in folder.glob(f"cpu_kernels-{key}-*.so"):
        if file_digest(path, "sha256").startswith(path.stem.rpartition("-")[2]):
            return path
        LOGGER.warning("%s: damaged, built again", path)
        path.unlink()
    return None


def _build(folder: Path, key: str, command: Sequence[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=folder) as workplace:
        fresh = Path(workplace) / "kernels.so"
        _run([*command, *OPTIONS, "-o", str(fresh), *map(str, sorted(SOURCES.glob("*.cc")))])
        built = folder / f"cpu_kernels-{key}-{file_digest(fresh, 'sha256')[:KEY_DIGITS]}.so"
        with atomic_path(built) as temporary:
            os.replace(fresh, temporary)
    return built


def _folders() -> Iterator[Path]:
    if ":" not in str(FOLDER):      # MindSpore separates the library's path from the function by a colon
        yield FOLDER
    yield Path(_own_folder().name)


@functools.cache
def _own_folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="ktnet-kernels-")     # removed when the process ends


def _run(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, errors="replace", check=True).stdout


def _do_without(compiler: str, error: Exception) -> None:
    reason = describe(error)
    if isinstance(error, subprocess.CalledProcessError) and error.stderr:
        reason = " ".join(error.stderr[:300].split())
    LOGGER.warning("CPU: no kernels by the C++ compiler %s (%s): MindSpore's own operators are used, which "
                   "take longer. Install g++, or name another compiler by the environment variable CXX",
                   compiler, reason)


def _processor() -> str:
    """What -march=native looks at."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").split("\n\n")[0].split("\n")
    except OSError:
        return platform.processor()
    return "\n".join(line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part")))


def available() -> bool:
    """Whether a network that is built now can use the kernels: it will run on CPU, and they are built."""
    return sys.platform == "linux" and ms.get_context("device_target") == "CPU" and library() is not None


def multiply_tiles() -> bool:
    """Whether the kernels for products of bfloat16 can be called: such products are wanted, and the processor has a
    matrix unit.
    """
    return available() and bool(ctypes.CDLL(str(library())).MultipliesTiles())


def copy_no_weights() -> None:
    """Let a step change weights that it has read. MindSpore copies every parameter of such a graph before, unless this
    is called before the process compiles its first graph. Only for a step that reads nothing after it was changed.
    """
    os.environ.setdefault("MS_DEV_SIDE_EFFECT_LOAD_ELIM", "3")


def kernel(name: str, out_shape: Callable[..., Any], outputs: int = 1, written: int = 0, read: int = 0,
           rounded: int = 0) -> ops.Custom:
    """The operator of an exported kernel.

    Args:
        name: as it is exported.
        out_shape: the inputs' shapes -> the output's shape, or a tuple of the outputs' shapes.
        outputs: how many there are.
        written: how many parameters, the first inputs, the kernel changes in place.
        read: how many inputs follow those; needed only if there are any.
        rounded: how many outputs, the last ones, are bfloat16; the others are float32.
    """
    out_dtype = ms.float32 if outputs == 1 else (ms.float32,) * (outputs - rounded) + (ms.bfloat16,) * rounded
    operator = ops.Custom(f"{library()}:{name}", out_shape, out_dtype, func_type="aot")
    if written:
        operator.add_prim_attr("side_effect_mem", True)     # runs at its place in the program, whoever uses its output
        operator.set_signatures([*(make_sig(f"written_{i}", sig_rw.RW_WRITE) for i in range(written)),
                                 *(make_sig(f"read_{i}") for i in range(read))])
    return operator
