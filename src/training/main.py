# SPDX-License-Identifier: Apache-2.0
"""What run_KTNET_<task>.py and run_KTNET_<task>_eval.py do.

MindSpore takes seconds to import: not for --help, wrong flags, missing files or --check_only.
"""
from __future__ import annotations

from collections.abc import Sequence

from src.checks import check_evaluation, check_only, check_training
from src.config import TaskConfig
from src.settings import EvaluationSettings, TrainingSettings
from src.weights.hub import with_local_models
from src.weights.sizes import check_dataset, load_config
from utils.device import choose_target
from utils.util import set_up_logging


def train(task: TaskConfig, argv: Sequence[str] | None = None) -> None:
    """Read the flags; train, and evaluate when asked."""
    settings = TrainingSettings.parse(argv, task)
    set_up_logging()
    settings = with_local_models(settings)
    if settings.run.check_only:
        check_only(settings)
    elif settings.job.convert_only:
        from src.data_convert import convert_only
        convert_only(settings)
    else:
        if not settings.modelarts.is_modelarts:     # whose files are not here yet
            check_training(settings)
        choose_target(settings.device.device_target)
        from src.training.loop import run_training
        run_training(settings)


def evaluate(task: TaskConfig, argv: Sequence[str] | None = None) -> None:
    """Read the flags; evaluate a checkpoint."""
    settings = EvaluationSettings.parse(argv, task)
    set_up_logging()
    settings = with_local_models(settings)
    if settings.run.check_only:
        check_only(settings)
    else:
        if not settings.modelarts.is_modelarts:
            check_evaluation(settings)
            checkpoint = settings.checkpoint.load_checkpoint_path
            check_dataset(load_config(checkpoint), task.name, checkpoint)
        choose_target(settings.device.device_target)
        from src.training.loop import run_evaluation
        run_evaluation(settings)
