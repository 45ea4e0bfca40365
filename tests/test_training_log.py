# SPDX-License-Identifier: Apache-2.0
"""What people watch while a network trains: lines, bar, files, the words at the end."""
from __future__ import annotations

import io
import json
import logging
import shlex
import struct
import sys

import pytest

from src.training.log import LogFiles, StepRecord, TrainingLog, TrainingPlan, check_scalars, read_metrics
from utils import progress
from utils.progress import Progress, duration, follow
from utils.util import InputError, set_up_logging

PLAN = TrainingPlan(steps_per_epoch=4, stage_ends=(4, 12), questions_per_step=6.0, log_steps=3)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def record(step, **values):
    return StepRecord(**{"step": step, "epoch": (step - 1) // 4 + 1, "loss": 2.5, "learning_rate": 0.001,
                         "gradient_norm": 1.0, "loss_scale": 1.0, "overflow": False, "length": 48, "seconds": 2.0,
                         **values})


def log_all(folder, plan=PLAN, done=0, ascend=False, writes=True, scalars=False):
    files = LogFiles(folder, "squad")
    with TrainingLog(files, done, plan, ascend, writes, scalars) as log:
        for step in range(done + 1, plan.end + 1):
            log.add(record(step))
            if writes and step % plan.steps_per_epoch == 0:
                log.add_validation(step, step // 4, {"exact_match": 10.0 * step, "f1": 11.0 * step})
    return files


def test_a_line_every_few_steps(tmp_path, caplog):
    caplog.set_level(logging.INFO, "ktnet")
    log_all(tmp_path)
    steps = [message.split("step ")[1].split(" ")[0] for message in caplog.messages]
    assert steps == ["1", "3", "6", "9", "12"]
    assert caplog.messages[1] == ("epoch: 1 step: 3, loss is 2.500000, step 3 of 12, learning rate 1.00e-03, "
                                  "3.0 questions/s, 2 s left in stage 1 of 2")
    assert caplog.messages[3].startswith("epoch: 3 step: 1, loss is 2.500000, step 9 of 12, ")


def test_the_line_of_ascend(tmp_path, caplog):
    caplog.set_level(logging.INFO, "ktnet")
    log_all(tmp_path, ascend=True)
    assert caplog.messages[1].startswith(
        "epoch: 0.0, current epoch percent: 0.750, step: 3, outputs are (Tensor(shape=[1], dtype=Float32, "
        "[ 2.5000000e+00]), Tensor(shape=[], dtype=Bool, False), Tensor(shape=[], dtype=Float32, 1)), step 3 of 12, ")


@pytest.mark.parametrize("end, apart", [(12, 1), (2730, 27), (33_000, 50)])
def test_about_a_hundred_lines_where_nobody_chose(end, apart):
    assert TrainingPlan(4, (end,), 6.0).steps_per_line == apart


def test_one_bar_in_a_terminal(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    set_up_logging()
    log_all(tmp_path)
    assert "epoch:" not in terminal.getvalue()
    last = terminal.getvalue().split("\r")[-1]
    assert last.startswith("100%|")
    assert "loss 2.5000, step 12 of 12, learning rate 1.00e-03, 3.0 questions/s, 0 s left in stage 2 of 2" in last


def test_files_of_a_killed_run_lose_what_is_done_again(tmp_path):
    files = log_all(tmp_path)
    log_all(tmp_path, done=6)
    assert [line["step"] for line in read_metrics(files.metrics)] == list(range(1, 13))
    assert [line["step"] for line in read_metrics(files.validations, ("f1",))] == [4, 8, 12]
    log_all(tmp_path, TrainingPlan(4, (4,), 6.0))
    assert [line["step"] for line in read_metrics(files.validations, ("f1",))] == [4]


def test_other_processes_write_no_files(tmp_path):
    log_all(tmp_path, writes=False)
    assert not list(tmp_path.iterdir())


def events(folder):
    """Event messages of TensorBoard's files: records of length, checksum, bytes, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.iterdir()):
        data, place = path.read_bytes(), 0
        while place < len(data):
            length = struct.unpack_from("<Q", data, place)[0]
            event = Event()
            event.ParseFromString(data[place + 12:place + 12 + length])
            yield event
            place += length + 16


def test_scalars_for_tensorboard(tmp_path):
    pytest.importorskip("tensorboardX")
    files = log_all(tmp_path, scalars=True)
    values = [(event.step, value.tag, value.simple_value) for event in events(files.scalars)
              for value in event.summary.value]
    assert [step for step, tag, _ in values if tag == "loss"] == list(range(1, 13))
    assert (8, "validation/f1", 88.0) in values
    assert {tag for _, tag, _ in values} == {"loss", "learning_rate", "gradient_norm", "loss_scale",
                                             "questions_per_second", "validation/f1", "validation/exact_match"}


def test_scalars_need_a_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(InputError, match="pip install -r requirements-tensorboard.txt"):
        check_scalars()


# ------------------------------------------------------------------------------------------------- progress elsewhere
def test_long_work_says_how_far_it_is(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "ktnet")
    list(follow("abc", "reading", 3, "letters"))
    assert not caplog.messages                          # short work says nothing
    monkeypatch.setattr(progress, "SECONDS_PER_LINE", 0.0)
    assert list(follow("abc", "reading", 3, "letters")) == ["a", "b", "c"]
    assert [message.split(", ")[0] for message in caplog.messages] == [
        "reading: 1 of 3 letters", "reading: 2 of 3 letters", "reading: 3 of 3 letters"]
    with Progress("counting", None, "stars") as counted:
        counted.update(5)
    assert caplog.messages[-1] == "counting: 5 stars"


def test_times_in_words():
    assert [duration(seconds) for seconds in (12.4, 99, 200, 5940, 7300)] == [
        "12 s", "99 s", "3 min", "99 min", "2 h 2 min"]


# --------------------------------------------------------------------------------------------------- a whole training
def test_a_training_shows_the_given_options_and_says_what_to_type_next(trained, training_data):
    output, result = trained
    lines = result.stderr.splitlines()
    start = lines.index(f"options, given or as the features were made (all of them: {output / 'options_squad.json'}):")
    shown = dict(line.split() for line in lines[start + 1:start + 13] if line.startswith("  ") and " " in line.strip()
                 and len(line.split()) == 2)
    assert shown["learning_rate"] == "0.003" and shown["do_val"] == "True" and "weight_decay" not in shown
    checkpoints, metrics, after = lines[-3:]
    best = output / "finetune_checkpoint" / "KTNET_squad-best.ckpt"
    assert checkpoints == f"checkpoints: {best.name}, KTNET_squad-2_6.ckpt in {best.parent}"
    assert metrics == f"metrics: {output / 'metrics_squad.jsonl'}; plot: {output / 'training_squad.png'}"
    command = shlex.split(after.removeprefix("next: "))
    assert command == ["python", "predict.py", "--data_url", str(training_data.root), "--load_checkpoint_path",
                       str(best), "--passage", "...", "--question", "..."]
    validations = [json.loads(line) for line in (output / "validations_squad.jsonl").read_text().splitlines()]
    assert [(line["step"], line["epoch"]) for line in validations] == [(6, 1), (12, 2)]
    assert json.loads(result.stdout.splitlines()[-1])["f1"] == validations[-1]["f1"]


def test_the_next_command_is_one_that_evaluation_takes(tmp_path):
    from src.config import SQUAD
    from src.settings import EvaluationSettings, TrainingSettings
    from src.training.next_steps import evaluating

    settings = TrainingSettings.parse(["--data_url", "my data", "--vocab_path", "v.txt", "--epoch", "3", "--batch_size",
                                       "4", "--checkpoints", "out"], SQUAD)
    command = shlex.split(evaluating(settings, tmp_path / "a.ckpt"))
    assert command[:2] == ["python", "run_KTNET_squad_eval.py"]
    parsed = EvaluationSettings.parse(command[2:], SQUAD)
    assert parsed.given == {"data_url", "load_checkpoint_path", "vocab_path", "batch_size", "checkpoints"}


def test_the_plot_shows_the_whole_schedule_and_validation(tmp_path):
    pytest.importorskip("mindspore")
    from src.config import SQUAD
    from src.settings import TrainingSettings
    from src.training.plot import planned_rates, plot_training
    from src.training.stages import Stage

    settings = TrainingSettings.parse(["--stages", "two", "--first_epoch", "1", "--epoch", "2"], SQUAD)
    recipes = settings.recipe.in_stages(SQUAD.first_stages)
    stages = [Stage(1, recipes[0], (48,), 4, 0), Stage(2, recipes[1], (48,), 4, 1)]
    steps, rates = planned_rates(stages)
    assert steps == list(range(1, 13)) and max(rates[:4]) == 2e-3 and max(rates[4:]) == 3e-5
    files = log_all(tmp_path)
    plot_training(files, stages, "a title")
    tall = struct.unpack(">II", files.plot.read_bytes()[16:24])
    files.validations.unlink()
    plot_training(files, stages, "a title")
    flat = struct.unpack(">II", files.plot.read_bytes()[16:24])
    assert tall[1] > flat[1]                             # the validations have a panel of their own
