# SPDX-License-Identifier: Apache-2.0
"""Whether everything that a run will read is there: checked before any device is touched, and named first.

``--check_only True`` of the entry scripts makes these checks and ends; the launchers do so before they start anything.
"""
from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from src.settings import EvaluationSettings, TrainingSettings
from src.training.lock import check_unlocked
from utils.args import Settings
from utils.device import VISIBLE, choose_target, count_devices
from utils.util import InputError

DATA_FIX = "docs/data.md says where to get the data, and where it belongs"
CHECKPOINT_FIX = "training writes KTNET_*.ckpt below output/finetune_checkpoint"


def need(settings: Settings, flag: str, fix: str) -> None:
    """Refuse a file that a flag names and that is missing.

    Raises:
        InputError: it is.
    """
    path = settings.flags()[flag]
    if not path.is_file():
        raise InputError(f"{settings.spelled(flag)} {path}: no such file; {fix}")


def need_data_folder(settings: Settings) -> None:
    """Refuse a --data_url that the user gave and that is not there.

    Raises:
        InputError: it is not.
    """
    folder = settings.flags()["data_url"]
    if "data_url" in settings.given and not folder.is_dir():
        raise InputError(f"--data_url {folder}: no such folder; {DATA_FIX}")


def need_checkpoint(settings: Settings, flag: str = "load_checkpoint_path") -> None:
    """Refuse a checkpoint that a flag names and that is missing; a model folder is one, too.

    Raises:
        InputError: it is.
    """
    path = settings.flags()[flag]
    if not path.exists():
        raise InputError(f"{settings.spelled(flag)} {path}: no such file or model folder; {CHECKPOINT_FIX}")


def check_features(settings: TrainingSettings | EvaluationSettings, split: str) -> None:
    """The converted features are complete, or else everything is there that they are made of.

    Raises:
        InputError: neither.
    """
    from src.data_convert import planned_conversion
    from src.reader.storage import ConvertedFiles, feature_paths, open_converted

    targets = feature_paths(settings.mindrecord(split))
    for target in targets:
        if len(targets) > 1 or ConvertedFiles(target).manifest.is_file() or target.is_file():
            open_converted(target)
        else:
            planned_conversion(settings, split, target).check_inputs()


def check_tables(settings: TrainingSettings) -> None:
    """The concept vectors of every knowledge base in use are there.

    Raises:
        InputError: some are not.
    """
    for base in settings.wanted_bases():
        path = settings.vectors(base, settings.task)
        if not path.is_file():
            raise InputError(f"{path}: no such file; put the concept vectors of {base.label} there or train them with "
                             "train_kb_embedding.py")


def check_training(settings: TrainingSettings) -> None:
    """What run_KTNET_<task>.py will read.

    Raises:
        InputError: something is missing.
    """
    from src.training.log import check_scalars

    need_data_folder(settings)
    job = settings.job
    if job.do_train:
        if job.tensorboard:
            check_scalars()
        check_features(settings, "train")
        check_tables(settings)
        need(settings, "bert_config_path", "make the encoder's files with src/bert_ms_format.py")
        if job.init_checkpoint is None:
            need(settings, "load_pretrain_checkpoint_path",
                 "make it with src/bert_ms_format.py, or start from a KT-NET checkpoint with --init_checkpoint")
    if job.init_checkpoint is not None:
        need_checkpoint(settings, "init_checkpoint")
    if job.load_checkpoint_path is not None and not job.do_train:
        need_checkpoint(settings)
    if job.do_predict and not job.do_train and job.load_checkpoint_path is None and job.init_checkpoint is None:
        raise InputError("--do_predict True with --do_train False: give the checkpoint by --load_checkpoint_path")
    if job.do_predict or job.do_val:
        check_features(settings, "dev")


def check_evaluation(settings: EvaluationSettings) -> None:
    """What run_KTNET_<task>_eval.py will read.

    Raises:
        InputError: something is missing.
    """
    need_data_folder(settings)
    need_checkpoint(settings)
    check_features(settings, "dev")


