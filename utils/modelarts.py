# SPDX-License-Identifier: Apache-2.0
"""ModelArts: data comes from and results go to object storage, through Huawei's moxing."""
from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from utils.device import Devices
from utils.util import LOGGER, InputError

LOCAL_DATA = Path("/cache/data")


def _moxing() -> Any:
    try:
        import moxing
    except ImportError:
        raise InputError("--is_modelarts True: the package moxing is missing; it is there only in ModelArts images; "
                         "leave the flag out elsewhere") from None
    if not hasattr(moxing, "file"):
        raise InputError(f"--is_modelarts True: the package moxing at {getattr(moxing, '__file__', None)} is not "
                         "Huawei's, it has no moxing.file; remove it and run in a ModelArts image")
    return moxing


def fetch_data(data_url: Path | str, save_url: str | None, devices: Devices) -> Path:
    """Copy --data_url from object storage to this machine; returns the copy.

    Of several processes on a machine one copies, and the others wait for it.

    Raises:
        InputError: moxing is missing, or --save_url is.
    """
    if not save_url:
        raise InputError("--is_modelarts True: give --save_url, the place for the results")
    source = re.sub(r"^(\w+):/+", r"\1://", str(data_url))      # a Path has folded the two slashes of obs://
    if devices.is_first_of_host:
        _moxing().file.copy_parallel(source, str(LOCAL_DATA))
        LOGGER.info("copied %s to %s", source, LOCAL_DATA)
    devices.sum(0)
    return LOCAL_DATA


def send_results(results: Path, checkpoints: Path | None, save_url: str, log_url: str | None) -> None:
    """Copy results and checkpoints, and the logs where --log_url is given, to object storage.

    Args:
        results: folder of logs and results (``--checkpoints``).
        checkpoints: folder of a training's checkpoints; copied separately if it is not in ``results``.
        save_url: where they go.
        log_url: where the results go a second time.
    """
    moxing = _moxing()
    for target in filter(None, (save_url, log_url)):
        moxing.file.copy_parallel(str(results), target)
        LOGGER.info("copied %s to %s", results, target)
    if checkpoints is not None and not checkpoints.absolute().is_relative_to(results.absolute()):
        moxing.file.copy_parallel(str(checkpoints), f"{save_url.rstrip('/')}/{checkpoints.name}")
        LOGGER.info("copied %s to %s", checkpoints, save_url)
