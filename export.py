# SPDX-License-Identifier: Apache-2.0
"""Export a KT-NET checkpoint as MindIR, ONNX or AIR."""
from __future__ import annotations

if __name__ == "__main__":      # before the imports, which may fail
    import runpy
    from pathlib import Path
    runpy.run_path(f"{Path(__file__).resolve().parent}/utils/start.py", {"SCRIPT": __file__})

from collections.abc import Sequence

from src.checks import need_checkpoint
from src.settings import ExportSettings
from src.weights.hub import with_local_models
from utils.device import choose_target, set_up_device
from utils.util import set_up_logging


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, export, print the file's path."""
    settings = ExportSettings.parse(argv)
    set_up_logging()
    settings = with_local_models(settings)
    need_checkpoint(settings)
    choose_target(settings.device.device_target)
    from src.export.export import export_checkpoint  # imports MindSpore: not for --help, wrong flags and missing files

    devices = set_up_device(settings.device.device_target, settings.device.device_id)
    print(export_checkpoint(settings.with_flags(device_target=devices.target)))
