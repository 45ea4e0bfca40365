# SPDX-License-Identifier: Apache-2.0
"""Logits to answers: the n-best spans of every question, their text in the passage, and the files with the results.

The letters: N features (windows), S positions of a feature, P word pieces of a passage.
"""
from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from src.config import TASKS
from src.reader.batching_twomemory import max_context_windows
from src.reader.examples import EvaluationExample, Window, read_side_table, side_table_path
from src.reader.logits import LogitsByFeature
from src.reader.metrics import GoldAnswers, answer_tokens, evaluate
from src.reader.tokenization import basic_tokens
from utils.util import LOGGER, InputError, atomic_path, write_json

NO_CANDIDATE = "empty"    # the answer if no span passes the filters, as in BERT's SQuAD code
PREDICTIONS, NBEST, NULL_ODDS = "predictions.json", "nbest_predictions.json", "null_odds.json"
RESULT = "eval_result.json"


@dataclass(frozen=True)
class DecodingOptions:
    """How spans are chosen.

    BERT's SQuAD code takes the n best starts and ends from all positions of a feature, so that padding with high
    logits can crowd out word pieces. With ``ignore_padding`` only the feature's own positions compete: the answers
    then do not depend on how far a feature was padded.

    Raises:
        InputError: a size is not positive, or the threshold is not a number.
    """

    n_best_size: int = 20
    max_answer_length: int = 30                  # word pieces
    null_score_diff_threshold: float = 0.0       # SQuAD 2.0: "no answer" if null_odds is greater
    version_2_with_negative: bool = False        # SQuAD 2.0: "no answer" is a candidate
    pick_entity: bool = False                    # ReCoRD: prefer an entry that names an entity of the passage
    do_lower_case: bool = False                  # as the word pieces were made
    ignore_padding: bool = False                 # see below

    def __post_init__(self) -> None:
        for name in ("n_best_size", "max_answer_length"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} is {getattr(self, name)}; it must be at least 1")
        if not math.isfinite(self.null_score_diff_threshold):
            raise InputError("--null_score_diff_threshold is not a finite number; 0.0 is usual")

    @classmethod
    def for_features(cls, settings: Mapping[str, Any], **choices: Any) -> DecodingOptions:
        """The options that fit converted features.

        Args:
            settings: of the conversion's manifest (``dataset``, ``lower_case``, ``version_2_with_negative``).
            choices: the remaining options.
        """
        return cls(version_2_with_negative=settings["version_2_with_negative"], do_lower_case=settings["lower_case"],
                   pick_entity=TASKS[settings["dataset"]].answers_are_entities, **choices)


@dataclass(frozen=True)
class NBestEntry:
    """One candidate answer as nbest_predictions.json lists it."""

    text: str
    probability: float
    start_logit: float
    end_logit: float


@dataclass(frozen=True)
class Decoded:
    """The answer to one question."""

    id: str
    prediction: str
    nbest: tuple[NBestEntry, ...]
    null_odds: float | None = None    # SQuAD 2.0 only: null score minus the score of the best span

    @property
    def probability(self) -> float:
        """Probability of the answer among the n best; 0 if it is none of them."""
        return next((entry.probability for entry in self.nbest if entry.text == self.prediction), 0.0)


@dataclass(frozen=True)
class _Span:
    """Word pieces ``start .. end`` of the passage and their logits; start -1 means "no answer"."""

    start: int
    end: int
    start_logit: float
    end_logit: float


def decode(examples: Iterable[EvaluationExample], logits: LogitsByFeature,
           options: DecodingOptions = DecodingOptions()) -> Iterator[Decoded]:
    """Answer every question, holding only one at a time.

    Args:
        examples: the side table, in reading order.
        logits: the features' logits by unique id.
        options: how spans are chosen.

    Yields:
        The answer to each question, in the order of ``examples``.

    Raises:
        InputError: logits that are missing, too many, not finite or too short for a question's windows; a window that
            does not lie in its passage; a unique id that two windows share.
    """
    seen: set[int] = set()
    for example in examples:
        _check_example(example)
        for window in example.windows:
            if window.unique_id in seen:
                raise InputError(f"side table: unique id {window.unique_id} (question {example.id}) occurs twice; "
                                 "run data_convert.py again")
            seen.add(window.unique_id)
        pairs = [_checked_logits(logits, example, window, options.ignore_padding) for window in example.windows]
        yield decode_question(example, pairs, options)
    if len(seen) < len(logits):
        surplus = next(unique_id for unique_id in logits if unique_id not in seen)
        raise InputError(f"logits: {len(logits)} features, but the questions have {len(seen)} (unique id {surplus} is "
                         "none of theirs); are they of another data set?")


