# SPDX-License-Identifier: Apache-2.0
"""Training: the recipe, the loop, and its results (checkpoints, log lines, metrics.jsonl, a plot)."""
from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor

from src.config import KTNetConfig, feature_columns
from src.data_convert import prepare_features
from src.dataset import create_train_dataset, plan_device_rows
from src.inference.attention import describe_memory_weights, measure_memory_weights
from src.inference.evaluate import evaluate
from src.KTNET import KTNET, HeadWithLoss, KTNETWithLoss
from src.reader.storage import features_digest
from src.settings import EvaluationSettings, TrainingSettings
from src.training.hidden import EncodedFeatures
from src.training.lock import check_unlocked, training_lock
from src.training.log import LogFiles, StepRecord, TrainingLog, TrainingPlan, log_options
from src.training.memory_estimate import check_memory
from src.training.next_steps import log_results
from src.training.plot import plot_training
from src.training.stages import Stage, estimate_stages, plan_stages, with_encoded_features
from src.training.state import OUTPUT_KEPT, TrainingState, fixed_settings
from src.training.step import AccumulateStep, ApplyStep, MovingAverage, TrainStep, learning_rate_at
from src.weights.build import build_for_evaluation, build_for_training
from src.weights.checkpoint import AVERAGE_PREFIX, checkpoints_in, remove_checkpoint, sweep_unfinished, write_checkpoint
from src.weights.sizes import save_config
from utils.device import CompiledLengths, Devices, set_up_device
from utils.memory import available_memory
from utils.modelarts import fetch_data, send_results
from utils.util import LOGGER, InputError, write_json

S = TypeVar("S", TrainingSettings, EvaluationSettings)


