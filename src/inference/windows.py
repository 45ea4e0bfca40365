# SPDX-License-Identifier: Apache-2.0
"""Runs the network on one feature at a time: logits, and for the viewer the attention of its memories."""
from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from mindspore import Tensor, nn

from src.config import DEV_LABELS, MemoryConfig
from src.dataset import create_dev_dataset, feature_lengths
from src.inference.graph_cache import GraphCache
from src.reader.logits import Logits
from src.reader.storage import FeatureExpander
from src.viewer.cases import WindowResult
from utils.progress import Progress
from utils.util import LOGGER, InputError

SHORT_LENGTHS = (128, 256)      # besides max_seq_len; each is compiled when a feature first needs it
BATCH_STEP = 64                 # batches are padded to multiples of this many word pieces
UNIQUE_ID = DEV_LABELS[0].name


class WindowRunner:
    """Runs :class:`src.KTNET.KTNET`, or :class:`src.inference.attention.KTNETAttention`, over dev features.

    Args:
        network: for inference.
        memories: whose concepts the network takes.
        max_seq_len: the longest length.
        full_length: pad every feature to ``max_seq_len``, so that there is a logit for each position.
        cache: of compiled graphs.
    """

    def __init__(self, network: nn.Cell, memories: Sequence[MemoryConfig], max_seq_len: int,
                 full_length: bool = False, cache: GraphCache | None = None) -> None:
        self._network, self._memories, self._cache = network, tuple(memories), cache
        self._compiled: set[tuple[int, int]] = set()
        shorter = () if full_length else (length for length in SHORT_LENGTHS if length < max_seq_len)
        self.lengths = (*shorter, max_seq_len)
        self._full_length = full_length
        self._expanders = [FeatureExpander(memories, "dev", length) for length in self.lengths]

    def run(self, stored: Sequence[np.ndarray], off: Collection[str] = ()) -> tuple[int, WindowResult]:
        """Run the network on a feature as ``src.reader.storage.pack_feature`` makes it.

        Args:
            stored: the feature.
            off: names of knowledge bases whose memories read nothing, as if no word had a concept.

        Returns:
            The feature's unique id and the network's output.
        """
        expander = self._expanders[self._expander(stored)]
        values = dict(zip(expander.column_names, expander(*stored), strict=True))
        return self.run_columns({name: value[np.newaxis] for name, value in values.items()}, off)

    def run_many(self, features: Sequence[Sequence[np.ndarray]], batch_size: int,
                 off: Collection[str] = ()) -> Iterator[tuple[int, WindowResult]]:
        """Many features, in batches of similar length: unique id and result of each, in no particular order.

        Features that do not fill a batch wait for longer ones; the last batch is filled up with copies. So each length
        is compiled for one batch size.
        """
        by_length: dict[int, list[Sequence[np.ndarray]]] = {}
        for stored in sorted(features, key=self._pieces):
            by_length.setdefault(self._padded(stored), []).append(stored)
        waiting: list[Sequence[np.ndarray]] = []
        for length, group in by_length.items():
            waiting += group
            while len(waiting) >= batch_size or (waiting and length == max(by_length)):
                batch, waiting = waiting[:batch_size], waiting[batch_size:]
                expander = FeatureExpander(self._memories, "dev", length)
                rows = [expander(*stored) for stored in batch]
                rows += rows[:1] * (batch_size - len(batch))
                columns = {name: np.stack(column) for name, column in
                           zip(expander.column_names, zip(*rows, strict=True), strict=True)}
                yield from self._run_batch(columns, len(batch), off)

    def _pieces(self, stored: Sequence[np.ndarray]) -> int:
        """Word pieces of a feature."""
        return self._expanders[0].length(stored[0])

    def _padded(self, stored: Sequence[np.ndarray]) -> int:
        """The length that a feature is padded to in a batch."""
        longest = self.lengths[-1]
        return longest if self._full_length else min(longest, -(-self._pieces(stored) // BATCH_STEP) * BATCH_STEP)

    def _expander(self, stored: Sequence[np.ndarray]) -> int:
        """Number of the shortest length that a feature fits into."""
        pieces = self._pieces(stored)
        return next((number for number, length in enumerate(self.lengths) if pieces <= length), len(self.lengths) - 1)

    def run_file(self, data_file: Path, wanted: Mapping[int, object],
                 off: Collection[str] = ()) -> Iterator[tuple[int, WindowResult]]:
        """The features of a MindRecord file whose unique ids are wanted, in no particular order; ``off`` as in run."""
        if feature_lengths(data_file).max(initial=0) > self.lengths[-1]:
            raise InputError(f"{data_file}: has features longer than the {self.lengths[-1]} word pieces of the "
                             "checkpoint; give the features that it was evaluated on")
        dataset = create_dev_dataset(data_file, batch_size=1, knowledge_bases=self._memories, buckets=self.lengths)
        with Progress("attention", len(wanted), "features") as progress:
            for columns in dataset.create_dict_iterator(num_epochs=1, output_numpy=True):
                if int(columns[UNIQUE_ID].item()) in wanted:
                    yield self.run_columns(columns, off)
                    progress.update()

    def run_columns(self, columns: Mapping[str, np.ndarray], off: Collection[str] = ()) -> tuple[int, WindowResult]:
        """One feature as dense columns [1, ...] -> its unique id and the network's output; ``off`` as in run."""
        return next(self._run_batch(columns, 1, off))

    def _run_batch(self, columns: Mapping[str, np.ndarray], count: int,
                   off: Collection[str]) -> Iterator[tuple[int, WindowResult]]:
        """Dense columns [B, ...] -> unique ids and outputs of the first ``count`` features."""
        silent = {memory.column for memory in self._memories if memory.name in off}
        columns = {name: np.zeros_like(column) if name in silent else column for name, column in columns.items()}
        inputs = [Tensor(column) for name, column in columns.items() if name != UNIQUE_ID]
        self._prepare(inputs)
        outputs = self._network(*inputs)
        arrays = [output.asnumpy() for output in (outputs if isinstance(outputs, tuple) else (outputs,))]
        for row in range(count):
            length = int(columns["input_mask"][row].sum())
            logits = arrays[0][:, row] if self._full_length else arrays[0][:, row, :length]
            concepts = tuple(columns[memory.column][row, :length, :, 0] for memory in self._memories)
            yield int(columns[UNIQUE_ID][row].item()), WindowResult(
                logits[0], logits[1], concepts, tuple(weights[row, :length] for weights in arrays[1:]))

    def _prepare(self, inputs: Sequence[Tensor]) -> None:
        """Compile for the shape of these features [B, S], or load what was compiled for it earlier."""
        shape = tuple(inputs[0].shape)
        if self._cache is None or shape in self._compiled:
            return
        start = time.perf_counter()
        with self._cache.of(inputs):
            self._network.compile(*inputs)
        self._compiled.add(shape)
        LOGGER.info("compiled for %d word pieces in %.1f s", shape[1], time.perf_counter() - start)


def gather_logits(results: Mapping[int, WindowResult]) -> Logits:
    """The logits of all features, for --save_logits."""
    return Logits.gather({number: (result.start_logits, result.end_logits) for number, result in results.items()})
