# SPDX-License-Identifier: Apache-2.0
"""Peers in separate processes that work in turns, so that neither's threads or memory disturb the other."""
from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

from utils.util import InputError


class Peer:
    """An object in a separate process.

    Args:
        make: gives the object; importable by its name, like its arguments' types.
        arguments: of ``make``.
    """

    def __init__(self, make: Callable[..., Any], *arguments: Any) -> None:
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


def _serve(connection: Any, make: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    served = make(*arguments)
    while True:
        try:
            method, values = connection.recv()
        except EOFError:
            return
        connection.send(getattr(served, method)(*values))
