# SPDX-License-Identifier: Apache-2.0
"""Examples to features: windows, maximum context, answer positions, concepts; not yet padded.

A feature is ``[CLS] question [SEP] window [SEP]``; a long passage gives several with overlapping windows.
"""
from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from src.config import FIRST_UNIQUE_ID, WindowConfig
from src.reader.examples import Answer, EvaluationExample, Example, Window
from src.reader.fields import NOT_FOUND
from src.reader.storage import PieceConcepts, pack_feature
from src.reader.tokenization import Analysis, BertTokenizer, split_words
from utils.util import LOGGER, InputError

SPECIAL_PIECES = 3     # [CLS] and two [SEP]
SPECIAL_COUNT = np.zeros(1, np.int32)     # concepts of such a piece
NO_ANSWER_POSITION = 0     # SQuAD 2.0: an impossible question points at [CLS]
TEXT_NOT_FOUND = "answer text not found in the passage"
NO_PIECES = "answer has no word pieces"


def window_spans(pieces: int, room: int, stride: int) -> list[tuple[int, int]]:
    """(start, length) of every window over a passage.

    >>> window_spans(10, room=6, stride=3)
    [(0, 6), (3, 6), (6, 4)]
    """
    spans = []
    start = 0
    while start < pieces:
        length = min(room, pieces - start)
        spans.append((start, length))
        if start + length == pieces:
            break
        start += min(length, stride)
    return spans


def max_context_windows(spans: Sequence[tuple[int, int]], pieces: int) -> np.ndarray:
    """For each word piece of the passage, the window that gives it the most context: int32 [pieces].

    A window's score for a piece is min(pieces left of it, pieces right of it) + 0.01 x its length; the first of equals
    wins. With windows (0, 6) and (3, 6), piece 3 has 3 | 2 in the first, 0 | 5 in the second: the first wins.
    """
    best = np.full(pieces, -1.0)
    winner = np.zeros(pieces, np.int32)
    for number, (start, length) in enumerate(spans):
        places = np.arange(length)
        score = np.minimum(places, length - 1 - places) + 0.01 * length
        better = score > best[start:start + length]
        best[start:start + length][better] = score[better]
        winner[start:start + length][better] = number
    return winner


@dataclass
class Passage:
    """A passage on all levels; questions about the same passage share it."""

    text: str
    words: list[str]
    word_starts: list[int]
    analysis: Analysis
    piece_ids: np.ndarray                               # int32 [pieces]
    concepts: dict[int, PieceConcepts] = field(default_factory=dict)    # number of a knowledge base -> by word


@dataclass
class Tally:
    """Counts of what happened to the questions."""

    questions: int = 0
    features: int = 0
    dropped_windows: int = 0                            # training windows without the whole answer
    without_overlap: int = 0                            # questions whose windows do not overlap
    skipped: Counter[str] = field(default_factory=Counter)    # reason -> questions


