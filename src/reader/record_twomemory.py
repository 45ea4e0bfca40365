# SPDX-License-Identifier: Apache-2.0
"""ReCoRD: reading the queries, each with the entities one of which fills its @placeholder."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from src.reader.dataset_json import stream_items
from src.reader.examples import Answer, Example, Mention
from src.reader.fields import make_answer, take, take_answers
from utils.util import InputError

NO_BREAK_SPACE = "\xa0"


def read_examples(path: Path | str, split: str, version_2: bool = False) -> Iterator[Example]:
    """Stream the queries of a ReCoRD file, in its order; no-break spaces are read as spaces.

    Args:
        path: ``train.json`` or ``dev.json``.
        split: "train" (only the first answer counts) or "dev".
        version_2: taken for the sake of the common form; ReCoRD has no unanswerable queries.

    Raises:
        InputError: the file is not a ReCoRD file, or an answer lies outside its passage.
    """
    if version_2:
        raise InputError("--version_2_with_negative is for SQuAD 2.0; ReCoRD has no unanswerable queries")
    for place, item in stream_items(path):
        passage = take(item, "passage", dict, place)
        text = take(passage, "text", str, f"{place}.passage").replace(NO_BREAK_SPACE, " ")
        entities = _read_entities(passage, text, f"{place}.passage")
        for number, query in enumerate(take(item, "qas", list, place)):
            yield _read_query(query, text, entities, f"{place}.qas[{number}]", split)


def _read_query(query: Any, passage: str, entities: tuple[Mention, ...], place: str, split: str) -> Example:
    identity = take(query, "id", str, place)
    answers = take_answers(query, place)
    if split == "train":
        if not answers:
            raise InputError(f"{place}: query {identity} has no answer; a training query needs one")
        answers = answers[:1]
    return Example(id=identity, question=take(query, "query", str, place).replace(NO_BREAK_SPACE, " "),
                   passage=passage, entities=entities,
                   answers=tuple(_read_answer(answer, passage, f"{place}.answers[{number}]", identity)
                                 for number, answer in enumerate(answers)))


def _read_entities(passage: Any, text: str, place: str) -> tuple[Mention, ...]:
    entities = []
    for number, entity in enumerate(take(passage, "entities", list, place)):
        entity_place = f"{place}.entities[{number}]"
        start, end = take(entity, "start", int, entity_place), take(entity, "end", int, entity_place)
        if start < 0 or end < start or end >= len(text):
            continue                     # a few of the published entities have end < start
        entities.append(Mention(text[start:end + 1], start, end))
    return tuple(entities)


def _read_answer(answer: Any, passage: str, place: str, identity: str) -> Answer:
    text = take(answer, "text", str, place).replace(NO_BREAK_SPACE, " ")
    return make_answer(text, take(answer, "start", int, place), passage, f"{place}: query {identity}")
