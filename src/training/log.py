# SPDX-License-Identifier: Apache-2.0
"""What people watch while a network trains: a bar or log lines, the files of metrics, TensorBoard's scalars."""
from __future__ import annotations

import json
from collections import deque
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from utils.progress import duration
from utils.util import LOGGER, InputError, write_text

PACE = 100                   # steps whose mean time tells what is left
MOST_STEPS_PER_LINE = 50     # where --log_steps does not say

PLOTTED = ("step", "loss", "learning_rate")

@dataclass(frozen=True)
class StepRecord:
    """One step of a training; a line of metrics.jsonl."""

    step: int                # of the whole training, from 1
    epoch: int               # from 1
    loss: float
    learning_rate: float
    gradient_norm: float     # before clipping
    loss_scale: float        # 1 where none is used
    overflow: bool           # nothing was updated
    length: int              # word pieces that the batch was padded to
    seconds: float


class LogFiles:
    """What a training leaves beside its checkpoints.

    Args:
        folder: of results (``--checkpoints``).
        task: name of the data set.
    """

    def __init__(self, folder: Path, task: str) -> None:
        self.metrics = folder / f"metrics_{task}.jsonl"             # one line per step
        self.validations = folder / f"validations_{task}.jsonl"     # one line per evaluation of --do_val
        self.plot = folder / f"training_{task}.png"                 # of losses, learning rate, validations
        self.options = folder / f"options_{task}.json"              # the flags
        self.scalars = folder / f"tensorboard_{task}"               # folder, with --tensorboard True

    def all(self) -> tuple[Path, ...]:
        """All of them."""
        return self.metrics, self.validations, self.plot, self.options, self.scalars


