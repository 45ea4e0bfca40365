r"""Train and evaluate with both memories, with either and with none, several seeds each; prints mean and spread.

    python -m benchmarks.ablation --output FOLDER [--seeds 45 46 47] [--memories both wordnet nell none] \
        -- --data_url DATA --bert_config_path FILE ... (flags of run_KTNET_squad.py)

Every run is a training of its own below FOLDER, ``{memories}_{seed}``, with its log beside it. A run that is finished
is not made again and one that was interrupted goes on where it was, so the whole can be spread over days; the table
tells which seeds stand behind each line.
"""
from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from src.training.log import read_metrics
from utils.args import OneLineParser, non_negative_int
from utils.util import LOGGER, InputError, read_json, run_main, set_up_logging

ROOT = Path(__file__).resolve().parents[1]
MEMORIES: Mapping[str, tuple[str, ...]] = {
    "both": (), "wordnet": ("--use_nell", "False"), "nell": ("--use_wordnet", "False"),
    "none": ("--use_wordnet", "False", "--use_nell", "False")}


def main(argv: Sequence[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    own, flags = (argv[:argv.index("--")], argv[argv.index("--") + 1:]) if "--" in argv else (argv, [])
    parser = OneLineParser(prog="python -m benchmarks.ablation", description=__doc__,
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=non_negative_int, nargs="+", default=[45, 46, 47], help="[45 46 47]")
    parser.add_argument("--memories", choices=MEMORIES, nargs="+", default=list(MEMORIES), help="[all four]")
    parser.add_argument("--only_table", action="store_true", help="train nothing; show what is there")
    args = parser.parse_args(own)
    set_up_logging()
    if not args.only_table:
        for seed in args.seeds:             # a seed of every line before the next seed
            for memories in args.memories:
                run(args.output, memories, seed, flags)
    print(table(args.output))


def run(output: Path, memories: str, seed: int, flags: Sequence[str]) -> None:
    """Train and evaluate once, or finish what was begun."""
    folder = output / f"{memories}_{seed}"
    if (folder / "eval_result.json").is_file():
        LOGGER.info("%s: is there", folder.name)
        return
    log = output / f"{folder.name}.log"
    output.mkdir(parents=True, exist_ok=True)
    LOGGER.info("%s: training, log %s", folder.name, log)
    command = [sys.executable, str(ROOT / "run_KTNET_squad.py"), *flags, *MEMORIES[memories], "--random_seed",
               str(seed), "--checkpoints", str(folder), "--do_predict", "True", "--resume", "True"]
    with open(log, "a", encoding="utf-8") as lines:
        if subprocess.run(command, stdout=lines, stderr=lines, check=False).returncode:
            raise InputError(f"{log}: the run failed, its end says why; the same command goes on from there")


def table(output: Path) -> str:
    """Mean and spread of all finished runs as Markdown."""
    lines = ["| memories | seeds | exact match | F1 | steps | seconds of the steps |",
             "| --- | --- | --- | --- | --- | --- |"]
    for memories in MEMORIES:
        folders = [path.parent for path in sorted(output.glob(f"{memories}_*/eval_result.json"))]
        if not folders:
            continue
        results = [read_json(folder / "eval_result.json") for folder in folders]
        metrics = [read_metrics(folder / "metrics_squad.jsonl") for folder in folders]
        seconds = [sum(step["seconds"] for step in steps) for steps in metrics]
        lines.append(f"| {memories} | {', '.join(folder.name.split('_')[1] for folder in folders)} | "
                     f"{spread([result['exact_match'] for result in results])} | "
                     f"{spread([result['f1'] for result in results])} | {len(metrics[0])} | "
                     f"{', '.join(f'{value:.0f}' for value in seconds)} |")
    if len(lines) == 2:
        raise InputError(f"--output {output}: holds no finished run")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Mean and, from two values on, the sample standard deviation."""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


if __name__ == "__main__":
    run_main(main)
