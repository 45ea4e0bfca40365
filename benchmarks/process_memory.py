# SPDX-License-Identifier: Apache-2.0
"""Memory of a process and all its descendants."""
from __future__ import annotations

from pathlib import Path


def memory_of(pid: int) -> int:
    """Bytes of a process and its descendants; shared pages are counted once (PSS)."""
    return sum(proportional_bytes(one) for one in family(pid))


def family(pid: int) -> list[int]:
    """A process and the processes below it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return []
    return [pid, *(one for child in children for one in family(int(child)))]


def proportional_bytes(pid: int) -> int:
    """Memory of a process, pages that it shares counted in part."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    return 0
