# SPDX-License-Identifier: Apache-2.0
"""Kill a training repeatedly and check that it loses nothing; prints one JSON line.

    python -m benchmarks.kill [--kills 50] [--seed 1] [--stages two --kills 20]

A tiny network is trained once without interruption. The same training is then killed with SIGKILL at random moments
(half of the kills at any time from its start into its first steps, the others shortly after a random number of steps
and saved checkpoints) and resumed by --resume True, until it has been killed often enough and may run to its end. Of
two stages the first has a quarter of the epochs; a third of the kills come in it, one between the stages, the rest in
the second. After every kill all checkpoints must be readable; at the end every weight, moment and average must be
bit-identical to the uninterrupted run's, and metrics.jsonl must hold every step once.
"""
from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from src.config import SQUAD, DataFolder
from src.training.log import read_metrics
from src.training.state import TrainingState
from src.weights.checkpoint import checkpoints_in, read_checkpoint
from testing import small_training
from utils.args import OneLineParser, non_negative_int, positive_int
from utils.util import InputError, run_main

LINES_MOST = 4              # log lines after which a kill may come
PAUSE_MOST = 0.1            # seconds between a log line and the kill
INTO_THE_STEPS = 1.0        # seconds


def main(argv: Sequence[str] | None = None) -> None:
    parser = OneLineParser(prog="python -m benchmarks.kill", description=__doc__,
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=positive_int, default=50, help="how often to kill [50]")
    parser.add_argument("--epoch", type=positive_int, default=40, help="passes over the data, 6 steps each [40]")
    parser.add_argument("--stages", choices=("one", "two"), default="one", help="of the training [one]")
    parser.add_argument("--seed", type=non_negative_int, default=1, help="of the moments [1]")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        data = small_training.make_training_data(Path(name) / "data")
        whole, broken = Path(name) / "whole", Path(name) / "broken"
        if small_training.run_and_kill(command(data, whole, args), None, 0.0):
            raise InputError("benchmark: the uninterrupted training failed")
        moments = kill_often(data, broken, args)
        print(json.dumps(report(whole, broken, args, moments)))


def first_epochs(args: argparse.Namespace) -> int:
    """Epochs of the first of two stages."""
    return max(1, args.epoch // 4) if args.stages == "two" else 0


def command(data: DataFolder, output: Path, args: argparse.Namespace) -> list[str]:
    first = {"stages": "two", "first_epoch": first_epochs(args)} if args.stages == "two" else {}
    flags = small_training.flags(data, output, **first, epoch=args.epoch - first_epochs(args), save_steps=1,
                                 resume=True)
    return [sys.executable, str(small_training.ROOT / "run_KTNET_squad.py"), *flags]


def kill_often(data: DataFolder, output: Path, args: argparse.Namespace) -> list[int]:
    """Kill and resume, then let it end; the number of steps in metrics.jsonl at each kill."""
    generator = random.Random(args.seed)
    moments: list[int] = []
    seconds = 0.0                               # from a run's start to its first step
    for number in tqdm(range(args.kills), desc="kills", disable=None):
        lines = 0 if number % 2 else generator.randint(1, LINES_MOST) if number else 1
        pause = generator.random() * (seconds + INTO_THE_STEPS if lines == 0 else PAUSE_MOST)
        until = None
        if args.stages == "two" and number == args.kills // 3:
            lines, until = None, f"saved {output}/finetune_checkpoint/KTNET_squad-{first_epochs(args)}_6.ckpt"
        start = time.perf_counter()
        code = small_training.run_and_kill(command(data, output, args), lines, pause, until)
        if number == 0:
            seconds = time.perf_counter() - start - pause
        if code != -signal.SIGKILL:
            raise InputError(f"benchmark: run {number + 1} ended with code {code} before it was killed; give a larger "
                             "--epoch")
        for path in (output / "finetune_checkpoint").glob("*.ckpt"):
            read_checkpoint(path)
        moments.append(len(read_metrics(output / "metrics_squad.jsonl")))
    if small_training.run_and_kill(command(data, output, args), None, 0.0):
        raise InputError("benchmark: the resumed training failed")
    return moments


def report(whole: Path, broken: Path, args: argparse.Namespace, moments: list[int]) -> dict[str, object]:
    """Compare the two runs."""
    folders = [output / "finetune_checkpoint" for output in (whole, broken)]
    last = [checkpoints_in(folder, SQUAD.name)[-1] for folder in folders]
    state = [TrainingState(folder, SQUAD.name, ()).path for folder in folders]
    steps = [line["step"] for line in read_metrics(broken / "metrics_squad.jsonl")]
    return {"benchmark": "kill", "kills": len(moments), "seed": args.seed, "steps": len(steps),
            "killed_after_steps": moments, "first_stage_steps": first_epochs(args) * len(steps) // args.epoch,
            "checkpoint": last[1].name,
            "weights_equal_to_the_bit": last[0].name == last[1].name and same(*last),
            "state_equal_to_the_bit": same(*state),
            "every_step_logged_once": steps == list(range(1, len(steps) + 1))}


def same(first: Path, second: Path) -> bool:
    """Whether two checkpoints hold the same names with the same bits."""
    one, two = ({name: value.asnumpy().tobytes() for name, value in read_checkpoint(path).items()}
                for path in (first, second))
    return one == two


if __name__ == "__main__":
    run_main(main)
