# SPDX-License-Identifier: Apache-2.0
"""What people watch while a network trains: log lines, metrics.jsonl and, at the end, a plot."""
from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from utils.util import LOGGER, atomic_path, write_text

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
        self.metrics = folder / f"metrics_{task}.jsonl"     # one line per step
        self.plot = folder / f"training_{task}.png"         # of loss and learning rate
        self.options = folder / f"options_{task}.json"      # the flags

    def all(self) -> tuple[Path, ...]:
        """All of them."""
        return self.metrics, self.plot, self.options


class TrainingLog:
    """Writes the log lines of the model zoo and metrics.jsonl.

    Args:
        metrics: metrics.jsonl; lines after ``steps_done`` (of a run that was killed) are dropped.
        steps_done: steps that a resumed training has behind it.
        steps_per_epoch: to count within an epoch.
        ascend: whether the lines have Ascend's form.
        writes: whether this process writes metrics.jsonl (the first of a distributed run).
    """

    def __init__(self, metrics: Path, steps_done: int, steps_per_epoch: int, ascend: bool, writes: bool) -> None:
        self.metrics, self.steps_per_epoch, self.ascend, self.writes = metrics, steps_per_epoch, ascend, writes
        if writes:
            kept = [line for line in read_metrics(metrics) if line["step"] <= steps_done] if steps_done else []
            write_text(metrics, "".join(json.dumps(line) + "\n" for line in kept))

    def add(self, record: StepRecord) -> None:
        """Log one step."""
        in_epoch = record.step - (record.epoch - 1) * self.steps_per_epoch
        if self.ascend:
            LOGGER.info("epoch: %.1f, current epoch percent: %.3f, step: %d, outputs are (Tensor(shape=[1], "
                        "dtype=Float32, [ %.7e]), Tensor(shape=[], dtype=Bool, %s), Tensor(shape=[], dtype=Float32, "
                        "%d))", record.epoch - 1, in_epoch / self.steps_per_epoch, record.step, record.loss,
                        record.overflow, record.loss_scale)
        else:
            LOGGER.info("epoch: %d step: %d, loss is %.6f", record.epoch, in_epoch, record.loss)
        if self.writes:
            with open(self.metrics, "a", encoding="utf-8") as lines:
                lines.write(json.dumps(asdict(record)) + "\n")


def read_metrics(path: Path) -> list[dict]:
    """The lines of a metrics.jsonl up to the first that is broken, as by a kill."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not isinstance(record, dict) or not all(isinstance(record.get(key), (int, float)) for key in PLOTTED):
            break
        records.append(record)
    return records


def plot_training(metrics: Path, image: Path, title: str) -> None:
    """Draw loss and learning rate over the steps as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records = read_metrics(metrics)
    steps = [record["step"] for record in records]
    losses = [record["loss"] for record in records]
    window = max(1, len(records) // 50)
    smooth = [sum(losses[max(0, i + 1 - window):i + 1]) / min(window, i + 1) for i in range(len(losses))]
    figure, loss_axis = pyplot.subplots(figsize=(8, 4.5), dpi=120)
    loss_axis.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=0.8, label="loss of a step")
    loss_axis.plot(steps, smooth, color="tab:blue", label=f"mean of {window} steps")
    loss_axis.set(xlabel="step", ylabel="loss", title=title, ylim=(0, None))
    rate_axis = loss_axis.twinx()
    rate_axis.plot(steps, [record["learning_rate"] for record in records], color="tab:orange", linewidth=1,
                   label="learning rate")
    rate_axis.set(ylabel="learning rate", ylim=(0, None))
    rate_axis.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    handles = [*loss_axis.get_legend_handles_labels()[0], *rate_axis.get_legend_handles_labels()[0]]
    loss_axis.legend(handles=handles, loc="upper right")
    figure.tight_layout()
    with atomic_path(image) as temporary:
        figure.savefig(temporary, format="png")
    pyplot.close(figure)