def decode_question(example: EvaluationExample, logits: Sequence[tuple[np.ndarray, np.ndarray]],
                    options: DecodingOptions) -> Decoded:
    """Answer one question from the logits of its windows (a pair of arrays [S] a window)."""
    null = None
    if options.version_2_with_negative:
        # [CLS], position 0, means "no answer"; the window most confident of an answer decides.
        start_logit, end_logit = min(((float(start[0]), float(end[0])) for start, end in logits), key=sum,
                                     default=(0.0, 0.0))
        null = _Span(-1, -1, start_logit, end_logit)
    entries = _distinct_texts(rank_spans(example, logits, options, null), example, options)
    if null and not any(text == "" for text, _ in entries):
        entries.append(("", null))
    if not entries:
        entries.append((NO_CANDIDATE, _Span(-1, -1, 0.0, 0.0)))
    nbest = _with_probabilities(entries)
    if null is None:
        text = pick_entity(nbest, example.entities) if options.pick_entity else nbest[0].text
        return Decoded(example.id, text, nbest)
    best = next((entry for entry in nbest if entry.text), None)
    null_odds = null.start_logit + null.end_logit - (best.start_logit + best.end_logit if best else 0.0)
    prediction = best.text if best and null_odds <= options.null_score_diff_threshold else ""
    return Decoded(example.id, prediction, nbest, null_odds)


def rank_spans(example: EvaluationExample, logits: Sequence[tuple[np.ndarray, np.ndarray]],
               options: DecodingOptions, null: _Span | None = None) -> Iterator[_Span]:
    """All admissible spans of a question, by decreasing sum of their logits.

    In every window the ``n_best_size`` best starts are combined with as many ends. Ties are broken by window, then rank
    of the start, then rank of the end; ``null`` ("no answer") comes last.
    """
    if not example.windows:    # the passage has no word piece
        return
    owners = None
    if len(example.windows) > 1:
        owners = max_context_windows([(window.doc_start, window.length) for window in example.windows],
                                     len(example.pieces))
    parts = [_window_spans(number, window, example.document_offset, owners, *pair, options)
             for number, (window, pair) in enumerate(zip(example.windows, logits, strict=True))]
    if null:
        parts.append(tuple(np.array([value]) for value in (null.start, null.end, null.start_logit, null.end_logit)))
    starts, ends, start_logits, end_logits = (np.concatenate(column) for column in zip(*parts, strict=True))
    # In float64, so that rounding makes no ties.
    order = np.argsort(-(start_logits + end_logits), kind="stable")
    for index in order.tolist():
        if starts[index] < 0 and null:
            yield null
        else:
            yield _Span(int(starts[index]), int(ends[index]), float(start_logits[index]), float(end_logits[index]))


def _window_spans(number: int, window: Window, offset: int, owners: np.ndarray | None, start_logits: np.ndarray,
                  end_logits: np.ndarray, options: DecodingOptions) -> tuple[np.ndarray, ...]:
    """Admissible spans of one window: first and last piece (int64) and their logits (float64), each [candidates]."""
    shift = window.doc_start - offset    # from the feature's position to the passage's piece
    starts, ends = (positions[(positions >= offset) & (positions < offset + window.length)]
                    for positions in (top_positions(start_logits, options.n_best_size),
                                      top_positions(end_logits, options.n_best_size)))
    if owners is not None:
        starts = starts[owners[starts + shift] == number]
    lengths = ends[np.newaxis, :] - starts[:, np.newaxis] + 1                    # [starts, ends]
    row, column = np.nonzero((lengths >= 1) & (lengths <= options.max_answer_length))
    starts, ends = starts[row], ends[column]
    return (starts + shift, ends + shift,
            start_logits[starts].astype(np.float64), end_logits[ends].astype(np.float64))


def top_positions(logits: np.ndarray, count: int) -> np.ndarray:
    """Positions of the ``count`` greatest logits [S], best first, ties by position, as in a stable sort."""
    if count < len(logits):
        positions = np.flatnonzero(logits >= np.partition(logits, -count)[-count])
    else:
        positions = np.arange(len(logits))
    return positions[np.argsort(-logits[positions], kind="stable")[:count]]


