# SPDX-License-Identifier: Apache-2.0
"""One training at a time in a checkpoint folder, and a state that knows its settings."""
from __future__ import annotations

import fcntl
from pathlib import Path

import numpy as np
import pytest
from mindspore import Parameter, Tensor

from src.checks import show_training
from src.config import SQUAD
from src.settings import TrainingSettings
from src.training import stages
from src.training.lock import check_unlocked, lock_path, training_lock
from src.training.state import OUTPUT_KEPT, TrainingState
from testing.reference import TINY
from utils.util import InputError

SETTINGS = {"learning_rate": 0.1, "features_md5": "a"}


def state(folder: Path, value: float = 0.0) -> TrainingState:
    return TrainingState(folder, "squad", [Parameter(Tensor(np.full(3, value, np.float32)), name="weight")])


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A folder with a training of two steps."""
    training = state(tmp_path, 5.0)
    training.begin(SETTINGS)
    training.save(2)
    return tmp_path


def test_a_lost_settings_file_is_written_again(begun: Path) -> None:
    path = begun / "training_state_squad.json"
    before = path.read_bytes()
    path.unlink()
    training = state(begun)
    assert training.resume(dict(SETTINGS)) == 2
    assert training.parameters["weight"].asnumpy().tolist() == [5.0] * 3 and path.read_bytes() == before
    training.save(3)
    assert state(begun).resume(dict(SETTINGS)) == 3


def test_a_lost_settings_file_and_other_flags(begun: Path) -> None:
    (begun / "training_state_squad.json").unlink()
    with pytest.raises(InputError, match="resume with the same") as refusal:
        state(begun).resume({**SETTINGS, "learning_rate": 0.2})
    assert "--resume" not in str(refusal.value)     # that is what the user has just done
    assert not (begun / "training_state_squad.json").exists()


def test_files_of_two_trainings_are_refused(begun: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    settings = {**SETTINGS, "features_md5": "b"}
    state(other).begin(settings)
    (other / "training_state_squad.json").replace(begun / "training_state_squad.json")
    with pytest.raises(InputError, match="belongs to another training"):
        state(begun).resume(settings)


def test_one_training_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with training_lock(tmp_path, "squad"):
        for second in (lambda: check_unlocked(tmp_path, "squad"), lambda: training_lock(tmp_path, "squad").__enter__()):
            with pytest.raises(InputError, match=r"another training is writing .*\(process \d+\)"):
                second()
        with training_lock(tmp_path, "record"):     # the other data set's files are its own
            pass
    check_unlocked(tmp_path, "squad")
    with open(lock_path(tmp_path, "squad"), "w", encoding="utf-8") as held:      # by a launcher
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("12-abc")
        held.flush()
        with pytest.raises(InputError, match="process 12"):
            check_unlocked(tmp_path, "squad")
        monkeypatch.setenv("KTNET_RUN", "7-def/12-abc")
        check_unlocked(tmp_path, "squad")
        with training_lock(tmp_path, "squad"):
            pass


def test_other_hosts_of_a_run_share_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrainingSettings.of({"save_finetune_checkpoint_path": tmp_path}, SQUAD).resolved()
    with training_lock(tmp_path, "squad"):
        monkeypatch.setenv("NODE_RANK", "1")
        show_training(settings)
        monkeypatch.setenv("NODE_RANK", "0")
        with pytest.raises(InputError, match="another training"):
            show_training(settings)


def test_what_memory_allowed_is_told_and_kept_to(begun: Path) -> None:
    assert state(begun).begun_with(OUTPUT_KEPT) is None is TrainingState(begun, "record").begun_with(OUTPUT_KEPT)
    path = begun / "training_state_squad.json"
    path.write_text('{"encoder_output_kept": true}', encoding="utf-8")
    assert state(begun).begun_with(OUTPUT_KEPT) is True
    (begun / "training_state_squad.ckpt").unlink()
    with pytest.raises(InputError, match="started with encoder_output_kept True, not False; free more memory, or"):
        state(begun).resume({OUTPUT_KEPT: False})


@pytest.mark.parametrize(("may_keep", "available", "keeps"), [
    (True, 1e6, [True, False]), (True, 100.0, [False, False]), (False, 1e6, [False, False])])
def test_an_encoder_s_output_is_kept_where_it_may_and_fits(monkeypatch, may_keep, available, keeps) -> None:
    monkeypatch.setattr(stages, "feature_lengths", lambda path: np.full(10, 16, np.int32))      # of 4 KB each
    monkeypatch.setattr(stages, "available_memory", lambda: available)
    settings = TrainingSettings.parse(["--stages", "two", "--first_epoch", "2"], SQUAD)
    planned = [stages.Stage(number, recipe, (16,), 5, 0)
               for number, recipe in enumerate(settings.recipe.in_stages(SQUAD.first_stages), 1)]
    kept = stages.with_encoded_features(planned, settings, TINY, may_keep)
    assert [stage.keeps_encoded for stage in kept] == keeps
