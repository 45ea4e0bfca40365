"""SQuAD 1.1 and 2.0: reading the questions."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

from src.reader.dataset_json import stream_items
from src.reader.examples import Answer, Example
from src.reader.fields import make_answer, take, take_answers
from utils.util import InputError


def read_examples(path: Path | str, split: str, version_2: bool = False) -> Iterator[Example]:
    """Stream the questions of a SQuAD file, in its order.

    Args:
        path: ``train-v1.1.json`` and the like.
        split: "train" (each question must have exactly one answer) or "dev".
        version_2: SQuAD 2.0: a question with ``is_impossible``, or with an empty list of answers, has none.

    Raises:
        InputError: the file is not a SQuAD file, or an answer lies outside its context.
    """
    for place, article in stream_items(path):
        for number, paragraph in enumerate(take(article, "paragraphs", list, place)):
            paragraph_place = f"{place}.paragraphs[{number}]"
            context = take(paragraph, "context", str, paragraph_place)
            for index, question in enumerate(take(paragraph, "qas", list, paragraph_place)):
                yield _read_question(question, context, f"{paragraph_place}.qas[{index}]", split, version_2)


def _read_question(question: Any, context: str, place: str, split: str, version_2: bool) -> Example:
    identity = take(question, "id", str, place)
    given = take_answers(question, place)
    impossible = version_2 and (take(question, "is_impossible", bool, place) if "is_impossible" in question
                                else "answers" in question and not given)
    answers = () if impossible else tuple(
        _read_answer(answer, context, f"{place}.answers[{number}]", identity)
        for number, answer in enumerate(given))
    if split == "train" and not impossible and len(answers) != 1:
        fix = "" if answers or version_2 else "; SQuAD 2.0 files need --version_2_with_negative True"
        raise InputError(f"{place}: question {identity} has {len(answers)} answers; "
                         f"a training question has exactly one{fix}")
    return Example(id=identity, question=take(question, "question", str, place), passage=context, answers=answers,
                   is_impossible=impossible)


def _read_answer(answer: Any, context: str, place: str, identity: str) -> Answer:
    return make_answer(take(answer, "text", str, place), take(answer, "answer_start", int, place), context,
                       f"{place}: question {identity}")
