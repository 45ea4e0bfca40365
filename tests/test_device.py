# SPDX-License-Identifier: Apache-2.0
"""Which device a run takes, and what is said before one is touched."""
from __future__ import annotations

import sys

import pytest

import data_convert
import export
import predict
import retrieve
import run_KTNET_record
import run_KTNET_squad_eval
from src.checks import devices_here
from src.config import SQUAD, BertConfig, KTNetConfig
from src.settings import TrainingSettings
from src.training import main as training_main
from src.weights.sizes import save_config
from utils import device
from utils.util import InputError


@pytest.mark.parametrize(("there", "chosen"), [
    ({"Ascend": 8, "GPU": 1}, "Ascend"), ({"GPU": 2}, "GPU"), ({}, "CPU")])
def test_the_best_device_that_is_there_is_taken(monkeypatch, there, chosen):
    monkeypatch.setattr(device, "count_devices", lambda target: there.get(target, 0))
    assert device.choose_target("auto") == chosen and device.choose_target("CPU") == "CPU"
    for target in ("Ascend", "GPU"):
        if target in there:
            assert device.choose_target(target) == target
        else:
            with pytest.raises(InputError, match=f"--device_target {target}: this host has none"):
                device.choose_target(target)


@pytest.mark.parametrize("wanted", ["auto", "GPU"])
def test_a_device_that_this_mindspore_cannot_use(monkeypatch, caplog, wanted):
    """Chosen by itself it is left for the CPU; named, it is refused."""
    mindspore = pytest.importorskip("mindspore")
    monkeypatch.setattr(device, "count_devices", lambda target: int(target == "GPU"))
    set_device = mindspore.set_device

    def without_gpu(target, number=None):
        if target == "GPU":
            raise RuntimeError("no plugin for GPU")
        set_device(target)

    monkeypatch.setattr(mindspore, "set_device", without_gpu)
    if wanted == "auto":
        assert device.set_up_device(wanted).target == "CPU"
        assert "this MindSpore cannot use it (no plugin for GPU): running on CPU" in caplog.text
    else:
        with pytest.raises(InputError, match="--device_target GPU: this MindSpore cannot use it"):
            device.set_up_device(wanted)


@pytest.mark.parametrize(("main", "flags", "said"), [
    (run_KTNET_record.main, [], "ReCoRD/train.json: no such file"),
    (run_KTNET_squad_eval.main, ["--load_checkpoint_path", "nope.ckpt"], "--load_checkpoint_path nope.ckpt"),
    (predict.main, ["--model", "nope.ckpt"], "--model nope.ckpt: no such file or model folder"),
    (export.main, ["--load_checkpoint_path", "nope.ckpt", "--dataset", "squad"], "--load_checkpoint_path nope.ckpt")])
def test_what_is_missing_is_named_before_a_device_is_looked_for(monkeypatch, tmp_path, main, flags, said):
    """Nor is MindSpore imported, which all of these modules do."""
    for module in (device, training_main, predict, export):
        monkeypatch.setattr(module, "choose_target", lambda wanted: pytest.fail("looked for a device"))
    for module in ("training.loop", "inference.reader", "inference.predict", "export.export"):
        monkeypatch.setitem(sys.modules, f"src.{module}", None)
    with pytest.raises(InputError, match=said):
        main([*flags, "--device_target", "Ascend", *(["--data_url", str(tmp_path)] if main is not export.main else [])])


@pytest.mark.parametrize("main", [run_KTNET_record.main, run_KTNET_squad_eval.main, predict.main, data_convert.main,
                                  retrieve.main])
def test_a_data_folder_that_is_not_there_is_named(main, tmp_path):
    (tmp_path / "a.ckpt").touch()
    model = ["--model", str(tmp_path / "a.ckpt")] if main in (run_KTNET_squad_eval.main, predict.main) else []
    with pytest.raises(InputError, match="--data_url .*absent: no such folder; docs/data.md"):
        main([*model, "--data_url", str(tmp_path / "absent")])


def test_a_device_that_is_not_there_is_named_before_mindspore_is_loaded(monkeypatch, tmp_path):
    (tmp_path / "a.ckpt").touch()
    monkeypatch.setattr(device, "count_devices", lambda target: 0)
    monkeypatch.setattr(training_main, "check_training", lambda settings: None)
    for module in ("training.loop", "inference.reader", "inference.predict", "export.export"):
        monkeypatch.setitem(sys.modules, f"src.{module}", None)
    for main, flags in ((run_KTNET_record.main, []), (export.main, ["--ckpt_file", str(tmp_path / "a.ckpt")]),
                        (predict.main, ["--model", str(tmp_path / "a.ckpt"), "--serve", "0"])):
        with pytest.raises(InputError, match="--device_target Ascend: this host has none"):
            main([*flags, "--device_target", "Ascend"])


def test_a_checkpoint_of_another_data_set_is_named_before_mindspore_is_loaded(monkeypatch, tmp_path):
    save_config(tmp_path / "a.ckpt", KTNetConfig(BertConfig(30, 8, 1, 2, 16), dataset="record"), {})
    monkeypatch.setattr(training_main, "check_evaluation", lambda settings: None)
    monkeypatch.setitem(sys.modules, "src.training.loop", None)
    with pytest.raises(InputError, match="a.ckpt: was trained on record, the questions are those of squad"):
        run_KTNET_squad_eval.main(["--load_checkpoint_path", str(tmp_path / "a.ckpt")])


@pytest.mark.parametrize(("hosts", "here"), [("2", 4), ("", 8), ("two", 8), ("0", 8), (None, 8)])
def test_hosts_that_are_no_number_count_as_one(monkeypatch, hosts, here):
    monkeypatch.delenv("NNODES", raising=False)
    if hosts is not None:
        monkeypatch.setenv("NNODES", hosts)
    settings = TrainingSettings.parse(["--is_distribute", "True", "--device_num", "8"], SQUAD)
    assert devices_here(settings) == here


@pytest.mark.parametrize(("values", "said"), [
    ({}, r"no other process to join \(it cannot be built\); start the run with msrun"),
    ({"MS_ROLE": "MS_WORKER", "MS_WORKER_NUM": "4", "MS_SCHED_HOST": "10.0.0.1", "MS_SCHED_PORT": "8118"},
     r"the 4 processes of the run did not all meet at 10.0.0.1:8118 within \d+ s \(it cannot be built\); look for")])
def test_processes_that_do_not_meet(monkeypatch, values, said):
    monkeypatch.delenv("MS_ROLE", raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)

    def connect():
        raise RuntimeError("it cannot be built. You can grep your logs:\n1. reason")

    with pytest.raises(InputError, match=f"--is_distribute True: {said}"):
        device.join_processes(connect)
