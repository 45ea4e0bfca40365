# SPDX-License-Identifier: Apache-2.0
"""MindRecord to batches: the dense columns of the feature table, padded to the length of the batch's bucket."""
from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.batch_plan import bucket_of, plan_evaluation, plan_training_epoch
from src.config import KNOWLEDGE_BASES, MAX_SEQ_LEN, KnowledgeBase, MemoryConfig
from src.reader.storage import ConvertedFiles, FeatureExpander, check_digest, feature_paths, open_converted
from utils.util import InputError

Bases = Sequence[KnowledgeBase | MemoryConfig]


def feature_lengths(data_file: Path | str) -> np.ndarray:
    """Unpadded length of every feature of a converted file, or of several, in row order: int32 [N].

    Raises:
        InputError: a file is incomplete.
    """
    return np.concatenate([_lengths_of(path) for path in feature_paths(data_file)])


def _lengths_of(data_file: Path) -> np.ndarray:
    manifest = open_converted(data_file)
    path = ConvertedFiles(data_file).lengths
    check_digest(path, manifest)
    lengths = np.load(path, allow_pickle=False)
    if lengths.shape != (manifest["rows"],):
        raise InputError(f"{path}: lengths of {lengths.size} features, {manifest['rows']} were converted; run "
                         "data_convert.py for this split")
    return lengths


class BatchExpander:
    """Expand the stored columns of a batch into dense columns of the smallest bucket that holds its longest feature.

    Args:
        bases: knowledge bases whose columns to yield.
        split: "train" or "dev".
        buckets: ascending lengths.
    """

    def __init__(self, bases: Bases, split: str, buckets: Sequence[int]) -> None:
        self.buckets = tuple(buckets)
        self.expanders = [FeatureExpander(bases, split, bucket) for bucket in self.buckets]
        self.stored_names = list(self.expanders[0].stored_names)
        self.column_names = list(self.expanders[0].column_names)
        # MindSpore inspects the signature of a batch function before calling it.
        names = [*self.stored_names, "batch_info"]
        self.__signature__ = inspect.Signature([inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY)
                                                for name in names])

    def __call__(self, *arguments: list) -> tuple[list[np.ndarray], ...]:
        """Args are one list of arrays for each stored column, then MindSpore's batch information."""
        stored = arguments[:len(self.stored_names)]
        longest = max(map(self.expanders[0].length, stored[0]))
        # A feature longer than every bucket goes to the last expander, which raises the error.
        bucket = min(int(bucket_of(np.array([longest]), self.buckets)[0]), len(self.buckets) - 1)
        features = [self.expanders[bucket](*feature) for feature in zip(*stored, strict=True)]
        return tuple(list(column) for column in zip(*features, strict=True))


def create_train_dataset(data_file: Path | str, do_shuffle: bool = True, device_num: int = 1, rank: int = 0,
                         batch_size: int = 1, max_seq_len: int = MAX_SEQ_LEN, knowledge_bases: Bases = KNOWLEDGE_BASES,
                         buckets: Sequence[int] | None = None, seed: int = 45, epoch: int = 0, first_step: int = 0,
                         parts: int = 1) -> Any:
    """One epoch of training batches of one device.

    Every step takes ``batch_size`` x ``parts`` features per device from one bucket; the order depends only on
    (seed, epoch).

    Args:
        data_file: MindRecord file, or several (see :func:`src.reader.storage.feature_paths`).
        do_shuffle: random order, different in every epoch.
        device_num: devices that share the data.
        rank: index of this device.
        batch_size: features of a step on one device.
        max_seq_len: length that all batches are padded to when there are no buckets.
        knowledge_bases: whose concepts are wanted.
        buckets: ascending lengths to pad to, the last one at least as long as the longest feature.
        seed: of the order.
        epoch: counts from 0.
        first_step: steps of this epoch to skip.
        parts: batches whose gradients are accumulated into one step.

    Returns:
        A MindSpore dataset with the columns of ``src.config.feature_columns(knowledge_bases, "train")``, each
        [B, ...]; all int32 except input_mask (float32).

    Raises:
        InputError: the file is incomplete.
    """
    buckets = tuple(buckets or (max_seq_len,))
    rows = plan_device_rows(data_file, buckets, batch_size, do_shuffle, device_num, rank, seed, epoch, first_step,
                            parts)
    return _pipeline(data_file, list(rows), BatchExpander(knowledge_bases, "train", buckets))


def plan_device_rows(data_file: Path | str, buckets: Sequence[int], batch_size: int, do_shuffle: bool = True,
                     device_num: int = 1, rank: int = 0, seed: int = 45, epoch: int = 0, first_step: int = 0,
                     parts: int = 1) -> np.ndarray:
    """Row numbers of the features in each batch of :func:`create_train_dataset`: int64 [batches, B]."""
    steps = plan_training_epoch(feature_lengths(data_file), buckets, batch_size * device_num * parts, seed, epoch,
                                do_shuffle)
    return steps[first_step:].reshape(-1, device_num, batch_size)[:, rank]


def create_dev_dataset(data_file: Path | str, do_shuffle: bool = False, batch_size: int = 1,
                       max_seq_len: int = MAX_SEQ_LEN, knowledge_bases: Bases = KNOWLEDGE_BASES,
                       buckets: Sequence[int] | None = None, seed: int = 45) -> Any:
    """Yield every feature of a dev file once; the last batch may be partial, and no feature is dropped.

    Args:
        data_file: MindRecord file.
        do_shuffle: random order.
        batch_size: features of a batch.
        max_seq_len: length that all batches are padded to when there are no buckets.
        knowledge_bases: whose concepts are wanted.
        buckets: ascending lengths to pad to; batches are then grouped by bucket, and the last of each may be partial.
        seed: of the random order.

    Returns:
        A MindSpore dataset with the columns of ``src.config.feature_columns(knowledge_bases, "dev")``, each [B, ...].

    Raises:
        InputError: the file is incomplete.
    """
    buckets = tuple(buckets or (max_seq_len,))
    batches = plan_evaluation(feature_lengths(data_file), buckets, batch_size, seed if do_shuffle else None)
    return _pipeline(data_file, batches, BatchExpander(knowledge_bases, "dev", buckets))


def _pipeline(data_file: Path | str, batches: Sequence[np.ndarray], expander: BatchExpander) -> Any:
    """Read the rows of each batch in this order."""
    import mindspore.dataset as ds

    sizes = [len(rows) for rows in batches]
    rows = [int(row) for batch in batches for row in batch]
    most = len(feature_lengths(data_file))       # a sampler may not ask for more rows than the file has
    files = [str(path) for path in feature_paths(data_file)]
    parts = [ds.MindDataset(files if len(files) > 1 else files[0], columns_list=expander.stored_names,
                            num_parallel_workers=1, sampler=ds.SubsetSampler(rows[first:first + most]))
             for first in range(0, len(rows), most)]
    dataset = parts[0]
    for part in parts[1:]:
        dataset = dataset + part
    return dataset.batch(lambda info: sizes[info.get_batch_num()], per_batch_map=expander,
                         input_columns=expander.stored_names, output_columns=expander.column_names,
                         num_parallel_workers=1)
