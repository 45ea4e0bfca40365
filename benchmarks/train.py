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

import argparse
import json
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.bert_peer import BertPeer, Columns
from benchmarks.turns import Peer
from src.config import SQUAD, BertConfig, feature_columns
from utils.args import boolean, positive_int, training_parser
from utils.util import run_main

WARM_UP_STEPS = 16      # MindSpore's CPU kernels try numbers of threads in as many runs, five runs each


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    lengths, batches = collect_batches(args)
    with Peer(KTNetTrainer, args) as ktnet, Peer(BertPeer, BertConfig.from_json_file(args.bert_config_path),
                                                 args.threads, True) as bert:
        first = {length: ktnet.call("train", group[:1]) for length, group in batches.items()}
        for group in batches.values():
            ktnet.call("train", group[:1] * WARM_UP_STEPS)
            bert.call("train", group[:1] * WARM_UP_STEPS)
        rounds = [{length: (ktnet.call("train", group) / len(group), bert.call("train", group) / len(group))
                   for length, group in batches.items()} for _ in range(args.rounds)]
    print(json.dumps(report(args, lengths, first, rounds)))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The trainer's own flags and the benchmark's."""
    from utils.args import fill_paths

    parser = training_parser(SQUAD)
    parser.prog, parser.description = "python -m benchmarks.train", __doc__
    group = parser.add_argument_group("benchmark")
    group.add_argument("--rounds", type=positive_int, default=5, help="turns of each")
    group.add_argument("--steps", type=positive_int, default=3, help="batches of each length in a turn")
    group.add_argument("--threads", type=positive_int, default=os.cpu_count(), help="threads of PyTorch")
    group.add_argument("--fixed_only", type=boolean, default=False, help="measure batches of max_seq_len alone")
    parser.set_defaults(device_target="CPU")
    args = parser.parse_args(argv)
    args.checkpoints = Path(tempfile.gettempdir()) / "not written by the benchmark"
    fill_paths(args, SQUAD)
    return args


def collect_batches(args: argparse.Namespace) -> tuple[Counter[int], dict[int, list[Columns]]]:
    """How many batches of each length an epoch has, and the first few real ones of each length."""
    from src.batch_plan import bucket_of, choose_buckets, plan_training_epoch
    from src.dataset import create_train_dataset, feature_lengths
    from src.prepare import prepare_features
    from src.weights.build import wanted_bases

    prepare_features(SQUAD, "train", args)
    features = feature_lengths(args.train_mindrecord_file)
    buckets = choose_buckets(features, args.max_seq_len, args.buckets)
    plan = plan_training_epoch(features, buckets, args.batch_size, args.random_seed, 0)
    counts = Counter(buckets[int(bucket_of(features[rows].max(keepdims=True), buckets)[0])] for rows in plan)
    wanted = [args.max_seq_len] if args.fixed_only else sorted({*counts, args.max_seq_len})
    batches: dict[int, list[Columns]] = {length: [] for length in wanted}
    for chosen in (buckets, (args.max_seq_len,)):       # the second fills up what the epoch has too few of
        dataset = create_train_dataset(args.train_mindrecord_file, batch_size=args.batch_size, buckets=chosen,
                                       knowledge_bases=wanted_bases(args), seed=args.random_seed)
        for columns in dataset.create_dict_iterator(num_epochs=1, output_numpy=True):
            group = batches.get(columns["src_ids"].shape[1])
            if group is not None and len(group) < args.steps:
                group.append(columns)
            if all(len(group) == args.steps for group in batches.values()):
                return counts, batches
    return counts, batches


class KTNetTrainer:
    """The real trainer, fed with given batches."""

    def __init__(self, args: argparse.Namespace) -> None:
        from src.prepare import prepare_features
        from src.training.loop import Trainer
        from src.weights.build import build_for_training
        from utils.device import set_up_device

        devices = set_up_device(args)
        manifest = prepare_features(SQUAD, "train", args)
        network, config = build_for_training(args, manifest)
        self.trainer = Trainer(SQUAD, args, network, config, devices)
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


def report(args: argparse.Namespace, counts: Counter[int], first: dict[int, float],
           rounds: Sequence[dict[int, tuple[float, float]]]) -> dict[str, Any]:
    """All figures."""
    def middle(length: int, who: int) -> float:
        return statistics.median(times[length][who] for times in rounds)

    def per_second(who: int, fixed: bool) -> float:
        seconds = sum(count * middle(args.max_seq_len if fixed else length, who) for length, count in counts.items())
        return args.batch_size * counts.total() / seconds

    lengths = {str(length): {
        "batches_in_epoch": counts[length], "ktnet_step_s": round(middle(length, 0), 3),
        "bert_step_s": round(middle(length, 1), 3),
        "ratio": round(statistics.median(times[length][0] / times[length][1] for times in rounds), 3),
        "ktnet_first_step_s": round(first[length], 1)} for length in rounds[0]}
    result = {"benchmark": "train", "batch_size": args.batch_size, "rounds": args.rounds, "steps": args.steps,
              "threads": args.threads, "max_seq_len": args.max_seq_len,
              "equal_padding_ratio": lengths[str(args.max_seq_len)]["ratio"], "lengths": lengths}
    if not args.fixed_only:
        speed = {f"{name}_{padding}": per_second(who, padding == "fixed")
                 for who, name in enumerate(("ktnet", "bert")) for padding in ("buckets", "fixed")}
        result["examples_per_second"] = {name: round(value, 2) for name, value in speed.items()}
        result["bucketing_speedup"] = round(speed["ktnet_buckets"] / speed["ktnet_fixed"], 2)
        result["ktnet_buckets_over_bert_fixed"] = round(speed["ktnet_buckets"] / speed["bert_fixed"], 2)
        result["ktnet_buckets_over_bert_buckets"] = round(speed["ktnet_buckets"] / speed["bert_buckets"], 2)
    return result


if __name__ == "__main__":
    run_main(main)
