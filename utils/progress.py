# SPDX-License-Identifier: Apache-2.0
"""Progress of long work: a bar in a terminal, now and then a line in a log."""
from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import TypeVar

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from utils.util import LOGGER

T = TypeVar("T")
SECONDS_PER_LINE = 30.0      # between two lines of a log


class Progress:
    """A bar where stderr is a terminal; elsewhere a log line twice a minute, so that short work stays silent.

    Args:
        what: is being done.
        total: units of it; None where nobody knows.
        unit: what is counted, in the plural.
    """

    def __init__(self, what: str, total: int | None, unit: str) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, 0
        self.bar = tqdm(total=total, desc=what, unit=f" {unit}", disable=None, leave=False,
                        unit_scale=unit == "bytes")
        self.in_terminal = not self.bar.disable
        self.start = self.last_line = time.monotonic()
        self._open = ExitStack()

    def __enter__(self) -> Progress:
        """Log lines go above the bar."""
        if self.in_terminal:
            self._open.enter_context(logging_redirect_tqdm([LOGGER]))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Close the bar."""
        self.bar.close()
        self._open.close()

    def update(self, count: int = 1) -> None:
        """Some more units are done."""
        self.done += count
        self.bar.update(count)
        now = time.monotonic()
        if self.in_terminal or now - self.last_line < SECONDS_PER_LINE:
            return
        self.last_line = now
        if self.total is None:
            LOGGER.info("%s: %d %s", self.what, self.done, self.unit)
        else:
            left = (now - self.start) / max(self.done, 1) * max(self.total - self.done, 0)
            LOGGER.info("%s: %d of %d %s, %s left", self.what, self.done, self.total, self.unit, duration(left))


def follow(items: Iterable[T], what: str, total: int | None, unit: str) -> Iterator[T]:
    """The items, with the progress through them shown."""
    with Progress(what, total, unit) as progress:
        for item in items:
            yield item
            progress.update()


def duration(seconds: float) -> str:
    """A time in words.

    >>> duration(12.4), duration(200), duration(7300)
    ('12 s', '3 min', '2 h 2 min')
    """
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
