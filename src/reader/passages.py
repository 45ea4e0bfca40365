# SPDX-License-Identifier: Apache-2.0
"""Passages with all their questions, and the named entities in both: what retrieval starts from."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from src.reader import record_twomemory, squad_twomemory
from src.reader.examples import Example, Mention
from utils.util import InputError

READ_EXAMPLES: Mapping[str, Callable[[Any, str, bool], Iterator[Example]]] = {
    "squad": squad_twomemory.read_examples, "record": record_twomemory.read_examples}


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


def read_passages(path: Path, task: str, tagged: Path | None = None,
                  holds: Callable[[str], bool] | None = None) -> Iterator[Passage]:
    """Stream the passages of a data set; questions about the same passage that follow each other are together.

    Args:
        path: the data set.
        task: squad or record.
        tagged: the copy of a SQuAD file that holds its entities; without it there are none. ReCoRD has its own.
        holds: says of a text whether the passage is wanted; all are if it is None.

    Raises:
        InputError: a file is missing or broken, an entity is not where the file says, or the tagged file belongs to
            another version of the data set.
    """
    def wanted(examples: Iterator[Example]) -> Iterator[Example]:
        return examples if holds is None else (example for example in examples if holds(example.passage))

    examples = wanted(READ_EXAMPLES[task](path, "dev", False))
    if tagged is not None:
        own = wanted(squad_twomemory.read_examples(tagged, "dev", tagged=True))
        examples = _with_entities(examples, own, path, tagged)
    for (text, entities), group in groupby(examples, lambda example: (example.passage, example.entities)):
        yield Passage(text, entities, tuple(Question(example.id, example.question, example.question_entities)
                                            for example in group))


def _with_entities(examples: Iterator[Example], tagged: Iterator[Example], path: Path, tagged_path: Path
                   ) -> Iterator[Example]:
    """The tagged examples, each compared with the data set's own."""
    for number, (plain, example) in enumerate(zip_longest(examples, tagged)):
        if plain is None or example is None or (plain.id, plain.question, plain.passage) != (
                example.id, example.question, example.passage):
            raise InputError(f"{tagged_path}: question {number} ({(example or plain).id}) does not belong to {path}; "
                             "run retrieve.py --step entities --force")
        yield example