# --- --check_only -----------------------------------------------------------------------------------------------------


def check_only(settings: TrainingSettings | EvaluationSettings) -> None:
    """Check what a run needs on this host; of a training, print what it would write over.

    Raises:
        InputError: something is missing or in the way.
    """
    if not settings.data.data_url.is_dir():
        raise InputError(f"{settings.data.data_url}: no such folder; DATAPATH is the data folder: {DATA_FIX}")
    if isinstance(settings, EvaluationSettings):
        check_evaluation(settings)
    else:
        check_training(settings)
    target = settings.device.device_target
    check_devices(choose_target(target) if target == "auto" else target, devices_here(settings))
    check_packages()
    if isinstance(settings, TrainingSettings):
        show_training(settings)


def devices_here(settings: TrainingSettings | EvaluationSettings) -> int:
    """Devices that a run takes on this host; the launchers tell the number of hosts in NNODES."""
    if isinstance(settings, EvaluationSettings) or not settings.job.is_distribute:
        return 1
    hosts = os.environ.get("NNODES", "")
    return settings.job.device_num // (int(hosts) if re.fullmatch("[1-9][0-9]{0,5}", hosts) else 1)


def check_packages() -> None:
    """Import MindSpore and what the project needs beside it.

    Raises:
        SystemExit: an import fails; the message names the interpreter.
    """
    try:
        import mindspore
        import tokenizers
        import tqdm  # noqa: F401 - only whether they are there
    except Exception as error:      # a broken installation can raise anything
        reason = " ".join(str(error).split())[:300]
        print(f"error: {sys.executable}: {type(error).__name__}: {reason}; install requirements.txt there "
              "(bash scripts/quickstart.sh makes .venv with it) or give another interpreter with PYTHON=",
              file=sys.stderr)
        sys.exit(2)
    del mindspore, tokenizers


def check_devices(target: str, wanted: int) -> None:
    """Refuse a run that wants more devices than there are; on CPU processes share the cores.

    Raises:
        InputError: too few devices.
    """
    if target != "CPU" and (found := count_devices(target)) < wanted:
        raise InputError(f"--device_target {target}: {wanted} wanted, {found} found on this host (the environment "
                         f"variable {VISIBLE[target]} counts as well); give fewer devices, or DEVICE_TARGET=CPU to "
                         "run on the processor")


def show_training(settings: TrainingSettings) -> None:
    """Print the checkpoint folder and what a new training would write over.

    Raises:
        InputError: another training is using the folder.
    """
    job = settings.job
    if job.do_train:
        print(job.save_finetune_checkpoint_path.absolute())
        if os.environ.get("NODE_RANK", "0") in ("", "0"):       # other hosts of the run may share the folder
            check_unlocked(job.save_finetune_checkpoint_path, settings.task.name)
        for path in [] if job.resume else earlier_training(settings):
            print(path)


def earlier_training(settings: TrainingSettings) -> list[Path]:
    """The files of earlier trainings on this data set where a new one would put its own.

    Raises:
        InputError: the new one starts from one of them.
    """
    from src.reader.decoding import NBEST, NULL_ODDS, PREDICTIONS, RESULT
    from src.training.log import LogFiles

    task, job = settings.task, settings.job
    checkpoints, results = job.save_finetune_checkpoint_path.absolute(), settings.run.checkpoints.absolute()
    written = list(LogFiles(results, task.name).all())
    if job.do_predict:
        written += [results / name for name in (PREDICTIONS, NBEST, NULL_ODDS, RESULT)]
    found = [path for pattern in (f"KTNET_{task.name}-*", f"training_state_{task.name}.*")
             for path in sorted(checkpoints.glob(pattern))]
    found += [path for path in written if path.exists()]
    if job.init_checkpoint is not None and job.init_checkpoint.absolute() in found:
        raise InputError(f"--init_checkpoint {job.init_checkpoint}: it is in {checkpoints}, where the new training "
                         "would put its own; give another folder by --save_finetune_checkpoint_path")
    return found
