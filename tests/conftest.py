# SPDX-License-Identifier: Apache-2.0
"""What many tests share: a data folder, networks trained on it once, and a log that every test finds as it was."""
from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from src.config import DataFolder
from testing import small_training
from utils.util import LOGGER

os.environ["KTNET_GRAPH_CACHE"] = "off"                   # nothing of the user's is read or written
os.environ["ONEDNN_DEFAULT_FPMATH_MODE"] = "STRICT"      # products in float32, by --compute_type auto too
os.environ["MS_DEV_SIDE_EFFECT_LOAD_ELIM"] = "3"         # as in a training on CPU, whatever is compiled first
signal.signal(signal.SIGHUP, signal.SIG_DFL)              # nohup and a shell's & ignore these two, and so would
signal.signal(signal.SIGINT, signal.default_int_handler)  # everything that a test starts
# Files that start many processes, compile C++ or many networks; single slow tests bear the marker themselves.
SLOW_FILES = {"test_launchers.py", "test_infer_harness.py", "test_quickstart.py", "test_interrupt.py", "test_guard.py",
              "test_get_data.py", "test_cpu_ops.py", "test_export.py", "test_third_memory.py"}
SLOW_FIXTURES = {"evaluated", "page", "reader"}         # networks that are compiled to be asked


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of slow files and fixtures, so that ``pytest -m "not slow"`` is over in two minutes."""
    for item in items:
        if item.path.name in SLOW_FILES or SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def untouched_log() -> Iterator[None]:
    """The project's log as before any script has set it up, so that caplog sees it."""
    def reset() -> None:
        LOGGER.handlers[:] = []
        LOGGER.propagate = True

    reset()
    yield
    reset()


@pytest.fixture(scope="session")
def training_data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    """A data folder to train a tiny network on (to be read only); its name has a blank."""
    pytest.importorskip("mindspore")
    return small_training.make_training_data(tmp_path_factory.mktemp("shared") / "tiny data")


@pytest.fixture(scope="session")
def steady_data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    """The same without dropout: equal gradients however a batch is divided."""
    pytest.importorskip("mindspore")
    return small_training.make_training_data(tmp_path_factory.mktemp("steady"), dropout=0.0)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    """The quickstart's sample with a network that can be asked; whatever is written there has a name of its own."""
    pytest.importorskip("mindspore")
    from testing.small_predict import make_sample
    return make_sample(tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="session")
def trained(training_data: DataFolder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, small_training.Ended]:
    """The results of a training of two epochs with validation and evaluation, and what it said."""
    output = tmp_path_factory.mktemp("trained")
    return output, small_training.train(training_data, output, do_val=True, do_predict=True)
