# SPDX-License-Identifier: Apache-2.0
"""Graphs that were compiled for an earlier question: loading one takes a quarter of the time of compiling it.

MindSpore's own cache goes by the order of the graphs in a process and by the files that the script imports at its top,
so it may give one graph for another. Here every graph has a folder of its own, named after all that shapes it, with a
digest of its files, which MindSpore would load with any bit changed.
"""
from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import mindspore as ms
from mindspore import Tensor, nn
from mindspore.graph import api

from src.config import KTNetConfig
from src.cpu import kernels
from utils.util import LOGGER, InputError, file_digest, is_text, json_digest, lock_folder, write_text

SOURCES = Path(__file__).parents[1]
DIGEST = "digest"
SWITCH = "KTNET_GRAPH_CACHE"      # environment variable: a folder, or "off"


def cache_folder() -> Path | None:
    """Where graphs are kept; None if the user wants none, or has no home that MindSpore can name."""
    chosen = os.environ.get(SWITCH)
    if chosen == "off":
        return None
    usual = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    folder = Path(chosen) if chosen else usual / "ktnet"
    return folder if is_text(str(folder)) and (chosen or usual.is_absolute()) else None


class GraphCache:
    """The kept graphs of one network on CPU; only the first graph of a process is kept or loaded.

    Args:
        network: for inference.
        config: its sizes.
        folder: of all graphs; None keeps none.
    """

    used = False        # by a graph of this process

    def __init__(self, network: nn.Cell, config: KTNetConfig, folder: Path | None) -> None:
        self.folder = folder
        digest = hashlib.sha256(json.dumps([ms.__version__, type(network).__qualname__, asdict(config),
                                            str(kernels.library()), kernels.multiply_tiles()],
                                           sort_keys=True, default=str).encode())
        for path in sorted(SOURCES.rglob("*.py")):
            digest.update(path.read_bytes())
        self.digest = digest.hexdigest()

    @contextmanager
    def of(self, arguments: Sequence[Tensor]) -> Iterator[None]:
        """What is compiled in this block for these arguments is kept, or was, if it is the process's first."""
        # MindSpore reads the path of its cache once in a process: it would write later graphs into the first one's
        # folder. It also reads the file of the script.
        if GraphCache.used or self.folder is None or not os.path.isfile(api.entry_script_path or ""):
            yield
            return
        shapes = json.dumps([[list(value.shape), str(value.dtype)] for value in arguments])
        place = self.folder / hashlib.sha256((self.digest + shapes).encode()).hexdigest()[:32]
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = lock_folder(place, "")
        except InputError:      # another process compiles this graph
            yield
            return
        except OSError as error:
            LOGGER.warning("%s: cannot be made (%s): graphs are not kept", place, error.strerror)
            self.folder = None
            yield
            return
        remove_damaged(place)
        GraphCache.used = True
        ms.set_context(enable_compile_cache=True, compile_cache_path=str(place))
        try:
            yield
            with suppress(OSError):     # a full disk: the next process compiles again
                if any(place.rglob("*.mindir")):
                    write_text(place / DIGEST, files_digest(place))
        finally:
            ms.set_context(enable_compile_cache=False)
            os.close(lock)


def files_digest(place: Path) -> str:
    """Of the names and contents of all files of a graph."""
    return json_digest({str(path.relative_to(place)): file_digest(path) for path in place.rglob("*")
                        if path.is_file() and path.name != DIGEST})


def remove_damaged(place: Path) -> None:
    """Remove a graph whose files are not those that were written, or were never finished."""
    try:
        whole = (place / DIGEST).read_bytes() == files_digest(place).encode()
    except OSError:
        whole = False
    for path in [] if whole else list(place.iterdir()):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
