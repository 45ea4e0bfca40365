# SPDX-License-Identifier: Apache-2.0
"""Evaluate a KT-NET checkpoint on ReCoRD."""
from __future__ import annotations

from collections.abc import Sequence

from src.checks import check_only
from src.config import RECORD
from src.settings import EvaluationSettings
from utils.util import run_main, set_up_logging


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, evaluate."""
    settings = EvaluationSettings.parse(argv, RECORD)
    set_up_logging()
    if settings.run.check_only:
        check_only(settings)
        return
    from src.training.loop import run_evaluation  # MindSpore takes seconds to import: not for --help and wrong flags
    run_evaluation(settings)


if __name__ == "__main__":
    run_main(main)
