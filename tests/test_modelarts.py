# SPDX-License-Identifier: Apache-2.0
"""ModelArts jobs, with a moxing that copies folders."""
from __future__ import annotations

import pathlib
import shutil
import sys
import types

import pytest

from src.config import SQUAD
from src.settings import TrainingSettings
from utils import modelarts
from utils.device import Devices
from utils.util import InputError


@pytest.fixture
def copies(monkeypatch, tmp_path):
    done = []

    def copy_parallel(source, target):
        done.append((source, target))
        if "://" not in source and "://" not in target:
            shutil.copytree(source, target, dirs_exist_ok=True)

    moxing = types.ModuleType("moxing")
    moxing.file = types.SimpleNamespace(copy_parallel=copy_parallel)
    monkeypatch.setitem(sys.modules, "moxing", moxing)
    monkeypatch.setattr(modelarts, "LOCAL_DATA", tmp_path / "cache")
    return done


def test_data_comes_in_and_results_go_out(tmp_path, copies):
    for name in ("obs/train.json", "output/eval_result.json"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("{}")
    data = modelarts.fetch_data(tmp_path / "obs", str(tmp_path / "saved"), Devices())
    assert data == tmp_path / "cache" and (data / "train.json").is_file()
    modelarts.send_results(tmp_path / "output", None, str(tmp_path / "saved"), str(tmp_path / "logs"))
    assert (tmp_path / "saved" / "eval_result.json").is_file() and (tmp_path / "logs" / "eval_result.json").is_file()


def test_one_process_of_a_machine_copies_and_checkpoints_elsewhere_are_sent(tmp_path, copies):
    (tmp_path / "output").mkdir()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "KTNET_squad-1_1.ckpt").touch()
    assert modelarts.fetch_data("obs://there", "somewhere", Devices(local_rank=1)) == tmp_path / "cache"
    assert copies == []
    modelarts.send_results(tmp_path / "output", tmp_path / "checkpoints", str(tmp_path / "saved"), None)
    assert (tmp_path / "saved" / "checkpoints" / "KTNET_squad-1_1.ckpt").is_file()


def test_addresses_keep_their_two_slashes(tmp_path, copies):
    modelarts.fetch_data(pathlib.Path("obs://bucket/data"), "obs://bucket/out", Devices())
    assert copies == [("obs://bucket/data", str(tmp_path / "cache"))]


@pytest.mark.parametrize(("flags", "data"), [([], "here"), (["--is_modelarts", "True", "--save_url", "obs://out"],
                                                           "cache")])
def test_files_are_looked_for_where_the_data_is(tmp_path, copies, flags, data):
    """Only a ModelArts job copies anything; what was named by a flag stays where it is."""
    loop = pytest.importorskip("src.training.loop")
    here = ["--data_url", str(tmp_path / "here"), "--vocab_path", "vocab.txt"]
    settings = TrainingSettings.parse([*here, *flags], SQUAD)
    (tmp_path / "here").mkdir()
    settings = loop.with_fetched_data(settings, Devices())
    assert settings.job.train_file == tmp_path / data / "SQuAD" / "train-v1.1.json"
    assert settings.data.vocab_path == pathlib.Path("vocab.txt") and len(copies) == (data == "cache")


def test_what_is_missing_is_said(tmp_path, copies, monkeypatch):
    with pytest.raises(InputError, match="--save_url"):
        modelarts.fetch_data(tmp_path / "obs", None, Devices())
    monkeypatch.setitem(sys.modules, "moxing", None)
    with pytest.raises(InputError, match="moxing"):
        modelarts.fetch_data(tmp_path / "obs", "obs://there", Devices())
    monkeypatch.setitem(sys.modules, "moxing", types.ModuleType("moxing"))
    with pytest.raises(InputError, match="the package moxing at .* is not Huawei's"):
        modelarts.fetch_data(tmp_path / "obs", "obs://there", Devices())
