# SPDX-License-Identifier: Apache-2.0
"""Measure conversion: speed, memory and size, as one JSON line.

    python -m benchmarks.convert --data_url DATA [--dataset squad] [--split train] [--times 10]

Memory is the sum of the proportional set sizes (shared pages counted once) of the script and its processes, sampled;
``--times N`` converts N copies of the data set with distinct ids, made in a temporary folder. ``dense_bytes`` is the
size of the same features in a MindRecord file with dense columns, estimated from a sample.
"""
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.process_memory import memory_of
from src.config import KNOWLEDGE_BASES, TASKS, DataFolder, TaskConfig
from src.knowledge.formats import read_records, write_records
from src.reader.storage import ConvertedFiles, FeatureExpander, open_converted
from utils.args import OneLineParser, boolean, positive_int
from utils.util import InputError, read_json, run_main, write_json

ROOT = Path(__file__).resolve().parents[1]
SAMPLING_SECONDS = 0.1
DENSE_SAMPLE = 300      # features


def main(argv: list[str] | None = None) -> None:
    parser = OneLineParser(prog="python -m benchmarks.convert", description=__doc__)
    parser.add_argument("--data_url", type=Path, default=Path("./data"), help="data folder; it is only read")
    parser.add_argument("--dataset", choices=sorted(TASKS), default="squad", help="which data set")
    parser.add_argument("--split", choices=("train", "dev"), default="train", help="which split")
    parser.add_argument("--do_lower_case", type=boolean, default=False, help="as data_convert.py")
    parser.add_argument("--vocab_path", type=Path, help="as data_convert.py")
    parser.add_argument("--num_workers", type=positive_int, default=os.cpu_count(), help="as data_convert.py")
    parser.add_argument("--times", type=positive_int, default=1, help="convert this many copies of the data set")
    parser.add_argument("--repeat", type=positive_int, default=1, help="run this often; the fastest run counts")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder, task = DataFolder(Path(name)), TASKS[args.dataset]
        copy_inputs(DataFolder(args.data_url.resolve()), folder, task, args)
        runs = [run_once(folder, task, args) for _ in range(args.repeat)]
        print(json.dumps(report(folder.mindrecord(task, args.split), args, runs)))


def copy_inputs(source: DataFolder, target: DataFolder, task: TaskConfig, args: argparse.Namespace) -> None:
    """Links to the files that stay, copies of those that grow."""
    grown = [source.tokens(task, args.split, args.do_lower_case)]
    linked = [args.vocab_path.resolve() if args.vocab_path else source.bert() / "vocab.txt"]
    for base in KNOWLEDGE_BASES:
        (linked if base.key == "word" else grown).append(source.retrieved(base, task, args.split))
        linked.append(source.vectors(base))
    for path in linked:
        place = target.bert() / "vocab.txt" if path == linked[0] else target.root / path.relative_to(source.root)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path)
    for path in grown:
        write_records(target.root / path.relative_to(source.root), multiply_records(path, args.times))
    path = source.dataset_json(task, args.split)
    write_json(target.root / path.relative_to(source.root), multiply_json(read_json(path), args.times))


def multiply_records(path: Path, times: int) -> Iterator[dict[str, Any]]:
    for copy in range(times):
        for record in read_records(path):
            yield {**record, "id": f"{record['id']}-{copy}"}


def multiply_json(values: Any, times: int) -> dict[str, Any]:
    """Every copy of an item gets question ids of its own."""
    items = []
    for copy in range(times):
        text = json.dumps(values["data"])
        for item in json.loads(text):
            for holder in item.get("paragraphs", [item]):
                for question in holder["qas"]:
                    question["id"] = f"{question['id']}-{copy}"
            items.append(item)
    return {**values, "data": items}


def run_once(folder: DataFolder, task: TaskConfig, args: argparse.Namespace) -> tuple[float, float]:
    """Seconds and bytes of one run of the script."""
    command = [sys.executable, str(ROOT / "data_convert.py"), "--data_url", str(folder.root), "--dataset", task.name,
               "--split", args.split, "--do_lower_case", str(args.do_lower_case), "--num_workers",
               str(args.num_workers), "--force"]
    with tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stderr=errors)
        peak = 0
        while process.poll() is None:
            peak = max(peak, memory_of(process.pid))
            time.sleep(SAMPLING_SECONDS)
        seconds = time.perf_counter() - start
        if process.returncode:
            errors.seek(0)
            raise InputError(f"{command[1]}: failed: {errors.read().strip().splitlines()[-1]}")
    return seconds, peak


def report(mindrecord: Path, args: argparse.Namespace, runs: list[tuple[float, float]]) -> dict[str, Any]:
    manifest = open_converted(mindrecord)
    counts, seconds = manifest["counts"], min(seconds for seconds, _ in runs)
    stored = sum(manifest["files"].values())
    dense = round(dense_feature_bytes(mindrecord, args.split, manifest) * counts["features"])
    return {"dataset": args.dataset, "split": args.split, "times": args.times, "workers": args.num_workers,
            "questions": counts["questions"], "features": counts["features"], "seconds": round(seconds, 2),
            "questions_per_second": round(counts["questions"] / seconds),
            "peak_memory_mb": round(max(peak for _, peak in runs) / 1e6), "bytes_on_disk": stored,
            "bytes_per_feature": round(stored / counts["features"]), "dense_bytes": dense,
            "times_smaller": round(dense / stored, 1)}


def dense_feature_bytes(mindrecord: Path, split: str, manifest: dict[str, Any]) -> float:
    """Bytes that one more feature costs in a file of dense columns."""
    import mindspore.dataset as ds
    from mindspore.mindrecord import FileWriter

    expander = FeatureExpander(KNOWLEDGE_BASES, split, manifest["settings"]["max_seq_len"])
    rows = ds.MindDataset(str(mindrecord), columns_list=list(expander.stored_names), shuffle=False,
                          num_samples=min(DENSE_SAMPLE, manifest["rows"]))
    sample = [dict(zip(expander.column_names, expander(*row), strict=True))
              for row in rows.create_tuple_iterator(num_epochs=1, output_numpy=True)]
    sizes = []
    for copies in (1, 2):
        files = ConvertedFiles(mindrecord.parent / f"dense{copies}.mindrecord")
        writer = FileWriter(str(files.mindrecord), 1)
        writer.add_schema({name: {"type": str(values.dtype), "shape": list(values.shape)}
                           for name, values in sample[0].items()}, "dense")
        for _ in range(copies):
            writer.write_raw_data(sample)
        writer.commit()
        sizes.append(512 * files.mindrecord.stat().st_blocks)
    return (sizes[1] - sizes[0]) / len(sample)


if __name__ == "__main__":
    run_main(main)
