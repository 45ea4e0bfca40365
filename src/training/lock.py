# SPDX-License-Identifier: Apache-2.0
"""One training at a time writes a data set's checkpoints into a folder. No MindSpore: the launchers' checks use it."""
from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from utils.util import LOGGER, InputError


def lock_path(folder: Path, task: str) -> Path:
    """The file that a data set's training locks; it stays when the training has ended."""
    return folder / f".training_{task}.lock"


@contextlib.contextmanager
def training_lock(folder: Path, task: str) -> Iterator[None]:
    """Hold a data set's lock on a checkpoint folder, which must exist.

    A launcher may hold it for this process already: scripts/guard.py writes its run's id into the file.

    Raises:
        InputError: another training holds it.
    """
    with open(lock_path(folder, task), "a+", encoding="utf-8") as file:
        if _acquire(file.fileno()):
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        elif not _held_for_us(file.name):
            raise InputError(busy(folder, Path(file.name)))
        yield


def check_unlocked(folder: Path, task: str) -> None:
    """Refuse a folder that a training is using; changes nothing.

    Raises:
        InputError: another training holds the lock.
    """
    path = lock_path(folder, task)
    if not path.exists():
        return
    with open(path, "r+", encoding="utf-8") as file:
        if not _acquire(file.fileno()) and not _held_for_us(path):
            raise InputError(busy(folder, path))


def busy(folder: Path, lock: Path) -> str:
    """What to tell the one who comes second."""
    holder = lock.read_text(encoding="utf-8", errors="replace").partition("-")[0].strip()
    return (f"{folder}: another training is writing its checkpoints there"
            f"{f' (process {holder})' if holder.isdigit() else ''}; wait for it, stop it, or give another folder by "
            "--checkpoints or --save_finetune_checkpoint_path")


def _acquire(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:        # some network file systems have no locks: as before there were any
        LOGGER.warning("the checkpoint folder cannot be locked (%s): start only one training in it", error.strerror)
    return True


def _held_for_us(path: Path | str) -> bool:
    holder = Path(path).read_text(encoding="utf-8", errors="replace").strip()
    return bool(holder) and holder in os.environ.get("KTNET_RUN", "").split("/")
