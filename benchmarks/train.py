# SPDX-License-Identifier: Apache-2.0
r"""Measure a training step against plain BERT's, in turns in one run; prints one JSON line.

    python -m benchmarks.train --data_url DATA --bert_config_path FILE --load_pretrain_checkpoint_path FILE \
        [--batch_size 8] [--buckets 4] [--rounds 5] [--steps 3]

KT-NET's step is the trainer's own: gradient, clipping, Adam with decay, moving average, with the metrics read back. Its
peer is HuggingFace's BertForQuestionAnswering on PyTorch with an encoder of the same sizes (gradient, clipping, AdamW).
Both take the same batches of the training file, in processes of their own, in turns: every round trains ``--steps``
batches of each bucket's length with the one and then with the other, after 16 steps of each length that are not
counted. A ratio is KT-NET's time divided by plain BERT's in the same round; the median round counts. Figures for an
epoch weigh the bucket's times with the number of its batches in the epoch; "fixed" pads every batch to max_seq_len, as
HuggingFace's SQuAD recipe does.
"""
from __future__ import annotations

import json
import os
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.bert_peer import BertPeer, Columns
from benchmarks.turns import Peer
from src.config import SQUAD, BertConfig, feature_columns
from src.settings import NetworkDeviceSettings, TrainingSettings
from utils.args import PositiveInt, flag, group
from utils.util import run_main

WARM_UP_STEPS = 16      # MindSpore's CPU kernels try numbers of threads in as many runs, five runs each


def main(argv: Sequence[str] | None = None) -> None:
    settings = BenchmarkSettings.parse(argv, SQUAD)
    lengths, batches = collect_batches(settings)
    config = BertConfig.from_json_file(settings.network.bert_config_path)
    with Peer(KTNetTrainer, settings) as ktnet, Peer(BertPeer, config, settings.turns.threads, True) as bert:
        first = {length: ktnet.call("train", some[:1]) for length, some in batches.items()}
        for some in batches.values():
            ktnet.call("train", some[:1] * WARM_UP_STEPS)
            bert.call("train", some[:1] * WARM_UP_STEPS)
        rounds = [{length: (ktnet.call("train", some) / len(some), bert.call("train", some) / len(some))
                   for length, some in batches.items()} for _ in range(settings.turns.rounds)]
    print(json.dumps(report(settings, lengths, first, rounds)))


@dataclass(frozen=True)
class Turns:
    """The benchmark's own flags."""

    title: ClassVar[str] = "benchmark"

    rounds: PositiveInt = flag(5, "turns of each")
    steps: PositiveInt = flag(3, "batches of each length in a turn")
    threads: PositiveInt = flag(os.cpu_count(), "threads of PyTorch")
    fixed_only: bool = flag(False, "measure batches of max_seq_len alone")


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings(TrainingSettings):
    """The trainer's own flags and the benchmark's."""

    prog: ClassVar[str] = "python -m benchmarks.train"
    description: ClassVar[str] = "Measure a training step against plain BERT's, in turns in one run."

    device: NetworkDeviceSettings = group(device_target="CPU")
    turns: Turns = group()


