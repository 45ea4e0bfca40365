"""ReCoRD: reading the queries, each with the entities one of which fills its @placeholder."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

from src.reader.dataset_json import stream_items, take
from src.reader.examples import Answer, Example
from utils.util import InputError

NO_BREAK_SPACE = "\xa0"


def read_examples(path: Path | str, split: str, version_2: bool = False) -> Iterator[Example]:
    """Stream the queries of a ReCoRD file, in its order; no-break spaces are read as spaces.

    Args:
        path: ``train.json`` or ``dev.json``.
        split: "train" (only the first answer counts) or "dev".
        version_2: taken for the sake of the common form; ReCoRD has no unanswerable queries.

    Raises:
        InputError: the file is no ReCoRD file, or an answer or entity lies outside its passage.
    """
    if version_2:
        raise InputError("--version_2_with_negative is for SQuAD 2.0; ReCoRD has no unanswerable queries")
    for place, item in stream_items(path):
        passage = take(item, "passage", dict, place)
        text = take(passage, "text", str, f"{place}.passage").replace(NO_BREAK_SPACE, " ")
        entities = _read_entities(passage, text, f"{place}.passage")
        for number, query in enumerate(take(item, "qas", list, place)):
            query_place = f"{place}.qas[{number}]"
            identity = take(query, "id", str, query_place)
            answers = [_read_answer(answer, text, f"{query_place}.answers[{index}]", identity)
                       for index, answer in enumerate(take(query, "answers", list, query_place))]
            if split == "train" and not answers:
                raise InputError(f"{query_place}: query {identity} has no answer; a training query needs one")
            yield Example(id=identity, passage=text, entities=entities,
                          question=take(query, "query", str, query_place).replace(NO_BREAK_SPACE, " "),
                          answers=tuple(answers[:1] if split == "train" else answers))


def _read_entities(passage: Any, text: str, place: str) -> tuple[str, ...]:
    entities = []
    for number, entity in enumerate(take(passage, "entities", list, place)):
        entity_place = f"{place}.entities[{number}]"
        start, end = take(entity, "start", int, entity_place), take(entity, "end", int, entity_place)
        if end < start:
            continue                     # a few of the published entities are like this
        if start < 0 or end >= len(text):
            raise InputError(f"{entity_place}: characters {start} to {end} lie outside the passage of {len(text)}; "
                             "fetch the file again")
        entities.append(text[start:end + 1])
    return tuple(entities)


def _read_answer(answer: Any, passage: str, place: str, identity: str) -> Answer:
    text = take(answer, "text", str, place).replace(NO_BREAK_SPACE, " ")
    start = take(answer, "start", int, place)
    if not text.strip():
        raise InputError(f"{place}: query {identity} has an empty answer; remove it")
    if start < 0 or start + len(text) > len(passage):
        raise InputError(f"{place}: the answer of query {identity} spans characters {start} to "
                         f"{start + len(text) - 1}, outside its passage of {len(passage)}; mend start")
    return Answer(text=text, start=start)
