# SPDX-License-Identifier: Apache-2.0
"""Train KT-NET on ReCoRD."""

if __name__ == "__main__":      # before the imports, which may fail
    import runpy
    from pathlib import Path
    runpy.run_path(f"{Path(__file__).resolve().parent}/utils/start.py", {"SCRIPT": __file__})

from functools import partial

from src.config import RECORD
from src.training.main import train

main = partial(train, RECORD)