def _distinct_texts(spans: Iterable[_Span], example: EvaluationExample,
                    options: DecodingOptions) -> list[tuple[str, _Span]]:
    """The first ``n_best_size`` spans whose texts differ."""
    passage = PassageText(example, options.do_lower_case)
    entries: dict[str, _Span] = {}
    for span in spans:
        if len(entries) == options.n_best_size:
            break
        entries.setdefault("" if span.start < 0 else passage.span_text(span.start, span.end), span)
    return list(entries.items())


def _with_probabilities(entries: Sequence[tuple[str, _Span]]) -> tuple[NBestEntry, ...]:
    """Softmax of the sums of logits over the entries."""
    sums = [span.start_logit + span.end_logit for _, span in entries]
    greatest = max(sums)
    weights = [math.exp(value - greatest) for value in sums]
    total = sum(weights)
    return tuple(NBestEntry(text, weight / total, span.start_logit, span.end_logit)
                 for (text, span), weight in zip(entries, weights, strict=True))


def pick_entity(nbest: Sequence[NBestEntry], entities: Iterable[str]) -> str:
    """The text of the first entry that has F1 > 0 with some entity, else of the first entry.

    F1 is positive exactly if the normalised texts share a word.
    """
    words = {word for entity in entities for word in answer_tokens(entity)}
    return next((entry.text for entry in nbest if not words.isdisjoint(answer_tokens(entry.text))), nbest[0].text)


class PassageText:
    """Text of word-piece spans in one passage, by the character alignment of BERT's SQuAD code.

    Word pieces have lost spaces and, if lower-cased, case and accents. The span's joined pieces are looked up in the
    basic tokens of their words, and their location is transferred to the words by counting characters that are not
    spaces:

        pieces   queen zoe               (a span of the words "Queen Zoë's")
        tokens   queen zoe ' s           found at 0: characters 0 .. 7, spaces not counted
        words    Queen Zoë's             characters 0 .. 7, spaces not counted: "Queen Zoë"

    Where that fails (an unknown word, accents that change a word's length) the complete words are returned.
    """

    def __init__(self, example: EvaluationExample, do_lower_case: bool) -> None:
        self.pieces, self.words, self.piece_to_word = example.pieces, example.words, example.piece_to_word
        self.do_lower_case = do_lower_case
        self.word_ends = list(accumulate(map(len, example.words)))    # characters up to each word's end, no spaces

    def span_text(self, first: int, last: int) -> str:
        """Text of the word pieces ``first .. last``."""
        start, end = self.span_place(first, last)
        return " ".join(self.words[self.piece_to_word[first]:self.piece_to_word[last] + 1])[start:end]

    def span_place(self, first: int, last: int) -> tuple[int, int]:
        """First character of that text, and the one after it, in the span's words joined by spaces."""
        first_word, last_word = self.piece_to_word[first], self.piece_to_word[last]
        words = self.words[first_word:last_word + 1]
        pieces = " ".join(" ".join(self.pieces[first:last + 1]).replace(" ##", "").replace("##", "").split())
        tokens = " ".join(filter(None, (_joined_tokens(word, self.do_lower_case) for word in words)))
        place = tokens.find(pieces)
        before = self.word_ends[first_word] - len(self.words[first_word])
        characters = self.word_ends[last_word] - before
        if place < 0 or not pieces or len(tokens) - tokens.count(" ") != characters:
            return 0, characters + len(words) - 1
        start = place - tokens.count(" ", 0, place)
        end = start + len(pieces) - pieces.count(" ") - 1
        # A character's place in the text: the characters before it and one space for every word before its own.
        start, end = (at + bisect_right(self.word_ends, before + at) - first_word for at in (start, end))
        return start, end + 1


@lru_cache(maxsize=1 << 17)
def _joined_tokens(word: str, do_lower_case: bool) -> str:
    """Basic tokens of a word, joined by spaces; cached, as most words of a passage are needed many times."""
    return " ".join(basic_tokens(word, do_lower_case))


def _check_example(example: EvaluationExample) -> None:
    """Refuse an inconsistent side table."""
    count = len(example.pieces)
    outside = any(window.doc_start < 0 or window.length < 0 or window.doc_start + window.length > count
                  for window in example.windows)
    words = example.piece_to_word
    if outside or len(words) != count or count and not 0 <= min(words) <= max(words) < len(example.words):
        raise InputError(f"side table: windows or words of question {example.id} lie outside its passage; "
                         "run data_convert.py again")


