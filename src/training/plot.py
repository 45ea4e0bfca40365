# SPDX-License-Identifier: Apache-2.0
"""The plot of a training: its losses, the whole schedule of its learning rate, its validations."""
from __future__ import annotations

from collections.abc import Sequence

from src.training.log import LogFiles, read_metrics
from src.training.stages import Stage
from src.training.step import learning_rate_at
from utils.util import atomic_path

POINTS = 1000        # of the schedule's line
VALIDATED = ("step", "f1", "exact_match")


def planned_rates(stages: Sequence[Stage]) -> tuple[list[int], list[float]]:
    """Steps (from 1) of all stages, the first and last of each among them, and the learning rate of each."""
    steps: list[int] = []
    rates: list[float] = []
    apart = max(1, stages[-1].end // POINTS)
    for stage in stages:
        warm = int(stage.steps * stage.recipe.warmup_proportion)
        own = sorted({*range(0, stage.steps, apart), warm, stage.steps - 1})
        steps += [stage.first_step + step + 1 for step in own]
        rates += [learning_rate_at(step, stage.steps, stage.recipe) for step in own]
    return steps, rates


def plot_training(files: LogFiles, stages: Sequence[Stage], title: str) -> None:
    """Draw losses and learning rate, and below them the validations where there are any, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    records, validations = read_metrics(files.metrics), read_metrics(files.validations, VALIDATED)
    figure, axes = pyplot.subplots(2 if validations else 1, 1, figsize=(8, 7 if validations else 4.5), dpi=120,
                                   sharex=True, squeeze=False, height_ratios=(3, 2) if validations else (1,))
    loss_axis = axes[0, 0]
    steps, losses = [record["step"] for record in records], [record["loss"] for record in records]
    window = max(1, len(records) // 50)
    smooth = [sum(losses[max(0, i + 1 - window):i + 1]) / min(window, i + 1) for i in range(len(losses))]
    loss_axis.plot(steps, losses, color="tab:blue", alpha=0.25, linewidth=0.8, label="loss of a step")
    loss_axis.plot(steps, smooth, color="tab:blue", label=f"mean of {window} steps")
    loss_axis.set(ylabel="loss", title=title, ylim=(0, None), xlim=(0, stages[-1].end * 1.01))
    rate_axis = loss_axis.twinx()
    rate_axis.plot(*planned_rates(stages), color="tab:orange", linewidth=1, label="learning rate")
    rate_axis.set(ylabel="learning rate", ylim=(0, None))
    rate_axis.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    handles = [*loss_axis.get_legend_handles_labels()[0], *rate_axis.get_legend_handles_labels()[0]]
    loss_axis.legend(handles=handles, loc="upper right")
    if validations:
        draw_validations(axes[1, 0], validations)
    for stage in stages[1:]:
        for axis in axes[:, 0]:
            axis.axvline(stage.first_step, color="gray", linestyle=":", linewidth=1)
        loss_axis.annotate(f"stage {stage.number}", (stage.first_step, 0), textcoords="offset points", xytext=(4, 4),
                           color="gray", fontsize="small")
    axes[-1, 0].set_xlabel("step")
    figure.tight_layout()
    with atomic_path(files.plot) as temporary:
        figure.savefig(temporary, format="png")
    pyplot.close(figure)


def draw_validations(axis, validations: Sequence[dict]) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    """F1 and exact match over the steps."""
    for name, label, marker in (("f1", "F1", "o-"), ("exact_match", "exact match", "s--")):
        points = [(line["step"], line[name]) for line in validations if name in line]
        if points:
            axis.plot(*zip(*points, strict=True), marker, color="tab:green", markersize=4, label=label,
                      fillstyle="full" if name == "f1" else "none")
    axis.set(ylabel="validation, percent", ylim=(0, 100))
    axis.legend(loc="lower right")
