# SPDX-License-Identifier: Apache-2.0
"""The launchers, in a copy of the repository whose path has a blank: mostly with a stand-in for Python."""
from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from src.config import DataFolder
from utils.device import count_devices
from utils.rank_table import read_rank_table
from utils.util import InputError

REPOSITORY = Path(__file__).parents[1]
LOGS = {"run_squad_twomemory.sh": "output/train_squad.log", "run_record_twomemory.sh": "output/train_record.log",
        "run_squad_twomemory_gpu.sh": "train_squad/train_squad.log",
        "run_record_twomemory_gpu.sh": "train/train_record.log",
        "run_squad_twomemory_distribute.sh": "output/train_squad.log",
        "run_record_twomemory_distribute.sh": "output/train_record.log",
        "run_squad_twomemory_distribute_gpu.sh": "train_parallel_squad/train_squad.log",
        "run_record_twomemory_distribute_gpu.sh": "train_parallel/train_record.log",
        "run_squad_eval.sh": "eval_squad.log", "run_squad_eval_gpu.sh": "eval_squad.log",
        "run_record_eval.sh": "eval_record.log", "run_record_eval_gpu.sh": "eval_record.log",
        "run_squad_wordnet.sh": "output/train_squad_wordnet.log", "run_squad_nell.sh": "output/train_squad_nell.log",
        "run_record_wordnet.sh": "output/train_record_wordnet.log",
        "run_record_nell.sh": "output/train_record_nell.log"}
SCRIPTS = sorted(path for folder in ("scripts", "ascend310_infer") for path in (REPOSITORY / folder).glob("*.sh"))
# Writes down how it was called and does what STUB_DO says; CHECK=1 lets the launcher's checks be made by Python.
STUB = """#!/usr/bin/env bash
case $1 in
    -c | -I) exec REAL "$@" ;;
    -m) [[ $2 != utils.rank_table ]] || exec REAL "$@"
        [[ ${MSRUN:-0} != 1 ]] || exec REAL "$@" ;;
esac
if [[ " $* " == *" --check_only True "* || " $* " == *" --convert_only True "* ]]; then
    if [[ ${CHECK:-0} == 1 ]]; then exec REAL "$@"; fi
    eval "${STUB_CHECK:-exit 0}"
fi
printf '%s\\n' "$@" >"$STUB_FOLDER/arguments-${RANK_ID:-0}"
if [[ ${MS_ROLE:-} == MS_SCHED ]]; then exec sleep 60; fi
eval "${STUB_DO:-:}"
"""


