# SPDX-License-Identifier: Apache-2.0
"""Measure the page of an evaluation: how large it is, how fast Chromium opens it; as one JSON line.

    python -m benchmarks.viewer --data_url DATA --load_checkpoint_path CKPT [--evaluation FOLDER] [--questions 500]

predict.py makes the page from converted dev features; without --evaluation the checkpoint is evaluated first. Headless
Chromium (apt-get install chromium chromium-driver) opens it, each time in a new browser with a new profile, so that
nothing is cached. Milliseconds since the start of the navigation: ``load_ms`` to the end of the load event, when the
table is drawn; ``paint_ms`` to the first paint; ``open_ms`` as measured from outside, until the browser has shown two
more frames. ``case_ms`` is the time in which the slowest of every tenth case is drawn and
laid out.
"""
from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from testing import browser
from utils.args import OneLineParser, positive_int
from utils.util import InputError, run_main

ROOT = Path(__file__).resolve().parents[1]
TIMES = """const done = arguments[0];
requestAnimationFrame(() => requestAnimationFrame(() => {
  const paint = performance.getEntriesByName("first-contentful-paint")[0];
  done([performance.getEntriesByType("navigation")[0].loadEventEnd, paint ? paint.startTime : null]);
}));"""
SLOWEST_CASE = """let slowest = 0;
for (let number = 0; number < data.cases.length; number += 10) {
  const start = performance.now();
  showCase(number);
  document.body.getBoundingClientRect();
  slowest = Math.max(slowest, performance.now() - start);
}
return slowest;"""


def main(argv: list[str] | None = None) -> None:
    parser = OneLineParser(prog="python -m benchmarks.viewer", description=__doc__)
    parser.add_argument("--data_url", type=Path, default=Path("./data"), help="data folder with converted dev features")
    parser.add_argument("--dataset", choices=("squad", "record"), default="squad", help="which data set")
    parser.add_argument("--load_checkpoint_path", type=Path, required=True, help="KT-NET checkpoint")
    parser.add_argument("--vocab_path", type=Path, help="vocabulary of the encoder, if it is not the data folder's")
    parser.add_argument("--evaluation", type=Path, help="its results, if it is evaluated already")
    parser.add_argument("--questions", type=positive_int, default=500, help="questions of the page")
    parser.add_argument("--repeat", type=positive_int, default=5, help="browsers that open it; the median counts")
    parser.add_argument("--keep", type=Path, help="also leave the page here")
    args = parser.parse_args(argv)
    if browser.missing():
        raise InputError(browser.missing())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flags = ["--data_url", str(args.data_url), "--load_checkpoint_path", str(args.load_checkpoint_path)]
        if args.vocab_path:
            flags += ["--vocab_path", str(args.vocab_path)]
        evaluation = args.evaluation or folder / "evaluation"
        if args.evaluation is None:
            run(f"run_KTNET_{args.dataset}_eval.py", *flags, "--device_target", "CPU", "--checkpoints", str(evaluation))
        page = args.keep or folder / "page.html"
        run("predict.py", *flags, "--dataset", args.dataset, "--evaluation", str(evaluation), "--html", str(page),
            "--page_questions", str(args.questions))
        opened = [open_once(page, folder / f"profile{number}") for number in range(args.repeat)]
        print(json.dumps({"megabytes": round(page.stat().st_size / 1e6, 2), **opened[-1],
                          **{key: round(median(one[key] for one in opened), 1) for key in opened[0] if "ms" in key},
                          "slowest_open_ms": round(max(one["open_ms"] for one in opened), 1), "repeat": args.repeat}))


def run(*command: str) -> None:
    """Run one of the repository's scripts; its output goes to standard error."""
    ended = subprocess.run([sys.executable, str(ROOT / command[0]), *command[1:]], stdout=sys.stderr, check=False)
    if ended.returncode:
        raise InputError(f"{command[0]} failed (see above)")


def open_once(page: Path, profile: Path) -> dict[str, float]:
    """The times of one browser, and the number of questions that it lists."""
    with browser.open_browser(profile) as window:
        start = time.perf_counter()
        window.open(page)
        load, paint = window.run_async(TIMES)
        opened = 1e3 * (time.perf_counter() - start)
        listed = window.run("return document.querySelectorAll('#cases tbody tr').length")
        slowest = window.run(SLOWEST_CASE)
    return {"questions": listed, "load_ms": load, "paint_ms": paint, "open_ms": opened, "case_ms": slowest}


if __name__ == "__main__":
    run_main(main)
