"""Training: the recipe, the loop, and what it leaves behind (checkpoints, log lines, metrics.jsonl, a plot)."""
from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, TypeVar

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor
from tqdm import tqdm

from src.batch_plan import choose_buckets
from src.checks import check_evaluation, check_training
from src.config import KTNetConfig, feature_columns
from src.cpu import kernels as cpu_kernels
from src.dataset import create_train_dataset, feature_lengths
from src.inference.evaluate import evaluate
from src.KTNET import KTNET, KTNETWithLoss
from src.prepare import prepare_features
from src.reader.storage import ConvertedFiles
from src.settings import EvaluationSettings, TrainingSettings
from src.training.lock import check_unlocked, training_lock
from src.training.log import LogFiles, StepRecord, TrainingLog, plot_training
from src.training.memory_estimate import (
    FUSED_LAYERS,
    PLAIN_LAYERS,
    check_memory,
    estimate_training_memory,
)
from src.training.state import TrainingState, fixed_settings
from src.training.step import AccumulateStep, ApplyStep, MovingAverage, TrainStep, learning_rate_at
from src.weights.build import build_for_evaluation, build_for_training
from src.weights.checkpoint import AVERAGE_PREFIX, checkpoints_in, remove_checkpoint, save_config, write_checkpoint
from utils.device import CompiledLengths, Devices, set_up_device
from utils.memory import available_memory
from utils.modelarts import fetch_data, send_results
from utils.util import LOGGER, InputError, file_digest, write_json

S = TypeVar("S", TrainingSettings, EvaluationSettings)