class Launchers:
    """A copy of the repository's scripts and what is needed to call them."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a copy"
        self.caller = folder / "where the caller is"
        self.notes = folder / "notes"
        for path in (self.root, self.caller / "my data", self.notes):
            path.mkdir(parents=True)
        for name in ("scripts", "src", "utils", "config"):
            shutil.copytree(REPOSITORY / name, self.root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for script in [*REPOSITORY.glob("run_KTNET_*.py"), REPOSITORY / "predict.py"]:
            shutil.copy(script, self.root)
        self.stub = folder / "stub python"
        self.stub.write_text(STUB.replace("REAL", sys.executable), encoding="utf-8")
        self.stub.chmod(0o755)
        (self.caller / "a.ckpt").touch()
        self.write_rank_table(range(2))

    def write_rank_table(self, ranks: range) -> None:
        """A rank table of one host."""
        table = {"version": "1.0", "server_count": "1", "status": "completed", "server_list": [{
            "server_id": "10.0.0.1", "device": [{"device_id": str(rank), "device_ip": "10.1.0.1", "rank_id": str(rank)}
                                                for rank in ranks]}]}
        (self.caller / "rank table.json").write_text(json.dumps(table), encoding="utf-8")

    def environment(self, **values: str) -> dict[str, str]:
        """Of a call."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MS_", "RANK_", "NODE"))}
        return {**kept, "PYTHON": str(self.stub), "STUB_FOLDER": str(self.notes), "DEVICE_TARGET": "CPU",
                "FOREGROUND": "1", **values}

    def call(self, name: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a launcher from the caller's folder."""
        return subprocess.run(["bash", str(self.root / "scripts" / name), *arguments], cwd=self.caller,
                              env=self.environment(**environment), capture_output=True, text=True, timeout=300,
                              check=False)

    def usual(self, name: str) -> list[str]:
        """Arguments that a launcher accepts."""
        if "eval" in name:
            return ["my data", "a.ckpt"]
        if "distribute" in name:
            return ["my data", "2" if "gpu" in name else "rank table.json"]
        return ["my data"]

    def arguments(self) -> list[str]:
        """What the stand-in was last called with."""
        return (self.notes / "arguments-0").read_text(encoding="utf-8").splitlines()

    def made(self) -> set[str]:
        """What a launcher has made in the copy."""
        return {path.name for path in self.root.iterdir()} - {"scripts", "src", "utils", "config", *(
            script.name for script in REPOSITORY.glob("run_KTNET_*.py")), "predict.py"}


@pytest.fixture
def launchers(tmp_path: Path) -> Launchers:
    return Launchers(tmp_path)


def value_of(arguments: list[str], flag: str) -> str:
    """The value that counts: the last one."""
    return arguments[len(arguments) - 1 - arguments[::-1].index(flag) + 1]


def wait_until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("name", LOGS)
def test_asks_for_its_arguments(launchers: Launchers, name: str) -> None:
    result = launchers.call(name)
    assert result.returncode == 2 and "DATAPATH" in result.stderr and result.stderr.count("\n") == 1
    flag = launchers.call(name, "--epoch", "3")
    assert flag.returncode == 2 and "--epoch: flags of the Python script go after --" in flag.stderr
    assert not launchers.made()


@pytest.mark.parametrize("name", LOGS)
def test_starts_the_right_script(launchers: Launchers, name: str) -> None:
    result = launchers.call(name, *launchers.usual(name), "--", "--batch_size", "3", "--kb_config", "a b.json",
                            LAUNCHER="ranktable" if name.endswith("distribute.sh") else "msrun",
                            STUB_DO="echo from the script")
    assert result.returncode == 0, result.stderr + result.stdout
    arguments = launchers.arguments()
    task = "squad" if "squad" in name else "record"
    script = launchers.root / f"run_KTNET_{task}{'_eval' if 'eval' in name else ''}.py"
    assert str(script) in arguments
    assert value_of(arguments, "--device_target") == "CPU"
    assert Path(value_of(arguments, "--data_url")) == launchers.caller / "my data"
    assert arguments[-4:] == ["--batch_size", "3", "--kb_config", "a b.json"]
    if "eval" in name:
        assert Path(value_of(arguments, "--load_checkpoint_path")) == launchers.caller / "a.ckpt"
    if "distribute" in name:
        assert value_of(arguments, "--is_distribute") == "True" and value_of(arguments, "--device_num") == "2"
    if name.endswith("distribute_gpu.sh"):
        assert {"--worker_num=2", "--local_worker_num=2", "--join=True"} <= set(arguments)
    else:
        assert "from the script" in (launchers.root / LOGS[name]).read_text() and "from the script" in result.stdout
    assert ("7e-5" in arguments) == (name == "run_record_twomemory_distribute.sh")
    for base, other in (("wordnet", "nell"), ("nell", "wordnet")):
        assert (f"--use_{other}" in arguments) == name.endswith(f"{base}.sh")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_help_and_nothing_else(path: Path, tmp_path: Path) -> None:
    before = {entry.name for entry in REPOSITORY.iterdir()}
    result = subprocess.run(["bash", str(path), "--help"], cwd=tmp_path, capture_output=True, text=True, check=False,
                            env={"PATH": os.environ["PATH"]})
    assert result.returncode == 0 and result.stderr == ""
    assert "xample: " in result.stdout and "nvironment" in result.stdout
    assert not list(tmp_path.iterdir()) and {entry.name for entry in REPOSITORY.iterdir()} == before


def test_device_of_the_launcher(launchers: Launchers) -> None:
    for name, device in (("run_squad_twomemory.sh", "Ascend"), ("run_squad_twomemory_gpu.sh", "GPU"),
                         ("run_record_eval.sh", "Ascend"), ("run_record_eval_gpu.sh", "GPU")):
        assert launchers.call(name, *launchers.usual(name), DEVICE_TARGET="").returncode == 0
        assert value_of(launchers.arguments(), "--device_target") == device


def test_earlier_logs_and_results_are_kept(launchers: Launchers) -> None:
    results = launchers.root / "output" / "eval_squad"
    for number in range(3):
        launchers.call("run_squad_eval.sh", "my data", "a.ckpt",
                       STUB_DO=f"echo run {number}; mkdir -p '{results}'; echo {number} >'{results}/predictions.json'")
    logs = [launchers.root / name for name in ("eval_squad.1.log", "eval_squad.2.log", "eval_squad.log")]
    assert [log.read_text() for log in logs] == ["run 0\n", "run 1\n", "run 2\n"]
    folders = [results.with_name(name) for name in ("eval_squad.1", "eval_squad.2", "eval_squad")]
    assert [(folder / "predictions.json").read_text() for folder in folders] == ["0\n", "1\n", "2\n"]


def test_foreground_gives_the_scripts_exit_code(launchers: Launchers) -> None:
    result = launchers.call("run_squad_twomemory.sh", "my data", STUB_DO="echo out; echo err >&2; exit 7")
    assert result.returncode == 7
    assert (launchers.root / "output" / "train_squad.log").read_text() == "out\nerr\n"


def test_foreground_passes_signals_on(launchers: Launchers) -> None:
    launcher = subprocess.Popen(["bash", str(launchers.root / "scripts" / "run_squad_twomemory.sh"), "my data"],
                                cwd=launchers.caller, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                env=launchers.environment(STUB_DO='echo $$ >"$STUB_FOLDER/pid"; exec sleep 60'))
    pid = launchers.notes / "pid"
    wait_until(lambda: pid.exists() and pid.read_text().endswith("\n"))
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(30) == 128 + signal.SIGTERM
    assert not is_alive(int(pid.read_text()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.parametrize(("name", "arguments"), [
    ("run_squad_twomemory.sh", ["my data"]), ("run_squad_eval.sh", ["my data", "a.ckpt"]),
    ("run_squad_twomemory_distribute_gpu.sh", ["my data", "2"])])
def test_a_launcher_that_is_killed_while_it_checks_leaves_nothing(
        launchers: Launchers, name: str, arguments: list[str], number: signal.Signals) -> None:
    launcher = subprocess.Popen(
        ["bash", str(launchers.root / "scripts" / name), *arguments], cwd=launchers.caller, stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, env=launchers.environment(STUB_CHECK='echo $$ >"$STUB_FOLDER/pid"; exec sleep 600'))
    pid = launchers.notes / "pid"
    wait_until(lambda: pid.exists() and pid.read_text().endswith("\n"))
    launcher.send_signal(number)
    assert launcher.wait(30) != 0
    wait_until(lambda: not is_alive(int(pid.read_text())))


def test_background_tells_pid_and_log(launchers: Launchers) -> None:
    result = launchers.call("run_record_twomemory_gpu.sh", "my data", FOREGROUND="0",
                            STUB_DO="echo at work; exec sleep 60")
    assert result.returncode == 0
    words = result.stdout.split()
    pid = int(words[words.index("PID") + 1].rstrip(","))
    log = launchers.root / "train" / "train_record.log"
    try:
        assert str(log) in result.stdout
        wait_until(lambda: log.read_text() == "at work\n")
        assert is_alive(pid)
    finally:
        os.kill(pid, signal.SIGKILL)


def test_one_training_at_a_time(launchers: Launchers, data: Path) -> None:
    first = subprocess.Popen(["bash", str(launchers.root / "scripts" / "run_squad_twomemory.sh"), str(data)],
                             cwd=launchers.caller, stdout=subprocess.DEVNULL,
                             env=launchers.environment(CHECK="1", STUB_DO="echo at work; exec sleep 600"))
    log = launchers.root / "output" / "train_squad.log"
    wait_until(lambda: log.exists() and log.read_text() == "at work\n")
    mine = launchers.root / "output" / "finetune_checkpoint" / "KTNET_squad-1_1.ckpt"
    mine.touch()
    for flags in ([], ["--", "--resume", "True"]):
        second = launchers.call("run_squad_twomemory.sh", str(data), *flags, CHECK="1", FOREGROUND="0")
        assert second.returncode == 2 and second.stderr.count("\n") == 1
        assert mine.exists() and [path.name for path in log.parent.glob("*.log")] == [log.name]
    holder = re.search(r"\(process ([0-9]+)\)", second.stderr)
    assert holder is not None, second.stderr
    os.kill(int(holder[1]), signal.SIGTERM)
    assert first.wait(30) == 143
    again = launchers.call("run_squad_twomemory.sh", str(data), CHECK="1")
    assert again.returncode == 0 and "kept from an earlier run" in again.stdout and not mine.exists()


def test_settings_of_the_callers_shell_change_nothing(launchers: Launchers) -> None:
    other = launchers.caller / "scripts"        # where CDPATH would lead to
    other.mkdir()
    (launchers.caller / "utils").mkdir()
    (launchers.caller / "utils" / "__init__.py").write_text("raise SystemExit('the wrong utils')\n")
    result = subprocess.run(
        ["bash", "scripts/run_squad_twomemory.sh", str(launchers.caller / "my data")], cwd=launchers.root,
        env=launchers.environment(CDPATH=f".:{launchers.caller}", PYTHONHOME="/nowhere", PYTHONOPTIMIZE="2",
                                  PYTHONSAFEPATH="1", PYTHONPATH=str(launchers.caller), PYTHONWARNINGS="error",
                                  CHECK="1", STUB_DO="env >$STUB_FOLDER/environment"),
        capture_output=True, text=True, check=False)
    assert result.returncode == 2 and "train-v1.1.json: no such file" in result.stderr, result.stderr


@pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="an archive, not a clone")
def test_a_clone_of_git_for_windows_has_scripts_that_start(tmp_path: Path) -> None:
    subprocess.run(["git", "-c", "core.autocrlf=true", "clone", "-q", REPOSITORY, tmp_path / "clone"], check=True)
    scripts = [path for ending in ("*.sh", "*.py") for path in (tmp_path / "clone").rglob(ending)]
    assert len(scripts) > 100 and not [path for path in scripts if b"\r" in path.read_bytes()]


def test_newest_checkpoint_is_the_one_of_the_last_step(launchers: Launchers) -> None:
    output = launchers.root / "quickstart_output"
    for run, names in (("old", ("KTNET_squad-9_90.ckpt",)),
                       ("new", ("KTNET_squad-2_9.ckpt", "KTNET_squad-2_10.ckpt", "KTNET_squad-best.ckpt"))):
        folder = output / run / "squad" / "finetune_checkpoint"
        folder.mkdir(parents=True)
        for age, name in enumerate(names):
            (folder / name).touch()
            os.utime(folder / name, (2_000_000_000 - age,) * 2)     # the last step's is older, as after a copy
        os.utime(folder, (1000 if run == "old" else 2000,) * 2)
    assert launchers.call("ask.sh", "a passage of words", "a question?").returncode == 0
    arguments = launchers.arguments()
    assert value_of(arguments, "--load_checkpoint_path") == str(output / "new/squad/finetune_checkpoint"
                                                                          "/KTNET_squad-2_10.ckpt")
    assert value_of(arguments, "--data_url") == str(output / "new" / "data")


def test_two_stages(launchers: Launchers) -> None:
    assert launchers.call("run_record_twomemory.sh", "my data", STAGE="freeze").returncode == 0
    first = launchers.arguments()
    wanted = {"--freeze": "True", "--epoch": "10", "--learning_rate": "3e-4", "--warmup_proportion": "0",
              "--use_ema": "False", "--lr_schedule": "constant", "--encoder_dropout": "True"}
    assert {flag: value_of(first, flag) for flag in wanted} == wanted
    early = launchers.call("run_record_twomemory.sh", "my data", STAGE="full")
    assert early.returncode == 2 and "STAGE=freeze first" in early.stderr
    folder = Path(value_of(first, "--save_finetune_checkpoint_path"))
    folder.mkdir(parents=True)
    for age, name in enumerate(("KTNET_record-10_1.ckpt", "KTNET_record-9_1.ckpt", "KTNET_squad-1_1.ckpt")):
        (folder / name).touch()
        os.utime(folder / name, (1000 - 100 * age,) * 2)
    assert launchers.call("run_record_twomemory.sh", "my data", STAGE="full").returncode == 0
    second = launchers.arguments()
    assert Path(value_of(second, "--init_checkpoint")).name == "KTNET_record-10_1.ckpt"
    assert value_of(second, "--learning_rate") == "3e-5" and "--freeze" not in second
    assert "--config" not in first and "--config" not in second
    assert launchers.call("run_record_twomemory.sh", "my data", STAGE="half").returncode == 2


def test_both_stages_are_the_default(launchers: Launchers) -> None:
    assert launchers.call("run_squad_twomemory.sh", "my data", "--", "--epoch", "2").returncode == 0
    assert value_of(launchers.arguments(), "--config") == str(launchers.root / "config" / "two_stages.yaml")
    for freeze in (["--freeze", "True"], ["--freeze=True"]):
        assert launchers.call("run_squad_twomemory.sh", "my data", "--", *freeze).returncode == 0
        assert "--config" not in launchers.arguments()


# --- what the checks find --------------------------------------------------------------------------------------------


@pytest.fixture
def data(training_data: DataFolder) -> Path:
    return training_data.root


@pytest.mark.parametrize("name, arguments, environment, words", [
    ("run_squad_twomemory.sh", ["nowhere"], {}, "nowhere: no such folder"),
    ("run_squad_twomemory.sh", ["my data"], {}, "train-v1.1.json: no such file"),
    ("run_squad_twomemory.sh", ["DATA", "--", "--epochs", "3"], {}, "unrecognized arguments: --epochs"),
    ("run_squad_twomemory.sh", ["DATA", "--", "--bert_config_path", "b.json"], {}, "b.json: no such file"),
    ("run_squad_twomemory.sh", ["DATA"], {"STUB_PYTHON": "no-such-python"}, "no-such-python is not a program"),
    ("run_squad_twomemory_gpu.sh", ["DATA"], {"DEVICE_TARGET": ""}, "1 wanted, 0 found"),
    ("run_squad_twomemory.sh", ["DATA"], {"DEVICE_TARGET": ""}, "Ascend: 1 wanted, 0 found"),
    ("run_squad_eval.sh", ["DATA", "a.ckpt"], {"DEVICE_TARGET": ""}, "Ascend: 1 wanted, 0 found"),
    ("run_squad_twomemory_distribute.sh", ["DATA", "rank table.json"], {"DEVICE_TARGET": ""},
     "Ascend: 2 wanted, 0 found"),
    ("run_squad_eval.sh", ["DATA", "b.ckpt"], {}, "b.ckpt: no such file"),
    ("run_squad_twomemory_distribute.sh", ["DATA", "no table.json"], {}, "no table.json: no such file"),
    ("run_squad_twomemory_distribute.sh", ["DATA", "a.ckpt"], {}, "a.ckpt: line 1, column 1: not JSON"),
    ("run_squad_twomemory_distribute_gpu.sh", ["DATA", "many"], {}, "many is not a number of devices"),
    ("run_squad_twomemory_distribute_gpu.sh", ["DATA", "99999999999999999999"], {}, "is not a number of devices"),
    ("run_squad_twomemory_distribute_gpu.sh", ["DATA", "2"], {"LAUNCHER": "hand"}, "use msrun, mpirun or ranktable"),
    ("run_squad_twomemory_distribute_gpu.sh", ["DATA", "2"], {"NNODES": "2"}, "MASTER_ADDR must be"),
    ("run_squad_twomemory_distribute_gpu.sh", ["DATA", "2"],
     {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "no-such-host.invalid"}, "no-such-host.invalid: no host"),
    ("run_squad_twomemory_distribute_gpu.sh", ["DATA", "2"], {"MASTER_PORT": "BUSY"}, "is in use on this host"),
    ("run_squad_twomemory_distribute_gpu.sh", ["DATA", "2"], {"MASTER_PORT": "70000"}, "not a port from 1 to 65535"),
    ("run_squad_twomemory_distribute_gpu.sh", ["DATA", "2"], {"NNODES": "2", "LAUNCHER": "mpirun"}, "on one host only"),
])
def test_refused_before_anything_starts(launchers: Launchers, data: Path, name: str, arguments: list[str],
                                        environment: dict[str, str], words: str) -> None:
    environment = dict(environment)
    if "STUB_PYTHON" in environment:
        environment["PYTHON"] = environment.pop("STUB_PYTHON")
    (launchers.caller / "bin").mkdir()
    with socket.socket() as busy:
        busy.bind(("", 0))
        busy.listen()
        if environment.get("MASTER_PORT") == "BUSY":
            environment["MASTER_PORT"] = str(busy.getsockname()[1])
        refused_before_anything_starts(launchers, data, name, arguments, environment, words)


def refused_before_anything_starts(launchers: Launchers, data: Path, name: str, arguments: list[str],
                                   environment: dict[str, str], words: str) -> None:
    empty = launchers.caller / "bin" / "nvidia-smi"        # a driver that sees no GPU, wherever this runs
    empty.write_text("#!/bin/sh\n", encoding="utf-8")
    empty.chmod(0o755)
    shutil.copy(empty, empty.with_name("mpirun"))
    result = launchers.call(name, *(str(data) if word == "DATA" else word for word in arguments), CHECK="1",
                            PATH=f"{empty.parent}:{os.environ['PATH']}", **environment)
    assert result.returncode == 2
    assert words in result.stderr and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert not launchers.made() and not list(launchers.notes.iterdir())


def test_devices_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listing = tmp_path / "nvidia-smi"
    listing.write_text("#!/bin/sh\necho 'GPU 0: one (UUID: a)'\necho 'GPU 1: two (UUID: b)'\n", encoding="utf-8")
    listing.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert count_devices("GPU") == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert count_devices("GPU") == 1
    for number in range(8):
        (tmp_path / f"davinci{number}").touch()
    (tmp_path / "davinci_manager").touch()
    monkeypatch.delenv("ASCEND_RT_VISIBLE_DEVICES", raising=False)
    assert count_devices("Ascend", tmp_path) == 8


def test_rank_tables(launchers: Launchers) -> None:
    path = launchers.caller / "rank table.json"
    assert read_rank_table(path, 0, 1) == [(0, 0), (1, 1)]
    with pytest.raises(InputError, match="NNODES"):
        read_rank_table(path, 0, 2)
    with pytest.raises(InputError, match="--node_rank 3: with 1 hosts it is at most 0"):
        read_rank_table(path, 3, 1)
    with pytest.raises(InputError, match="absent.json: no such file; RANK_TABLE_FILE is"):
        read_rank_table(path.with_name("absent.json"), 0, 1)
    launchers.write_rank_table(range(1, 3))
    with pytest.raises(InputError, match=r"ranks are \[1, 2\]"):
        read_rank_table(path, 0, 1)
    path.write_text('{"server_list": [{"device": [{"rank_id": "0"}]}]}', encoding="utf-8")
    with pytest.raises(InputError, match="not a rank table"):
        read_rank_table(path, 0, 1)


@pytest.mark.parametrize("text", [
    "[]", "3", '{"server_list": {}}', '{"server_list": "abc"}', '{"server_list": [{"device": [[]]}]}',
    '{"server_list": [{"device": [{"rank_id": NUMBER, "device_id": "0"}]}]}'])
@pytest.mark.parametrize("number", ["Infinity", "NaN", "1e400", "9" * 5000, '"' + "9" * 5000 + '"', "0.5", "true", "-1",
                                    '"²"', "null", "{}"])
def test_broken_rank_tables(tmp_path: Path, text: str, number: str) -> None:
    path = tmp_path / "table.json"
    path.write_text(text.replace("NUMBER", number), encoding="utf-8")
    with pytest.raises(InputError, match="table.json: ") as refusal:
        read_rank_table(path, 0, 1)
    assert len(str(refusal.value)) < 1000


# --- several processes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("launcher", ["msrun", "ranktable", "mpirun"])
def test_one_failure_ends_all(launchers: Launchers, launcher: str) -> None:
    mpirun = launchers.caller / "mpirun"       # stands in for Open MPI's
    mpirun.write_text("""#!/usr/bin/env bash
count=$2
while [[ $1 != bash ]]; do shift; done
for ((rank = 0; rank < count; rank++)); do OMPI_COMM_WORLD_RANK=$rank RANK_ID=$rank "$@" & done
wait
""", encoding="utf-8")
    mpirun.chmod(0o755)
    result = launchers.call(
        "run_squad_twomemory_distribute.sh", "my data", "rank table.json", LAUNCHER=launcher, MSRUN="1",
        PATH=f"{launchers.caller}:{os.environ['PATH']}",
        STUB_DO='echo $$ >"$STUB_FOLDER/pid-$RANK_ID"; echo "here is $RANK_ID"; '
                'if [[ $RANK_ID == 1 ]]; then sleep 3; echo the reason; exit 5; fi; exec sleep 60')
    assert result.returncode == 5, result.stdout + result.stderr
    assert "process 1 of 2 ended with code 5" in result.stdout and "the reason" in result.stdout
    assert "here is 0" in result.stdout
    assert not is_alive(int((launchers.notes / "pid-0").read_text()))
    assert "here is 0" in (launchers.root / "output" / "train_squad_workers" / "worker_0.log").read_text()


def test_stopping_the_launcher_stops_all(launchers: Launchers) -> None:
    launcher = subprocess.Popen(
        ["bash", str(launchers.root / "scripts" / "run_squad_twomemory_distribute_gpu.sh"), "my data", "2"],
        cwd=launchers.caller, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=launchers.environment(MSRUN="1", STUB_DO='echo $$ >"$STUB_FOLDER/pid-$RANK_ID"; exec sleep 60'))
    pids = [launchers.notes / f"pid-{rank}" for rank in range(2)]
    wait_until(lambda: all(pid.exists() and pid.read_text().endswith("\n") for pid in pids))
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(60) != 0
    wait_until(lambda: not any(is_alive(int(pid.read_text())) for pid in pids))


# --- the real thing --------------------------------------------------------------------------------------------------


def test_train_twice_and_evaluate(launchers: Launchers, data: Path) -> None:
    flags = ["--", "--first_epoch", "1", "--epoch", "1", "--batch_size", "8", "--buckets", "1", "--learning_rate",
             "0.003"]                                           # two stages of 3 steps
    for _ in range(2):
        result = launchers.call("run_squad_twomemory_gpu.sh", str(data), *flags, PYTHON=sys.executable)
        assert result.returncode == 0, result.stdout + result.stderr
    output = launchers.root / "output"
    checkpoint = output / "finetune_checkpoint" / "KTNET_squad-2_3.ckpt"
    assert "epoch: 2 step: 3, loss is" in (launchers.root / "train_squad" / "train_squad.log").read_text()
    assert checkpoint.is_file() and (output / "finetune_checkpoint.1" / checkpoint.name).is_file()
    assert (output.with_name("output.1") / "metrics_squad.jsonl").is_file()
    assert (launchers.root / "train_squad" / "train_squad.1.log").is_file()
    result = launchers.call("run_squad_eval_gpu.sh", str(data), os.path.relpath(checkpoint, launchers.caller),
                            PYTHON=sys.executable)
    assert result.returncode == 0, result.stdout + result.stderr
    figures = json.loads((launchers.root / "eval_squad.log").read_text().strip().splitlines()[-1])
    assert figures == json.loads((output / "eval_squad" / "eval_result.json").read_text())


def test_a_new_training_moves_its_own_data_sets_files_aside_alone(launchers: Launchers, data: Path) -> None:
    checkpoints = launchers.root / "output" / "finetune_checkpoint"
    checkpoints.mkdir(parents=True)
    kept = {"KTNET_record-1_9.ckpt", "training_state_record.json", "of the user.txt"}
    moved = {"KTNET_squad-3_9.ckpt", "KTNET_squad-3_9.json"}           # no state: of another program
    for name in kept | moved:
        (checkpoints / name).write_text(name)
    start = checkpoints / "KTNET_squad-3_9.ckpt"
    refused = launchers.call("run_squad_twomemory.sh", str(data), "--", "--init_checkpoint", str(start), CHECK="1")
    assert refused.returncode == 2 and "give another folder" in refused.stderr and start.is_file()
    result = launchers.call("run_squad_twomemory.sh", str(data), CHECK="1")
    assert result.returncode == 0 and f"kept from an earlier run: {checkpoints}.1\n" in result.stdout, result.stderr
    assert {path.name for path in checkpoints.iterdir()} == kept | {".training_squad.lock"}
    assert {path.name: path.read_text() for path in checkpoints.with_name(checkpoints.name + ".1").iterdir()} == {
        name: name for name in moved}


def test_the_logs_of_several_hosts_lie_apart(launchers: Launchers) -> None:
    name = "run_squad_twomemory_distribute_gpu.sh"
    hosts = {"NNODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "8118"}
    assert launchers.call(name, "my data", "2", **hosts).returncode == 0
    assert {path.name for path in (launchers.root / "train_parallel_squad").iterdir()} == {
        "train_squad_node1.log", "train_squad_node1_workers"}
    assert value_of(launchers.arguments(), "--device_num") == "4"
    assert launchers.call(name, "my data", "2", NODE_RANK="3").returncode == 0     # of a scheduler, without NNODES
    assert (launchers.root / "train_parallel_squad" / "train_squad_workers").is_dir()


def test_two_processes_train_together(launchers: Launchers, data: Path) -> None:
    result = launchers.call("run_squad_twomemory_distribute_gpu.sh", str(data), "2", "--", "--epoch", "1",
                            "--first_epoch", "1", "--batch_size", "4", "--buckets", "1", PYTHON=sys.executable)
    assert result.returncode == 0, result.stdout + result.stderr
    log = (launchers.root / "train_parallel_squad" / "train_squad.log").read_text()
    assert "epoch: 2 step: 3, loss is" in log     # a stage each
    workers = launchers.root / "train_parallel_squad" / "train_squad_workers"
    assert "epoch: 2 step: 3, loss is" in (workers / "worker_1.log").read_text()
    assert (launchers.root / "output" / "finetune_checkpoint" / "KTNET_squad-2_3.ckpt").is_file()


def process_of_rank(root: Path, rank: int) -> int:
    """The Python process of a rank of a distributed training."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if (str(root / "run_KTNET_squad.py").encode() in words[:3] and b"bash" not in words[0]
                and f"RANK_ID={rank}".encode() in variables and b"MS_ROLE=MS_WORKER" in variables):
            found.append(int(folder.name))
    assert len(found) == 1
    return found[0]


def test_a_killed_process_ends_the_run(launchers: Launchers, data: Path) -> None:
    launcher = subprocess.Popen(
        ["bash", str(launchers.root / "scripts" / "run_squad_twomemory_distribute_gpu.sh"), str(data), "2", "--",
         "--epoch", "1000", "--batch_size", "4", "--buckets", "1", "--log_steps", "1"], cwd=launchers.caller,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=launchers.environment(PYTHON=sys.executable))
    workers = launchers.root / "train_parallel_squad" / "train_squad_workers"
    log = workers / "worker_1.log"
    wait_until(lambda: log.is_file() and "epoch: 1 step: 3, loss is" in log.read_text(), 240)
    first, second = (process_of_rank(launchers.root, rank) for rank in range(2))
    os.kill(second, signal.SIGKILL)
    shown, _ = launcher.communicate(timeout=240)
    assert launcher.returncode == 128 + signal.SIGKILL, shown
    assert "process 1 of 2 ended with code 137; all others were ended" in shown
    assert "the end of" in shown and "worker_1.log" in shown
    assert not is_alive(first)


def test_a_killed_launcher_leaves_nothing(launchers: Launchers) -> None:
    started = launchers.call("run_squad_twomemory_distribute_gpu.sh", "my data", "2", FOREGROUND="0", MSRUN="1",
                             STUB_DO='echo $$ >"$STUB_FOLDER/pid-$RANK_ID"; exec sleep 60')
    notes = [launchers.notes / f"pid-{rank}" for rank in range(2)]
    wait_until(lambda: all(note.exists() and note.read_text().endswith("\n") for note in notes))
    words = started.stdout.split()
    os.kill(int(words[words.index("PID") + 1].rstrip(",")), signal.SIGKILL)
    wait_until(lambda: not any(is_alive(int(note.read_text())) for note in notes), 10)
