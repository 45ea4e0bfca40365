# SPDX-License-Identifier: Apache-2.0
"""Plan batches of features of similar length, in an order that depends only on (seed, epoch).

NumPy only. A batch is padded to its bucket's length; the network is compiled once per bucket.
"""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LENGTH_MULTIPLE = 16      # bucket lengths are multiples of this
SUBLAYER_WIDTH = 2000.0   # a position costs (1 + length / this): matrix products grow with S, attention with S squared


def choose_buckets(lengths: np.ndarray, max_seq_len: int, count: int) -> tuple[int, ...]:
    """Choose at most ``count`` bucket lengths that minimise the padded work (dynamic programming).

    Args:
        lengths: int [N], unpadded lengths of the features.
        max_seq_len: the last bucket, always included so that any feature fits.
        count: how many; each bucket costs a compilation and its own memory.

    Returns:
        Ascending lengths; the last one is ``max_seq_len``.
    """
    if count <= 1 or len(lengths) == 0:
        return (max_seq_len,)
    candidates = [*range(LENGTH_MULTIPLE, max_seq_len, LENGTH_MULTIPLE), max_seq_len]
    held = np.searchsorted(np.sort(lengths), candidates, side="right")       # features that fit into each candidate
    work = [size * (1.0 + size / SUBLAYER_WIDTH) for size in candidates]
    last = len(candidates) - 1
    count = min(count, len(candidates))
    best = [[held[end] * work[end] for end in range(last + 1)]]              # one bucket up to candidate `end`
    previous: list[list[int]] = [[-1] * (last + 1)]
    for _ in range(1, count):
        costs, choices = [], []
        for end in range(last + 1):
            options = [(best[-1][end], -2)]                                  # -2: no further bucket
            options += [(best[-1][start] + (held[end] - held[start]) * work[end], start) for start in range(end)]
            cost, choice = min(options)
            costs.append(cost)
            choices.append(choice)
        best.append(costs)
        previous.append(choices)
    buckets, end = [], last
    for level in range(count - 1, -1, -1):
        choice = previous[level][end]
        if choice == -2:
            continue
        buckets.append(candidates[end])
        if choice == -1:
            break
        end = choice
    return tuple(reversed(buckets))


def bucket_of(lengths: np.ndarray, buckets: Sequence[int]) -> np.ndarray:
    """Index of the smallest bucket that holds each length: int [N]."""
    return np.searchsorted(np.asarray(buckets), lengths, side="left")


def plan_training_epoch(lengths: np.ndarray, buckets: Sequence[int], batch_size: int, seed: int, epoch: int,
                        shuffle: bool = True) -> np.ndarray:
    """Arrange the features of one epoch in full batches, each from one bucket.

    Features that do not fill a batch move to the next longer bucket. The last batch is filled with the first features
    of the order, so that every batch is full and every feature is seen at least once.

    Args:
        lengths: int [N].
        buckets: ascending bucket lengths; the last one holds every feature.
        batch_size: features of one step on all devices together.
        seed: of the run.
        epoch: counts from 0; each epoch has its own order.
        shuffle: False keeps the order of the file within a bucket, and the buckets ascending.

    Returns:
        int64 [steps, batch_size], row numbers in the file.
    """
    random = np.random.RandomState([seed, epoch])
    order = random.permutation(len(lengths)) if shuffle else np.arange(len(lengths))
    which = bucket_of(lengths, buckets)[order]
    batches, waiting = [], np.empty(0, np.int64)
    for bucket in range(len(buckets)):
        waiting = np.concatenate([waiting, order[which == bucket]])
        full = len(waiting) // batch_size * batch_size
        batches.append(waiting[:full].reshape(-1, batch_size))
        waiting = waiting[full:]
    if len(waiting):
        filled = np.concatenate([waiting, np.resize(order, batch_size - len(waiting))])
        batches.append(filled[None])
    steps = np.concatenate(batches)
    return steps[random.permutation(len(steps))] if shuffle else steps


def plan_evaluation(lengths: np.ndarray, buckets: Sequence[int], batch_size: int,
                    shuffle_seed: int | None = None) -> list[np.ndarray]:
    """Split all features into batches from one bucket each, the shortest first; a bucket's last batch may be partial.

    Within a bucket the order is that of the file, or random if ``shuffle_seed`` is given.
    """
    order = np.arange(len(lengths))
    if shuffle_seed is not None:
        order = np.random.RandomState(shuffle_seed).permutation(order)
    which = bucket_of(lengths, buckets)[order]
    batches = []
    for bucket in range(len(buckets)):
        rows = order[which == bucket]
        batches += [rows[start:start + batch_size] for start in range(0, len(rows), batch_size)]
    return batches