class Trainer:
    """Runs the steps of a recipe.

    Args:
        settings: of the training, with its features' own sizes.
        network: backbone with its initial weights.
        config: sizes of the network.
        devices: this process's place.
    """

    def __init__(self, settings: TrainingSettings, network: KTNET, config: KTNetConfig, devices: Devices) -> None:
        self.settings, self.network, self.config, self.devices = settings, network, config, devices
        self.task, self.job = settings.task, settings.job
        self.recipe = recipe = settings.recipe
        lengths = feature_lengths(self.job.train_mindrecord_file)
        max_seq_len = settings.features.max_seq_len
        self.buckets = choose_buckets(lengths, max_seq_len, settings.run.buckets)
        self.parts = recipe.accumulation_steps
        self.steps_per_epoch = math.ceil(len(lengths) / (settings.run.batch_size * devices.count * self.parts))
        self.total_steps = self.steps_per_epoch * recipe.epoch
        self.columns = [column.name for column in feature_columns(config.memories, "train", max_seq_len)]
        self.step = 0                                # steps that are done
        in_step = dataclasses.replace(recipe, loss_scale=0.0) if settings.device.is_cpu else recipe     # float32
        with_loss = KTNETWithLoss(network)
        if self.parts == 1:
            self.train_step = TrainStep(with_loss, in_step, devices.count)
        else:
            self.train_step = AccumulateStep(with_loss, in_step, devices.count)
            self.apply_step = ApplyStep(self.train_step, self.parts)
        self.train_step.set_train(True)
        self.compiled = CompiledLengths(self.train_step)
        self.average = MovingAverage(network.trainable_params(), recipe) if recipe.use_ema else None
        self.best_f1 = Parameter(Tensor(-1.0, ms.float32), name="best_f1", requires_grad=False)
        self.state = TrainingState(self.job.save_finetune_checkpoint_path, self.task.name, self.state_parameters())

    def state_parameters(self) -> list[Parameter]:
        """Everything that a resumed training needs."""
        sums = {id(parameter) for parameter in getattr(self.train_step, "sums", ())}    # empty between steps
        own = [parameter for parameter in self.train_step.get_parameters() if id(parameter) not in sums]
        averages = [] if self.average is None else [*self.average.averages, self.average.updates]
        return [*own, *averages, self.best_f1]

    def start(self, settings: dict[str, Any]) -> None:
        """Begin, or resume where the last run stopped."""
        if self.job.resume:
            self.step = self.state.resume(settings, self.devices.is_first)
            if self.devices.sum(self.step) != self.devices.count * self.step:
                raise InputError(f"{self.state.path}: after step {self.step} here, elsewhere not: every host needs the "
                                 f"first one's training_state_{self.task.name}.ckpt and .json")
            LOGGER.info("resuming after %d of %d steps", self.step, self.total_steps)
        elif self.devices.is_first:
            self.state.begin(settings)

    def batches(self, epoch: int) -> Iterator[list[Tensor]]:
        """The batches of an epoch that are still to be done, as the network's arguments."""
        dataset = create_train_dataset(
            self.job.train_mindrecord_file, device_num=self.devices.count, rank=self.devices.rank,
            batch_size=self.settings.run.batch_size, knowledge_bases=self.config.memories, buckets=self.buckets,
            seed=self.recipe.random_seed, epoch=epoch, first_step=self.step - epoch * self.steps_per_epoch,
            parts=self.parts)
        for batch in dataset.create_dict_iterator(num_epochs=1):
            yield [batch[name] for name in self.columns]

    def run(self) -> Path:
        """Train to the end; returns the last checkpoint."""
        run, epochs = self.settings.run, self.recipe.epoch
        LOGGER.info("training: %d epochs of %d steps, batch %d x %d devices x %d accumulated, padded to %s word pieces",
                    epochs, self.steps_per_epoch, run.batch_size, self.devices.count, self.parts,
                    ", ".join(map(str, self.buckets)))
        files = LogFiles(run.checkpoints, self.task.name)
        log = TrainingLog(files.metrics, self.step, self.steps_per_epoch,
                          self.settings.device.device_target == "Ascend", self.devices.is_first)
        with tqdm(total=self.total_steps, initial=self.step, desc="training", unit="step", disable=None) as progress:
            for epoch in range(self.step // self.steps_per_epoch, epochs):
                batches = self.batches(epoch)
                end = (epoch + 1) * self.steps_per_epoch
                while self.step < end:
                    log.add(self.train_one(epoch, batches))
                    progress.update()
                    if self.step < end and self.job.save_steps and self.step % self.job.save_steps == 0:
                        self.save(epoch)
                self.save(epoch, validate=self.job.do_val)
        if self.devices.is_first:
            plot_training(files.metrics, files.plot, f"KT-NET on {self.task.folder}")
        return self.checkpoint_path(epochs - 1)     # by name: another process may still be writing it

    def train_one(self, epoch: int, batches: Iterator[list[Tensor]]) -> StepRecord:
        """One step: a batch, or as many as are accumulated, and an update."""
        parts = self.parts
        rate = learning_rate_at(self.step, self.total_steps, self.recipe)
        rate_tensor = Tensor(rate, ms.float32)
        columns = next(batches)
        if parts == 1:
            arguments = [rate_tensor, Tensor(self.step, ms.int32), *columns]
        else:
            arguments = [Tensor(self.step * parts, ms.int32), *columns]
        self.compiled.prepare(columns[0].shape[1], *arguments)
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
                            overflow=bool(overflow.asnumpy()), length=columns[0].shape[1],
                            seconds=round(time.perf_counter() - begin, 4))
        check_progress(record)
        if not record.overflow and self.average is not None:
            self.average()
        self.step += 1
        return record

    def checkpoint_path(self, epoch: int) -> Path:
        """Where the checkpoint of this step belongs."""
        name = f"KTNET_{self.task.name}-{epoch + 1}_{self.step - epoch * self.steps_per_epoch}.ckpt"
        return self.job.save_finetune_checkpoint_path / name

    def save(self, epoch: int, validate: bool = False) -> None:
        """Write KTNET_{task}-{epoch}_{step}.ckpt and the state to resume from; drop the oldest checkpoints."""
        if not self.devices.is_first:
            return
        folder = self.job.save_finetune_checkpoint_path
        path = self.checkpoint_path(epoch)
        self.write(path)
        if validate:
            self.validate(path, folder / f"KTNET_{self.task.name}-best.ckpt")
        self.state.save(self.step)                   # after the checkpoint: what is not in the state is made again
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

    def validate(self, checkpoint: Path, best: Path) -> None:
        """Evaluate a checkpoint; keep it as the best when its F1 is the highest so far."""
        result = evaluate_checkpoint(self.settings.evaluation(checkpoint),
                                     self.settings.run.checkpoints / "validation")
        if result.get("f1", -1.0) > float(self.best_f1.asnumpy()):
            self.best_f1.set_data(Tensor(result["f1"], ms.float32))
            self.write(best)


