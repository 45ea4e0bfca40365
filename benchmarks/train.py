# SPDX-License-Identifier: Apache-2.0
r"""Measure a training step against plain BERT's, in turns in one run; prints one JSON line.

    python -m benchmarks.train --data_url DATA --bert_config_path FILE --load_pretrain_checkpoint_path FILE \
        [--batch_size 8] [--buckets 4] [--rounds 5] [--steps 3] [--compute_type auto] [--profile True]

KT-NET's step is the trainer's own: gradient, clipping, Adam with decay, moving average, with the metrics read back. Its
peer is HuggingFace's BertForQuestionAnswering on PyTorch with an encoder of the same sizes (gradient, clipping, AdamW).
Both are there in float32 and, where the processor multiplies it faster, in bfloat16 (PyTorch's autocast);
``--compute_type`` leaves one of the two. All take the same batches of the training file, in processes of their own, in
turns: every round trains ``--steps`` batches of each bucket's length with one after the other, after 16 steps of each
length that are not counted. A ratio is KT-NET's time divided by that of the faster plain BERT in the same round; the
median round counts. Figures for an epoch weigh the bucket's times with the number of its batches in the epoch; "fixed"
pads every batch to max_seq_len, as HuggingFace's SQuAD recipe does.

``--profile`` prints, for each of KT-NET's types, the seconds of a step at max_seq_len that its parts take, and the time
that the encoder's dense products would take at the speed at which the largest of them runs alone. The products within
attention's kernel for bfloat16 are counted in a build of it with a clock (:mod:`benchmarks.attention_clock`).
"""
from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from benchmarks.attention_clock import share_of_products
from benchmarks.bert_peer import BertPeer, Columns
from benchmarks.step_profile import product_limit, profile
from benchmarks.turns import Peer, Turns, compute_types, machine
from src.config import SQUAD, BertConfig, feature_columns
from src.settings import NetworkDeviceSettings, TrainingSettings
from utils.args import PositiveInt, flag, group
from utils.util import run_main

WARM_UP_STEPS = 16      # MindSpore's CPU kernels try numbers of threads in as many runs, five runs each


def main(argv: Sequence[str] | None = None) -> None:
    settings = BenchmarkSettings.parse(argv, SQUAD)
    state = machine()
    lengths, batches = collect_batches(settings)
    bert = BertConfig.from_json_file(settings.network.bert_config_path)
    with contextlib.ExitStack() as stack:
        peers = {}
        for name in compute_types(settings.device.compute_type):
            peers[f"ktnet_{name}"] = stack.enter_context(Peer(KTNetTrainer, settings.with_flags(compute_type=name)))
            peers[f"bert_{name}"] = stack.enter_context(Peer(BertPeer, bert, settings.turns.threads, True, name))
        first = {who: {length: peer.call("train", some[:1]) for length, some in batches.items()}
                 for who, peer in peers.items()}
        for some in batches.values():
            for peer in peers.values():
                peer.call("train", some[:1] * WARM_UP_STEPS)
        rounds = [{length: {who: peer.call("train", some) / len(some) for who, peer in peers.items()}
                   for length, some in batches.items()} for _ in range(settings.turns.rounds)]
        result = {**state, **report(settings, lengths, first, rounds)}
        if settings.turns.profile:
            longest = batches[max(batches)]
            result["profile_s"] = {who: peer.call("profile", longest) for who, peer in peers.items()
                                   if who.startswith("ktnet")}
    print(json.dumps(result))


@dataclass(frozen=True)
class TrainingTurns(Turns):
    """The benchmark's own flags."""

    steps: PositiveInt = flag(3, "batches of each length in a turn")
    fixed_only: bool = flag(False, "measure batches of max_seq_len alone")
    profile: bool = flag(False, "also print what a step's time goes into")


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings(TrainingSettings):
    """The trainer's own flags and the benchmark's."""

    prog: ClassVar[str] = "python -m benchmarks.train"
    description: ClassVar[str] = "Measure a training step against plain BERT's, in turns in one run."

    device: NetworkDeviceSettings = group(device_target="CPU")
    turns: TrainingTurns = group()


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
        import mindspore as ms
        from mindspore import Parameter, Tensor

        from src.data_convert import prepare_features
        from src.training.loop import Trainer
        from src.training.stages import plan_stages
        from src.weights.build import build_for_training
        from utils.device import set_up_device

        devices = set_up_device(settings.device.device_target, settings.device.device_id)
        settings = settings.on_device(devices.target)
        settings, manifest = prepare_features(settings, "train")
        network, self.config = build_for_training(settings, manifest)
        best = Parameter(Tensor(-1.0, ms.float32), name="best_f1", requires_grad=False)
        stage = plan_stages(settings, devices.count)[-1]
        self.trainer = Trainer(settings, stage, network, self.config, devices, best)
        self.names = [column.name for column in feature_columns(self.config.memories, "train")]

    def train(self, batches: Sequence[Columns]) -> float:
        """Train on batches, moving average included; seconds."""
        from mindspore import Tensor

        start = time.perf_counter()
        for columns in batches:
            self.trainer.train_one(0, iter([[Tensor(columns[name]) for name in self.names]]))
        if self.trainer.average is not None:
            self.trainer.average.updates.asnumpy()      # where it is a graph of its own, wait for it
        return time.perf_counter() - start

    def profile(self, batches: Sequence[Columns]) -> dict[str, float]:
        """Seconds of a step's parts, and of its dense products at the speed of the largest alone."""
        from src.cpu.kernels import multiply_tiles

        shape = batches[0]["src_ids"].shape
        parts = profile(lambda steps: self.train((list(batches) * steps)[:steps]), len(batches))
        if multiply_tiles():
            own = share_of_products(self.config.bert, *shape) * parts["attention"]
            parts |= {"attention": parts["attention"] - own, "products of attention": own}
        limit = product_limit(self.config.bert, shape[0] * shape[1])
        return {name: round(seconds, 4) for name, seconds in {**parts, "product_limit": limit}.items()}


def report(settings: BenchmarkSettings, counts: Counter[int], first: dict[str, dict[int, float]],
           rounds: Sequence[dict[int, dict[str, float]]]) -> dict[str, Any]:
    """All figures."""
    run, turns, longest = settings.run, settings.turns, max(rounds[0])

    def step(length: int, who: str) -> float:
        return statistics.median(times[length][who] for times in rounds)

    def ratio(length: int, who: str) -> float:
        return statistics.median(times[length][who] / min(times[length][bert] for bert in times[length]
                                                          if bert.startswith("bert")) for times in rounds)

    def per_second(who: str, fixed: bool) -> float:
        seconds = sum(count * step(longest if fixed else length, who) for length, count in counts.items())
        return run.batch_size * counts.total() / seconds

    ours = [who for who in first if who.startswith("ktnet")]
    lengths = {str(length): {"batches_in_epoch": counts[length],
                             "step_s": {who: round(step(length, who), 3) for who in first},
                             "over_the_better_bert": {who: round(ratio(length, who), 3) for who in ours},
                             "first_step_s": {who: round(first[who][length], 1) for who in ours}}
               for length in rounds[0]}
    result: dict[str, Any] = {
        "benchmark": "train", "batch_size": run.batch_size, "rounds": turns.rounds, "steps": turns.steps,
        "threads": turns.threads, "max_seq_len": longest, "lengths": lengths}
    if not turns.fixed_only:
        result["examples_per_second"] = {f"{who}_{padding}": round(per_second(who, padding == "fixed"), 2)
                                         for who in first for padding in ("buckets", "fixed")}
    return result


if __name__ == "__main__":
    run_main(main)