def collect_batches(settings: BenchmarkSettings) -> tuple[Counter[int], dict[int, list[Columns]]]:
    """How many batches of each length an epoch has, and the first few real ones of each length."""
    from src.batch_plan import bucket_of, choose_buckets, plan_training_epoch
    from src.data_convert import prepare_features
    from src.dataset import create_train_dataset, feature_lengths

    settings, _ = prepare_features(settings, "train")
    run, seed, max_seq_len = settings.run, settings.recipe.random_seed, settings.features.max_seq_len
    data_file, steps = settings.mindrecord("train"), settings.turns.steps
    features = feature_lengths(data_file)
    buckets = choose_buckets(features, max_seq_len, run.buckets)
    plan = plan_training_epoch(features, buckets, run.batch_size, seed, 0)
    counts = Counter(buckets[int(bucket_of(features[rows].max(keepdims=True), buckets)[0])] for rows in plan)
    wanted = [max_seq_len] if settings.turns.fixed_only else sorted({*counts, max_seq_len})
    batches: dict[int, list[Columns]] = {length: [] for length in wanted}
    for chosen in (buckets, (max_seq_len,)):       # the second fills up what the epoch has too few of
        dataset = create_train_dataset(data_file, batch_size=run.batch_size, buckets=chosen,
                                       knowledge_bases=settings.wanted_bases(), seed=seed)
        for columns in dataset.create_dict_iterator(num_epochs=1, output_numpy=True):
            found = batches.get(columns["src_ids"].shape[1])
            if found is not None and len(found) < steps:
                found.append(columns)
            if all(len(found) == steps for found in batches.values()):
                return counts, batches
    return counts, batches


class KTNetTrainer:
    """The real trainer, fed with given batches."""

    def __init__(self, settings: BenchmarkSettings) -> None:
        from src.data_convert import prepare_features
        from src.training.loop import Trainer
        from src.weights.build import build_for_training
        from utils.device import set_up_device

        devices = set_up_device(settings.device.device_target, settings.device.device_id)
        settings = settings.on_device(devices.target)
        settings, manifest = prepare_features(settings, "train")
        network, config = build_for_training(settings, manifest)
        self.trainer = Trainer(settings, network, config, devices)
        self.names = [column.name for column in feature_columns(config.memories, "train")]

    def train(self, batches: Sequence[Columns]) -> float:
        """Train on batches, moving average included; seconds."""
        from mindspore import Tensor

        start = time.perf_counter()
        for columns in batches:
            self.trainer.train_one(0, iter([[Tensor(columns[name]) for name in self.names]]))
        if self.trainer.average is not None:
            self.trainer.average.updates.asnumpy()      # it has been computed when it can be read
        return time.perf_counter() - start


def report(settings: BenchmarkSettings, counts: Counter[int], first: dict[int, float],
           rounds: Sequence[dict[int, tuple[float, float]]]) -> dict[str, Any]:
    """All figures."""
    run, turns, max_seq_len = settings.run, settings.turns, max(rounds[0])

    def middle(length: int, who: int) -> float:
        return statistics.median(times[length][who] for times in rounds)

    def per_second(who: int, fixed: bool) -> float:
        seconds = sum(count * middle(max_seq_len if fixed else length, who) for length, count in counts.items())
        return run.batch_size * counts.total() / seconds

    lengths = {str(length): {
        "batches_in_epoch": counts[length], "ktnet_step_s": round(middle(length, 0), 3),
        "bert_step_s": round(middle(length, 1), 3),
        "ratio": round(statistics.median(times[length][0] / times[length][1] for times in rounds), 3),
        "ktnet_first_step_s": round(first[length], 1)} for length in rounds[0]}
    result = {"benchmark": "train", "batch_size": run.batch_size, "rounds": turns.rounds, "steps": turns.steps,
              "threads": turns.threads, "max_seq_len": max_seq_len,
              "equal_padding_ratio": lengths[str(max_seq_len)]["ratio"], "lengths": lengths}
    if not turns.fixed_only:
        speed = {f"{name}_{padding}": per_second(who, padding == "fixed")
                 for who, name in enumerate(("ktnet", "bert")) for padding in ("buckets", "fixed")}
        result["examples_per_second"] = {name: round(value, 2) for name, value in speed.items()}
        result["bucketing_speedup"] = round(speed["ktnet_buckets"] / speed["ktnet_fixed"], 2)
        result["ktnet_buckets_over_bert_fixed"] = round(speed["ktnet_buckets"] / speed["bert_fixed"], 2)
        result["ktnet_buckets_over_bert_buckets"] = round(speed["ktnet_buckets"] / speed["bert_buckets"], 2)
    return result


if __name__ == "__main__":
    run_main(main)
