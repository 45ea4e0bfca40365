# SPDX-License-Identifier: Apache-2.0
r"""Measure evaluation end to end against plain BERT's, in turns in one run; prints one JSON line.

    python -m benchmarks.eval --data_url DATA --load_checkpoint_path KTNET_squad-1_906.ckpt [--rounds 2] \
        [--compute_type auto]

From features to predictions.json: KT-NET as run_KTNET_squad_eval.py does it, with batches in buckets and with all
padded to max_seq_len; HuggingFace's BertForQuestionAnswering on PyTorch, with an encoder of the same sizes, on the same
word pieces, padded to max_seq_len ("fixed", as HuggingFace's SQuAD recipe does) and to the longest of each batch in the
file's order ("longest"). KT-NET reads its features from the MindRecord file; plain BERT has them in memory already.
Both decode with this project's decoder, each in its own process. Both are there in float32 and, where the processor
multiplies it faster, in bfloat16 (PyTorch's autocast); ``--compute_type`` leaves one of the two. KT-NET's lengths are
compiled first; that time is reported separately and also added to one evaluation. The median turn counts, and ratios
are those of the medians, with the faster plain BERT.
"""
from __future__ import annotations

import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks.bert_peer import INPUTS, BertPeer, Columns
from benchmarks.turns import Peer, Turns, compute_types, machine
from src.config import DEV_LABELS, SQUAD, BertConfig, input_columns
from src.settings import EvaluationSettings, NetworkDeviceSettings
from src.weights.sizes import load_config
from utils.args import group
from utils.util import InputError, run_main


def main(argv: Sequence[str] | None = None) -> None:
    settings = BenchmarkSettings.parse(argv, SQUAD)
    checkpoint = settings.checkpoint.load_checkpoint_path
    config = load_config(checkpoint)
    if config is None:
        raise InputError(f"{checkpoint}: has no .json with its sizes beside it")
    settings = settings.with_flags(max_seq_len=config.max_seq_len)
    state, seconds, compiled = machine(), {}, {}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        ways: list[tuple[str, Peer, int | bool]] = []
        for kind in compute_types(settings.device.compute_type):
            ktnet = stack.enter_context(Peer(KTNetEvaluator, settings.with_flags(compute_type=kind), Path(name) / kind))
            bert = stack.enter_context(Peer(BertEvaluator, config.bert, settings, Path(name) / kind,
                                            read_features(settings), kind))
            ways += [(f"ktnet_{kind}_buckets", ktnet, settings.run.buckets), (f"ktnet_{kind}_fixed", ktnet, 1),
                     (f"bert_{kind}_fixed", bert, False), (f"bert_{kind}_longest", bert, True)]
            compiled[kind] = ktnet.call("compile")
        for _ in range(settings.turns.rounds):
            for way, peer, how in ways:
                seconds.setdefault(way, []).append(peer.call("evaluate", how))
                print(f"{way}: {seconds[way][-1]:.1f} s", file=sys.stderr, flush=True)
    print(json.dumps({**state, **report(settings, seconds, compiled)}))


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings(EvaluationSettings):
    """The evaluation's own flags and the benchmark's."""

    prog: ClassVar[str] = "python -m benchmarks.eval"
    description: ClassVar[str] = "Measure evaluation end to end against plain BERT's, in turns in one run."

    device: NetworkDeviceSettings = group(device_target="CPU")
    turns: Turns = group(rounds=2)


def read_features(settings: BenchmarkSettings) -> list[Columns]:
    """Every dev feature, in the file's order, without its concepts."""
    from src.dataset import create_dev_dataset

    features = create_dev_dataset(settings.mindrecord("dev"), max_seq_len=settings.features.max_seq_len,
                                  knowledge_bases=())
    return [{name: column[0] for name, column in columns.items()}
            for columns in features.create_dict_iterator(num_epochs=1, output_numpy=True)]


