# SPDX-License-Identifier: Apache-2.0
"""Errors, logging and files; imports neither MindSpore nor anything of src."""
from __future__ import annotations

import codecs
import contextlib
import fcntl
import hashlib
import io
import json
import logging
import math
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from utils.processes import INTERRUPTED, handle_interrupts, say_interrupted

LOGGER = logging.getLogger("ktnet")
LONGEST_MESSAGE = 1000
SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")     # half of a character beyond U+FFFF, as JSON escapes it


class InputError(ValueError):
    """Unusable user input. The message names the flag or file, the location and the fix."""

    def __str__(self) -> str:
        """The message, without the middle of one that a question's id or the like has made very long."""
        text = super().__str__()
        return text if len(text) <= LONGEST_MESSAGE else f"{text[:LONGEST_MESSAGE // 2]} ... {text[-300:]}"


def run_main(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> None:
    """Run an entry script: bad input becomes one line on stderr and exit code 2, an interrupt exit code 130.

    Set the environment variable ``KTNET_DEBUG=1`` to see the traceback as well.
    """
    set_up_streams()
    if argv is None:        # a program, not a call within one
        handle_interrupts()
    try:
        check_working_folder()
        main(argv)
    except (InputError, OSError, ImportError, MemoryError) as error:      # OSError: a file, a full disk
        if os.environ.get("KTNET_DEBUG") == "1":
            raise
        print(f"error: {explain(error)}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        say_interrupted()
        sys.exit(INTERRUPTED)


def explain(error: BaseException) -> str:
    """The error in one line, with what to do where the error itself does not say it."""
    if isinstance(error, ImportError):
        state = "not installed" if isinstance(error, ModuleNotFoundError) else "cannot be loaded"
        return (f"{describe(error)[:300]}: {state} for {sys.executable}; scripts/quickstart.sh makes .venv with "
                "everything: start this with .venv/bin/python")
    if isinstance(error, MemoryError):
        return (f"out of memory ({describe(error) or 'no more to be had'}); a smaller --batch_size and a shorter "
                "--max_seq_len need less")
    return describe(error)


def describe(error: BaseException) -> str:
    """The error in one line."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror or error}".replace("\n", " ")
    return " ".join(str(error).split("\n"))


def set_up_logging(log_file: Path | str | None = None) -> None:
    """Send the project's log to stderr and, when given, to ``log_file`` as well."""
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if log_file is not None:
        Path(log_file).parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
    LOGGER.handlers[:] = []
    LOGGER.propagate = False
    LOGGER.setLevel(logging.INFO)
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(message)s"))
        LOGGER.addHandler(handler)


def check_working_folder() -> None:
    """Refuse a working folder that relative paths cannot be read from.

    Raises:
        InputError: it was removed, or MindSpore cannot take its name.
    """
    try:
        here = os.getcwd()
    except FileNotFoundError:
        raise InputError("the working folder was removed; change to another one") from None
    if not is_text(here):
        raise InputError(f"{ascii(here)[1:-1]}: the name of the working folder is not UTF-8; rename it")


def is_text(text: str) -> bool:
    """Whether a string can be written as UTF-8; the shell's other bytes arrive as half surrogate pairs."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def set_up_streams() -> None:
    """Read a pipe as UTF-8; what the terminal cannot show is written by its number."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdin, io.TextIOWrapper) and not sys.stdin.isatty():
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="strict")


def read_text(path: Path | str, fix: str = "") -> str:
    """Read a whole text file: UTF-8, with or without a byte order mark.

    Raises:
        InputError: the file is missing or is not UTF-8; the message ends with ``fix``, if that is given.
    """
    with open_text(path, fix) as source:
        return source.read()


@contextlib.contextmanager
def open_text(path: Path | str, fix: str = "") -> Iterator[TextIO]:
    """Open a text file as :func:`read_text` reads it, to be read piece by piece.

    Raises:
        InputError: as :func:`read_text`; for bytes that are not UTF-8 when the block reads them.
    """
    try:
        source = open(path, encoding="utf-8-sig")  # noqa: SIM115 - closed below
    except FileNotFoundError:
        raise InputError("; ".join(filter(None, (f"{path}: no such file", fix)))) from None
    with source:
        try:
            yield source
        except UnicodeDecodeError as error:
            raise InputError(f"{path}: not UTF-8 (byte 0x{error.object[error.start]:02x}); "
                             f"{fix or 'is this a text file? Save it as UTF-8, or fetch it again'}") from None


def read_json(path: Path | str, fix: str = "") -> Any:
    """Read a JSON file.

    Args:
        path: of the file.
        fix: what to do where it is missing or no text, as for :func:`read_text`.

    Raises:
        InputError: the file is missing, is not UTF-8, is not JSON (see :func:`parse_json`), or an object has a key
            twice, so that one of the values would be ignored.
    """
    return parse_json(read_text(path, fix), path, object_pairs_hook=_without_repeats)


def parse_json(text: str, source: Path | str, **options: Any) -> Any:
    """Parse JSON that came from ``source``; numbers are finite and whole numbers have at most 64 bits.

    Raises:
        InputError: it is not JSON (with line and column), is nested too deeply, holds such a number or half of a
            surrogate pair, which cannot be written as UTF-8.
    """
    try:
        values = json.loads(text, parse_constant=_finite, parse_float=_finite, parse_int=_bounded, **options)
        if SURROGATE_ESCAPE.search(text):
            json.dumps(values, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        raise InputError(f"{source}: line {error.lineno}, column {error.colno}: not JSON ({error.msg}); "
                         "the file may be cut short: fetch it again") from None
    except RecursionError:
        raise InputError(f"{source}: nested too deeply to be a data file") from None
    except UnicodeEncodeError:
        raise InputError(f"{source}: holds half a surrogate pair, which is no character; remove it") from None
    except ValueError as error:
        raise InputError(f"{source}: {error}; is this the right file?") from None
    return values


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)[:60]!r} comes twice in an object")
    return values


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


