"""Measure evaluation end to end against plain BERT's, in turns in one run; prints one JSON line.

    python -m benchmarks.eval --data_url DATA --load_checkpoint_path KTNET_squad-1_906.ckpt [--rounds 2]

From features to predictions.json: KT-NET as run_KTNET_squad_eval.py does it, with batches in buckets and with all
padded to max_seq_len; HuggingFace's BertForQuestionAnswering on PyTorch, with an encoder of the same sizes, on the same
word pieces, padded to max_seq_len ("fixed", as HuggingFace's SQuAD recipe does) and to the longest of each batch in the
file's order ("longest"). KT-NET reads its features from the MindRecord file; plain BERT has them in memory already.
Both decode with this project's decoder, and each is in a process of its own. KT-NET's lengths are compiled beforehand,
and the time of that is told apart. The median turn counts, and ratios are those of the medians.
"""
from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bert_peer import INPUTS, BertPeer, Columns
from benchmarks.turns import Peer
from src.config import DEV_LABELS, SQUAD, BertConfig, input_columns
from src.weights.checkpoint import load_config
from utils.args import evaluation_parser, fill_paths, positive_int
from utils.util import InputError, run_main


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    config = load_config(args.load_checkpoint_path)
    if config is None:
        raise InputError(f"{args.load_checkpoint_path}: has no .json with its sizes beside it")
    args.max_seq_len = config.max_seq_len
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        output = Path(name)
        with Peer(KTNetEvaluator, args, output) as ktnet, \
                Peer(BertEvaluator, config.bert, args, output, read_features(args)) as bert:
            turns = {"ktnet_buckets": (ktnet, args.buckets), "ktnet_fixed": (ktnet, 1),
                     "bert_fixed": (bert, False), "bert_longest": (bert, True)}
            compile_seconds = ktnet.call("compile")
            for _ in range(args.rounds):
                for way, (peer, how) in turns.items():
                    seconds.setdefault(way, []).append(peer.call("evaluate", how))
                    print(f"{way}: {seconds[way][-1]:.1f} s", file=sys.stderr, flush=True)
    print(json.dumps(report(args, seconds, compile_seconds)))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The evaluation's own flags and the benchmark's."""
    parser = evaluation_parser(SQUAD)
    parser.prog, parser.description = "python -m benchmarks.eval", __doc__
    group = parser.add_argument_group("benchmark")
    group.add_argument("--rounds", type=positive_int, default=2, help="turns of each way")
    group.add_argument("--threads", type=positive_int, default=os.cpu_count(), help="threads of PyTorch")
    parser.set_defaults(device_target="CPU")
    args = parser.parse_args(argv)
    fill_paths(args, SQUAD)
    return args


def read_features(args: argparse.Namespace) -> list[Columns]:
    """Every dev feature, in the file's order, without its concepts."""
    from src.dataset import create_dev_dataset

    features = create_dev_dataset(args.predict_mindrecord_file, max_seq_len=args.max_seq_len, knowledge_bases=())
    return [{name: column[0] for name, column in columns.items()}
            for columns in features.create_dict_iterator(num_epochs=1, output_numpy=True)]


class KTNetEvaluator:
    """What run_KTNET_squad_eval.py does, again and again."""

    def __init__(self, args: argparse.Namespace, output: Path) -> None:
        from src.prepare import prepare_features
        from src.weights.build import build_for_evaluation
        from utils.device import set_up_device

        set_up_device(args)
        self.args, self.output = args, output / "ktnet"
        self.manifest = prepare_features(SQUAD, "dev", args)
        self.network, self.config = build_for_evaluation(args, args.load_checkpoint_path, self.manifest)

    def compile(self) -> float:
        """Compile for every length of an evaluation in buckets; seconds."""
        from mindspore import Tensor

        from src.batch_plan import choose_buckets
        from src.dataset import feature_lengths

        start = time.perf_counter()
        lengths = feature_lengths(self.args.predict_mindrecord_file)
        for length in choose_buckets(lengths, self.args.max_seq_len, self.args.buckets):
            self.network.compile(*(Tensor(np.zeros((self.args.batch_size, *column.shape), column.dtype))
                                   for column in input_columns(self.config.memories, length)))
        return time.perf_counter() - start

    def evaluate(self, buckets: int) -> float:
        """Seconds from the features to predictions.json, padded to at most ``buckets`` lengths."""
        from src.inference.evaluate import evaluate

        start = time.perf_counter()
        self.args.buckets = buckets
        with contextlib.redirect_stdout(sys.stderr):
            evaluate(self.network, self.config.memories, self.args, self.manifest, self.output)
        return time.perf_counter() - start


class BertEvaluator(BertPeer):
    """Plain BERT from features to predictions.json.

    Args:
        config: sizes of the encoder.
        args: flags.
        output: folder for the results.
        features: of the feature table, each padded to max_seq_len.
    """

    def __init__(self, config: BertConfig, args: argparse.Namespace, output: Path, features: list[Columns]) -> None:
        super().__init__(config, args.threads, is_training=False)
        self.args, self.output, self.features = args, output / "bert", features

    def evaluate(self, to_longest: bool) -> float:
        """Seconds from the features to predictions.json."""
        from src.inference.evaluate import UNCOMPUTED_LOGIT, decoding_options
        from src.reader.decoding import answer_and_score
        from src.reader.logits import Logits
        from src.reader.storage import open_converted

        start = time.perf_counter()
        logits = np.full((2, len(self.features), self.args.max_seq_len), UNCOMPUTED_LOGIT, np.float32)
        for first in range(0, len(self.features), self.args.batch_size):
            batch = self.features[first:first + self.args.batch_size]
            columns = {name: np.stack([feature[name] for feature in batch]) for name in INPUTS}
            if to_longest:
                longest = int(columns["input_mask"].sum(1).max())
                columns = {name: column[:, :longest] for name, column in columns.items()}
            scores = self.logits(columns)
            logits[:, first:first + len(batch), :scores.shape[2]] = scores
        unique_ids = np.array([feature[DEV_LABELS[0].name][0] for feature in self.features])
        data_file = self.args.predict_mindrecord_file
        answer_and_score(data_file, Logits(unique_ids, *logits), self.output,
                         decoding_options(self.args, open_converted(data_file)["settings"]))
        return time.perf_counter() - start


def report(args: argparse.Namespace, seconds: dict[str, list[float]], compile_seconds: float) -> dict[str, Any]:
    """All figures."""
    middle = {way: statistics.median(times) for way, times in seconds.items()}
    return {"benchmark": "eval", "batch_size": args.batch_size, "buckets": args.buckets, "rounds": args.rounds,
            "threads": args.threads, "max_seq_len": args.max_seq_len,
            "seconds": {way: round(value, 1) for way, value in middle.items()},
            "compile_seconds": round(compile_seconds, 1),
            "bucketing_speedup": round(middle["ktnet_fixed"] / middle["ktnet_buckets"], 2),
            "ktnet_buckets_over_bert_fixed": round(middle["bert_fixed"] / middle["ktnet_buckets"], 2),
            "ktnet_buckets_over_bert_longest": round(middle["bert_longest"] / middle["ktnet_buckets"], 2),
            "equal_padding_ratio": round(middle["ktnet_fixed"] / middle["bert_fixed"], 3)}


if __name__ == "__main__":
    run_main(main)
