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

from src.checks import need_checkpoint
from src.inference.questions import read_passage
from src.settings import PredictionSettings
from src.weights.hub import with_local_models
from utils.util import LOGGER, InputError, set_up_logging


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, answer or make the page of an evaluation."""
    settings = PredictionSettings.parse(argv)
    set_up_logging()
    settings = with_local_models(settings)
    need_checkpoint(settings.checkpoint.load_checkpoint_path, "load_checkpoint_path")
    given = settings.question
    if given.serve is not None and (given.passage is not None or given.passage_file is not None or given.question
                                    or given.html is not None):
        raise InputError("--serve: passages and questions come over HTTP; leave --passage, --passage_file, --question "
                         "and --html out")
    if given.html is not None and not given.html.absolute().parent.is_dir():
        raise InputError(f"--html {given.html}: there is no folder {given.html.parent}; make it first")
    passage = None if given.serve is not None or settings.page.evaluation is not None else read_passage(given)
    os.environ.setdefault("GLOG_v", "3")         # errors only: MindSpore warns of a graph that is not kept yet
    # MindSpore takes seconds to import: not for --help and wrong flags.
    LOGGER.info("loading MindSpore")
    if settings.page.evaluation is not None:
        from src.inference.evaluation_page import write_evaluation_page
        write_evaluation_page(settings)
    elif passage is None:
        from src.inference.serve import run_server
        run_server(settings)
    else:
        from src.inference.predict import run_prediction
        run_prediction(settings, passage)
