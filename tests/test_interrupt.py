# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C ends a program with exit code 130 and one line; its worker processes end with it, whichever way it ends."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from src.config import DataFolder
from testing import small_training
from tests.test_guard import all_end

ROOT = Path(__file__).parents[1]
# Imports MindSpore's package as it is found first on the path: a stand-in that takes its time.
STAND_IN = """
import time
print("importing", flush=True)
try:
    for _ in range(500):
        time.sleep(0.02)
except BaseException:
    raise ImportError("initialization failed") from None
"""
PROGRAM = """
import sys, time
sys.path.insert(0, {stand_in!r})
from utils.util import run_main

def main(argv):
    {body}

run_main(main)
"""


def interrupt(command: Sequence[str], ready: str) -> tuple[int, list[str]]:
    """Send SIGINT once a line of output starts with ``ready``; the exit code and what was said afterwards."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in process.stdout:
        if line.startswith(ready):
            break
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    return process.returncode, said.splitlines()


@pytest.mark.parametrize("body", ["import mindspore",
                                  "print('importing', flush=True); time.sleep(20)"], ids=["in MindSpore", "in Python"])
def test_one_line_and_130(tmp_path: Path, body: str) -> None:
    (tmp_path / "mindspore.py").write_text(STAND_IN, encoding="utf-8")
    program = PROGRAM.format(stand_in=str(tmp_path), body=body)
    assert interrupt([sys.executable, "-c", program], "importing") == (130, ["interrupted"])


def test_python_code_may_clean_up(tmp_path: Path) -> None:
    body = f"""
    from utils.util import atomic_path
    with atomic_path({str(tmp_path / "result")!r}):
        print("writing", flush=True)
        time.sleep(20)
"""
    program = PROGRAM.format(stand_in=str(tmp_path), body=body)
    assert interrupt([sys.executable, "-c", program], "writing") == (130, ["interrupted"])
    assert not list(tmp_path.iterdir())


def test_a_training_in_a_step(training_data: DataFolder, tmp_path: Path) -> None:
    flags = small_training.flags(training_data, tmp_path / "output", epoch=1000, log_steps=1)
    code, said = interrupt([sys.executable, "run_KTNET_squad.py", *flags], "epoch: 1 step: 2")
    assert code == 130 and said[-1] == "interrupted"
    assert all(line.startswith(("epoch:", "saved")) for line in said[:-1])


def test_a_worker_process_ends_with_its_parent() -> None:
    program = """
import multiprocessing, time
from utils.processes import end_with_parent

def work():
    end_with_parent()
    print(multiprocessing.current_process().pid, flush=True)
    time.sleep(60)

multiprocessing.get_context("fork").Process(target=work).start()
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    os.kill(parent.pid, signal.SIGKILL)
    assert all_end([worker])
    parent.communicate()
