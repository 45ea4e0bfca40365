# SPDX-License-Identifier: Apache-2.0
"""The data that travels through the reader: examples, windows and the side table that evaluation needs."""
from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from utils.util import SURROGATE_ESCAPE, InputError, open_text


@dataclass(frozen=True)
class Answer:
    """A gold answer: its text and the offset of its first character in the passage."""

    text: str
    start: int


class Mention(NamedTuple):
    """A named entity in a text; ``end`` is the offset of its last character."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Example:
    """One question about one passage, as the data set gives it."""

    id: str
    question: str
    passage: str
    answers: tuple[Answer, ...]
    entities: tuple[Mention, ...] = ()              # of the passage (ReCoRD picks its answer with them)
    question_entities: tuple[Mention, ...] = ()     # of a tagged SQuAD file
    is_impossible: bool = False                     # SQuAD 2.0: the passage does not answer the question


@dataclass(frozen=True)
class Window:
    """A feature's place in the passage: word pieces ``doc_start .. doc_start + length - 1``."""

    unique_id: int
    doc_start: int
    length: int


@dataclass(frozen=True)
class EvaluationExample:
    """What evaluation needs of one question beside the logits: one line of the side table.

    A word piece of window ``w`` at position ``p`` of the feature is ``pieces[w.doc_start + p - document_offset]``.
    """

    id: str
    question: str
    words: tuple[str, ...]            # the passage split on white space
    pieces: tuple[str, ...]           # the passage's word pieces
    piece_to_word: tuple[int, ...]    # word piece -> index in words
    query_length: int                 # word pieces of the question in every window
    windows: tuple[Window, ...]
    answers: tuple[str, ...]          # gold answer texts, for the metric
    entities: tuple[str, ...] = ()
    is_impossible: bool = False

    @property
    def document_offset(self) -> int:
        """Position of a window's first passage piece: after [CLS] question [SEP]."""
        return self.query_length + 2

    def to_json(self, previous: EvaluationExample | None = None) -> str:
        """One line of the side table; what the passage shares with the line before is left out."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        values["windows"] = [dataclasses.asdict(window) for window in self.windows]
        if previous is not None and all(getattr(self, name) == getattr(previous, name) for name in PASSAGE_FIELDS):
            for name in PASSAGE_FIELDS:
                del values[name]
        return json.dumps(values, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str, previous: EvaluationExample | None = None) -> EvaluationExample:
        """The inverse of :meth:`to_json`.

        Raises:
            ValueError, KeyError, TypeError, AttributeError, RecursionError: the line is none of the side table.
        """
        values = json.loads(line)
        if SURROGATE_ESCAPE.search(line):
            raise ValueError("half a surrogate pair")
        shared = "words" not in values and previous is not None
        lists = {name: getattr(previous, name) if shared else _texts_or_numbers(values[name], kind)
                 for name, kind in PASSAGE_FIELDS.items()}
        windows = tuple(Window(**window) for window in values["windows"])
        numbers = [number for window in windows for number in (window.unique_id, window.doc_start, window.length)]
        _texts_or_numbers([*numbers, values["query_length"]], int)
        _texts_or_numbers([values["id"], values["question"]], str)
        return cls(id=values["id"], question=values["question"], query_length=values["query_length"], windows=windows,
                   answers=_texts_or_numbers(values["answers"], str), is_impossible=values["is_impossible"] is True,
                   **lists)


def _texts_or_numbers(values: Any, kind: type) -> tuple[Any, ...]:
    """A list as a tuple, all of one kind; numbers fit into 32 bits.

    Raises:
        ValueError: they are not.
    """
    if type(values) is not list or any(type(value) is not kind for value in values):
        raise ValueError(f"not a list of {kind.__name__}")
    if kind is int and values and not -2 ** 31 <= min(values) <= max(values) < 2 ** 31:
        raise ValueError("a number of more than 32 bits")
    return tuple(values)


# Of EvaluationExample: the same for all questions about a passage.
PASSAGE_FIELDS: Mapping[str, type] = {"words": str, "pieces": str, "piece_to_word": int, "entities": str}


def side_table_path(mindrecord: Path | str) -> Path:
    """The side table of a MindRecord file: ``dev.mindrecord`` -> ``dev.examples.jsonl``."""
    return Path(mindrecord).with_suffix(".examples.jsonl")


def read_side_table(mindrecord: Path | str) -> Iterator[EvaluationExample]:
    """Stream the examples of a converted dev file, in reading order.

    Raises:
        InputError: the side table is missing or a line of it is broken.
    """
    path = side_table_path(mindrecord)
    example: EvaluationExample | None = None
    with open_text(path, "run data_convert.py for this split") as lines:
        for number, line in enumerate(lines, 1):
            try:
                example = EvaluationExample.from_json(line, example)
            except UnicodeDecodeError:
                raise
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise InputError(f"{path}: line {number} is broken; run data_convert.py again") from None
            yield example
