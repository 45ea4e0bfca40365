"""The data that travels through the reader: examples, windows and the side table that evaluation needs."""
from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Iterator, Optional

from utils.util import InputError


@dataclass(frozen=True)
class Answer:
    """A gold answer: its text and the offset of its first character in the passage."""

    text: str
    start: int


@dataclass(frozen=True)
class Example:
    """One question about one passage, as the data set gives it."""

    id: str
    question: str
    passage: str
    answers: tuple[Answer, ...]
    entities: tuple[str, ...] = ()    # texts of the passage's entities (ReCoRD picks its answer with them)
    is_impossible: bool = False       # SQuAD 2.0: the passage does not answer the question


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

    def to_json(self, previous: Optional[EvaluationExample] = None) -> str:
        """One line of the side table; what the passage shares with the line before is left out."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        values["windows"] = [dataclasses.asdict(window) for window in self.windows]
        if previous is not None and all(getattr(self, name) == getattr(previous, name) for name in PASSAGE_FIELDS):
            for name in PASSAGE_FIELDS:
                del values[name]
        return json.dumps(values, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str, previous: Optional[EvaluationExample] = None) -> EvaluationExample:
        """The inverse of :meth:`to_json`."""
        values = json.loads(line)
        if previous is not None and PASSAGE_FIELDS[0] not in values:
            values.update({name: getattr(previous, name) for name in PASSAGE_FIELDS})
        lists = {name: tuple(values[name]) for name in (*PASSAGE_FIELDS, "answers")}
        return cls(id=values["id"], question=values["question"], query_length=values["query_length"],
                   windows=tuple(Window(**window) for window in values["windows"]),
                   is_impossible=values["is_impossible"], **lists)


PASSAGE_FIELDS = ("words", "pieces", "piece_to_word", "entities")     # of EvaluationExample: the same for a passage


def side_table_path(mindrecord: Path | str) -> Path:
    """The side table of a MindRecord file: ``dev.mindrecord`` -> ``dev.examples.jsonl``."""
    return Path(mindrecord).with_suffix(".examples.jsonl")


def read_side_table(mindrecord: Path | str) -> Iterator[EvaluationExample]:
    """Stream the examples of a converted dev file, in reading order.

    Raises:
        InputError: the side table is missing or a line of it is broken.
    """
    path = side_table_path(mindrecord)
    if not path.is_file():
        raise InputError(f"{path}: no such file; run data_convert.py for this split")
    example: Optional[EvaluationExample] = None
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                example = EvaluationExample.from_json(line, example)
            except (ValueError, KeyError, TypeError):
                raise InputError(f"{path}: line {number} is broken; run data_convert.py again") from None
            yield example
