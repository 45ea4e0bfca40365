# SPDX-License-Identifier: Apache-2.0
"""SQuAD and ReCoRD as the HuggingFace hub and SuperGLUE publish them: rows of questions instead of one nested list.

Rows come from JSON lines or Parquet. They are turned into the items of the data sets' own layout, so that everything
behind reads one form only:

* SQuAD: ``id, title, context, question, answers {text [], answer_start []}``; no answer at all means unanswerable;
* ReCoRD: ``passage, query, entities [], answers [], idx {passage, query}``, with or without ``entity_spans``;
* SuperGLUE's ReCoRD: ``passage {text, entities}, qas [{query, answers, idx}], idx``.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from src.reader.fields import take
from utils.util import LOGGER, InputError

ROW_FIELDS = ("id", "title", "context", "question", "answers", "passage", "query", "entities", "entity_spans", "idx",
              "qas", "source", "is_impossible")
PARQUET_MAGIC = b"PAR1"
PARQUET_ROWS = 1000     # read at a time


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, by its first bytes."""
    with open(path, "rb") as source:
        return source.read(len(PARQUET_MAGIC)) == PARQUET_MAGIC


def parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """The rows of a Parquet file, each with its place.

    Raises:
        InputError: pyarrow is not installed, or the file is broken.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise InputError(f"{path}: a Parquet file, which pyarrow reads: pip install -r requirements-parquet.txt, or "
                         "give JSON lines") from None
    number = 0
    try:
        with parquet.ParquetFile(path) as table:
            names = [name for name in ROW_FIELDS if name in table.schema_arrow.names]
            for batch in table.iter_batches(PARQUET_ROWS, columns=names):
                for row in batch.to_pylist():
                    yield f"{path}: row {number}", row
                    number += 1
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: Parquet that cannot be read ({' '.join(str(error).split())[:200]}); fetch it "
                         "again") from None


class RowAdapter:
    """Turns rows into items of the data set's own layout, and counts what was not in them.

    Questions about the same passage that follow each other become one item. A missing id is made from ``idx``, or else
    from the row's number; a missing offset is that of the text's first occurrence in the passage.
    """

    def __init__(self, path: Path) -> None:
        """Begin; ``path`` is for messages."""
        self._path = path
        self._rows = 0
        self._place = ""
        self._passage: Any = None                # of the item that is being put together
        self._item: dict[str, Any] | None = None
        self._counts: Counter[str] = Counter()

    def add(self, place: str, row: Any) -> Iterator[tuple[str, Any]]:
        """Take a row; yields the item before it if that is complete.

        Raises:
            InputError: the row is none of SQuAD or ReCoRD.
        """
        number = self._rows
        self._rows += 1
        if not isinstance(row, dict) or not ("context" in row or "passage" in row):
            raise InputError(f"{place}: no row of SQuAD (context, question) or ReCoRD (passage, query), nor a list "
                             "\"data\"; is this file in the data set's own format?")
        if "qas" in row:
            yield from self.finish()
            self._item, self._place = self._superglue_item(row, place, number), place
        elif "context" in row:
            passage, question = take(row, "context", str, place), self._squad_question(row, place, number)
            yield from self._begin(passage, place, lambda: {"title": row.get("title"), "paragraphs": [
                {"context": passage, "qas": []}]})
            assert self._item is not None
            self._item["paragraphs"][0]["qas"].append(question)
        else:
            text = take(row, "passage", str, place)
            entities, question = self._entities(row, text, place), self._record_query(row, text, place, number)
            yield from self._begin((text, entities), place, lambda: {
                "id": question["id"], "passage": {"text": text, "entities": entities}, "qas": []})
            assert self._item is not None
            self._item["qas"].append(question)

    def finish(self) -> Iterator[tuple[str, Any]]:
        """The last item, if there is one."""
        if self._item is not None:
            yield self._place, self._item
        self._item = self._passage = None

    def report(self) -> None:
        """Log what was made up."""
        for what, number in self._counts.items():
            LOGGER.info("%s: %d %s", self._path, number, what)

    def _begin(self, passage: Any, place: str, make: Any) -> Iterator[tuple[str, Any]]:
        if self._item is None or passage != self._passage:
            yield from self.finish()
            self._item, self._passage, self._place = make(), passage, place

    def _squad_question(self, row: dict[str, Any], place: str, number: int) -> dict[str, Any]:
        question: dict[str, Any] = {"id": self._identity(row, number, place),
                                    "question": take(row, "question", str, place)}
        answers = row.get("answers")
        if answers is None:
            return question
        question["answers"] = self._answers(answers, row["context"], "answer_start", place)
        if row.get("is_impossible") is not None:
            question["is_impossible"] = row["is_impossible"]
        elif not question["answers"]:
            question["is_impossible"] = True      # as SQuAD 2.0 has it in rows
        return question

    def _record_query(self, row: dict[str, Any], text: str, place: str, number: int) -> dict[str, Any]:
        query: dict[str, Any] = {"id": self._identity(row, number, place), "query": take(row, "query", str, place)}
        if row.get("answers"):
            answers = self._answers(row["answers"], text, "start", place)
            query["answers"] = [{**answer, "end": answer["start"] + len(answer["text"]) - 1} for answer in answers]
        return query

    def _answers(self, answers: Any, passage: str, offset: str, place: str) -> list[dict[str, Any]]:
        """Answers as texts, as texts with offsets, or as two lists."""
        if isinstance(answers, dict):
            texts = take(answers, "text", list, f"{place}.answers")
            starts = take(answers, offset, list, f"{place}.answers") if answers.get(offset) else [None] * len(texts)
            if len(starts) != len(texts):
                raise InputError(f"{place}.answers: {len(texts)} texts and {len(starts)} offsets; give one for each")
            pairs = list(zip(texts, starts, strict=True))
        elif isinstance(answers, list):
            pairs = [(answer.get("text"), answer.get(offset)) if isinstance(answer, dict) else (answer, None)
                     for answer in answers]
        else:
            raise InputError(f"{place}.answers: must be {{text, {offset}}} or a list")
        found = []
        for text, start in pairs:
            text = take({"text": text}, "text", str, f"{place}.answers")
            found.append({"text": text, offset: self._first(text, passage) if start is None else start})
        return found

    def _entities(self, row: dict[str, Any], text: str, place: str) -> list[dict[str, int]]:
        """Entities with their offsets, in the order of the passage."""
        spans = row.get("entity_spans")
        if isinstance(spans, dict):
            pairs = list(zip(take(spans, "text", list, place), take(spans, "start", list, place), strict=False))
        elif isinstance(spans, list):
            pairs = [(take(span, "text", str, place), take(span, "start", int, place)) for span in spans]
        else:
            names = take(row, "entities", list, place)
            pairs = [(name, self._first(take({"name": name}, "name", str, place), text)) for name in names]
        entities = [{"start": take({"start": start}, "start", int, place),
                     "end": start + len(take({"text": name}, "text", str, place)) - 1} for name, start in pairs]
        return sorted((entity for entity in entities if entity["start"] >= 0), key=lambda entity: entity["start"])

    def _superglue_item(self, row: dict[str, Any], place: str, number: int) -> dict[str, Any]:
        """An item of ReCoRD's own layout, but for its ids."""
        identity = self._identity(row, number, place)
        for query in take(row, "qas", list, place):
            if isinstance(query, dict) and "id" not in query:
                query["id"] = f"{identity}-{query.get('idx', row['qas'].index(query))}"
        return {**row, "id": identity}

    def _identity(self, row: dict[str, Any], number: int, place: str) -> str:
        if row.get("id") is not None:
            return take(row, "id", str, place)
        index = row.get("idx")
        if isinstance(index, dict) and {"passage", "query"} <= index.keys():
            return f"{index['passage']}-{index['query']}"
        if isinstance(index, int):
            return str(index)
        self._counts["questions without an id are called by their rows' numbers"] += 1
        return str(number)

    def _first(self, text: str, passage: str) -> int:
        start = passage.find(text)
        self._counts["texts without an offset are taken where they first occur" if start >= 0 else
                     "texts without an offset are not in their passages"] += 1
        return start
