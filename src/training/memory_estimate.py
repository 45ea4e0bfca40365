# SPDX-License-Identifier: Apache-2.0
"""An estimate of a training's memory, told before anything is compiled."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from src.config import KTNetConfig
from utils.util import LOGGER, InputError

FLOAT = 4                    # bytes


@dataclass(frozen=True)
class LayerCopies:
    """Tensors that are alive at the peak of a step, by their widths."""

    hidden: float            # [B*S, H]: projections, heads, residuals, layer norms, dropouts, and their gradients
    feed_forward: float      # [B*S, I]: products and the parts of the activation, and their gradients
    attention: float         # [B, N, S, S]: scores, weights, dropout masks
    concepts: float          # [B*S, K, D], of a memory: gathered vectors


# Fitted to peaks measured on CPU (MindSpore 2.10, length 384, with moving average): with the kernels of src/cpu MiniLM
# 2.0 GB at batch 8; with the framework's operators 5.1 GB. The latter figures come from an older form of the layer and
# are on the safe side.
FUSED_LAYERS = LayerCopies(10, 3, 0, 0)
PLAIN_LAYERS = LayerCopies(45, 20, 5.5, 2)
FUSED_COPIES = 14            # [B*S, U]: self-matching
FURTHER_LENGTHS = 0.15       # what all shorter lengths add to the longest: their graphs reuse most of its memory
RUNTIME = 0.9e9              # MindSpore itself and a compiled graph


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes by what they are for."""

    weights: float           # weights and concept tables
    optimizer: float         # gradients, moments, moving average, accumulated gradients
    activations: float       # of the longest length, and a part of it for the others

    @property
    def total(self) -> float:
        """All of it, MindSpore included."""
        return self.weights + self.optimizer + self.activations + RUNTIME

    def __str__(self) -> str:
        return (f"about {self.total / 1e9:.1f} GB (weights {self.weights / 1e9:.1f}, optimizer "
                f"{self.optimizer / 1e9:.1f}, activations {self.activations / 1e9:.1f})")


def count_weights(config: KTNetConfig) -> tuple[int, int]:
    """Numbers in the trained weights, and in the concept tables."""
    bert, fused = config.bert, config.fused_width
    embeddings = bert.hidden_size * (bert.vocab_size + bert.max_position_embeddings + bert.type_vocab_size + 2)
    layer = (4 * bert.hidden_size * (bert.hidden_size + 1) + bert.intermediate_size * (2 * bert.hidden_size + 1)
             + 5 * bert.hidden_size)
    memories = sum(memory.width * (bert.hidden_size + 1) for memory in config.memories)
    head = 3 * fused + 1 + 2 * config.match_width + 2
    tables = sum(memory.rows * memory.width for memory in config.memories)
    return embeddings + bert.num_hidden_layers * layer + memories + head, tables


def estimate_training_memory(config: KTNetConfig, batch_size: int, buckets: Sequence[int], use_ema: bool,
                             accumulates: bool, frozen: bool,
                             kept: LayerCopies = FUSED_LAYERS) -> MemoryEstimate:
    """Memory of a training in float32 on one device.

    Args:
        config: sizes of the network.
        batch_size: features of a batch on the device.
        buckets: lengths that are compiled.
        use_ema: whether a moving average is kept.
        accumulates: whether gradients are summed over several batches.
        frozen: whether the encoder is not trained.
        kept: what the encoder's layers and the memories keep.
    """
    weights, tables = count_weights(config)
    bert = config.bert
    trained = 3 * config.match_width if frozen else weights
    copies = 3 + int(use_ema) + int(accumulates)
    length = max(buckets)
    tokens = batch_size * length
    layer = (kept.hidden * tokens * bert.hidden_size + kept.feed_forward * tokens * bert.intermediate_size
             + kept.attention * batch_size * bert.num_attention_heads * length * length)
    concepts = sum(kept.concepts * tokens * memory.max_concepts * memory.width for memory in config.memories)
    layers = 1 if frozen else bert.num_hidden_layers
    activations = layers * layer + concepts + FUSED_COPIES * tokens * config.fused_width
    if len(buckets) > 1:
        activations *= 1.0 + FURTHER_LENGTHS
    return MemoryEstimate(FLOAT * (weights + tables), FLOAT * copies * trained, FLOAT * activations)


def check_memory(estimate: MemoryEstimate, available: float | None, force: bool) -> None:
    """Tell the estimate; refuse a training that cannot fit.

    Raises:
        InputError: the estimate exceeds what is available, and ``force`` is not set.
    """
    LOGGER.info("memory: %s%s", estimate, "" if available is None else f"; {available / 1e9:.1f} GB are available")
    if available is None or estimate.total <= available:
        return
    advice = ("--batch_size with --accumulation_steps, fewer --buckets, a smaller --max_seq_len, --use_ema False or "
              "--freeze True need less")
    if not force:
        raise InputError(f"memory: the training needs {estimate}, {available / 1e9:.1f} GB are available: a smaller "
                         f"{advice}; --force_memory True tries all the same")
    LOGGER.warning("memory: the estimate exceeds what is available: a smaller %s", advice)