@dataclass(frozen=True)
class TrainingPlan:
    """How long a training is, to tell how far it has come."""

    steps_per_epoch: int
    stage_ends: tuple[int, ...]      # steps that are done when each stage ends
    questions_per_step: float        # of all devices; a long passage is several features, but one question
    log_steps: int | None = None     # steps between two log lines

    @property
    def end(self) -> int:
        """All steps."""
        return self.stage_ends[-1]

    @property
    def steps_per_line(self) -> int:
        """Steps between two log lines; where nobody chose, about a hundred lines in all."""
        return self.log_steps or max(1, min(MOST_STEPS_PER_LINE, self.end // 100))

    def stage_of(self, step: int) -> int:
        """The place in ``stage_ends`` of the stage that a step, from 1, is part of."""
        return next(number for number, end in enumerate(self.stage_ends) if step <= end)


class TrainingLog:
    """Shows every step in a bar, or every n-th in the model zoo's log lines, and writes the files of metrics.

    Args:
        files: where they lie; lines after ``steps_done`` (of a run that was killed) are dropped.
        steps_done: steps that a resumed training has behind it.
        plan: how long the training is.
        ascend: whether the lines have Ascend's form.
        writes: whether this process writes files and has the bar (the first of a distributed run).
        scalars: whether it writes TensorBoard's scalars.
    """

    def __init__(self, files: LogFiles, steps_done: int, plan: TrainingPlan, ascend: bool, writes: bool,
                 scalars: bool = False) -> None:
        self.files, self.plan, self.ascend, self.writes = files, plan, ascend, writes
        self.seconds: deque[float] = deque(maxlen=PACE)
        self.stage = -1
        if writes:
            for path, keys in ((files.metrics, PLOTTED), (files.validations, ("step",))):
                kept = [line for line in read_metrics(path, keys) if line["step"] <= steps_done] if steps_done else []
                if kept or path == files.metrics or path.exists():
                    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self.scalars = open_scalars(files.scalars, steps_done) if scalars and writes else None
        self.bar = tqdm(total=plan.end, initial=steps_done, bar_format="{percentage:3.0f}%|{bar}| {desc}",
                        disable=None if writes else True)
        self._open = ExitStack()

    def __enter__(self) -> TrainingLog:
        """Log lines go above the bar."""
        if not self.bar.disable:
            self._open.enter_context(logging_redirect_tqdm([LOGGER]))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        """Close the bar and the scalars."""
        self.bar.close()
        if self.scalars is not None:
            self.scalars.close()
        self._open.close()

    def add(self, record: StepRecord) -> None:
        """One more step is done."""
        if self.stage != self.plan.stage_of(record.step):        # each stage has a pace of its own
            self.stage = self.plan.stage_of(record.step)
            self.seconds.clear()
        self.seconds.append(record.seconds)
        state = self.describe(record)
        if not self.bar.disable:
            self.bar.set_description_str(f"loss {record.loss:.4f}, {state}", refresh=False)
            self.bar.update()
        elif record.step == 1 or record.step == self.plan.end or record.step % self.plan.steps_per_line == 0:
            LOGGER.info("%s, %s", self.zoo_form(record), state)
        if self.writes:
            append_line(self.files.metrics, asdict(record))
        if self.scalars is not None:
            for name in ("loss", "learning_rate", "gradient_norm", "loss_scale"):
                self.scalars.add_scalar(name, getattr(record, name), record.step)
            self.scalars.add_scalar("questions_per_second", self.plan.questions_per_step / self.pace, record.step)

    def add_validation(self, step: int, epoch: int, result: Mapping[str, float]) -> None:
        """The figures of an evaluation after ``step``."""
        append_line(self.files.validations, {"step": step, "epoch": epoch, **result})
        if self.scalars is not None:
            for name, value in result.items():
                self.scalars.add_scalar(f"validation/{name}", value, step)

    @property
    def pace(self) -> float:
        """Mean seconds of the last steps."""
        return max(sum(self.seconds) / len(self.seconds), 1e-9)

    def describe(self, record: StepRecord) -> str:
        """How far it has come, how fast it goes and how long that will take."""
        left = duration((self.plan.stage_ends[self.stage] - record.step) * self.pace)
        of_stage = f" in stage {self.stage + 1} of {len(self.plan.stage_ends)}" if len(self.plan.stage_ends) > 1 else ""
        return (f"step {record.step} of {self.plan.end}, learning rate {record.learning_rate:.2e}, "
                f"{self.plan.questions_per_step / self.pace:.1f} questions/s, {left} left{of_stage}")

    def zoo_form(self, record: StepRecord) -> str:
        """The step as the older port's logs have it."""
        in_epoch = record.step - (record.epoch - 1) * self.plan.steps_per_epoch
        if self.ascend:
            return (f"epoch: {record.epoch - 1:.1f}, current epoch percent: {in_epoch / self.plan.steps_per_epoch:.3f}"
                    f", step: {record.step}, outputs are (Tensor(shape=[1], dtype=Float32, [ {record.loss:.7e}]), "
                    f"Tensor(shape=[], dtype=Bool, {record.overflow}), Tensor(shape=[], dtype=Float32, "
                    f"{record.loss_scale:.0f}))")
        return f"epoch: {record.epoch} step: {in_epoch}, loss is {record.loss:.6f}"


def check_scalars() -> None:
    """Whether TensorBoard's scalars can be written here.

    Raises:
        InputError: they cannot.
    """
    try:
        import tensorboardX  # noqa: F401 - only whether it is there
    except ImportError:
        raise InputError("--tensorboard True: tensorboardX is not installed; pip install -r "
                         "requirements-tensorboard.txt, or leave the flag out") from None


def open_scalars(folder: Path, steps_done: int):  # type: ignore[no-untyped-def]  # noqa: ANN201 - of an optional package
    """A writer of TensorBoard's scalars, which takes those after ``steps_done`` for undone."""
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(folder), purge_step=steps_done + 1)


def log_options(options: Mapping[str, object], chosen: Collection[str], file: Path) -> None:
    """Log the flags that the user chose; a file has all of them."""
    LOGGER.info("options, given or as the features were made (all of them: %s):", file)
    width = max(map(len, chosen), default=0)
    for name in sorted(chosen):
        LOGGER.info("  %s  %s", name.ljust(width), options[name])


def append_line(path: Path, values: Mapping[str, object]) -> None:
    """Add a line to a file of JSON lines."""
    with open(path, "a", encoding="utf-8") as lines:
        lines.write(json.dumps(values) + "\n")


def read_metrics(path: Path, keys: Collection[str] = PLOTTED) -> list[dict]:
    """The lines of a metrics.jsonl up to the first that is broken, as by a kill, or lacks one of the numbers."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(record, dict) or not all(isinstance(record.get(key), (int, float)) for key in keys):
            break
        records.append(record)
    return records
