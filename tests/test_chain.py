# SPDX-License-Identifier: Apache-2.0
"""The whole way on real texts: what retrieval makes of the data sets' JSON is converted into the golden features."""
from __future__ import annotations

import pytest

from src.config import SPLITS, TASKS
from src.data_convert import convert
from testing import small_data
from testing.real_data import needs_shared
from tests.test_convert import GOLDEN_ARTICLES, assert_golden, chosen_articles
from tests.test_retrieve import linked, needs_wordnet, real_wordnet, run


@needs_shared
@needs_wordnet
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_from_the_data_sets_json_to_the_golden_features(tmp_path, task):
    folder = linked(tmp_path)
    for step in ("tokens", "wordnet", "nell"):
        run(folder, "--step", step, "--dataset", task.name, "--wordnet_path", str(real_wordnet()))
    for split in SPLITS:
        name, json_path = f"{task.name}_{split}", folder.dataset_json(task, split)
        if name == "squad_train":      # retrieved whole, compared where there are golden features
            name = "squad_train_2articles"
            json_path = chosen_articles(json_path, GOLDEN_ARTICLES, tmp_path / "two.json")
        target = tmp_path / "converted" / f"{split}.mindrecord"
        target.parent.mkdir(exist_ok=True)
        convert(small_data.conversion(folder, task.name, split, json_path=json_path, target=target))
        assert_golden(target, name, split)
