# SPDX-License-Identifier: Apache-2.0
"""One question with everything the viewer shows of it, gathered from the windows that the network read.

A *position* counts the word pieces of a case: those of the question first, then all of the passage.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from src.reader.batching_twomemory import max_context_windows
from src.reader.decoding import Decoded, DecodingOptions, PassageText, decode, rank_spans
from src.reader.examples import EvaluationExample
from src.reader.metrics import GoldAnswers, score_answer
from src.reader.tokenization import BertTokenizer, split_words


class WindowResult(NamedTuple):
    """The network's output for one feature of L word pieces (the logits may be longer because of padding)."""

    start_logits: np.ndarray                 # float32 [L]
    end_logits: np.ndarray                   # float32 [L]
    concept_ids: tuple[np.ndarray, ...]      # for each knowledge base int32 [L, K]
    attention: tuple[np.ndarray, ...] = ()   # for each knowledge base float32 [L, 1 + K], the sentinel's weight first


@dataclass(frozen=True)
class Reading:
    """What one word piece read from one knowledge base."""

    position: int
    concepts: tuple[int, ...]                # ids
    weights: np.ndarray                      # float32 [1 + number of concepts], the sentinel's first; they sum to 1


@dataclass(frozen=True)
class Alternative:
    """What the same network answers with a memory switched off."""

    label: str               # "without WordNet"
    prediction: str
    probability: float


@dataclass(frozen=True)
class Case:
    """One question as the viewer shows it."""

    id: str
    question_words: tuple[str, ...]
    passage_words: tuple[str, ...]
    pieces: tuple[str, ...]                  # question's, then passage's
    piece_to_word: tuple[int, ...]           # index into question_words, then into passage_words
    query_length: int                        # pieces of the question
    start: np.ndarray                        # float64 [passage pieces]: probability that the answer starts there
    end: np.ndarray
    readings: tuple[tuple[Reading, ...], ...]    # for each knowledge base, by position
    decoded: Decoded
    prediction: str
    span: tuple[int, int] | None             # first and last passage piece of the answer
    gold: tuple[str, ...] | None             # None: not known
    score: tuple[float, float] | None        # exact match, F1
    compared: tuple[Alternative, ...] = ()


def answer(example: EvaluationExample, results: Sequence[WindowResult], options: DecodingOptions) -> Decoded:
    """The n-best answers of a question from the results of its windows."""
    logits = {window.unique_id: (result.start_logits, result.end_logits)
              for window, result in zip(example.windows, results, strict=True)}
    return next(decode([example], logits, options))


def make_case(example: EvaluationExample, results: Sequence[WindowResult], tokenizer: BertTokenizer,
              options: DecodingOptions, prediction: str | None = None, has_gold: bool = False,
              compared: Sequence[Alternative] = ()) -> Case:
    """Gather a case.

    Every passage piece is taken from the window that gives it the most context, the question from the window that holds
    the answer (without an answer, from the first). Start and end probabilities are the softmax over the passage's
    pieces; as in decoding, the end logits come from the answer's own window as far as that reaches.

    Args:
        example: the question.
        results: one for each of its windows, with attention.
        tokenizer: the encoder's.
        options: how spans are chosen.
        prediction: the answer if it is known already, else it is decoded here.
        has_gold: whether ``example.answers``, if there are some, are gold answers.
        compared: answers with memories switched off.
    """
    decoded = answer(example, results, options)
    prediction = decoded.prediction if prediction is None else prediction
    sizes = [example.document_offset + window.length + 1 for window in example.windows]     # without padding
    pairs = [(result.start_logits[:size], result.end_logits[:size])
             for result, size in zip(results, sizes, strict=True)]
    span = find_span(example, pairs, options, prediction)
    words = split_words(example.question)[0]
    query = tokenizer.analyse(words)
    owners = max_context_windows([(window.doc_start, window.length) for window in example.windows],
                                 len(example.pieces))
    asked = int(owners[span[0]]) if span else 0
    rows = [(asked, 1 + piece) for piece in range(example.query_length)]
    passage = [_row(example, piece, int(owner)) for piece, owner in enumerate(owners)]
    rows += passage
    answered = example.windows[asked]
    ends = [_row(example, piece, asked) if span and 0 <= piece - answered.doc_start < answered.length else row
            for piece, row in enumerate(passage)]
    score = None
    has_gold = has_gold and (bool(example.answers) or example.is_impossible)
    if has_gold:
        gold = GoldAnswers(example.id, () if example.is_impossible else example.answers,
                           options.version_2_with_negative)
        score = score_answer(prediction, gold)
    return Case(
        id=example.id, question_words=tuple(words), passage_words=example.words,
        pieces=(*query.pieces[:example.query_length], *example.pieces),
        piece_to_word=(*query.piece_to_word[:example.query_length], *example.piece_to_word),
        query_length=example.query_length,
        start=softmax([results[owner].start_logits[row] for owner, row in passage]),
        end=softmax([results[window].end_logits[row] for window, row in ends]),
        readings=tuple(_readings(number, rows, results) for number in range(len(results[0].concept_ids))),
        decoded=decoded, prediction=prediction, span=span,
        gold=(() if example.is_impossible else example.answers) if has_gold else None, score=score,
        compared=tuple(compared))


def _row(example: EvaluationExample, piece: int, window: int) -> tuple[int, int]:
    """Location of a passage piece: (window, row of its feature)."""
    return window, example.document_offset + piece - example.windows[window].doc_start


def find_span(example: EvaluationExample, logits: Sequence[tuple[np.ndarray, np.ndarray]], options: DecodingOptions,
              text: str) -> tuple[int, int] | None:
    """First and last passage piece of the best span with this text; None for "no answer"."""
    if text:
        passage = PassageText(example, options.do_lower_case)
        for span in rank_spans(example, logits, options):
            if passage.span_text(span.start, span.end) == text:
                return span.start, span.end
    return None


def softmax(values: Sequence[float]) -> np.ndarray:
    """Probabilities float64 [N]."""
    logits = np.array(values, np.float64)
    weights = np.exp(logits - logits.max(initial=-np.inf))
    return weights / weights.sum()


def _readings(base: int, rows: Sequence[tuple[int, int]], results: Sequence[WindowResult]) -> tuple[Reading, ...]:
    """What the pieces at these (window, row) read from one knowledge base; pieces without concepts are left out."""
    found = []
    for position, (window, row) in enumerate(rows):
        ids = results[window].concept_ids[base][row]
        count = int(np.count_nonzero(ids))
        if count:
            weights = results[window].attention[base][row, :1 + count]
            found.append(Reading(position, tuple(ids[:count].tolist()), weights))
    return tuple(found)
