# SPDX-License-Identifier: Apache-2.0
"""Everything that a killed training needs to resume exactly where it stopped, in one file that is written atomically.

``training_state_{task}.ckpt`` holds the weights, Adam's moments, the moving average, the loss scale and the number of
steps done. The order of the data and (on CPU) the dropout masks follow from the seed and the step, so that number is
the data position and the random state as well. ``training_state_{task}.json`` holds the settings that must not change
between the runs; the state holds their digest, so that files of two trainings are never taken for one.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor

from src.config import BertConfig
from src.weights.checkpoint import checkpoints_in, read_checkpoint, write_checkpoint
from utils.util import InputError, json_digest, read_json, write_json

STEP = "steps_done"
OUTPUT_KEPT = "encoder_output_kept"     # whether memory allowed it; a resumed training computes in the same way
SETTINGS_DIGEST = "settings_digest"
# Flags that may differ between a run and its resumption: where it runs, what it prints, what comes after.
FREE_FLAGS = frozenset({"resume", "check_only", "convert_only", "device_id", "do_train", "do_predict", "do_val",
                        "keep_checkpoint_max", "save_epochs", "save_steps", "log_steps", "tensorboard",
                        "checkpoint_format",
                        "data_url", "checkpoints", "save_finetune_checkpoint_path", "predict_file",
                        "predict_mindrecord_file", "train_file", "train_mindrecord_file", "n_best_size",
                        "max_answer_length", "null_score_diff_threshold", "save_logits", "save_url", "log_url",
                        "is_modelarts", "force_memory", "bert_config_path", "vocab_path", "init_checkpoint",
                        "load_pretrain_checkpoint_path", "load_checkpoint_path", "wn_concept_embedding_path",
                        "nell_concept_embedding_path"})


class TrainingState:
    """The state file of one data set's training in a checkpoint folder.

    Args:
        folder: of the checkpoints.
        task: name of the data set; two data sets may share a folder.
        parameters: everything that the state holds; their names are unique.
    """

    def __init__(self, folder: Path, task: str, parameters: Iterable[Parameter] = ()) -> None:
        self.task = task
        self.path = folder / f"training_state_{task}.ckpt"
        self.settings_path = folder / f"training_state_{task}.json"
        self.parameters = {parameter.name: parameter for parameter in parameters}
        self.digest = np.zeros(0, np.int32)     # of the settings, once the training has begun

    def steps_done(self) -> int:
        """Steps of the last state; 0 when there is none."""
        stored = read_checkpoint(self.path) if self.path.exists() else {}
        return int(stored[STEP].asnumpy()) if STEP in stored else 0

    def begun_with(self, name: str) -> Any:
        """A setting that the training was begun with; None where there is no training, or an older one.

        Raises:
            InputError: the file of the settings is broken.
        """
        saved = read_json(self.settings_path) if self.settings_path.exists() else None
        return saved.get(name) if isinstance(saved, dict) else None

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Start a new training.

        Raises:
            InputError: the folder holds a training, or checkpoints, already; nothing of it is touched.
        """
        if self.path.exists() or self.settings_path.exists():
            raise InputError(f"{self.path.parent}: holds a training already; continue it with --resume True, or give "
                             "another folder by --checkpoints")
        if others := checkpoints_in(self.path.parent, self.task):      # older ones than ours will be removed
            raise InputError(f"{self.path.parent}: holds checkpoints already, as {others[-1].name}, of a training that "
                             "cannot be resumed; give another folder by --checkpoints")
        write_json(self.settings_path, dict(settings))
        self.digest = settings_digest(settings)

    def resume(self, settings: Mapping[str, Any], begins: bool = True) -> int:
        """Load the last state; returns the steps done, 0 when there is none.

        Args:
            settings: those of this run.
            begins: whether this process begins a training if there is none (the first of a distributed run).

        Raises:
            InputError: the state was made with other settings or for another network.
        """
        if not self.settings_path.exists() and not self.path.exists():
            if begins:
                self.begin(settings)
            return 0
        stored = read_checkpoint(self.path) if self.path.exists() else {}
        saved = self._saved_settings(settings, stored, begins)
        for name, value in settings.items():
            if name in saved and saved[name] != value:
                advice = "free more memory" if name == OUTPUT_KEPT else "resume it with the same"
                raise InputError(f"{self.settings_path}: the training was started with {name} {saved[name]}, not "
                                 f"{value}; {advice}, or start another with another --checkpoints")
        self.digest = settings_digest(saved)
        if not stored:
            return 0
        for name, parameter in self.parameters.items():
            if name not in stored or tuple(stored[name].shape) != tuple(parameter.shape):
                raise InputError(f"{self.path}: {name} is missing or of another shape; it belongs to another training")
        for name, parameter in self.parameters.items():
            parameter.set_data(Tensor(stored[name].asnumpy()))
        return int(stored[STEP].asnumpy())

    def _saved_settings(self, settings: Mapping[str, Any], stored: Mapping[str, Any], begins: bool) -> dict[str, Any]:
        """The settings that the training was begun with; a lost file is written again if these are the same.

        Raises:
            InputError: they are lost and cannot be these, or the two files belong to different trainings.
        """
        digest = stored[SETTINGS_DIGEST].asnumpy() if SETTINGS_DIGEST in stored else None   # none in older states
        if self.settings_path.exists():
            saved = read_json(self.settings_path)
            if not isinstance(saved, dict):
                raise InputError(f"{self.settings_path}: not the settings of a training; remove it and resume with "
                                 "the flags that the training was started with")
            if digest is not None and not np.array_equal(digest, settings_digest(saved)):
                raise InputError(f"{self.settings_path}: belongs to another training than {self.path.name} beside it; "
                                 "put the right one back, or remove it and resume with the flags that the training "
                                 "was started with")
            return saved
        if digest is None or not np.array_equal(digest, settings_digest(settings)):
            raise InputError(f"{self.settings_path}: lost, and the flags, features or encoder of this run are not those"
                             f" that {self.path.name} beside it was trained with; resume with the same, or begin a new "
                             "training with another --checkpoints")
        if begins:
            write_json(self.settings_path, dict(settings))
        return dict(settings)

    def save(self, steps_done: int) -> None:
        """Replace the last state atomically."""
        write_checkpoint(self.path, {**self.parameters, STEP: np.array(steps_done, np.int32),
                                     SETTINGS_DIGEST: self.digest})


def settings_digest(settings: Mapping[str, Any]) -> np.ndarray:
    """SHA-256 of the settings as JSON, int32 [8]: a checkpoint holds numbers only."""
    return np.frombuffer(bytes.fromhex(json_digest(dict(settings))), "<i4").astype(np.int32)


def fixed_settings(options: Mapping[str, Any], features_md5: str, devices: int, bert: BertConfig) -> dict[str, Any]:
    """What must be the same when a training is resumed: the flags that shape it, features, devices, the encoder."""
    fixed = {name: value for name, value in options.items() if name not in FREE_FLAGS}
    return {**fixed, "features_md5": features_md5, "devices": devices, **asdict(bert)}
