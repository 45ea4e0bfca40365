# SPDX-License-Identifier: Apache-2.0
"""The last three lines of a training: where its files lie, and what to type next."""
from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from src.settings import AS_CONVERTED, EvaluationSettings, TrainingSettings
from src.training.log import LogFiles
from utils.args import declared
from utils.util import LOGGER


def log_results(settings: TrainingSettings, checkpoint: Path) -> None:
    """Say where checkpoints, metrics and plot of a finished training lie, and the command that uses them."""
    files, folder = LogFiles(settings.run.checkpoints, settings.task.name), checkpoint.parent
    best = folder / f"KTNET_{settings.task.name}-best{checkpoint.suffix}"
    found = best if settings.job.do_val and best.is_file() else checkpoint
    LOGGER.info("checkpoints: %s in %s", checkpoint.name if found == checkpoint else f"{best.name}, {checkpoint.name}",
                folder)
    scalars = f"; for TensorBoard: {files.scalars}" if settings.job.tensorboard else ""
    LOGGER.info("metrics: %s; plot: %s%s", files.metrics, files.plot, scalars)
    LOGGER.info("next: %s", (asking if settings.job.do_predict else evaluating)(settings, found))


def evaluating(settings: TrainingSettings, checkpoint: Path) -> str:
    """The command that evaluates a checkpoint: the flags of the training that evaluation has as well."""
    known = {one.name: one for one in declared(EvaluationSettings, settings.task)}
    values = {"data_url": settings.data.data_url, "load_checkpoint_path": checkpoint}
    values |= {name: value for name, value in settings.flags().items()
               if name in settings.given and name in known and name not in AS_CONVERTED and name not in values}
    return as_command(f"run_KTNET_{settings.task.name}_eval.py", values)


def asking(settings: TrainingSettings, checkpoint: Path) -> str:
    """The command that answers a question with a checkpoint."""
    values = {"data_url": settings.data.data_url, "load_checkpoint_path": checkpoint}
    values |= {name: getattr(settings.data, name) for name in ("vocab_path", "kb_config") if name in settings.given}
    return as_command("predict.py", values) + ' --passage "..." --question "..."'


def as_command(script: str, values: Mapping[str, object]) -> str:
    """A command line for a shell."""
    flags = [part for name, value in values.items() for part in (f"--{name}", str(value))]
    return shlex.join(["python", script, *flags])
