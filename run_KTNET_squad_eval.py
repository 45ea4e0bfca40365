# SPDX-License-Identifier: Apache-2.0
"""Evaluate a KT-NET checkpoint on SQuAD."""

if __name__ == "__main__":      # before the imports, which may fail
    import runpy
    from pathlib import Path
    runpy.run_path(f"{Path(__file__).resolve().parent}/utils/start.py", {"SCRIPT": __file__})

from functools import partial

from src.config import SQUAD
from src.training.main import evaluate

main = partial(evaluate, SQUAD)