def _checked_logits(logits: LogitsByFeature, example: EvaluationExample, window: Window,
                    ignore_padding: bool) -> tuple[np.ndarray, np.ndarray]:
    """The logits [S] of one window, or only those of its own positions."""
    place = f"logits of unique id {window.unique_id} (question {example.id})"
    try:
        start, end = logits[window.unique_id]
    except KeyError:
        raise InputError(f"{place} are missing; was another data set or only a part of it evaluated?") from None
    needed = example.document_offset + window.length + 1    # with the last [SEP]
    if start.ndim != 1 or start.shape != end.shape or len(start) < needed:
        raise InputError(f"{place} have the shapes {list(start.shape)} and {list(end.shape)}, but the window needs "
                         f"{needed} positions; use the max_seq_len of the conversion")
    if ignore_padding:
        start, end = start[:needed], end[:needed]
    if not (np.isfinite(start).all() and np.isfinite(end).all()):
        raise InputError(f"{place} are not all finite numbers; did the training diverge?")
    return start, end


def write_predictions(folder: Path | str, decoded: Iterable[Decoded]) -> dict[str, str]:
    """Write predictions.json, nbest_predictions.json and, where there are null odds, null_odds.json.

    Answers are written one by one; no file is replaced before the last answer, and predictions.json is replaced last.

    Returns:
        The predictions: question id -> answer text.

    Raises:
        InputError: two answers to one question.
    """
    folder = Path(folder)
    predictions: dict[str, str] = {}
    null_odds: dict[str, float] = {}
    with atomic_path(folder / NBEST) as temporary, open(temporary, "w", encoding="utf-8") as nbest:
        for answer in decoded:
            if answer.id in predictions:
                raise InputError(f"side table: question {answer.id} occurs twice; run data_convert.py again")
            nbest.write(("{\n" if not predictions else ",\n") + _nbest_json(answer))
            predictions[answer.id] = answer.prediction
            if answer.null_odds is not None:
                null_odds[answer.id] = answer.null_odds
        nbest.write("\n}\n" if predictions else "{}\n")
    if null_odds:
        write_json(folder / NULL_ODDS, null_odds)
    else:
        (folder / NULL_ODDS).unlink(missing_ok=True)    # of an earlier run
    write_json(folder / PREDICTIONS, predictions)
    return predictions


def _nbest_json(answer: Decoded) -> str:
    """One member of nbest_predictions.json, an entry a line."""
    entries = ",\n".join("    " + json.dumps(vars(entry), ensure_ascii=False) for entry in answer.nbest)
    return f"  {json.dumps(answer.id, ensure_ascii=False)}: [\n{entries}\n  ]"


def score(examples: Iterable[EvaluationExample], predictions: Mapping[str, str],
          version_2_with_negative: bool = False) -> dict[str, float]:
    """Exact match and F1 in percent, against the gold answers of the side table.

    Raises:
        InputError: see :func:`src.reader.metrics.evaluate`.
    """
    gold = (GoldAnswers(example.id, () if example.is_impossible else example.answers, version_2_with_negative)
            for example in examples)
    return evaluate(gold, predictions)


def write_result(folder: Path | str, result: Mapping[str, float]) -> None:
    """Write eval_result.json."""
    write_json(Path(folder) / RESULT, dict(result))


def answer_and_score(mindrecord: Path | str, logits: LogitsByFeature, folder: Path | str,
                     options: DecodingOptions) -> dict[str, float]:
    """Decode and score: side table and logits to predictions, n-best, null odds and eval_result.json.

    Args:
        mindrecord: the converted features, whose side table is read.
        logits: the features' logits by unique id.
        folder: where the files are written.
        options: how spans are chosen.

    Returns:
        ``{"exact_match": .., "f1": ..}``, or nothing where no question has a gold answer.

    Raises:
        InputError: see :func:`decode` and :func:`score`; the predictions are written by then.
    """
    predictions = write_predictions(folder, decode(read_side_table(mindrecord), logits, options))
    (Path(folder) / RESULT).unlink(missing_ok=True)    # scores of an earlier run, not of these predictions
    if not any(example.answers or example.is_impossible for example in read_side_table(mindrecord)):
        LOGGER.warning("%s: none of its questions has a gold answer: %s is written, no scores",
                       side_table_path(mindrecord), Path(folder) / PREDICTIONS)
        return {}
    result = score(read_side_table(mindrecord), predictions, options.version_2_with_negative)
    write_result(folder, result)
    return result
