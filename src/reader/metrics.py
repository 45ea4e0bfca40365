# SPDX-License-Identifier: Apache-2.0
"""Exact match and F1 as the official evaluation scripts of SQuAD and ReCoRD define them, once for both."""
from __future__ import annotations

import json
import re
import string
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from src.reader.dataset_json import stream_items
from src.reader.fields import take, take_answers
from utils.args import OneLineParser
from utils.util import InputError, read_json

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)    # ASCII only, as the official scripts have it


class GoldAnswers(NamedTuple):
    """What the metric needs to know of a question."""

    id: str
    answers: tuple[str, ...]
    may_be_none: bool = False    # scored by the rules of SQuAD 2.0; without answers the empty one is right


def normalize_answer(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces: "The  Black-Death." becomes "blackdeath"."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def answer_tokens(text: str) -> list[str]:
    """Words of the normalised text."""
    return normalize_answer(text).split()


def exact_match(prediction: str, answer: str) -> float:
    """1.0 when both texts are the same after normalisation, else 0.0."""
    return float(normalize_answer(prediction) == normalize_answer(answer))


def f1(prediction: str, answer: str) -> float:
    """Harmonic mean of precision and recall of the normalised words (as a multiset); 0.0 when none is shared."""
    predicted, gold = answer_tokens(prediction), answer_tokens(answer)
    shared = sum((Counter(predicted) & Counter(gold)).values())
    if not shared:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(gold)
    return 2 * precision * recall / (precision + recall)


def score_answer(prediction: str, gold: GoldAnswers) -> tuple[float, float]:
    """Exact match and F1 of one answer, each the maximum over the gold answers.

    By the rules of SQuAD 2.0 (``gold.may_be_none``) gold answers that are empty after normalisation are ignored;
    if none is left, only the empty prediction is right.

    Raises:
        InputError: there is no gold answer and the rules are not those of SQuAD 2.0.
    """
    answers = gold.answers
    if gold.may_be_none:
        answers = tuple(answer for answer in answers if normalize_answer(answer))
        if not answers:
            right = float(not normalize_answer(prediction))
            return right, right
    if not answers:
        raise InputError(f"question {gold.id}: no gold answer to score with; "
                         "give a data set with answers, or --version_2_with_negative True for SQuAD 2.0")
    return (max(exact_match(prediction, answer) for answer in answers),
            max(f1(prediction, answer) for answer in answers))


def evaluate(questions: Iterable[GoldAnswers], predictions: Mapping[str, str],
             source: str = "predictions") -> dict[str, float]:
    """Mean exact match and F1 in percent; an unanswered question scores 0 and is named on stderr.

    Args:
        questions: the gold answers, question by question.
        predictions: question id -> answer text; answers to other questions are ignored.
        source: where the predictions come from, for error messages.

    Returns:
        ``{"exact_match": .., "f1": ..}``.

    Raises:
        InputError: no question at all, none of them is answered, or a question has no gold answer.
    """
    total = answered = 0
    sum_exact = sum_f1 = 0.0
    unanswered = []
    for gold in questions:
        total += 1
        if gold.id not in predictions:
            unanswered.append(gold.id)
            continue
        answered += 1
        exact, partial = score_answer(predictions[gold.id], gold)
        sum_exact += exact
        sum_f1 += partial
    if not total:
        raise InputError(f"{source}: the data set has no question to score")
    if not answered:
        raise InputError(f"{source}: answers none of the {total} questions; is it of another data set?")
    for question in unanswered:
        print(f"Unanswered question {question} will receive score 0.", file=sys.stderr)
    return {"exact_match": 100.0 * sum_exact / total, "f1": 100.0 * sum_f1 / total}


def read_predictions(path: Path | str) -> dict[str, str]:
    """Read a predictions file: one JSON object, question id -> answer text.

    Raises:
        InputError: the file is missing, not JSON, not an object, or an answer is not a string.
    """
    predictions = read_json(path)
    if not isinstance(predictions, dict):
        raise InputError(f"{path}: not an object of question ids and answers; give the predictions.json of a run")
    for question, answer in predictions.items():
        if not isinstance(answer, str):
            raise InputError(f"{path}: the answer to question {question} is {type(answer).__name__}, not text; "
                             "give predictions.json, not nbest_predictions.json")
    return predictions


ListQuestions = Callable[[Any, str], Iterator[tuple[str, Any]]]
"""From an item of a data set's ``data`` and its place to the questions below it, each with its place."""


def list_questions(holder: Any, place: str) -> Iterator[tuple[str, Any]]:
    """The entries of ``holder["qas"]``, each with its place in the file."""
    for number, question in enumerate(take(holder, "qas", list, place)):
        yield f"{place}.qas[{number}]", question


def read_gold_answers(path: Path | str, questions_below: ListQuestions) -> list[GoldAnswers]:
    """The gold answers of a data set file; by the rules of SQuAD 2.0 where a question has ``is_impossible``.

    Raises:
        InputError: the file is missing, not JSON or of another layout, an id occurs twice, or a question has no answer
            (except in SQuAD 2.0).
    """
    seen: set[str] = set()
    answered: list[tuple[str, tuple[str, ...]]] = []
    version_2 = False
    for item_place, item in stream_items(path):
        for place, question in questions_below(item, item_place):
            identity = take(question, "id", str, place)
            if identity in seen:
                raise InputError(f"{place}: question {identity} occurs twice; remove one")
            seen.add(identity)
            impossible = "is_impossible" in question and take(question, "is_impossible", bool, place)
            version_2 |= "is_impossible" in question
            answers = () if impossible else tuple(
                take(answer, "text", str, f"{place}.answers[{number}]")
                for number, answer in enumerate(take_answers(question, place)))
            if not answers and "is_impossible" not in question:
                raise InputError(f"{place}: question {identity} has no answer; give a data set with gold answers")
            answered.append((identity, answers))
    return [GoldAnswers(identity, answers, version_2) for identity, answers in answered]


def evaluate_files(argv: Sequence[str] | None, module: str, questions_below: ListQuestions) -> None:
    """The command line of an official evaluation: ``DATASET.json PREDICTIONS.json`` -> one JSON line on stdout.

    Args:
        argv: arguments, by default those of the process.
        module: the module's name, for the usage line.
        questions_below: how the data set's questions are found.
    """
    parser = OneLineParser(prog=f"python -m {module}", description="Exact match and F1 of a predictions file")
    parser.add_argument("dataset", metavar="DATASET.json", help="data set with gold answers")
    parser.add_argument("predictions", metavar="PREDICTIONS.json", help="question id -> answer text")
    options = parser.parse_args(argv)
    predictions = read_predictions(options.predictions)
    questions = read_gold_answers(options.dataset, questions_below)
    print(json.dumps(evaluate(questions, predictions, options.predictions)))
