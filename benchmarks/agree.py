# SPDX-License-Identifier: Apache-2.0
"""Compare the inference harness, onnxruntime and MindSpore over a whole dev split; prints one JSON line.

    python -m benchmarks.agree --dataset squad --load_checkpoint_path CKPT --data_url data [--output agree]

The checkpoint is exported as ONNX and converted for MindSpore Lite; harness and onnxruntime take the same raw inputs,
MindSpore evaluates the checkpoint. The three sets of logits are decoded in the same way. ``differences`` holds the
largest difference of two sets over all positions of all features, ``predictions_equal`` whether the three
predictions.json are identical. The exit code is 1 if a difference exceeds 1e-4 or predictions differ.
"""
from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.infer import ROOT, TOOLS, export, read_question
from src.config import TASKS, DataFolder
from src.export.bin_files import BinManifest, ResultFiles, read_manifest
from src.reader.decoding import DecodingOptions, answer_and_score
from src.reader.logits import Logits, LogitsByFeature
from src.reader.storage import open_converted
from utils.args import OneLineParser
from utils.util import InputError, run_main

TOLERANCE = 1e-4
PREDICTIONS = "predictions.json"


def main(argv: Sequence[str] | None = None) -> None:
    parser = OneLineParser(prog="python -m benchmarks.agree", description=__doc__)
    parser.add_argument("--dataset", choices=tuple(TASKS), required=True, help="which data set")
    parser.add_argument("--load_checkpoint_path", type=Path, required=True, help="KT-NET checkpoint")
    parser.add_argument("--data_url", type=Path, default=Path("./data"), help="data folder with converted features")
    parser.add_argument("--vocab_path", type=Path, help="vocabulary of the encoder [as run_KTNET_*_eval.py]")
    parser.add_argument("--output", type=Path, default=Path("./agree"), help="folder for all that is made")
    args = parser.parse_args(argv)
    if not (TOOLS / "onnx_to_lite").is_file():
        raise InputError("build the harness: bash ascend310_infer/build.sh")
    args.output.mkdir(parents=True, exist_ok=True)
    mindrecord = DataFolder(args.data_url).mindrecord(TASKS[args.dataset], "dev")
    logits, manifest = compute_all(args, mindrecord)
    report = compare(logits, manifest) | decode_all(logits, mindrecord, args.output)
    print(json.dumps({"benchmark": "agree", "dataset": args.dataset, **report}))
    if not report["predictions_equal"] or max(report["differences"].values()) > TOLERANCE:
        sys.exit(1)


def compute_all(args: argparse.Namespace, mindrecord: Path) -> tuple[dict[str, LogitsByFeature], BinManifest]:
    """The logits by who computed them, and the features they belong to."""
    inputs = args.output / "inputs"
    run_script("preprocess.py", "--dataset", args.dataset, "--predict_mindrecord_file", mindrecord,
               "--preprocess_path", inputs)
    manifest = read_manifest(inputs)
    onnx_file, mindir = export(args.load_checkpoint_path, args.output)
    places = [f"--input{number}_path={inputs / place}" for number, place in enumerate(manifest.folders)]
    subprocess.run([TOOLS / "main", f"--mindir_path={mindir}", "--device_type=CPU", *places,
                    f"--result_path={args.output / 'results'}", f"--time_path={args.output / 'time'}"],
                   check=True, stdout=sys.stderr)
    saved = args.output / "mindspore.npz"
    vocabulary = ["--vocab_path", args.vocab_path] if args.vocab_path else []
    run_script(f"run_KTNET_{args.dataset}_eval.py", "--device_target", "CPU", "--compute_type", "float32",
               "--data_url", args.data_url, "--load_checkpoint_path", args.load_checkpoint_path, "--save_logits", saved,
               "--checkpoints", args.output / "evaluation", *vocabulary)
    return {"harness": ResultFiles(args.output / "results", manifest),
            "onnxruntime": run_onnx(onnx_file, inputs, manifest), "mindspore": Logits.load(saved)}, manifest


def run_script(name: str, *flags: object) -> None:
    subprocess.run([sys.executable, str(ROOT / name), *map(str, flags)], check=True, stdout=sys.stderr)


def run_onnx(onnx_file: Path, inputs: Path, manifest: BinManifest) -> Logits:
    """Logits of every feature, from onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    logits = np.concatenate([session.run(None, dict(read_question(inputs, manifest, number)))[0]
                             for number in tqdm(range(manifest.count), desc="onnxruntime", disable=None)], axis=1)
    return Logits(np.array(manifest.unique_ids), logits[0], logits[1])


def compare(logits: dict[str, LogitsByFeature], manifest: BinManifest) -> dict[str, object]:
    """The greatest difference of every two sets of logits, over all positions."""
    differences = {f"{one} and {other}": max(float(np.abs(np.subtract(logits[one][unique_id],
                                                                      logits[other][unique_id])).max())
                                             for unique_id in manifest.unique_ids)
                   for one, other in itertools.combinations(logits, 2)}
    return {"features": manifest.count, "differences": differences}


def decode_all(logits: dict[str, LogitsByFeature], mindrecord: Path, output: Path) -> dict[str, object]:
    """Decode each set of logits into a folder of its own, and compare the answers."""
    options = DecodingOptions.for_features(open_converted(mindrecord)["settings"], ignore_padding=True)
    figures = {name: answer_and_score(mindrecord, values, output / name, options) for name, values in logits.items()}
    answers = {(output / name / PREDICTIONS).read_bytes() for name in logits}
    return {"questions": len(json.loads((output / "harness" / PREDICTIONS).read_bytes())),
            "predictions_equal": len(answers) == 1, "figures": figures}


if __name__ == "__main__":
    run_main(main)
