"""Training: the recipe, the loop, and what it leaves behind (checkpoints, log lines, metrics.jsonl)."""
from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor
from tqdm import tqdm

from src.batch_plan import choose_buckets
from src.build import build_for_evaluation, build_for_training
from src.checkpoint import AVERAGE_PREFIX, save_config, write_checkpoint
from src.config import KTNetConfig, TaskConfig, feature_columns
from src.dataset import create_train_dataset, feature_lengths
from src.evaluate import evaluate
from src.KTNET import KTNET, KTNETWithLoss
from src.prepare import prepare_features
from src.train_step import MovingAverage, StepOptions, TrainStep, learning_rate_at
from utils.device import Devices, set_up_device
from utils.util import LOGGER, InputError, write_json


class Trainer:
    """Runs the steps of a recipe.

    Args:
        task: data set.
        args: flags, with every path filled in.
        network: backbone with its initial weights.
        config: sizes of the network.
        devices: this process's place.
    """

    def __init__(self, task: TaskConfig, args: argparse.Namespace, network: KTNET, config: KTNetConfig,
                 devices: Devices) -> None:
        self.task, self.args, self.network, self.config, self.devices = task, args, network, config, devices
        lengths = feature_lengths(args.train_mindrecord_file)
        self.buckets = choose_buckets(lengths, args.max_seq_len, args.buckets)
        self.steps_per_epoch = math.ceil(len(lengths) / (args.batch_size * devices.count))
        self.total_steps = self.steps_per_epoch * args.epoch
        loss_scale = 0.0 if args.device_target == "CPU" else args.loss_scale
        options = StepOptions(args.weight_decay, args.max_grad_norm, loss_scale, devices.count)
        self.train_step = TrainStep(KTNETWithLoss(network), options)
        self.train_step.set_train(True)
        self.average = MovingAverage(network.trainable_params(), args.ema_decay) if args.use_ema else None
        self.columns = [column.name for column in feature_columns(config.memories, "train", args.max_seq_len)]
        self.step = 0                                # steps that are done
        self.metrics = args.checkpoints / "metrics.jsonl"
        self.saved: list[Path] = []

    def batches(self, epoch: int) -> Iterator[list[Tensor]]:
        """The batches of an epoch that are still to be done, as the network's arguments."""
        args = self.args
        dataset = create_train_dataset(
            args.train_mindrecord_file, device_num=self.devices.count, rank=self.devices.rank,
            batch_size=args.batch_size, knowledge_bases=self.config.memories, buckets=self.buckets,
            seed=args.random_seed, epoch=epoch, first_step=self.step - epoch * self.steps_per_epoch)
        for batch in dataset.create_dict_iterator(num_epochs=1):
            yield [batch[name] for name in self.columns]

    def run(self) -> Path:
        """Train to the end; returns the last checkpoint."""
        args = self.args
        LOGGER.info("training: %d epochs of %d steps, batch %d x %d, padded to %s word pieces", args.epoch,
                    self.steps_per_epoch, args.batch_size, self.devices.count, ", ".join(map(str, self.buckets)))
        with tqdm(total=self.total_steps, initial=self.step, desc="training", unit="step", disable=None) as progress:
            for epoch in range(self.step // self.steps_per_epoch, args.epoch):
                for columns in self.batches(epoch):
                    self.train_one(epoch, columns)
                    progress.update()
                    if args.save_steps and self.step % args.save_steps == 0:
                        self.save(epoch)
                if not (args.save_steps and self.step % args.save_steps == 0):
                    self.save(epoch)
        return self.saved[-1]

    def train_one(self, epoch: int, columns: list[Tensor]) -> None:
        """One step and its log line."""
        begin = time.perf_counter()
        args = self.args
        rate = learning_rate_at(self.step, self.total_steps, args.learning_rate, args.warmup_proportion)
        loss, norm, overflow, scale = (value.asnumpy() for value in self.train_step(
            Tensor(rate, ms.float32), Tensor(self.step, ms.int32), *columns))
        if not overflow and self.average is not None:
            self.average()
        self.step += 1
        if not np.isfinite(loss) and not overflow:
            raise InputError(f"step {self.step}: the loss is {loss}: the training has diverged; lower --learning_rate")
        step_in_epoch = self.step - epoch * self.steps_per_epoch
        if args.device_target == "Ascend":
            LOGGER.info("epoch: %.1f, current epoch percent: %.3f, step: %d, outputs are (Tensor(shape=[1], "
                        "dtype=Float32, [ %.7e]), Tensor(shape=[], dtype=Bool, %s), Tensor(shape=[], dtype=Float32, "
                        "%d))", epoch, step_in_epoch / self.steps_per_epoch, self.step, loss, bool(overflow), scale)
        else:
            LOGGER.info("epoch: %d step: %d, loss is %.6f", epoch + 1, step_in_epoch, loss)
        if self.devices.is_first:
            seconds = time.perf_counter() - begin
            entry = {"step": self.step, "epoch": epoch + 1, "loss": float(loss), "learning_rate": rate,
                     "gradient_norm": float(norm), "length": columns[0].shape[1], "seconds": round(seconds, 4)}
            with open(self.metrics, "a", encoding="utf-8") as metrics:
                metrics.write(json.dumps(entry) + "\n")

    def save(self, epoch: int) -> None:
        """Write KTNET_{task}-{epoch}_{step}.ckpt; drop the oldest when there are too many."""
        if not self.devices.is_first:
            return
        name = f"KTNET_{self.task.name}-{epoch + 1}_{self.step - epoch * self.steps_per_epoch}.ckpt"
        path = self.args.save_finetune_checkpoint_path / name
        weights: dict[str, Any] = {parameter.name: Tensor(parameter.asnumpy())
                                   for parameter in self.network.get_parameters()}
        if self.average is not None:
            weights.update({AVERAGE_PREFIX + name: value for name, value in self.average.corrected().items()})
        save_config(path, self.config, plain_options(self.args))
        write_checkpoint(path, weights)
        LOGGER.info("saved %s", path)
        self.saved.append(path)
        while len(self.saved) > self.args.keep_checkpoint_max:
            oldest = self.saved.pop(0)
            oldest.unlink(missing_ok=True)
            oldest.with_suffix(".json").unlink(missing_ok=True)


def plain_options(args: argparse.Namespace) -> dict[str, Any]:
    """The flags as JSON values."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in sorted(vars(args).items())}


def train(task: TaskConfig, args: argparse.Namespace) -> Path:
    """Train as the flags say; returns the last checkpoint.

    Raises:
        InputError: a file or flag does not fit; nothing has been written then but features that were missing.
    """
    devices = set_up_device(args)
    ms.set_seed(args.random_seed)
    manifest = prepare_features(task, "train", args)
    network, config = build_for_training(args, manifest)
    args.save_finetune_checkpoint_path.mkdir(parents=True, exist_ok=True)
    args.checkpoints.mkdir(parents=True, exist_ok=True)
    options = plain_options(args)
    LOGGER.info("options: %s", json.dumps(options))
    write_json(args.checkpoints / f"options_{task.name}.json", options)
    return Trainer(task, args, network, config, devices).run()


def run_training(task: TaskConfig, args: argparse.Namespace) -> None:
    """What run_KTNET_{task}.py does: --do_train, then --do_predict."""
    checkpoint = args.init_checkpoint
    if args.do_train:
        checkpoint = train(task, args)
    if args.do_predict:
        if checkpoint is None:
            raise InputError("--do_predict True with --do_train False: give the checkpoint by --init_checkpoint")
        args.load_checkpoint_path = checkpoint
        run_evaluation(task, args)


def run_evaluation(task: TaskConfig, args: argparse.Namespace) -> None:
    """What run_KTNET_{task}_eval.py does."""
    set_up_device(args)
    manifest = prepare_features(task, "dev", args)
    network, config = build_for_evaluation(args, manifest)
    evaluate(task, network, config.memories, args, args.do_lower_case, args.checkpoints)
