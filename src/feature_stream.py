"""Questions in, packed features out: in this process, or in two others while this one writes.

One process builds the features, another compares the token file with the texts; neither imports MindSpore, so both
are at work while the writing process is still importing it. Nothing is held but the batches under way.
"""
from __future__ import annotations

import gc
import multiprocessing
import sys
import traceback
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Callable, Generator, Iterator, Mapping, NamedTuple, Sequence

import numpy as np

from src.conversion import Conversion
from src.knowledge.concepts import concept_digest, concept_ids
from src.knowledge.formats import read_mapping
from src.reader import record_twomemory, squad_twomemory
from src.reader.batching_twomemory import FeatureBuilder, Tally
from src.reader.concept_lookup import EntityLookup, Lookup, WordLookup
from src.reader.examples import EvaluationExample, Example
from src.reader.records import RecordFinder
from src.reader.storage import FeatureBatch
from src.reader.token_check import TokenChecker
from src.reader.tokenization import BertTokenizer
from utils.processes import end_with_parent
from utils.util import InputError, describe

READ_EXAMPLES: Mapping[str, Callable[[Any, str, bool], Iterator[Example]]] = {
    "squad": squad_twomemory.read_examples, "record": record_twomemory.read_examples}
BATCH_ROWS = 512      # features that travel together


@dataclass
class Part:
    """Some features of a split, in reading order."""

    features: FeatureBatch
    lines: list[str] = field(default_factory=list)    # of the side table (dev)
    questions: int = 0


class ConceptList(NamedTuple):
    """The concepts that a knowledge base's ids stand for."""

    count: int
    digest: str     # of the names in their order


@dataclass
class Summary:
    """What the builder says at the end of a split."""

    tally: Tally
    concepts: tuple[ConceptList, ...]                 # of each knowledge base
    digests: dict[str, str] = field(default_factory=dict)    # MD5 of every input file, by its role


def read_questions(conversion: Conversion) -> Iterator[Example]:
    """The questions of a split.

    Raises:
        InputError: the data set is broken, or two questions share an id.
    """
    seen: set[str] = set()
    for example in READ_EXAMPLES[conversion.task.name](conversion.json_path, conversion.split, conversion.version_2):
        if example.id in seen:
            raise InputError(f"{conversion.json_path}: two questions have the id {example.id!r}; ids must differ")
        seen.add(example.id)
        yield example


def build(conversion: Conversion) -> Iterator[Part | Summary]:
    """Parts of a split's features, then the summary."""
    lookups, concepts = make_lookups(conversion)
    builder = FeatureBuilder(BertTokenizer(conversion.vocab_path, conversion.lower_case), conversion.windows, lookups,
                             conversion.split)
    finders = [RecordFinder(conversion.retrieved_path(base), conversion.json_path, conversion.retrieval_fix(base))
               if base.key == "entity" else None for base in conversion.bases]
    rows: list[list[np.ndarray]] = []
    lines: list[str] = []
    questions = 0
    previous: EvaluationExample | None = None
    for example in read_questions(conversion):
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
    yield Summary(builder.tally, concepts)


def make_lookups(conversion: Conversion) -> tuple[list[Lookup], tuple[ConceptList, ...]]:
    """One look-up for each knowledge base, and what its ids stand for."""
    lookups: list[Lookup] = []
    concepts = []
    for base in conversion.bases:
        vectors, path = conversion.data.vectors(base), conversion.retrieved_path(base)
        ids = concept_ids(vectors)
        concepts.append(ConceptList(len(ids), concept_digest(ids)))
        lookups.append(WordLookup(base, read_mapping(path), ids, path, vectors) if base.key == "word"
                       else EntityLookup(base, ids, path, vectors))
    return lookups, tuple(concepts)


