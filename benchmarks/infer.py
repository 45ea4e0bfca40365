# SPDX-License-Identifier: Apache-2.0
"""Measure inference outside Python against onnxruntime and PyTorch, in turns in one run; prints one JSON line.

    python -m benchmarks.infer --load_checkpoint_path CKPT --preprocess_path preprocess_result [--questions 16]

The checkpoint is exported as ONNX and converted for MindSpore Lite; then the harness, onnxruntime and the same network
in PyTorch answer the same questions one by one, each with ``threads`` threads: the harness as that many models of one
thread, its default, and as one model. Times are milliseconds per question, reciprocals of questions per second; the
harness's include reading inputs from files and writing results.
"""
from __future__ import annotations

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from src.config import KTNetConfig
from src.export.bin_files import BinManifest, ResultFiles, little_endian, read_manifest, write_manifest
from src.weights.checkpoint import read_checkpoint
from src.weights.sizes import load_config
from testing import reference
from utils.args import OneLineParser, positive_int
from utils.util import InputError, run_main

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / "ascend310_infer" / "out"
Question = Mapping[str, np.ndarray]      # inputs by name, batch 1


def main(argv: Sequence[str] | None = None) -> None:
    parser = OneLineParser(prog="python -m benchmarks.infer", description=__doc__)
    parser.add_argument("--load_checkpoint_path", type=Path, required=True, help="KT-NET checkpoint")
    parser.add_argument("--preprocess_path", type=Path, default=Path("./preprocess_result"), help="raw inputs")
    parser.add_argument("--questions", type=positive_int, default=16, help="questions of a round")
    parser.add_argument("--rounds", type=positive_int, default=5, help="rounds that count")
    parser.add_argument("--threads", type=positive_int, nargs="+", default=[1, os.cpu_count()],
                        help="numbers of threads")
    args = parser.parse_args(argv)
    config = load_config(args.load_checkpoint_path)
    if config is None or not (TOOLS / "onnx_to_lite").is_file():
        raise InputError("give a checkpoint with its .json, and build the harness: bash ascend310_infer/build.sh")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = take_questions(args.preprocess_path, folder / "inputs", args.questions)
        questions = [read_question(folder / "inputs", manifest, number) for number in range(manifest.count)]
        onnx_file, mindir = export(args.load_checkpoint_path, folder)
        result: dict[str, object] = {"benchmark": "infer", "questions": len(questions), "rounds": args.rounds,
                                     "max_seq_len": manifest.max_seq_len, "threads": {}}
        for threads in dict.fromkeys(args.threads):
            peers = make_peers(onnx_file, args.load_checkpoint_path, config, threads)
            result["threads"][str(threads)] = compare(peers, folder, mindir, questions, threads, args.rounds)
        result["harness_differs_from_onnxruntime_by"] = differ(folder, manifest, questions, peers["onnxruntime"])
    print(json.dumps(result))


def take_questions(source: Path, folder: Path, count: int) -> BinManifest:
    """Link the first inputs into a folder of their own."""
    whole = read_manifest(source)
    manifest = BinManifest(whole.dataset, whole.source, whole.columns, whole.unique_ids[:count])
    for place in manifest.folders:
        (folder / place).mkdir(parents=True)
        for number in range(manifest.count):
            name = f"{manifest.stem(number)}.bin"
            (folder / place / name).symlink_to((source / place / name).resolve())
    write_manifest(folder, manifest)
    return manifest


def read_question(folder: Path, manifest: BinManifest, number: int) -> Question:
    """One question's raw inputs."""
    return {column.name: np.fromfile(folder / place / f"{manifest.stem(number)}.bin",
                                     little_endian(column)).reshape(1, *column.shape)
            for place, column in zip(manifest.folders, manifest.columns, strict=True)}


def export(checkpoint: Path, folder: Path) -> tuple[Path, Path]:
    """The checkpoint as ONNX and as a MindIR for MindSpore Lite."""
    subprocess.run([sys.executable, str(ROOT / "export.py"), "--dataset", "squad", "--load_checkpoint_path",
                    str(checkpoint), "--file_format", "ONNX", "--file_path", str(folder), "--file_name", "model",
                    "--device_target", "CPU"], check=True, stdout=sys.stderr)
    onnx_file, mindir = folder / "model.onnx", folder / "model.mindir"
    subprocess.run([str(TOOLS / "onnx_to_lite"), str(onnx_file), str(mindir)], check=True, stdout=sys.stderr)
    return onnx_file, mindir


def make_peers(onnx_file: Path, checkpoint: Path, config: KTNetConfig,
               threads: int) -> dict[str, Callable[[Question], np.ndarray]]:
    """Name -> what answers one question with this many threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(onnx_file), options, providers=["CPUExecutionProvider"])
    weights = reference.to_torch({name: value.asnumpy() for name, value in read_checkpoint(checkpoint).items()},
                                 "float32")

    def same_network(question: Question) -> np.ndarray:
        reference.torch.set_num_threads(threads)
        with reference.torch.inference_mode():
            return reference._logits(weights, config, question, "float32").numpy()

    return {"onnxruntime": lambda question: session.run(None, dict(question))[0], "pytorch": same_network}


def run_harness(folder: Path, mindir: Path, workers: int, threads: int = 1) -> float:
    """Milliseconds a question, all workers, models of so many threads, together."""
    columns = [f"--input{number}_path={path}" for number, path in enumerate(sorted((folder / "inputs").glob("*_data")))]
    done = subprocess.run([str(TOOLS / "main"), f"--mindir_path={mindir}", "--device_type=CPU", f"--workers={workers}",
                           f"--threads={threads}", f"--result_path={folder / 'results'}",
                           f"--time_path={folder / 'time'}", *columns],
                          check=True, capture_output=True, text=True)
    return float(re.search(r"per question, all workers together: ([0-9.]+) ms", done.stdout)[1])


def compare(peers: Mapping[str, Callable[[Question], np.ndarray]], folder: Path, mindir: Path,
            questions: Sequence[Question], threads: int, rounds: int) -> dict[str, float]:
    """Medians over the rounds, and the medians of the rounds' ratios of the harness to each peer."""
    ways = {"harness": (threads, 1)} | ({"harness_one_model": (1, threads)} if threads > 1 else {})
    times: dict[str, list[float]] = {name: [] for name in (*ways, *peers)}
    for number in range(rounds + 1):     # the first does not count
        now = {way: run_harness(folder, mindir, *how) for way, how in ways.items()}
        for name, answer in peers.items():
            begin = time.perf_counter()
            for question in questions:
                answer(question)
            now[name] = (time.perf_counter() - begin) * 1000.0 / len(questions)
        if number:
            for name, value in now.items():
                times[name].append(value)
    found = {f"{name}_ms": round(statistics.median(values), 2) for name, values in times.items()}
    # The median of the rounds' own ratios: what slows the machine for a while slows all of a round.
    ratios = {f"{way}_over_{name}": statistics.median(ours / theirs for ours, theirs in
                                                      zip(times[way], times[name], strict=True))
              for way in ways for name in peers}
    return found | {name: round(ratio, 3) for name, ratio in ratios.items()}


def differ(folder: Path, manifest: BinManifest, questions: Sequence[Question],
           answer: Callable[[Question], np.ndarray]) -> float:
    """Greatest difference of the last round's logits."""
    results = ResultFiles(folder / "results", manifest)
    return max(float(np.abs(np.stack(results[unique_id])[:, np.newaxis] - answer(question)).max())
               for unique_id, question in zip(manifest.unique_ids, questions, strict=True))


if __name__ == "__main__":
    run_main(main)
