"""Evaluate a KT-NET checkpoint on ReCoRD."""
from __future__ import annotations

from collections.abc import Sequence

from src.config import RECORD
from utils.args import evaluation_parser
from utils.util import run_main, set_up_logging


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, evaluate."""
    args = evaluation_parser(RECORD).parse_args(argv)
    set_up_logging()
    from src.training.loop import run_evaluation  # MindSpore takes seconds to import: not for --help and wrong flags
    run_evaluation(RECORD, args)


if __name__ == "__main__":
    run_main(main)
