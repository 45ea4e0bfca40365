# SPDX-License-Identifier: Apache-2.0
"""Peers in separate processes that work in turns, so that neither's threads or memory disturb the other."""
from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.args import FlagGroup, PositiveInt, flag
from utils.device import bfloat16_unit
from utils.util import InputError


@dataclass(frozen=True)
class Turns(FlagGroup, title="benchmark"):
    """How often each peer has its turn."""

    rounds: PositiveInt = flag(5, "turns of each")
    threads: PositiveInt = flag(os.cpu_count(), "threads of PyTorch")


class Peer:
    """An object in a separate process.

    Args:
        make: gives the object; importable by its name, like its arguments' types.
        arguments: of ``make``.
    """

    def __init__(self, make: Callable[..., Any], *arguments: Any) -> None:
        if "OMP_NUM_THREADS" not in os.environ:
            os.unsetenv("OMP_NUM_THREADS")      # MindSpore sets it to 1 in its process; ours would inherit that
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        self._process.start()
        theirs.close()

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the object and wait for what it gives.

        Raises:
            InputError: it failed; see its output above.
        """
        self._ours.send((method, arguments))
        try:
            return self._ours.recv()
        except EOFError:
            raise InputError(f"benchmark: the process that does {method} has ended; see above") from None

    def close(self) -> None:
        """End the process."""
        self._ours.close()
        self._process.join()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def compute_types(wanted: str) -> tuple[str, ...]:
    """The compute types to measure: the one that a flag names; for auto all that this processor is made for."""
    if wanted != "auto":
        return (wanted,)
    return ("float32",) if bfloat16_unit() is None else ("float32", "bfloat16")


def machine() -> dict[str, Any]:
    """The processor, and how busy it was in the last minute: figures taken beside other work say so themselves."""
    lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    return {"processor": model, "cores": os.cpu_count(), "unit": bfloat16_unit(),
            "load_before": round(os.getloadavg()[0], 2)}


def _serve(connection: Any, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    served = make(*arguments)
    while True:
        try:
            method, values = connection.recv()
        except EOFError:
            return
        connection.send(getattr(served, method)(*values))
