"""ModelArts: data comes from and results go to object storage, through Huawei's moxing."""
from __future__ import annotations

import argparse
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
    return moxing


def fetch_data(args: argparse.Namespace, devices: Devices) -> None:
    """Copy --data_url from object storage to this machine and point the flag at the copy; nothing without the flag.

    Of several processes on a machine one copies, and the others wait for it.

    Raises:
        InputError: moxing is missing, or --save_url is.
    """
    if not args.is_modelarts:
        return
    if not args.save_url:
        raise InputError("--is_modelarts True: give --save_url, the place for the results")
    source = re.sub(r"^(\w+):/+", r"\1://", str(args.data_url))      # a Path has folded the two strokes of obs://
    if devices.is_first_of_host:
        _moxing().file.copy_parallel(source, str(LOCAL_DATA))
        LOGGER.info("copied %s to %s", source, LOCAL_DATA)
    devices.sum(0)
    args.data_url = LOCAL_DATA


def send_results(args: argparse.Namespace) -> None:
    """Copy the results, and the logs where --log_url is given, to object storage; nothing without --is_modelarts."""
    if not args.is_modelarts:
        return
    moxing = _moxing()
    for target in filter(None, (args.save_url, args.log_url)):
        moxing.file.copy_parallel(str(args.checkpoints), target)
        LOGGER.info("copied %s to %s", args.checkpoints, target)
    folder = getattr(args, "save_finetune_checkpoint_path", None)
    if folder is not None and not folder.absolute().is_relative_to(args.checkpoints.absolute()):
        moxing.file.copy_parallel(str(folder), f"{args.save_url.rstrip('/')}/{folder.name}")
        LOGGER.info("copied %s to %s", folder, args.save_url)
