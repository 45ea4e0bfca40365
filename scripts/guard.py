# SPDX-License-Identifier: Apache-2.0
"""Runs a command so that nothing it starts outlives it, however either of them ends.

    guard.py [--background] [--log FILE] [--lock NUMBER] -- COMMAND...

Every process below the command inherits KTNET_RUN, an id of this run. When the command ends, when this process is told
to stop (SIGTERM, SIGINT, SIGHUP), or when it is killed, all processes with that id are ended: in the last case by a
watchdog, a process in a session of its own. The exit code is the command's, or 128 and the signal's number.

--background detaches from the terminal; --log also writes the command's output to a file; --lock keeps the locked
file that was opened under this number until the end, and writes the run's id into it.

Needs nothing but Python's standard library and Linux's /proc: it also runs before anything is installed.
"""
from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time

RUN = "KTNET_RUN"
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
GRACE = 4.0         # seconds from passing a signal on to SIGKILL
KILLING = 5.0       # seconds in which SIGKILL must have worked
PAUSE = 0.05


def members(run: str, name: str = RUN) -> list[int]:
    """Process ids with this run's id, or that of a run inside it, in the environment variable ``name``."""
    found = []
    for folder in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{folder}/environ", "rb") as source:
                variables = source.read().split(b"\0")
        except OSError:         # it has ended, or is another user's
            continue
        for variable in variables:
            key, _, value = os.fsdecode(variable).partition("=")
            if key == name and f"{value}/".startswith(f"{run}/"):
                found.append(int(folder))
    return found


def send(run: str, number: int) -> bool:
    """Send a signal to every process of a run; returns whether there was one."""
    pids = members(run)
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
    return bool(pids)


def kill(run: str) -> None:
    """Kill every process of a run."""
    end = time.monotonic() + KILLING
    while send(run, signal.SIGKILL) and time.monotonic() < end:
        time.sleep(PAUSE)


def start_watchdog(run: str) -> int:
    """Fork a process that kills the run as soon as this one has ended; returns its process id."""
    reading, writing = os.pipe()
    closed, open_end = os.pipe()
    pid = os.fork()
    if pid:
        os.close(reading)
        os.close(open_end)
        os.read(closed, 1)      # returns when the watchdog has closed what it does not need, a locked file among it
        os.close(closed)
        os.set_inheritable(writing, False)
        return pid
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)       # or the end of the command's output would not be seen
    for number in map(int, os.listdir("/proc/self/fd")):
        if number > 2 and number != reading:
            try:
                os.close(number)
            except OSError:         # the listing's own
                pass
    for stopping in STOPPING:
        signal.signal(stopping, signal.SIG_DFL)     # not this process's handlers
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.read(reading, 1)         # returns when the other end is closed, whichever way
    kill(run)
    os._exit(0)


def start(command: list[str], run: str, log: str | None) -> tuple[subprocess.Popen[bytes], threading.Thread | None]:
    """Start the command in a session of its own, so that a terminal's Ctrl-C reaches it once: through this process."""
    child = subprocess.Popen(command, env={**os.environ, RUN: run}, start_new_session=True,
                             stdout=subprocess.PIPE if log else None, stderr=subprocess.STDOUT if log else None,
                             preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, ()))
    if log is None:
        return child, None
    copier = threading.Thread(target=copy, args=(child.stdout.fileno(), log), daemon=True)
    copier.start()
    return child, copier


def copy(source: int, log: str) -> None:
    """Copy what the command writes to the log and to standard output, as long as somebody reads that."""
    shown = True
    with open(log, "ab", buffering=0) as target:
        while data := os.read(source, 1 << 16):
            target.write(data)
            try:
                if shown:
                    os.write(1, data)
            except OSError:
                shown = False


def watch(in_background: bool) -> set[signal.Signals]:
    """Block the signals that :func:`wait` will take; nohup's choice to ignore SIGHUP is respected."""
    watched = {*STOPPING, signal.SIGCHLD}
    if not in_background and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        watched.remove(signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    for number in watched:              # what is ignored, as SIGINT is by a shell's background jobs, would not arrive
        signal.signal(number, lambda *_: None)
    return watched


def wait(child: subprocess.Popen[bytes], watchdog: int, run: str, watched: set[signal.Signals]) -> int:
    """Wait for the command or a signal; returns the exit code."""
    while True:
        number = signal.sigwait(watched)
        if number != signal.SIGCHLD:
            send(run, number)
            end = time.monotonic() + GRACE
            while child.poll() is None and time.monotonic() < end:
                time.sleep(PAUSE)
            return 128 + number
        if (code := child.poll()) is not None:
            return code if code >= 0 else 128 - code
        if os.waitpid(watchdog, os.WNOHANG)[0]:
            print("error: guard.py: the watchdog was killed: the run is ended", file=sys.stderr)
            return 128 + signal.SIGKILL


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    split = arguments.index("--")
    options, command = arguments[:split], arguments[split + 1:]
    log = options[options.index("--log") + 1] if "--log" in options else None
    if "--background" in options and os.getpgrp() != os.getpid():
        os.setsid()
    own = f"{os.getpid()}-{secrets.token_hex(8)}"
    run = f"{os.environ[RUN]}/{own}" if os.environ.get(RUN) else own
    if "--lock" in options:
        lock = int(options[options.index("--lock") + 1])
        os.ftruncate(lock, 0)
        os.pwrite(lock, own.encode(), 0)
    watched = watch("--background" in options)
    watchdog = start_watchdog(run)
    try:
        child, copier = start(command, run, log)
    except OSError as error:
        print(f"error: {command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    code = wait(child, watchdog, run, watched)
    kill(run)
    child.wait()
    if copier is not None:
        copier.join(GRACE)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
