# SPDX-License-Identifier: Apache-2.0
"""scripts/guard.py: nothing that a command starts outlives it."""
from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
GUARD = [sys.executable, "-I", str(ROOT / "scripts" / "guard.py")]
# Starts one process in a session of its own and one without the guard's pipe, notes their ids and then its own.
COMMAND = """
setsid sleep 500 & echo $! >>"$NOTES"
(exec >/dev/null 2>&1; sleep 500 & echo $! >>"$NOTES"; wait) &
while (($(wc -l <"$NOTES") < 2)); do sleep 0.02; done
echo $$ >>"$NOTES"
echo ready
wait
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def all_end(pids: list[int], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while any(map(is_alive, pids)):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def guarded(tmp_path: Path):
    """A guard whose command has started its processes, and their ids."""
    notes = tmp_path / "notes"
    guard = subprocess.Popen([*GUARD, "--", "bash", "-c", COMMAND], env={**os.environ, "NOTES": str(notes)},
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert guard.stdout.readline() == "ready\n"
    yield guard, [int(line) for line in notes.read_text().split()]
    guard.kill()
    guard.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_ends_everything(guarded, number: signal.Signals) -> None:
    guard, pids = guarded
    guard.send_signal(number)
    code = guard.wait(30)
    assert code == (-signal.SIGKILL if number == signal.SIGKILL else 128 + number)
    assert all_end(pids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_script_below_the_guard_ends_everything(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "script.sh"
    script.write_text(f"source '{ROOT}/scripts/common.sh'\nunder_guard\n"
                      "bash -c 'echo $$; exec sleep 500'\necho went on\n")
    process = subprocess.Popen(["bash", str(script)], text=True, stdout=subprocess.PIPE)
    sleeper = int(process.stdout.readline())
    inner = int(Path(f"/proc/{sleeper}/stat").read_text().rpartition(")")[2].split()[1])
    assert inner != process.pid             # which became the guard
    os.kill(inner, number)
    assert process.communicate(timeout=30)[0] == "" and process.returncode == 128 + number
    assert all_end([sleeper, inner])


def test_the_end_of_the_command_ends_the_rest(guarded) -> None:
    guard, pids = guarded
    os.kill(pids[-1], signal.SIGKILL)       # bash itself
    assert guard.wait(30) == 128 + signal.SIGKILL and all_end(pids)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_without_its_watchdog_the_run_ends(guarded, number: signal.Signals) -> None:
    guard, pids = guarded
    children = Path(f"/proc/{guard.pid}/task/{guard.pid}/children").read_text().split()
    watchdog, = set(map(int, children)) - set(pids)
    os.kill(watchdog, number)
    _, said = guard.communicate(timeout=30)
    assert guard.returncode == 128 + signal.SIGKILL and "watchdog" in said and all_end(pids)


def test_a_guard_inside_another_ends_with_it(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    outer = subprocess.Popen([*GUARD, "--", *GUARD, "--background", "--", "bash", "-c", COMMAND], text=True,
                             env={**os.environ, "NOTES": str(notes)}, stdout=subprocess.PIPE)
    assert outer.stdout.readline() == "ready\n"
    outer.kill()
    assert all_end([int(line) for line in notes.read_text().split()])
    outer.communicate()


def test_exit_code_output_and_log(tmp_path: Path) -> None:
    log = tmp_path / "a log"
    result = subprocess.run([*GUARD, "--log", str(log), "--", "bash", "-c", "echo out; echo err >&2; exit 7"],
                            capture_output=True, text=True, check=False)
    assert result.returncode == 7 and result.stdout == "out\nerr\n" and log.read_text() == result.stdout
    reader = subprocess.run(f"{' '.join(map(repr, GUARD))} --log '{log}' -- bash -c 'echo 1; sleep 1; echo 2' | true",
                            shell=True, capture_output=True, text=True, check=False)
    assert reader.stderr == "" and log.read_text() == "out\nerr\n1\n2\n"     # nobody reads: the log goes on
    missing = subprocess.run([*GUARD, "--", "no-such-program"], capture_output=True, text=True, check=False)
    assert missing.returncode == 127 and missing.stderr == "error: no-such-program: No such file or directory\n"


def test_the_lock_is_held_to_the_end(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with open(path, "w+", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        guard = subprocess.Popen([*GUARD, "--lock", str(lock.fileno()), "--", "bash", "-c",
                                  'echo "$KTNET_RUN"; read -r'], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 text=True, pass_fds=[lock.fileno()])
    run = guard.stdout.readline().strip()
    own = run.rpartition("/")[2]            # these tests may run under a guard themselves
    assert path.read_text() == own and own.startswith(f"{guard.pid}-")
    with open(path, "a", encoding="utf-8") as second:
        with pytest.raises(BlockingIOError):
            fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
        guard.communicate("\n", timeout=30)
        fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
