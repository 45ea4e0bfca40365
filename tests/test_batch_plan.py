# SPDX-License-Identifier: Apache-2.0
"""Buckets and the order of batches."""
from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.batch_plan import (
    LENGTH_MULTIPLE,
    SUBLAYER_WIDTH,
    bucket_of,
    choose_buckets,
    plan_evaluation,
    plan_training_epoch,
)

LENGTHS = st.lists(st.integers(4, 96), min_size=1, max_size=60).map(lambda values: np.array(values, np.int32))


def padded_work(lengths, buckets):
    padded = np.asarray(buckets)[bucket_of(lengths, buckets)]
    return float((padded * (1.0 + padded / SUBLAYER_WIDTH)).sum())


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 3))
def test_buckets_are_the_cheapest(lengths, count):
    buckets = choose_buckets(lengths, 96, count)
    assert buckets[-1] == 96 and list(buckets) == sorted(set(buckets)) and len(buckets) <= count
    inner = range(LENGTH_MULTIPLE, 96, LENGTH_MULTIPLE)
    best = min(padded_work(lengths, (*chosen, 96)) for size in range(count)
               for chosen in itertools.combinations(inner, size))
    assert padded_work(lengths, buckets) == pytest.approx(best)


def test_more_buckets_than_lengths_take_no_time():
    lengths = np.arange(4, 97, dtype=np.int32)
    assert choose_buckets(lengths, 96, 2 ** 31 - 1) == choose_buckets(lengths, 96, 6) == (16, 32, 48, 64, 80, 96)


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 9), st.integers(0, 3), st.booleans())
def test_an_epoch_sees_every_feature_in_full_batches(lengths, batch_size, epoch, shuffle):
    buckets = choose_buckets(lengths, 96, 3)
    steps = plan_training_epoch(lengths, buckets, batch_size, 45, epoch, shuffle)
    assert steps.shape == (-(-len(lengths) // batch_size), batch_size)
    counts = np.bincount(steps.ravel(), minlength=len(lengths))
    assert counts.min() == 1 or len(lengths) < batch_size
    assert counts.sum() - len(lengths) < batch_size
    assert (steps == plan_training_epoch(lengths, buckets, batch_size, 45, epoch, shuffle)).all()


def test_epochs_and_seeds_differ_and_most_batches_hold_one_bucket():
    lengths = np.random.RandomState(3).randint(20, 384, 500)
    buckets = choose_buckets(lengths, 384, 4)
    first = plan_training_epoch(lengths, buckets, 8, 45, 0)
    assert (first != plan_training_epoch(lengths, buckets, 8, 45, 1)).any()
    assert (first != plan_training_epoch(lengths, buckets, 8, 46, 0)).any()
    mixed = [len(set(bucket_of(lengths[rows], buckets))) > 1 for rows in first]
    assert sum(mixed) <= len(buckets)
    assert padded_work(lengths, buckets) < 0.7 * padded_work(lengths, (384,))


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(1, 9), st.sampled_from([None, 1]))
def test_evaluation_sees_every_feature_once(lengths, batch_size, seed):
    buckets = choose_buckets(lengths, 96, 3)
    batches = plan_evaluation(lengths, buckets, batch_size, seed)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    assert all(len(rows) <= batch_size and len(set(bucket_of(lengths[rows], buckets))) == 1 for rows in batches)
