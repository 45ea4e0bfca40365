# SPDX-License-Identifier: Apache-2.0
"""Questions in, packed features out: in this process, or in another one while this one writes.

The other process imports no MindSpore, so it is at work while the writing process is still importing it. Nothing is
held but the batches under way.
"""
from __future__ import annotations

import gc
import multiprocessing
import sys
import traceback
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

import numpy as np

from src.conversion import Conversion
from src.knowledge.concepts import concept_digest, concept_ids
from src.knowledge.formats import read_mapping
from src.knowledge.lookup import MAPPING_LOOKUPS, EntityLookup
from src.knowledge.records import RecordFinder
from src.reader.batching_twomemory import FeatureBuilder, Lookup, Tally
from src.reader.examples import EvaluationExample, Example
from src.reader.passages import READ_EXAMPLES
from src.reader.storage import FeatureBatch
from src.reader.tokenization import BertTokenizer
from utils.processes import end_with_parent
from utils.util import LOGGER, InputError, describe

BATCH_ROWS = 512      # features that travel together


@dataclass
class Part:
    """Some features of a split, in reading order."""

    features: FeatureBatch
    lines: list[str] = field(default_factory=list)    # of the side table (dev)
    questions: int = 0


@dataclass(frozen=True)
class ConceptList:
    """The concepts that a knowledge base's ids mean."""

    count: int
    digest: str     # of the names in their order


@dataclass
class Summary:
    """What the builder says at the end of a split."""

    tally: Tally
    concepts: tuple[ConceptList, ...]                 # of each knowledge base
    cut: tuple[Counter[str], ...]                     # of each knowledge base: what did not fit into K concepts
    digests: dict[str, str]                           # MD5 of every input file, by its role


def read_questions(conversion: Conversion) -> Iterator[Example]:
    """The questions of a split, or of the shard of it that the data folder is opened for.

    Raises:
        InputError: the data set is broken, or two questions share an id.
    """
    seen: set[str] = set()
    for example in READ_EXAMPLES[conversion.task.name](conversion.json_path, conversion.split, conversion.version_2):
        if not conversion.data.holds(example.passage):
            continue
        if example.id in seen:
            raise InputError(f"{conversion.json_path}: two questions have the id {example.id!r}; ids must differ")
        seen.add(example.id)
        yield example


def build(conversion: Conversion) -> Iterator[Part | Summary]:
    """Parts of a split's features, then the summary.

    Raises:
        InputError: an input file is broken, or does not belong to the data set.
    """
    lookups, concepts = make_lookups(conversion)
    builder = FeatureBuilder(BertTokenizer(conversion.vocab_path, conversion.lower_case), conversion.windows, lookups,
                             conversion.split)
    finders = [RecordFinder(conversion.retrieved_path(base), conversion.json_path, conversion.retrieval_fix(base))
               if base.key == "entity" else None for base in conversion.bases]
    tokens = RecordFinder(conversion.tokens_path, conversion.json_path, "") \
        if conversion.tokens_path.is_file() else None
    rows: list[list[np.ndarray]] = []
    lines: list[str] = []
    questions = 0
    previous: EvaluationExample | None = None
    for example in read_questions(conversion):
        if tokens is not None and (problem := tokens_problem(tokens, example, builder)):
            LOGGER.warning("%s: %s; remove it (conversion does not need it) or make it again with retrieve.py --step "
                           "tokens --force", conversion.tokens_path, problem)
            tokens = None
        records = [finder.find(example.id) if finder else None for finder in finders]
        features, entry = builder.build(example, records)
        rows += features
        questions += 1
        if entry is not None:
            lines.append(entry.to_json(previous) + "\n")
            previous = entry
        if len(rows) >= BATCH_ROWS:
            yield Part(FeatureBatch.pack(rows), lines, questions)
            rows, lines, questions = [], [], 0
    if questions:
        yield Part(FeatureBatch.pack(rows), lines, questions)
    yield Summary(builder.tally, concepts, tuple(lookup.cut for lookup in lookups), conversion.digests())