def verify(conversion: Conversion) -> dict[str, str]:
    """Compare the whole token file with the texts.

    Returns:
        The MD5 of every input file, by its role.

    Raises:
        InputError: it is broken, lacks a question or has other word pieces.
    """
    fix = conversion.fix("tokens")
    checker = TokenChecker(BertTokenizer(conversion.vocab_path, conversion.lower_case), conversion.tokens_path, fix)
    finder = RecordFinder(conversion.tokens_path, conversion.json_path, fix)
    for example in read_questions(conversion):
        checker.check(example, finder.find(example.id))
    return conversion.digests()


def stream_features(conversions: Sequence[Conversion], num_workers: int
                    ) -> Generator[Iterator[Part | Summary], None, None]:
    """For each conversion its parts and, at the end, its summary; by then its token file has been checked.

    Args:
        conversions: in this order.
        num_workers: 1 does all the work in this process, more hand it to two other processes.
    """
    if num_workers == 1 or not _may_fork():
        for conversion in conversions:
            yield _stream_here(conversion)
        return
    with _Worker(_build_all, conversions) as builder, _Worker(_verify_all, conversions, builder) as verifier:
        for _ in conversions:
            yield _stream_there(builder, verifier)


def _may_fork() -> bool:
    """A process with MindSpore's threads must not."""
    return "mindspore" not in sys.modules


def _stream_here(conversion: Conversion) -> Iterator[Part | Summary]:
    digests = verify(conversion)
    for message in build(conversion):
        if isinstance(message, Summary):
            message.digests = digests
        yield message


def _stream_there(builder: _Worker, verifier: _Worker) -> Iterator[Part | Summary]:
    while True:
        message = builder.receive()
        if isinstance(message, Summary):
            message.digests = verifier.receive()
            yield message
            return
        yield message


def _build_all(conversions: Sequence[Conversion], send: Callable[[Any], None]) -> None:
    for conversion in conversions:
        for message in build(conversion):
            send(message)


def _verify_all(conversions: Sequence[Conversion], send: Callable[[Any], None]) -> None:
    for conversion in conversions:
        send(verify(conversion))


@dataclass(frozen=True)
class _Failure:
    message: str
    of_input: bool


class _Worker:
    """A forked process that sends messages; it ends with this object or with this process."""

    def __init__(self, work: Callable[[Sequence[Conversion], Callable[[Any], None]], None],
                 conversions: Sequence[Conversion], *others: _Worker) -> None:
        context = multiprocessing.get_context("fork")
        self._receiving, sending = context.Pipe(duplex=False)
        unused = [self._receiving, *(other._receiving for other in others)]
        self._process = context.Process(target=_run_worker, args=(work, conversions, sending, unused), daemon=True)
        self._process.start()
        sending.close()

    def receive(self) -> Any:
        """The next message.

        Raises:
            InputError: what the worker raised, or it was killed.
            RuntimeError: the worker failed otherwise; with its traceback.
        """
        try:
            message = self._receiving.recv()
        except EOFError:
            self._process.join()
            raise InputError(f"a worker process ended without a result (exit code {self._process.exitcode}); if it was "
                             "killed for its memory, free some or give --num_workers 1") from None
        if isinstance(message, _Failure):
            raise (InputError if message.of_input else RuntimeError)(message.message)
        return message

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._receiving.close()
        self._process.terminate()
        self._process.join()


def _run_worker(work: Callable[..., None], conversions: Sequence[Conversion], sending: Connection,
                unused: Sequence[Connection]) -> None:
    end_with_parent()
    for connection in unused:
        connection.close()      # or a sender would not notice that its reader has gone
    gc.disable()                # nothing here makes cycles, and looking for them costs a tenth of the time
    try:
        work(conversions, sending.send)
    except BrokenPipeError:
        return                  # the reader has stopped, and knows why
    except KeyboardInterrupt:
        return
    except (InputError, OSError) as error:
        _tell(sending, _Failure(describe(error), of_input=True))
    except Exception:
        _tell(sending, _Failure(traceback.format_exc(), of_input=False))


def _tell(sending: Connection, failure: _Failure) -> None:
    try:
        sending.send(failure)
    except BrokenPipeError:
        pass
