# SPDX-License-Identifier: Apache-2.0
"""How much memory this process can still get: the machine's, or its cgroup's where that is less."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CgroupFiles:
    """Names of one version's files, in the folder of a cgroup."""

    limit: str
    usage: str
    cache: str      # in memory.stat: cached files that the kernel drops when memory is short


VERSION_1 = CgroupFiles("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
VERSION_2 = CgroupFiles("memory.max", "memory.current", "inactive_file")
CGROUPS, MOUNT, MEMINFO = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"), Path("/proc/meminfo")


def available_memory() -> float | None:
    """Bytes that this process could still get; None where that is not known."""
    return _least(_memory_line("MemAvailable"), _cgroup_room(with_cache=True))


def free_memory() -> float | None:
    """Bytes that hold nothing, not even cached files; None where that is not known."""
    return _least(_memory_line("MemFree"), _cgroup_room(with_cache=False))


def _least(*values: float | None) -> float | None:
    return min((value for value in values if value is not None), default=None)


def _memory_line(name: str) -> float | None:
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
        values = dict(line.split(":", 1) for line in lines if ":" in line)
        return float(values[name].split()[0]) * 1024
    except (OSError, KeyError, ValueError, IndexError):
        return None


def _cgroup_room(with_cache: bool) -> float | None:
    """Bytes up to the nearest limit of this process's cgroup and those around it; None where there is none."""
    return _least(*(_room(folder, files, with_cache) for folder, files in _cgroup_folders()))


def _cgroup_folders() -> Iterator[tuple[Path, CgroupFiles]]:
    """The memory cgroups that this process is in, the innermost first.

    In a container the paths may be the host's, which do not exist here: then the mount's own folder is the cgroup.
    """
    try:
        lines = CGROUPS.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        _, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if controllers == "":
            mounts, files = (MOUNT, MOUNT / "unified"), VERSION_2
        elif "memory" in controllers.split(","):
            mounts, files = (MOUNT / "memory", MOUNT / controllers), VERSION_1
        else:
            continue
        for mount in mounts:
            folder = mount / path.lstrip("/")
            for place in (folder, *folder.parents):
                if place.is_relative_to(mount):
                    yield place, files


def _room(folder: Path, files: CgroupFiles, with_cache: bool) -> float | None:
    try:
        limit = float((folder / files.limit).read_text(encoding="ascii"))      # "max" is no number: no limit
        used = float((folder / files.usage).read_text(encoding="ascii"))
        if with_cache:
            stat = (line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
            used -= next((float(words[1]) for words in stat if words[0] == files.cache), 0.0)
    except (OSError, ValueError, IndexError):
        return None
    return max(limit - used, 0.0)
