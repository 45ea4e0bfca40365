# SPDX-License-Identifier: Apache-2.0
"""From the quickstart's JSON to features, answers and figures: exactly what lies in tests/golden."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from src.config import SPLITS, TASKS, DataFolder
from tests.golden_sample import GOLDEN, answer_sample, convert_sample, make_sample


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return make_sample(tmp_path_factory.mktemp("golden") / "data")


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_features_answers_and_figures(data: DataFolder, task, tmp_path: Path) -> None:
    for split in SPLITS:
        found = convert_sample(data, task, split)
        with np.load(GOLDEN / f"{task.name}_{split}.npz") as golden:
            assert set(golden) == set(found)
            for name, values in found.items():
                np.testing.assert_array_equal(values, golden[name], err_msg=f"{split}: {name}")
    expected = json.loads((GOLDEN / "answers.json").read_text(encoding="utf-8"))[task.name]
    assert answer_sample(data, task, tmp_path) == expected
