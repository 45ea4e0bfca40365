# SPDX-License-Identifier: Apache-2.0
"""How this process ends on Ctrl-C, and how its worker processes end with it."""
from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import sys
import threading
import time

PR_SET_PDEATHSIG = 1
WAKING = signal.SIGRTMAX    # raises KeyboardInterrupt in the main thread, which SIGINT does not reach
GRACE = 3.0             # seconds in which an interrupted program may clean up
INTERRUPTED = 128 + signal.SIGINT


def handle_interrupts() -> None:
    """Make Ctrl-C end this program at once, with exit code 130 and one line, also while MindSpore is at work.

    SIGINT is blocked in all threads but one that waits for it: MindSpore's import, its compiler and its own handler
    would otherwise turn it into other errors. Python code gets a KeyboardInterrupt and may clean up; inside MindSpore
    the process ends without that, and the next run removes what is left.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:      # ignored, or handled by the caller
        return
    signal.signal(WAKING, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    threading.Thread(target=_wait_for_interrupt, args=(threading.get_ident(),), daemon=True).start()


def _wait_for_interrupt(main_thread: int) -> None:
    signal.sigwait({signal.SIGINT})
    if not _inside_mindspore(main_thread):
        signal.pthread_kill(main_thread, WAKING)
        time.sleep(GRACE)       # the process ends meanwhile
    say_interrupted()
    os._exit(INTERRUPTED)


@functools.cache
def say_interrupted() -> None:
    """Print the one line, once."""
    with contextlib.suppress(OSError):
        os.write(2, b"interrupted\n")


def _inside_mindspore(thread: int) -> bool:
    frame = sys._current_frames().get(thread)
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).partition(".")[0] == "mindspore":
            return True
        frame = frame.f_back
    return False


def end_with_parent() -> None:
    """Let the system kill this process when the one that forked it ends, whichever way."""
    parent = os.getppid()
    with contextlib.suppress(OSError, AttributeError):      # not Linux
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