def _bounded(text: str) -> int:
    if len(text) > 20 or not -2 ** 63 <= (value := int(text)) < 2 ** 64:
        raise ValueError(f"{text[:20]}... is a whole number of more than 64 bits")
    return value


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path, moved over ``path`` when the block succeeds and removed otherwise.

    Links are followed: the file that ``path`` leads to is replaced. A file keeps the mode that it had, a new one gets
    the usual one. A device, a pipe or anything below /dev and /proc is written into, never replaced.
    """
    target = _follow_links(Path(path))
    if target.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    replaced = not _is_special(target)
    folder = target.parent if replaced else Path(tempfile.gettempdir())
    folder.mkdir(parents=True, exist_ok=True)
    mode = mode_for(target)
    temporary = folder / f".{target.name}.{secrets.token_hex(4)}.part"
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    try:
        yield temporary
        with open(temporary, "rb") as written:
            if not replaced:
                with _open_special(target) as special:
                    shutil.copyfileobj(written, special)
                return
            os.fsync(written.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, target)
    except OSError as error:
        if error.filename in (None, str(temporary)):       # a full disk names no file: say which one it was for
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def mode_for(path: Path) -> int:
    """The mode of the file that a new one is to replace, or, if there is none, the usual one."""
    return stat.S_IMODE(path.stat().st_mode) if path.is_file() else usual_mode()


def usual_mode(wanted: int = 0o666) -> int:
    """The mode of a new file (or, with 0o777, folder) as the process's umask leaves it."""
    mask = os.umask(0o077)       # can only be read by setting it
    os.umask(mask)
    return wanted & ~mask


def _follow_links(path: Path) -> Path:
    """The file that links lead to, but no further than to one of this process's own open files."""
    for _ in range(40):          # as many links as the kernel follows
        if not path.is_symlink() or _is_own_descriptor(path):
            return path
        path = path.parent / os.readlink(path)
    raise InputError(f"{path}: its links lead in a circle; give another file")


def _is_own_descriptor(path: Path) -> bool:
    """Whether a path is /proc/self/fd/1 or the like, to which /dev/stdout is a link."""
    return os.path.realpath(path.parent) == os.path.realpath("/proc/self/fd")


def _is_special(path: Path) -> bool:
    """Whether a path is something to be written into: a device, a pipe, an entry of /dev or /proc."""
    folder = os.path.realpath(path.parent)
    if f"{folder}/".startswith(("/dev/", "/proc/")) and not f"{folder}/".startswith("/dev/shm/"):
        return True
    return path.exists() and not path.is_file() and not path.is_dir()


def _open_special(path: Path) -> BinaryIO:
    """Open such a path for writing, where what was written before stays."""
    if not _is_own_descriptor(path):
        return open(path, "ab")
    sys.stdout.flush()
    sys.stderr.flush()
    return open(os.dup(int(path.name)), "wb")      # shares its position with what is printed


def write_text(path: Path | str, text: str) -> None:
    """Write a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path | str, values: Any) -> None:
    """Write a JSON file, whole or not at all.

    Raises:
        InputError: a number is not finite, which :func:`read_json` would refuse.
    """
    try:
        text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise InputError(f"{path}: would hold a number that is not finite; give finite numbers") from None
    write_text(path, text + "\n")


def lock_folder(folder: Path, refusal: str) -> int:
    """Make a folder if needed and lock it.

    A folder that another process removed meanwhile is not the one at that path any more: then the new one is locked.

    Returns:
        The lock: an open file descriptor, to be closed at the end.

    Raises:
        InputError: another process holds the lock; the message is ``refusal``.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        lock = -1
        try:
            lock = os.open(folder, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(lock), os.stat(folder)):
                return lock
        except BlockingIOError:
            os.close(lock)
            raise InputError(refusal) from None
        except FileNotFoundError:
            pass
        if lock >= 0:
            os.close(lock)


def file_digest(path: Path | str, algorithm: str = "md5") -> str:
    """Hexadecimal digest of a file, read in blocks, or of a folder's files one after the other."""
    digest = hashlib.new(algorithm)
    for file in files_of(path):
        with open(file, "rb") as source:
            for block in iter(lambda: source.read(1 << 20), b""):
                digest.update(block)
    return digest.hexdigest()


def json_digest(values: Any) -> str:
    """SHA-256 of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode("utf-8")).hexdigest()


def text_digest(path: Path | str) -> str:
    """MD5 of a text file; a byte order mark and Windows' line ends make no difference."""
    data = Path(path).read_bytes().removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n")
    return hashlib.md5(data).hexdigest()


def files_of(path: Path | str) -> list[Path]:
    """The file itself, or the files of a folder by name; hidden ones are ignored."""
    path = Path(path)
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
