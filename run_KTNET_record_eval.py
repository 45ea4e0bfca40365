# SPDX-License-Identifier: Apache-2.0
"""Evaluate a KT-NET checkpoint on ReCoRD."""
from functools import partial

from src.config import RECORD
from src.training.main import evaluate
from utils.util import run_main

main = partial(evaluate, RECORD)

if __name__ == "__main__":
    run_main(main)
