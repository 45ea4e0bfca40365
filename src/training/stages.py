# SPDX-License-Identifier: Apache-2.0
"""The stages of a training: what each does, how many steps it takes, whether the encoder's output is kept for it."""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from src.batch_plan import choose_buckets
from src.config import KTNetConfig
from src.cpu import kernels as cpu_kernels
from src.dataset import feature_lengths
from src.settings import Recipe, TrainingSettings
from src.training.hidden import LARGEST_SHARE, encoded_bytes
from src.training.memory_estimate import FUSED_LAYERS, PLAIN_LAYERS, MemoryEstimate, estimate_training_memory
from utils.memory import available_memory
from utils.util import LOGGER


@dataclass(frozen=True)
class Stage:
    """One stage of a training. Epochs and steps are counted through all stages."""

    number: int                  # from 1
    recipe: Recipe
    buckets: tuple[int, ...]     # lengths that batches are padded to
    steps_per_epoch: int
    first_epoch: int             # epochs of the stages before it
    keeps_encoded: bool = False  # whether the frozen encoder's output for all features is computed once

    @property
    def end_epoch(self) -> int:
        """Epochs of the training that are done when it ends."""
        return self.first_epoch + self.recipe.epoch

    @property
    def first_step(self) -> int:
        """Steps of the stages before it."""
        return self.first_epoch * self.steps_per_epoch

    @property
    def steps(self) -> int:
        """Steps of this stage."""
        return self.recipe.epoch * self.steps_per_epoch

    @property
    def end(self) -> int:
        """Steps of the training that are done when it ends."""
        return self.first_step + self.steps


def plan_stages(settings: TrainingSettings, devices: int) -> list[Stage]:
    """The stages of a training, one after the other."""
    lengths = feature_lengths(settings.job.train_mindrecord_file)
    buckets = choose_buckets(lengths, settings.features.max_seq_len, settings.run.buckets)
    steps = math.ceil(len(lengths) / (settings.run.batch_size * devices * settings.recipe.accumulation_steps))
    stages: list[Stage] = []
    for number, recipe in enumerate(settings.recipe.in_stages(settings.task.first_stages), 1):
        stages.append(Stage(number, recipe, buckets, steps, stages[-1].end_epoch if stages else 0))
    return stages


def with_encoded_features(stages: Sequence[Stage], settings: TrainingSettings, config: KTNetConfig,
                          may_keep: bool = True) -> list[Stage]:
    """The same, marked to keep the encoder's output where that saves time and fits into memory.

    Args:
        stages: of the training.
        settings: of the training.
        config: sizes of the network.
        may_keep: False if the training that is resumed was begun without.
    """
    size = encoded_bytes(feature_lengths(settings.job.train_mindrecord_file), stages[0].buckets,
                         config.bert.hidden_size)
    available = available_memory()
    fits = available is None or size < LARGEST_SHARE * available
    result = []
    for stage in stages:
        recipe = stage.recipe
        wanted = may_keep and recipe.freeze and not recipe.encoder_dropout and recipe.keep_encoded and recipe.epoch > 1
        if wanted and not fits:
            LOGGER.warning("the frozen encoder's output would take %.1f GB: it is computed in every epoch", size / 1e9)
        result.append(dataclasses.replace(stage, keeps_encoded=wanted and fits))
    return result


def estimate_stages(stages: Sequence[Stage], settings: TrainingSettings, config: KTNetConfig) -> MemoryEstimate:
    """Memory of the stage that needs most."""
    layers = FUSED_LAYERS if cpu_kernels.available() else PLAIN_LAYERS
    estimates = [estimate_training_memory(config, settings.run.batch_size, stage.buckets, stage.recipe.use_ema,
                                          stage.recipe.accumulation_steps > 1, stage.recipe.freeze, layers)
                 for stage in stages]
    return max(estimates, key=lambda estimate: estimate.total)
