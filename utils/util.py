"""Errors, logging and files; imports neither MindSpore nor anything of src."""
from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Sequence

LOGGER = logging.getLogger("ktnet")


class InputError(ValueError):
    """Something the user gave cannot be used; the message names the file or flag, the place and the mend."""


def run_main(main: Callable[[Optional[Sequence[str]]], None], argv: Optional[Sequence[str]] = None) -> None:
    """Run an entry script: bad input becomes one line on stderr and exit code 2, an interrupt exit code 130.

    Set the environment variable ``KTNET_DEBUG=1`` to see the traceback as well.
    """
    try:
        main(argv)
    except (InputError, OSError) as error:      # OSError: a file that cannot be read or written, a full disk
        if os.environ.get("KTNET_DEBUG") == "1":
            raise
        print(f"error: {describe(error)}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        if os.environ.get("KTNET_DEBUG") == "1":
            raise
        print(f"error: {error}: not installed for {sys.executable}; scripts/quickstart.sh makes .venv with everything: "
              "start this with .venv/bin/python", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def describe(error: BaseException) -> str:
    """The error in one line."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror or error}".replace("\n", " ")
    return " ".join(str(error).split("\n"))


def set_up_logging(log_file: Optional[Path | str] = None) -> None:
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


def read_json(path: Path | str) -> Any:
    """Parse a JSON file.

    Raises:
        InputError: the file is missing, is no UTF-8 or is no JSON (with line and column).
    """
    try:
        return json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8; is this a text file?") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: line {error.lineno}, column {error.colno}: not JSON ({error.msg}); "
                         "the file may be cut short: fetch it again") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply to be a data file") from None


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """A temporary path in the folder of ``path``; moved over ``path`` when the block ends well, removed otherwise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write a whole text file at once or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, values: Any) -> None:
    """Write a JSON file at once or not at all."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False) + "\n")


def file_digest(path: Path | str, algorithm: str = "md5") -> str:
    """Hexadecimal digest of a file, read in blocks."""
    digest = hashlib.new(algorithm)
    with open(path, "rb") as source:
        for block in iter(lambda: source.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
