"""ModelArts jobs, with a moxing that copies folders."""
from __future__ import annotations

import argparse
import shutil
import sys
import types

import pytest

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


def options(tmp_path, **values):
    chosen = {"is_modelarts": True, "data_url": tmp_path / "obs", "checkpoints": tmp_path / "output", "save_url": "",
              "log_url": None} | values
    return argparse.Namespace(**chosen)


def test_data_comes_in_and_results_go_out(tmp_path, copies):
    (tmp_path / "obs").mkdir()
    (tmp_path / "obs" / "train.json").write_text("{}")
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "eval_result.json").write_text("{}")
    args = options(tmp_path, save_url=str(tmp_path / "saved"), log_url=str(tmp_path / "logs"))
    modelarts.fetch_data(args, Devices())
    assert args.data_url == tmp_path / "cache" and (args.data_url / "train.json").is_file()
    modelarts.send_results(args)
    assert (tmp_path / "saved" / "eval_result.json").is_file() and (tmp_path / "logs" / "eval_result.json").is_file()


def test_one_process_of_a_machine_copies_and_checkpoints_elsewhere_are_sent(tmp_path, copies):
    (tmp_path / "output").mkdir()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "KTNET_squad-1_1.ckpt").touch()
    args = options(tmp_path, data_url="obs://there", save_url=str(tmp_path / "saved"),
                   save_finetune_checkpoint_path=tmp_path / "checkpoints")
    modelarts.fetch_data(args, Devices(local_rank=1))
    assert copies == [] and args.data_url == tmp_path / "cache"
    modelarts.send_results(args)
    assert (tmp_path / "saved" / "checkpoints" / "KTNET_squad-1_1.ckpt").is_file()


def test_addresses_keep_their_two_strokes(tmp_path, copies):
    import pathlib

    args = options(tmp_path, data_url=pathlib.Path("obs://bucket/data"), save_url="obs://bucket/out")
    modelarts.fetch_data(args, Devices())
    assert copies == [("obs://bucket/data", str(tmp_path / "cache"))]


def test_nothing_happens_without_the_flag(tmp_path, copies):
    args = options(tmp_path, is_modelarts=False)
    modelarts.fetch_data(args, Devices())
    modelarts.send_results(args)
    assert copies == [] and args.data_url == tmp_path / "obs"


def test_what_is_missing_is_said(tmp_path, copies, monkeypatch):
    with pytest.raises(InputError, match="--save_url"):
        modelarts.fetch_data(options(tmp_path), Devices())
    monkeypatch.setitem(sys.modules, "moxing", None)
    with pytest.raises(InputError, match="moxing"):
        modelarts.fetch_data(options(tmp_path, save_url="obs://there"), Devices())