def check_progress(record: StepRecord) -> None:
    """Stop a training that can only get worse, before any of it is saved.

    Raises:
        InputError: loss or gradient is no number, or overflows although the loss scale cannot become smaller.
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
        settings: as :func:`src.prepare.prepare_features` gives them for the training features.
        manifest: of those features.
        devices: this process's place.

    Raises:
        InputError: a file or flag does not fit; nothing has been written then.
    """
    run, job, recipe = settings.run, settings.job, settings.recipe
    ms.set_seed(recipe.random_seed)
    network, config = build_for_training(settings, manifest)
    trainer = Trainer(settings, network, config, devices)
    if settings.device.is_cpu:
        estimate = estimate_training_memory(config, run.batch_size, trainer.buckets, recipe.use_ema,
                                            recipe.accumulation_steps > 1, recipe.freeze,
                                            FUSED_LAYERS if cpu_kernels.available() else PLAIN_LAYERS)
        check_memory(estimate, available_memory(), job.force_memory)
    job.save_finetune_checkpoint_path.mkdir(parents=True, exist_ok=True)
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    options = settings.plain()
    features_md5 = file_digest(ConvertedFiles(job.train_mindrecord_file).mindrecord)
    task = settings.task.name
    with training_lock(job.save_finetune_checkpoint_path, task) if devices.is_first else nullcontext():
        trainer.start(fixed_settings(options, features_md5, devices.count, config.bert))
        LOGGER.info("options: %s", json.dumps(options))
        if devices.is_first:
            write_json(LogFiles(run.checkpoints, task).options, options)
        return trainer.run()


def evaluate_checkpoint(settings: EvaluationSettings, output: Path) -> dict[str, float]:
    """Evaluate a checkpoint on the dev split; writes the answers and figures into ``output``."""
    settings, manifest = prepare_features(settings, "dev")
    network, config = build_for_evaluation(settings, manifest)
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
    if not settings.modelarts.is_modelarts:
        check_training(settings)
    devices = set_up_device(device.device_target, device.device_id, job.device_num if job.is_distribute else None)
    settings = with_fetched_data(settings.with_flags(device_target=devices.target), devices)
    checkpoint = job.load_checkpoint_path or job.init_checkpoint
    if job.do_train:
        if job.load_checkpoint_path is not None:
            LOGGER.warning("--load_checkpoint_path: no effect with --do_train True; --init_checkpoint is what a "
                           "training starts from")
        check_unlocked(settings.job.save_finetune_checkpoint_path, settings.task.name)
        settings, manifest = prepare_features(settings, "train")
        checkpoint = train(settings, manifest, devices)
    if job.do_predict and devices.is_first:
        if checkpoint is None:
            raise InputError("--do_predict True with --do_train False: give the checkpoint by --load_checkpoint_path")
        evaluate_checkpoint(settings.evaluation(checkpoint), settings.run.checkpoints)
    if settings.modelarts.save_url and settings.modelarts.is_modelarts and devices.is_first:
        send_results(settings.run.checkpoints, settings.job.save_finetune_checkpoint_path,
                     settings.modelarts.save_url, settings.modelarts.log_url)


def run_evaluation(settings: EvaluationSettings) -> None:
    """What run_KTNET_{task}_eval.py does."""
    if not settings.modelarts.is_modelarts:
        check_evaluation(settings)
    devices = set_up_device(settings.device.device_target, settings.device.device_id)
    settings = with_fetched_data(settings.with_flags(device_target=devices.target), devices)
    evaluate_checkpoint(settings, settings.run.checkpoints)
    if settings.modelarts.save_url and settings.modelarts.is_modelarts:
        send_results(settings.run.checkpoints, None, settings.modelarts.save_url, settings.modelarts.log_url)
