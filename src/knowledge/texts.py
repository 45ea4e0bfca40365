"""Passages and their questions with the named entities in them: what every retrieval step starts from."""
from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Any, Iterator, NamedTuple

from src.config import RECORD, DataFolder, TaskConfig
from src.reader.dataset_json import stream_items
from src.reader.fields import take
from src.reader.record_twomemory import NO_BREAK_SPACE
from utils.util import InputError


class Mention(NamedTuple):
    """A named entity in a text; ``end`` is the offset of its last character."""

    text: str
    start: int
    end: int


class Question(NamedTuple):
    """A question (or ReCoRD query) and the entities in it."""

    id: str
    text: str
    entities: tuple[Mention, ...] = ()


class Passage(NamedTuple):
    """A passage, the entities in it and the questions about it."""

    text: str
    entities: tuple[Mention, ...]
    questions: tuple[Question, ...]


def read_passages(folder: DataFolder, task: TaskConfig, split: str, with_entities: bool = True) -> Iterator[Passage]:
    """Stream the passages of a data set.

    Args:
        folder: where the data set lies and, for SQuAD, the file with its entities.
        task: SQuAD or ReCoRD.
        split: train or dev.
        with_entities: SQuAD's entities are read from the tagged file; False omits them. ReCoRD has its own.

    Raises:
        InputError: a file is missing or broken, an entity is not where the file says, or the tagged file belongs to
            another version of the data set.
    """
    path = folder.dataset_json(task, split)
    if task is RECORD:
        yield from _read_record(path)
    elif with_entities:
        yield from _read_tagged(path, find_tagged_json(folder, task, split))
    else:
        for place, paragraph in squad_paragraphs(path):
            yield _squad_passage(paragraph, place)


def find_tagged_json(folder: DataFolder, task: TaskConfig, split: str) -> Path:
    """The file with a data set's entities: beside the data set, else in the folder ``raw``.

    Raises:
        InputError: there is none.
    """
    path = folder.tagged_json(task, split)
    for candidate in (path, folder.root / "raw" / path.name):
        if candidate.is_file():
            return candidate
    raise InputError(f"{path}: no such file; run retrieve.py --step entities")


def squad_paragraphs(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, paragraph) of a file in SQuAD's layout."""
    for place, article in stream_items(path):
        for number, paragraph in enumerate(take(article, "paragraphs", list, place)):
            yield f"{place}.paragraphs[{number}]", paragraph


def _squad_passage(paragraph: Any, place: str, tagged: bool = False) -> Passage:
    context = take(paragraph, "context", str, place)
    questions = []
    for number, question in enumerate(take(paragraph, "qas", list, place)):
        question_place = f"{place}.qas[{number}]"
        text = take(question, "question", str, question_place)
        questions.append(Question(take(question, "id", str, question_place), text,
                                  _mentions(question, "question_entities", text, question_place) if tagged else ()))
    return Passage(context, _mentions(paragraph, "context_entities", context, place) if tagged else (),
                   tuple(questions))


def _mentions(item: Any, key: str, text: str, place: str) -> tuple[Mention, ...]:
    mentions = []
    for number, entity in enumerate(take(item, key, list, place)):
        entity_place = f"{place}.{key}[{number}]"
        mention = Mention(take(entity, "text", str, entity_place), take(entity, "start", int, entity_place),
                          take(entity, "end", int, entity_place))
        if mention.start < 0 or not mention.text or text[mention.start:mention.end + 1] != mention.text:
            raise InputError(f"{entity_place}: characters {mention.start} to {mention.end} of the text are not "
                             f"{mention.text[:60]!r}; run retrieve.py --step entities --force")
        mentions.append(mention)
    return tuple(mentions)


def _read_tagged(path: Path, tagged_path: Path) -> Iterator[Passage]:
    """SQuAD's passages from the tagged file, each compared with the data set's own."""
    pairs = zip_longest(squad_paragraphs(path), squad_paragraphs(tagged_path))
    for plain, tagged in pairs:
        passage = _squad_passage(tagged[1], tagged[0], tagged=True) if tagged else None
        expected = _squad_passage(plain[1], plain[0]) if plain else None
        if passage is None or expected is None or _without_entities(passage) != expected:
            place = (tagged or plain)[0]
            raise InputError(f"{place}: does not belong to {path}; run retrieve.py --step entities --force")
        yield passage


def _without_entities(passage: Passage) -> Passage:
    return Passage(passage.text, (), tuple(Question(question.id, question.text) for question in passage.questions))


def _read_record(path: Path) -> Iterator[Passage]:
    for place, item in stream_items(path):
        passage = take(item, "passage", dict, place)
        text = take(passage, "text", str, f"{place}.passage").replace(NO_BREAK_SPACE, " ")
        mentions = []
        for number, entity in enumerate(take(passage, "entities", list, f"{place}.passage")):
            entity_place = f"{place}.passage.entities[{number}]"
            start, end = take(entity, "start", int, entity_place), take(entity, "end", int, entity_place)
            if start < 0 or end >= len(text):
                raise InputError(f"{entity_place}: characters {start} to {end} lie outside the passage of {len(text)}; "
                                 "fetch the file again")
            if start <= end:      # a few of the published entities end before they start
                mentions.append(Mention(text[start:end + 1], start, end))
        queries = tuple(Question(take(query, "id", str, f"{place}.qas[{number}]"),
                                 take(query, "query", str, f"{place}.qas[{number}]").replace(NO_BREAK_SPACE, " "))
                        for number, query in enumerate(take(item, "qas", list, place)))
        yield Passage(text, tuple(mentions), queries)
