# SPDX-License-Identifier: Apache-2.0
"""Train KT-NET on SQuAD."""
from functools import partial

from src.config import SQUAD
from src.training.main import train
from utils.util import run_main

main = partial(train, SQUAD)

if __name__ == "__main__":
    run_main(main)
