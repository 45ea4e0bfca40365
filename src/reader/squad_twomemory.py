# SPDX-License-Identifier: Apache-2.0
"""SQuAD 1.1 and 2.0: reading the questions."""
from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from src.reader.dataset_json import stream_items
from src.reader.examples import Answer, Example, Mention
from src.reader.fields import make_answer, take, take_answers
from utils.util import InputError


def read_paragraphs(path: Path | str) -> Iterator[tuple[str, Any]]:
    """(place, paragraph) of a SQuAD file."""
    for place, article in stream_items(path):
        for number, paragraph in enumerate(take(article, "paragraphs", list, place)):
            yield f"{place}.paragraphs[{number}]", paragraph


def read_examples(path: Path | str, split: str, version_2: bool = False, tagged: bool = False) -> Iterator[Example]:
    """Stream the questions of a SQuAD file, in its order.

    Args:
        path: ``train-v1.1.json`` and the like.
        split: "train" (each question must have exactly one answer) or "dev".
        version_2: SQuAD 2.0: a question with ``is_impossible``, or with an empty list of answers, has none.
        tagged: the file holds ``context_entities`` and ``question_entities``, as retrieve.py writes them.

    Raises:
        InputError: the file is no SQuAD file, or an answer or entity lies outside its text.
    """
    for place, paragraph in read_paragraphs(path):
        context = take(paragraph, "context", str, place)
        entities = _read_entities(paragraph, "context_entities", context, place) if tagged else ()
        for index, question in enumerate(take(paragraph, "qas", list, place)):
            question_place = f"{place}.qas[{index}]"
            example = _read_question(question, context, question_place, split, version_2)
            yield dataclasses.replace(example, entities=entities, question_entities=_read_entities(
                question, "question_entities", example.question, question_place)) if tagged else example


def _read_entities(item: Any, key: str, text: str, place: str) -> tuple[Mention, ...]:
    entities = []
    for number, entity in enumerate(take(item, key, list, place)):
        entity_place = f"{place}.{key}[{number}]"
        found = Mention(take(entity, "text", str, entity_place), take(entity, "start", int, entity_place),
                        take(entity, "end", int, entity_place))
        if found.start < 0 or not found.text or text[found.start:found.end + 1] != found.text:
            raise InputError(f"{entity_place}: characters {found.start} to {found.end} of the text are not "
                             f"{found.text[:60]!r}; run retrieve.py --step entities --force")
        entities.append(found)
    return tuple(entities)


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
