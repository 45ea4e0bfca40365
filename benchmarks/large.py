# SPDX-License-Identifier: Apache-2.0
"""Train KT-NET with a BERT-large encoder for a few steps on CPU and watch its memory; prints one JSON line.

    python -m benchmarks.large --data_url DATA [--steps 3] [--batch_size 1] [-- FLAGS of run_KTNET_squad.py]

The encoder has BERT-large's sizes and random weights, written to a temporary folder; features, concept vectors and the
training script are the real ones. Memory is the process's own (PSS), sampled; the training's own estimate,
made before compiling, is printed beside it.
"""
from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.process_memory import memory_of
from src.config import SQUAD, BertConfig
from src.training.log import LogFiles, read_metrics
from src.weights.checkpoint import write_checkpoint
from testing.reference import encoder_shapes
from utils.args import OneLineParser, positive_int
from utils.util import InputError, run_main, write_json

ROOT = Path(__file__).resolve().parents[1]
SAMPLING_SECONDS = 0.2
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}


def main(argv: Sequence[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    own, flags = (argv[:argv.index("--")], argv[argv.index("--") + 1:]) if "--" in argv else (argv, [])
    parser = OneLineParser(prog="python -m benchmarks.large", description=__doc__,
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_url", type=Path, required=True, help="data folder with the encoder's vocab.txt")
    parser.add_argument("--vocab_path", type=Path, help="[cased_L-24_H-1024_A-16/vocab.txt below --data_url]")
    parser.add_argument("--steps", type=positive_int, default=3, help="[3]")
    parser.add_argument("--batch_size", type=positive_int, default=1, help="[1]")
    args = parser.parse_args(own)
    vocabulary = args.vocab_path or args.data_url / "cased_L-24_H-1024_A-16" / "vocab.txt"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = write_encoder(folder, vocabulary)
        command = [sys.executable, str(ROOT / "run_KTNET_squad.py"), "--device_target", "CPU", "--data_url",
                   str(args.data_url), "--vocab_path", str(vocabulary), "--bert_config_path",
                   str(folder / "large.json"), "--load_pretrain_checkpoint_path", str(folder / "large.ckpt"),
                   "--checkpoints", str(folder / "out"), "--batch_size", str(args.batch_size), "--buckets", "1",
                   *flags]
        print(json.dumps({"benchmark": "large", "batch_size": args.batch_size, "flags": flags,
                          "encoder_layers": config.num_hidden_layers, "encoder_width": config.hidden_size,
                          **watch(command, args.steps, folder / "out")}))


def write_encoder(folder: Path, vocabulary: Path) -> BertConfig:
    """``large.json`` and ``large.ckpt``: BERT-large's sizes, random weights."""
    pieces = len(vocabulary.read_text(encoding="utf-8").splitlines())
    write_json(folder / "large.json", {"vocab_size": pieces, **LARGE})
    config = BertConfig.from_json_file(folder / "large.json")
    random = np.random.RandomState(0)
    write_checkpoint(folder / "large.ckpt", {
        name: (0.02 * random.standard_normal(shape) + name.endswith("gamma")).astype(np.float32)
        for name, shape in encoder_shapes(config).items()})
    return config


def watch(command: Sequence[str], steps: int, output: Path) -> dict[str, object]:
    """Run until so many steps are done; the greatest memory, the estimate and the seconds of the steps."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stderr), daemon=True)
    reader.start()
    metrics, peak = LogFiles(output, SQUAD.name).metrics, 0
    while process.poll() is None and len(read_metrics(metrics)) < steps:
        peak = max(peak, memory_of(process.pid))
        time.sleep(SAMPLING_SECONDS)
    code = process.poll()
    process.kill()
    process.wait()
    reader.join()
    records = read_metrics(metrics)
    if len(records) < steps:
        raise InputError(f"benchmark: the training ended with code {code}: {lines[-1].strip() if lines else ''}")
    told = "".join(lines)
    return {"steps": len(records), "max_seq_len": records[0]["length"], "peak_memory_gb": round(peak / 1e9, 2),
            "estimated_gb": float(re.search(r"memory: about ([\d.]+) GB", told)[1]),
            "compile_seconds": float(re.search(r"compiled for \d+ word pieces in ([\d.]+) s", told)[1]),
            "step_seconds": [record["seconds"] for record in records],
            "losses": [round(record["loss"], 3) for record in records]}


if __name__ == "__main__":
    run_main(main)