def warn_without_overlap(tally: Tally, windows: WindowConfig) -> None:
    """Say that answers can be cut where the windows of a passage do not overlap."""
    if tally.without_overlap:
        room = windows.max_seq_len - windows.max_query_length - SPECIAL_PIECES
        LOGGER.warning("--doc_stride %d: the windows of a passage do not overlap (questions: %d), so an answer on a "
                       "border is cut; give a smaller one, as --doc_stride %d", windows.doc_stride,
                       tally.without_overlap, max(1, room // 2))


class Lookup(Protocol):
    """How the concepts of a text's word pieces are found."""

    per_question: bool     # whether ``record`` is needed
    cut: Counter[str]      # "words" that have more than K concepts, "concepts" that were left out

    def find(self, text: Analysis, side: str, record: Mapping[str, Any] | None) -> PieceConcepts:
        """Concepts of the pieces of ``text``; ``side`` is "document" or "query"."""


class FeatureBuilder:
    """Builds the stored features of one split, question by question."""

    def __init__(self, tokenizer: BertTokenizer, windows: WindowConfig, lookups: Sequence[Lookup], split: str) -> None:
        """Prepare.

        Args:
            tokenizer: of the encoder.
            windows: sizes.
            lookups: one per knowledge base, in the order of the columns.
            split: "train" labels features with the answer's positions, "dev" with unique ids.
        """
        self._tokenizer, self._windows, self._lookups, self._split = tokenizer, windows, lookups, split
        self._next_id = FIRST_UNIQUE_ID
        self._cls = np.array([tokenizer.cls_id], np.int32)
        self._sep = np.array([tokenizer.sep_id], np.int32)
        self._passage: Passage | None = None
        self.tally = Tally()

    def passage(self, text: str) -> Passage:
        """The passage on all levels; the last one is remembered."""
        if self._passage is None or self._passage.text != text:
            words, starts = split_words(text)
            analysis = self._tokenizer.analyse(words)
            self._passage = Passage(text, words, starts, analysis, np.array(analysis.piece_ids, np.int32))
            self._passage.concepts = {number: lookup.find(analysis, "document", None)
                                      for number, lookup in enumerate(self._lookups) if not lookup.per_question}
        return self._passage

    def query(self, example: Example) -> Analysis:
        """The question on all levels."""
        return self._tokenizer.analyse(split_words(example.question)[0])

    def build(self, example: Example, records: Sequence[Mapping[str, Any] | None]
              ) -> tuple[list[list[np.ndarray]], EvaluationExample | None]:
        """Features of one question.

        Args:
            example: the question.
            records: for each knowledge base its retrieved record of this question, if it has one.

        Returns:
            The stored features (arrays in the order of ``stored_columns``) and, for dev, the side table's entry.

        Raises:
            InputError: the question leaves no room for the passage, or a record does not fit the text.
        """
        passage, query = self.passage(example.passage), self.query(example)
        self.tally.questions += 1
        length = min(len(query.pieces), self._windows.max_query_length)
        room = self._windows.max_seq_len - length - SPECIAL_PIECES
        if room < 1:
            raise InputError(f"--max_seq_len {self._windows.max_seq_len}: question {example.id} has {length} word "
                             f"pieces, which leave no room for the passage; give at least "
                             f"{length + SPECIAL_PIECES + 1}, or a smaller --max_query_length")
        spans = window_spans(len(passage.piece_ids), room, self._windows.doc_stride)
        self.tally.without_overlap += len(spans) > 1 and self._windows.doc_stride >= room
        labels = self._labels(example, passage, spans, length)
        features = self._features(query, length, passage, spans, labels, records)
        self.tally.features += len(features)
        if self._split == "train":
            return features, None
        return features, self._evaluation_example(example, passage, length, spans, labels)

    def _labels(self, example: Example, passage: Passage, spans: Sequence[tuple[int, int]], query_length: int
                ) -> list[tuple[int, ...] | None]:
        """For each window its labels, or None for a window to drop."""
        if self._split != "train":
            first = self._next_id
            self._next_id += len(spans)
            return [(first + number,) for number in range(len(spans))]
        if example.is_impossible:
            return [(NO_ANSWER_POSITION, NO_ANSWER_POSITION)] * len(spans)
        found = answer_pieces(example.answers[0], passage, self._tokenizer)
        if isinstance(found, str):
            self.tally.skipped[found] += 1
            return [None] * len(spans)
        first, last = found
        offset = query_length + 2
        labels: list[tuple[int, ...] | None] = [
            (first - start + offset, last - start + offset)
            if start <= first and last < start + length else None for start, length in spans]
        self.tally.dropped_windows += labels.count(None)
        return labels

    def _features(self, query: Analysis, query_length: int, passage: Passage, spans: Sequence[tuple[int, int]],
                  labels: Sequence[tuple[int, ...] | None], records: Sequence[Mapping[str, Any] | None]
                  ) -> list[list[np.ndarray]]:
        head = np.concatenate((self._cls, np.array(query.piece_ids[:query_length], np.int32), self._sep))
        knowledge = [self._knowledge(number, query, query_length, passage, record)
                     for number, record in enumerate(records)]
        features = []
        for (start, length), label in zip(spans, labels, strict=True):
            if label is not None:
                pieces = np.concatenate((head, passage.piece_ids[start:start + length], self._sep))
                concepts = [window_concepts(*of_both, start, length) for of_both in knowledge]
                features.append(pack_feature(pieces, len(head), concepts, label))
        return features

    def _knowledge(self, number: int, query: Analysis, query_length: int, passage: Passage,
                   record: Mapping[str, Any] | None) -> tuple[PieceConcepts, PieceConcepts]:
        """Concepts of the question's pieces that are kept, and of all the passage's."""
        lookup = self._lookups[number]
        counts, ids = lookup.find(query, "query", record)
        if len(counts) > query_length:
            counts = counts[:query_length]
            ids = ids[:counts.sum()]
        document = (lookup.find(passage.analysis, "document", record) if lookup.per_question
                    else passage.concepts[number])
        return PieceConcepts(counts, ids), document

    def _evaluation_example(self, example: Example, passage: Passage, query_length: int,
                            spans: Sequence[tuple[int, int]], labels: Sequence[tuple[int, ...] | None]
                            ) -> EvaluationExample:
        windows = tuple(Window(unique_id=label[0], doc_start=start, length=length)
                        for (start, length), label in zip(spans, labels, strict=True) if label is not None)
        return EvaluationExample(
            id=example.id, question=example.question, words=tuple(passage.words),
            pieces=tuple(passage.analysis.pieces), piece_to_word=tuple(passage.analysis.piece_to_word),
            query_length=query_length, windows=windows, answers=tuple(answer.text for answer in example.answers),
            entities=tuple(entity.text for entity in example.entities), is_impossible=example.is_impossible)


def window_concepts(query: PieceConcepts, document: PieceConcepts, start: int, length: int) -> PieceConcepts:
    """Concepts of a whole feature; special pieces have none."""
    counts = np.concatenate((SPECIAL_COUNT, query.counts, SPECIAL_COUNT, document.counts[start:start + length],
                             SPECIAL_COUNT))
    if length == len(document.counts):
        inside = document.ids
    else:
        before = int(document.counts[:start].sum())
        inside = document.ids[before:before + int(document.counts[start:start + length].sum())]
    return PieceConcepts(counts, np.concatenate((query.ids, inside)))


def answer_pieces(answer: Answer, passage: Passage, tokenizer: BertTokenizer) -> tuple[int, int] | str:
    """First and last word piece of the answer in the passage, or the reason why there is none.

    The answer's words are found by its offset; where their pieces contain exactly the answer's own pieces, the span
    narrows to these: "1895" in the word "(1895-1943)." gives the piece "1895", not all seven.
    """
    if answer.start == NOT_FOUND:
        return TEXT_NOT_FOUND
    first_word = max(bisect_right(passage.word_starts, answer.start) - 1, 0)
    last_word = max(bisect_right(passage.word_starts, answer.start + len(answer.text) - 1) - 1, 0)
    wanted = split_words(answer.text)[0]
    if " ".join(wanted) not in " ".join(passage.words[first_word:last_word + 1]):
        return TEXT_NOT_FOUND
    owners = passage.analysis.piece_to_word
    first = bisect_right(owners, first_word - 1)
    last = bisect_right(owners, last_word) - 1
    if last < first:
        return NO_PIECES
    pieces = tokenizer.analyse(wanted).pieces
    for start in range(first, last - len(pieces) + 2) if pieces else ():
        if passage.analysis.pieces[start:start + len(pieces)] == pieces:
            return start, start + len(pieces) - 1
    return first, last
