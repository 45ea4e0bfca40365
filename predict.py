# SPDX-License-Identifier: Apache-2.0
"""Answer questions about a passage of your own with a KT-NET checkpoint.

Example:
    python predict.py --data_url ./data --load_checkpoint_path KTNET_squad-3_100.ckpt --passage_file tower.txt \
        --question "Who built the tower?"

Without --question, questions are read from standard input, one per line; at a terminal there is a prompt.
"""
from __future__ import annotations

if __name__ == "__main__":      # before the imports, which may fail
    import runpy
    from pathlib import Path
    runpy.run_path(f"{Path(__file__).resolve().parent}/utils/start.py", {"SCRIPT": __file__})

import os
from collections.abc import Sequence

from src.checks import need_checkpoint, need_data_folder
from src.inference.questions import check_flags, read_passage
from src.settings import PredictionSettings
from src.weights.hub import with_local_models
from utils.device import choose_target
from utils.util import LOGGER, set_up_logging


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, answer, serve or make the page of an evaluation."""
    settings = PredictionSettings.parse(argv)
    set_up_logging()
    settings = with_local_models(settings)
    need_data_folder(settings)
    need_checkpoint(settings)
    check_flags(settings)
    passage = read_passage(settings)
    choose_target(settings.device.device_target)
    os.environ.setdefault("GLOG_v", "3")         # errors only: MindSpore warns of a graph that is not kept yet
    # MindSpore takes seconds to import: not for --help, wrong flags and missing files.
    if settings.question.serve is not None:
        from src.inference.serve import run_server
        run_server(settings)
    elif passage is None:
        LOGGER.info("loading MindSpore")
        from src.inference.evaluation_page import write_evaluation_page
        write_evaluation_page(settings)
    else:
        LOGGER.info("loading MindSpore")
        from src.inference.predict import run_prediction
        run_prediction(settings, passage)