def tokens_problem(tokens: RecordFinder, example: Example, builder: FeatureBuilder) -> str:
    """Where a token file differs from a question's own word pieces, or nothing."""
    try:
        record = tokens.find(example.id)
    except InputError as error:
        return str(error)
    for side, text in (("document", builder.passage(example.passage).analysis), ("query", builder.query(example))):
        if record.get(f"{side}_subtokens") != text.pieces:
            return f"{side}_subtokens of question {example.id} are not what the vocabulary makes of the text"
    return ""


def make_lookups(conversion: Conversion) -> tuple[list[Lookup], tuple[ConceptList, ...]]:
    """One look-up for each knowledge base, and the concepts that its ids mean."""
    lookups: list[Lookup] = []
    concepts = []
    for base in conversion.bases:
        vectors, path = conversion.data.table(base, conversion.task), conversion.retrieved_path(base)
        ids = concept_ids(vectors)
        concepts.append(ConceptList(len(ids), concept_digest(ids)))
        lookups.append(EntityLookup(base, ids, path, vectors) if base.key == "entity"
                       else MAPPING_LOOKUPS[base.key](base, read_mapping(path), ids, path, vectors))
    return lookups, tuple(concepts)


def stream_features(conversions: Sequence[Conversion], num_workers: int
                    ) -> Generator[Iterator[Part | Summary], None, None]:
    """For each conversion its parts and, at the end, its summary.

    Args:
        conversions: in this order.
        num_workers: 1 builds the features in this process, more in another one.
    """
    if num_workers == 1 or not _may_fork():
        for conversion in conversions:
            yield build(conversion)
        return
    with _Builder(conversions) as builder:
        for _ in conversions:
            yield builder.parts()


def _may_fork() -> bool:
    """A process with MindSpore's threads must not."""
    return "mindspore" not in sys.modules


@dataclass(frozen=True)
class _Failure:
    message: str
    of_input: bool


class _Builder:
    """A forked process that builds features; it ends with this object or with this process."""

    def __init__(self, conversions: Sequence[Conversion]) -> None:
        context = multiprocessing.get_context("fork")
        self._receiving, sending = context.Pipe(duplex=False)
        self._process = context.Process(target=_run_builder, args=(conversions, sending, self._receiving), daemon=True)
        self._process.start()
        sending.close()

    def parts(self) -> Iterator[Part | Summary]:
        """The parts and the summary of the next conversion.

        Raises:
            InputError: what the process raised, or it was killed.
            RuntimeError: it failed otherwise; with its traceback.
        """
        while True:
            try:
                message = self._receiving.recv()
            except (EOFError, OSError):      # OSError: it ended within a message
                self._process.join()
                raise InputError(f"the process that builds features ended without a result (exit code "
                                 f"{self._process.exitcode}); if it was killed for its memory, free some or give "
                                 "--num_workers 1") from None
            if isinstance(message, _Failure):
                raise (InputError if message.of_input else RuntimeError)(message.message)
            yield message
            if isinstance(message, Summary):
                return

    def __enter__(self) -> _Builder:
        return self

    def __exit__(self, *_: object) -> None:
        self._receiving.close()
        self._process.terminate()
        self._process.join()


def _run_builder(conversions: Sequence[Conversion], sending: Connection, receiving: Connection) -> None:
    end_with_parent()
    receiving.close()           # or the writing process's end would not be noticed
    gc.disable()                # nothing here makes cycles, and looking for them costs a tenth of the time
    try:
        for conversion in conversions:
            for message in build(conversion):
                sending.send(message)
    except (BrokenPipeError, KeyboardInterrupt):
        return                  # the reader has stopped, and knows why
    except (InputError, OSError) as error:
        _tell(sending, _Failure(describe(error), of_input=True))
    except Exception:
        _tell(sending, _Failure(traceback.format_exc(), of_input=False))


def _tell(sending: Connection, failure: _Failure) -> None:
    try:
        sending.send(failure)
    except BrokenPipeError:
        pass
