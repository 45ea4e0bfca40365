# SPDX-License-Identifier: Apache-2.0
r"""Train and evaluate with both memories, with either and with none, several seeds each.

Prints mean and spread, and how much each network with memories is better than the one without, with a bootstrap
interval over the questions.

    python -m benchmarks.ablation --output FOLDER [--seeds 45 46 47] [--memories both wordnet nell none] \
        -- --data_url DATA --bert_config_path FILE ... (flags of run_KTNET_squad.py)

Every run is a training of its own below FOLDER, ``{memories}_{seed}``, with its log beside it. A run that is finished
is not made again and one that was interrupted goes on where it was, so the whole can be spread over days; the table
tells which seeds stand behind each line.
"""
from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.paired import difference_interval, gold_answers, markdown_table, question_scores, spread
from src.training.log import read_metrics
from utils.args import OneLineParser, non_negative_int
from utils.processes import end_with_parent
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
                run(args.output / f"{memories}_{seed}", seed, [*flags, *MEMORIES[memories]])
    print(table(args.output))
    print(differences(args.output))


def run(folder: Path, seed: int, flags: Sequence[str], script: str = "run_KTNET_squad.py") -> None:
    """Train and evaluate once, or finish what was begun; the log lies beside the folder."""
    if (folder / "eval_result.json").is_file():
        LOGGER.info("%s: finished earlier", folder)
        return
    log = folder.with_name(f"{folder.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    LOGGER.info("%s: training, log %s", folder, log)
    command = [sys.executable, str(ROOT / script), *flags, "--random_seed", str(seed), "--checkpoints",
               str(folder), "--do_predict", "True", "--resume", "True"]
    with open(log, "a", encoding="utf-8") as lines:
        if subprocess.run(command, stdout=lines, stderr=lines, check=False, preexec_fn=end_with_parent).returncode:
            raise InputError(f"{log}: the run failed, its end says why; the same command resumes it")


def finished(output: Path, memories: str) -> list[Path]:
    """The folders of the finished runs with these memories."""
    return [path.parent for path in sorted(output.glob(f"{memories}_*/eval_result.json"))]


def table(output: Path) -> str:
    """Mean and spread of all finished runs as Markdown."""
    rows = []
    for memories in MEMORIES:
        if folders := finished(output, memories):
            results = [read_json(folder / "eval_result.json") for folder in folders]
            metrics = [read_metrics(folder / "metrics_squad.jsonl") for folder in folders]
            rows.append([memories, ", ".join(seed_of(folder) for folder in folders),
                         spread([result["exact_match"] for result in results]),
                         spread([result["f1"] for result in results]), len(metrics[0]),
                         ", ".join(f"{sum(step['seconds'] for step in steps):.0f}" for steps in metrics)])
    if not rows:
        raise InputError(f"--output {output}: holds no finished run")
    return markdown_table(["memories", "seeds", "exact match", "F1", "steps", "seconds of the steps"], rows)


def seed_of(folder: Path) -> str:
    return folder.name.rpartition("_")[2]


def differences(output: Path) -> str:
    """One JSON line for each network with memories: its difference to none over the seeds that both have."""
    none = {seed_of(folder): folder for folder in finished(output, "none")}
    lines = []
    for memories in MEMORIES:
        pairs = [(folder, none[seed_of(folder)]) for folder in finished(output, memories) if seed_of(folder) in none]
        if memories == "none" or not pairs:
            continue
        gold = gold_answers(Path(read_json(pairs[0][0] / "options_squad.json")["predict_file"]))
        scores = np.array([[question_scores(folder / "predictions.json", gold) for folder in pair] for pair in pairs])
        lines.append(json.dumps({
            "benchmark": "ablation", "compared": f"{memories} minus none",
            "seeds": [seed_of(folder) for folder, _ in pairs],
            **{name: difference_interval(scores[:, 0, :, column], scores[:, 1, :, column])
               for column, name in enumerate(("exact_match", "f1"))}}))
    return "\n".join(lines)


if __name__ == "__main__":
    run_main(main)