class Trainer:
    """Runs the steps of a stage.

    Args:
        settings: of the training, with its features' own sizes.
        stage: the one to run.
        network: backbone with the weights that the stage starts from.
        config: sizes of the network.
        devices: this process's rank.
        best_f1: of the validations so far, in percent.
    """

    def __init__(self, settings: TrainingSettings, stage: Stage, network: KTNET, config: KTNetConfig,
                 devices: Devices, best_f1: Parameter) -> None:
        self.settings, self.stage, self.network, self.config = settings, stage, network, config
        self.devices, self.best_f1 = devices, best_f1
        self.task, self.job = settings.task, settings.job
        self.recipe = recipe = stage.recipe
        self.parts = recipe.accumulation_steps
        self.columns = [column.name for column in feature_columns(config.memories, "train",
                                                                  settings.features.max_seq_len)]
        self.step = stage.first_step                 # steps that are done, of all stages
        self.encoded: EncodedFeatures | None = None  # computed when first needed
        for parameter in network.bert.get_parameters():
            parameter.requires_grad = not recipe.freeze
        is_float16 = not settings.device.is_cpu and settings.device.compute_type in ("float16", "auto")
        in_step = recipe if is_float16 else dataclasses.replace(recipe, loss_scale=0.0)
        with_loss = HeadWithLoss(network) if stage.keeps_encoded else KTNETWithLoss(network, recipe.freeze)
        self.average = MovingAverage(with_loss.trainable_params(), recipe) if recipe.use_ema else None
        if self.parts == 1:
            self.train_step = TrainStep(with_loss, in_step, devices.count, self.average)
        else:
            self.train_step = AccumulateStep(with_loss, in_step, devices.count, self.average)
            self.apply_step = ApplyStep(self.train_step, self.parts)
        self.train_step.set_train(True)
        network.bert.set_train(recipe.encoder_dropout or not recipe.freeze)
        self.compiled = CompiledLengths(self.train_step)
        self.state = TrainingState(self.job.save_finetune_checkpoint_path, self.task.name, self.state_parameters())

    def for_stage(self, stage: Stage) -> Trainer:
        """What runs the next stage, from the weights and under the settings of this one."""
        trainer = Trainer(self.settings, stage, self.network, self.config, self.devices, self.best_f1)
        trainer.state.digest = self.state.digest
        return trainer

    def state_parameters(self) -> list[Parameter]:
        """Everything that a resumed training needs."""
        sums = {id(parameter) for parameter in getattr(self.train_step, "sums", ())}    # empty between steps
        averages = [] if self.average is None else [*self.average.averages, self.average.updates]
        unique = {id(parameter): parameter for parameter in (*self.train_step.get_parameters(), *averages)}
        return [*(parameter for key, parameter in unique.items() if key not in sums), self.best_f1]

    def start(self, settings: dict[str, Any]) -> None:
        """Begin the training, or load its last state, which must be in this stage."""
        if self.job.resume:
            self.step = self.state.resume(settings, self.devices.is_first)
            if self.devices.sum(self.step) != self.devices.count * self.step:
                raise InputError(f"{self.state.path}: after step {self.step} here, elsewhere not: every host needs the "
                                 f"first one's training_state_{self.task.name}.ckpt and .json")
        elif self.devices.is_first:
            self.state.begin(settings)

    def batches(self, epoch: int) -> Iterator[list[Tensor]]:
        """The remaining batches of an epoch, as the network's arguments."""
        plan: dict[str, Any] = {
            "device_num": self.devices.count, "rank": self.devices.rank, "batch_size": self.settings.run.batch_size,
            "buckets": self.stage.buckets, "seed": self.recipe.random_seed, "epoch": epoch,
            "first_step": self.step - epoch * self.stage.steps_per_epoch, "parts": self.parts}
        path = self.job.train_mindrecord_file
        dataset = create_train_dataset(path, knowledge_bases=self.config.memories, **plan)
        for rows, batch in zip(plan_device_rows(path, **plan), dataset.create_dict_iterator(num_epochs=1), strict=True):
            columns = [batch[name] for name in self.columns]
            if self.stage.keeps_encoded:
                mask = columns[0]
                columns = [self.encode_once().batch(rows, mask.shape[1]), mask, *columns[4:]]
            yield columns

    def encode_once(self) -> EncodedFeatures:
        """The frozen encoder's output for all features."""
        if self.encoded is None:
            self.encoded = EncodedFeatures(self.network, self.job.train_mindrecord_file, self.config.memories,
                                           self.settings.run.batch_size, self.stage.buckets)
            LOGGER.info("the encoder is frozen: its output for all features is kept, %.2f GB", self.encoded.bytes / 1e9)
        return self.encoded

    def run(self, log: TrainingLog) -> Path:
        """Train to the stage's end; returns its last checkpoint."""
        stage = self.stage
        LOGGER.info("%s%d epoch%s of %d steps%s, batches of %d%s%s, padded to %s word pieces, learning rate up to %g",
                    f"stage {stage.number} of 2: " if self.recipe.stages == "two" else "", self.recipe.epoch,
                    "s" if self.recipe.epoch > 1 else "", stage.steps_per_epoch,
                    " with a frozen encoder" if self.recipe.freeze else "", self.settings.run.batch_size,
                    f" on each of {self.devices.count} devices" if self.devices.count > 1 else "",
                    f", {self.parts} a step" if self.parts > 1 else "",
                    ", ".join(map(str, stage.buckets)), self.recipe.learning_rate)
        for epoch in range(self.step // stage.steps_per_epoch, stage.end_epoch):
            batches = self.batches(epoch)
            end = (epoch + 1) * stage.steps_per_epoch
            while self.step < end:
                log.add(self.train_one(epoch, batches))
                if self.step < end and self.job.save_steps and self.step % self.job.save_steps == 0:
                    self.save(epoch, log)
            if self.job.do_val or (epoch + 1) % self.job.save_epochs == 0 or epoch + 1 == stage.end_epoch:
                self.save(epoch, log, validate=self.job.do_val)
        return self.checkpoint_path(stage.end_epoch - 1)    # by name: another process may still be writing it

    def train_one(self, epoch: int, batches: Iterator[list[Tensor]]) -> StepRecord:
        """One step: a batch, or as many as are accumulated, and an update."""
        parts = self.parts
        rate = learning_rate_at(self.step - self.stage.first_step, self.stage.steps, self.recipe)
        rate_tensor = Tensor(rate, ms.float32)
        columns = next(batches)
        if parts == 1:
            arguments = [rate_tensor, Tensor(self.step, ms.int32), *columns]
        else:
            arguments = [Tensor(self.step * parts, ms.int32), *columns]
        length = columns[1].shape[1]                 # of the mask, or of the word pieces where the encoder runs
        self.compiled.prepare(length, *arguments)
        begin = time.perf_counter()
        if parts == 1:
            loss, norm, overflow, scale = self.train_step(*arguments)
        else:
            loss = self.train_step(*arguments).asnumpy() / parts
            for part in range(1, parts):
                loss = loss + self.train_step(Tensor(self.step * parts + part, ms.int32),
                                              *next(batches)).asnumpy() / parts
            norm, overflow, scale = self.apply_step(rate_tensor)
        record = StepRecord(step=self.step + 1, epoch=epoch + 1, loss=float(loss), learning_rate=rate,
                            gradient_norm=float(norm.asnumpy()), loss_scale=float(scale.asnumpy()),
                            overflow=bool(overflow.asnumpy()), length=length,
                            seconds=round(time.perf_counter() - begin, 4))
        check_progress(record)
        if not record.overflow and self.average is not None and not self.average.moves_with_adam:
            self.average()
        self.step += 1
        return record

    def checkpoint_path(self, epoch: int) -> Path:
        """Path of the checkpoint of this step."""
        name = f"KTNET_{self.task.name}-{epoch + 1}_{self.step - epoch * self.stage.steps_per_epoch}"
        return self.job.save_finetune_checkpoint_path / f"{name}.{self.job.checkpoint_format}"

    def save(self, epoch: int, log: TrainingLog, validate: bool = False) -> None:
        """Write KTNET_{task}-{epoch}_{step} and the state to resume from; drop the oldest checkpoints."""
        if not self.devices.is_first:
            return
        folder = self.job.save_finetune_checkpoint_path
        path = self.checkpoint_path(epoch)
        self.write(path)
        if validate:
            best = folder / f"KTNET_{self.task.name}-best.{self.job.checkpoint_format}"
            log.add_validation(self.step, epoch + 1, self.validate(path, best))
        self.state.save(self.step)                   # after the checkpoint: unsaved steps are repeated
        for oldest in checkpoints_in(folder, self.task.name)[:-self.job.keep_checkpoint_max]:
            remove_checkpoint(oldest)

    def write(self, path: Path) -> None:
        """Write weights, averages and sizes."""
        weights: dict[str, Any] = {parameter.name: parameter for parameter in self.network.get_parameters()}
        if self.average is not None:
            weights.update({AVERAGE_PREFIX + name: value for name, value in self.average.corrected().items()})
        save_config(path, self.config, self.settings.plain())
        write_checkpoint(path, weights)
        LOGGER.info("saved %s", path)

    def validate(self, checkpoint: Path, best: Path) -> dict[str, float]:
        """Evaluate a checkpoint; keep it as the best when its F1 is the highest so far."""
        result = evaluate_checkpoint(self.settings.evaluation(checkpoint),
                                     self.settings.run.checkpoints / "validation")
        if result.get("f1", -1.0) > float(self.best_f1.asnumpy()):
            self.best_f1.set_data(Tensor(result["f1"], ms.float32))
            self.write(best)
        return result


def check_progress(record: StepRecord) -> None:
    """Stop a training that can only get worse, before any of it is saved.

    Raises:
        InputError: the loss or gradient is not finite, or overflows although the loss scale cannot become smaller.
    """
    if not record.overflow and not np.isfinite([record.loss, record.gradient_norm]).all():
        raise InputError(f"step {record.step}: the loss is {record.loss}, its gradient's norm {record.gradient_norm}: "
                         "the training has diverged; lower --learning_rate and resume from the last checkpoint, or "
                         "start again")
    if record.overflow and record.loss_scale <= 1.0:
        raise InputError(f"step {record.step}: the gradient overflows float16 without any loss scale: the weights that "
                         "it started from are broken, or the training has diverged; look at the encoder, lower "
                         "--learning_rate")


def train(settings: TrainingSettings, manifest: dict[str, Any], devices: Devices) -> Path:
    """Train as the settings say; returns the last checkpoint.

    Args:
        settings: as :func:`src.data_convert.prepare_features` gives them for the training features.
        manifest: of those features.
        devices: this process's rank.

    Raises:
        InputError: a file or flag does not fit; then nothing has been written.
    """
    run, job, task = settings.run, settings.job, settings.task.name
    folder = job.save_finetune_checkpoint_path
    stages = plan_stages(settings, devices.count)
    ms.set_seed(settings.recipe.random_seed)
    network, config = build_for_training(settings, manifest)
    may_keep = not job.resume or TrainingState(folder, task).begun_with(OUTPUT_KEPT) is not False
    stages = with_encoded_features(stages, settings, config, may_keep)
    if settings.device.is_cpu:
        check_memory(estimate_stages(stages, settings, config), available_memory(), job.force_memory)
    folder.mkdir(parents=True, exist_ok=True)
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    options = settings.plain()
    fixed = fixed_settings({**options, OUTPUT_KEPT: any(stage.keeps_encoded for stage in stages)},
                           features_digest(job.train_mindrecord_file), devices.count, config.bert)
    with training_lock(folder, task) if devices.is_first else nullcontext():
        if devices.is_first:
            sweep_unfinished(folder)
        done = TrainingState(folder, task).steps_done() if job.resume else 0
        first = next((number for number, stage in enumerate(stages) if done <= stage.end), len(stages) - 1)
        best_f1 = Parameter(Tensor(-1.0, ms.float32), name="best_f1", requires_grad=False)
        trainer = Trainer(settings, stages[first], network, config, devices, best_f1)
        trainer.start(fixed)
        files = LogFiles(run.checkpoints, task)
        log_options(options, settings.given, files.options)
        if devices.is_first:
            write_json(files.options, options)
        with TrainingLog(files, trainer.step, plan_log(settings, manifest, stages, devices),
                         settings.device.device_target == "Ascend", devices.is_first, job.tensorboard) as log:
            if trainer.step:
                LOGGER.info("resuming after %d of %d steps", trainer.step, stages[-1].end)
            checkpoint = trainer.run(log)
            for stage in stages[first + 1:]:
                trainer = trainer.for_stage(stage)
                checkpoint = trainer.run(log)
        if devices.is_first:
            plot_training(files, stages, f"KT-NET on {settings.task.folder}")
        return checkpoint


def plan_log(settings: TrainingSettings, manifest: dict[str, Any], stages: list[Stage],
             devices: Devices) -> TrainingPlan:
    """How long the training is."""
    counts = manifest["counts"]
    questions = (counts["questions"] - sum(counts["skipped"].values())) / counts["features"]     # of a feature
    features = settings.run.batch_size * devices.count * settings.recipe.accumulation_steps
    return TrainingPlan(stages[0].steps_per_epoch, tuple(stage.end for stage in stages), features * questions,
                        settings.job.log_steps)


def evaluate_checkpoint(settings: EvaluationSettings, output: Path, with_memories: bool = False) -> dict[str, float]:
    """Evaluate a checkpoint on the dev split; writes the answers and figures into ``output``.

    Args:
        settings: of the evaluation.
        output: folder.
        with_memories: whether to log how much weight the memories put on concepts.
    """
    settings, manifest = prepare_features(settings, "dev")
    network, config = build_for_evaluation(settings, manifest)
    if with_memories and config.memories:
        weights = measure_memory_weights(network, settings.run.predict_mindrecord_file, config.memories,
                                         settings.run.batch_size, settings.features.max_seq_len)
        labels = {base.name: base.label for base in settings.data.bases()}
        LOGGER.info("memories: %s", describe_memory_weights(weights, labels))
    return evaluate(network, config.memories, settings, manifest, output)


def with_fetched_data(settings: S, devices: Devices) -> S:
    """The settings of a ModelArts job with its data on this machine; others as they are."""
    if not settings.modelarts.is_modelarts:
        return settings
    copied = fetch_data(settings.data.data_url, settings.modelarts.save_url, devices)
    return settings.with_flags(data_url=copied).resolved()


def run_training(settings: TrainingSettings) -> None:
    """What run_KTNET_{task}.py does: --do_train, then --do_predict."""
    job, device = settings.job, settings.device
    devices = set_up_device(device.device_target, device.device_id, job.device_num if job.is_distribute else None)
    settings = with_fetched_data(settings.on_device(devices.target), devices)
    checkpoint = job.load_checkpoint_path or job.init_checkpoint
    if job.do_train:
        if job.load_checkpoint_path is not None:
            LOGGER.warning("--load_checkpoint_path: no effect with --do_train True; --init_checkpoint is what a "
                           "training starts from")
        if devices.is_first:            # the one process that writes there
            check_unlocked(job.save_finetune_checkpoint_path, settings.task.name)
        settings, manifest = prepare_features(settings, "train")
        checkpoint = train(settings, manifest, devices)
    if job.do_predict and devices.is_first:
        assert checkpoint is not None       # src.checks
        evaluate_checkpoint(settings.evaluation(checkpoint), settings.run.checkpoints)
    if settings.modelarts.save_url and settings.modelarts.is_modelarts and devices.is_first:
        send_results(settings.run.checkpoints, settings.job.save_finetune_checkpoint_path,
                     settings.modelarts.save_url, settings.modelarts.log_url)
    if job.do_train and devices.is_first:
        assert checkpoint is not None
        log_results(settings, checkpoint)


def run_evaluation(settings: EvaluationSettings) -> None:
    """What run_KTNET_{task}_eval.py does."""
    devices = set_up_device(settings.device.device_target, settings.device.device_id)
    settings = with_fetched_data(settings.on_device(devices.target), devices)
    evaluate_checkpoint(settings, settings.run.checkpoints, with_memories=True)
    if settings.modelarts.save_url and settings.modelarts.is_modelarts:
        send_results(settings.run.checkpoints, None, settings.modelarts.save_url, settings.modelarts.log_url)
