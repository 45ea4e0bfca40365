# SPDX-License-Identifier: Apache-2.0
"""Whether everything that a run will read is there: checked before any device is touched, and named first."""
from __future__ import annotations

from pathlib import Path

from src.settings import EvaluationSettings, TrainingSettings
from utils.util import InputError

CHECKPOINT_FIX = "training writes KTNET_*.ckpt below output/finetune_checkpoint"


def need(path: Path, flag: str, fix: str) -> None:
    """Refuse a file that is missing.

    Raises:
        InputError: it is.
    """
    if not path.is_file():
        raise InputError(f"--{flag} {path}: no such file; {fix}")


def check_features(settings: TrainingSettings | EvaluationSettings, split: str) -> None:
    """The converted features are complete, or else everything is there that they are made of.

    Raises:
        InputError: neither.
    """
    from src.data_convert import planned_conversion
    from src.reader.storage import ConvertedFiles, open_converted

    conversion = planned_conversion(settings, split)
    if ConvertedFiles(conversion.target).manifest.is_file() or conversion.target.is_file():
        open_converted(conversion.target)
    else:
        conversion.check_inputs()


def check_tables(settings: TrainingSettings) -> None:
    """The concept vectors of every knowledge base in use are there.

    Raises:
        InputError: some are not.
    """
    for base in settings.wanted_bases():
        need(settings.vectors(base), f"data_url {settings.data.data_url}",
             f"put the concept vectors of {base.label} there or train them with train_kb_embedding.py")


def check_training(settings: TrainingSettings) -> None:
    """What run_KTNET_<task>.py will read.

    Raises:
        InputError: something is missing.
    """
    job = settings.job
    if job.do_train:
        check_features(settings, "train")
        check_tables(settings)
        need(settings.network.bert_config_path, "bert_config_path", "make the encoder's files with "
                                                                    "src/bert_ms_format.py")
        if job.init_checkpoint is None:
            need(job.load_pretrain_checkpoint_path, "load_pretrain_checkpoint_path",
                 "make it with src/bert_ms_format.py, or start from a KT-NET checkpoint with --init_checkpoint")
    if job.init_checkpoint is not None:
        need(job.init_checkpoint, "init_checkpoint", CHECKPOINT_FIX)
    if job.load_checkpoint_path is not None and not job.do_train:
        need(job.load_checkpoint_path, "load_checkpoint_path", CHECKPOINT_FIX)
    if job.do_predict or job.do_val:
        check_features(settings, "dev")


def check_evaluation(settings: EvaluationSettings) -> None:
    """What run_KTNET_<task>_eval.py will read.

    Raises:
        InputError: something is missing.
    """
    need(settings.checkpoint.load_checkpoint_path, "load_checkpoint_path", CHECKPOINT_FIX)
    check_features(settings, "dev")