class KTNetEvaluator:
    """What run_KTNET_squad_eval.py does, again and again."""

    def __init__(self, settings: BenchmarkSettings, output: Path) -> None:
        from src.data_convert import prepare_features
        from src.weights.build import build_for_evaluation
        from utils.device import set_up_device

        settings = settings.on_device(set_up_device(settings.device.device_target, settings.device.device_id).target)
        self.output = output / "ktnet"
        self.settings, self.manifest = prepare_features(settings, "dev")
        self.network, self.config = build_for_evaluation(self.settings, self.manifest)

    def compile(self) -> float:
        """Compile for every length of an evaluation in buckets; seconds."""
        from mindspore import Tensor

        from src.batch_plan import choose_buckets
        from src.dataset import feature_lengths

        start = time.perf_counter()
        run, max_seq_len = self.settings.run, self.settings.features.max_seq_len
        for length in choose_buckets(feature_lengths(run.predict_mindrecord_file), max_seq_len, run.buckets):
            self.network.compile(*(Tensor(np.zeros((run.batch_size, *column.shape), column.dtype))
                                   for column in input_columns(self.config.memories, length)))
        return time.perf_counter() - start

    def evaluate(self, buckets: int) -> float:
        """Seconds from the features to predictions.json, padded to at most ``buckets`` lengths."""
        from src.inference.evaluate import evaluate

        start = time.perf_counter()
        settings = self.settings.with_flags(buckets=buckets)
        with contextlib.redirect_stdout(sys.stderr):
            evaluate(self.network, self.config.memories, settings, self.manifest, self.output)
        return time.perf_counter() - start


class BertEvaluator(BertPeer):
    """Plain BERT from features to predictions.json.

    Args:
        config: sizes of the encoder.
        settings: of the benchmark.
        output: folder for the results.
        features: of the feature table, each padded to max_seq_len.
        compute_type: as for :class:`BertPeer`.
    """

    def __init__(self, config: BertConfig, settings: BenchmarkSettings, output: Path,
                 features: list[Columns], compute_type: str) -> None:
        super().__init__(config, settings.turns.threads, is_training=False, compute_type=compute_type)
        self.settings, self.output, self.features = settings, output / "bert", features

    def evaluate(self, to_longest: bool) -> float:
        """Seconds from the features to predictions.json."""
        from src.inference.evaluate import UNCOMPUTED_LOGIT, decoding_options
        from src.reader.decoding import answer_and_score
        from src.reader.logits import Logits
        from src.reader.storage import open_converted

        start = time.perf_counter()
        batch_size = self.settings.run.batch_size
        logits = np.full((2, len(self.features), self.settings.features.max_seq_len), UNCOMPUTED_LOGIT, np.float32)
        for first in range(0, len(self.features), batch_size):
            batch = self.features[first:first + batch_size]
            columns = {name: np.stack([feature[name] for feature in batch]) for name in INPUTS}
            if to_longest:
                longest = int(columns["input_mask"].sum(1).max())
                columns = {name: column[:, :longest] for name, column in columns.items()}
            scores = self.logits(columns)
            logits[:, first:first + len(batch), :scores.shape[2]] = scores
        unique_ids = np.array([feature[DEV_LABELS[0].name][0] for feature in self.features])
        data_file = self.settings.run.predict_mindrecord_file
        answer_and_score(data_file, Logits(unique_ids, *logits), self.output,
                         decoding_options(self.settings.decoding, open_converted(data_file)["settings"]))
        return time.perf_counter() - start


def report(settings: BenchmarkSettings, seconds: dict[str, list[float]], compiled: dict[str, float]) -> dict[str, Any]:
    """All figures."""
    middle = {way: statistics.median(times) for way, times in seconds.items()}
    bert = {padding: min(middle[f"bert_{kind}_{padding}"] for kind in compiled) for padding in ("fixed", "longest")}
    ratios = {}
    for kind, compile_seconds in compiled.items():
        buckets, fixed = middle[f"ktnet_{kind}_buckets"], middle[f"ktnet_{kind}_fixed"]
        ratios[kind] = {"buckets_over_bert_longest": round(buckets / bert["longest"], 3),
                        "buckets_over_bert_fixed": round(buckets / bert["fixed"], 3),
                        "with_compiling_over_bert_longest": round((buckets + compile_seconds) / bert["longest"], 3),
                        "with_compiling_over_bert_fixed": round((buckets + compile_seconds) / bert["fixed"], 3),
                        "equal_padding": round(fixed / bert["fixed"], 3),
                        "buckets_over_fixed": round(buckets / fixed, 3)}
    return {"benchmark": "eval", "batch_size": settings.run.batch_size, "buckets": settings.run.buckets,
            "rounds": settings.turns.rounds, "threads": settings.turns.threads,
            "max_seq_len": settings.features.max_seq_len,
            "seconds": {way: round(value, 1) for way, value in middle.items()},
            "compile_seconds": {kind: round(value, 1) for kind, value in compiled.items()}, "ratios": ratios}


if __name__ == "__main__":
    run_main(main)
