# SPDX-License-Identifier: Apache-2.0
"""Which type matrix products have; what it does to a training is in test_train.py."""
from __future__ import annotations

import os

import pytest

from src.config import SQUAD
from src.settings import TrainingSettings
from utils import device
from utils.util import InputError


@pytest.fixture
def chosen(monkeypatch):
    """Function (unit of the processor, variable of the environment, target, flag) -> type, variable afterwards."""
    def choose(unit, variable, target, wanted):
        monkeypatch.setattr(device, "bfloat16_unit", lambda: unit)
        monkeypatch.delenv(device.PRODUCT_MODE, raising=False)
        if variable is not None:
            monkeypatch.setenv(device.PRODUCT_MODE, variable)
        settings = TrainingSettings.of({"compute_type": wanted}, SQUAD).on_device(target)
        return settings.device.compute_type, os.environ.get(device.PRODUCT_MODE)

    return choose


@pytest.mark.parametrize(("unit", "variable", "target", "wanted", "expected"), [
    ("AMX", None, "CPU", "auto", ("bfloat16", "BF16")),
    (None, None, "CPU", "auto", ("float32", "STRICT")),
    ("AMX", "STRICT", "CPU", "auto", ("float32", "STRICT")),
    (None, "bf16", "CPU", "auto", ("bfloat16", "BF16")),
    ("AMX", "STRICT", "CPU", "bfloat16", ("bfloat16", "BF16")),
    ("AMX", "BF16", "CPU", "float32", ("float32", "STRICT")),
    ("AMX", None, "Ascend", "auto", ("float16", None)),
    ("AMX", None, "GPU", "bfloat16", ("bfloat16", None)),
])
def test_what_is_chosen(chosen, unit, variable, target, wanted, expected):
    assert chosen(unit, variable, target, wanted) == expected


@pytest.mark.parametrize(("unit", "wanted"), [(None, "bfloat16"), ("AMX", "float16")])
def test_what_a_processor_has_no_use_for_is_refused(chosen, unit, wanted):
    with pytest.raises(InputError, match=f"--compute_type {wanted}: .*give float32 or auto"):
        chosen(unit, None, "CPU", wanted)


def test_auto_says_what_it_chose(chosen, caplog, monkeypatch):
    monkeypatch.setattr(device.LOGGER, "propagate", True)
    with caplog.at_level("INFO", device.LOGGER.name):
        chosen("AVX512-BF16", None, "CPU", "auto")
        line, = caplog.messages
        assert "bfloat16" in line and "AVX512-BF16" in line and "--compute_type float32" in line
        chosen(None, None, "CPU", "auto")
        chosen("AMX", None, "CPU", "float32")
    assert len(caplog.messages) == 1
