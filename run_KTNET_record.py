# SPDX-License-Identifier: Apache-2.0
"""Train KT-NET on ReCoRD."""
from __future__ import annotations

from collections.abc import Sequence

from src.checks import check_only
from src.config import RECORD
from src.settings import TrainingSettings
from utils.util import run_main, set_up_logging


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, train, evaluate when asked."""
    settings = TrainingSettings.parse(argv, RECORD)
    set_up_logging()
    if settings.run.check_only:
        check_only(settings)
        return
    if settings.job.convert_only:
        from src.data_convert import convert_only
        convert_only(settings)
        return
    from src.training.loop import run_training  # MindSpore takes seconds to import: not for --help and wrong flags
    run_training(settings)


if __name__ == "__main__":
    run_main(main)
