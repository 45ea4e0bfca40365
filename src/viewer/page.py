"""Cases to one self-contained HTML page: the data as JSON inside it, drawn by the script of the template."""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.config import KnowledgeBase
from src.viewer.cases import Case
from utils.util import write_text

TEMPLATE = Path(__file__).with_name("template.html")
PLACE = "/*DATA*/"
UNIT = 10_000_000      # probabilities travel as whole numbers of ten-millionths, which are exact and short


class Interned:
    """Numbers things in the order of their first use, so that a page holds each once."""

    def __init__(self) -> None:
        self.items: dict[Any, int] = {}

    def number(self, item: Any) -> int:
        """The number of a hashable thing."""
        return self.items.setdefault(item, len(self.items))


def write_page(path: Path | str, cases: Sequence[Case], bases: Sequence[KnowledgeBase],
               names: Mapping[str, Sequence[str]], title: str = "KT-NET: what it read") -> None:
    """Write the page, whole or not at all.

    Args:
        path: the file.
        cases: one or many; gold answers where they are known.
        bases: the knowledge bases in the order of the cases' readings.
        names: for each knowledge base the concepts' names; that with id i stands at i - 1.
        title: of the page.
    """
    write_text(path, TEMPLATE.read_text(encoding="utf-8").replace(PLACE, embed(page_data(cases, bases, names, title))))


def embed(values: Any) -> str:
    """JSON that can stand inside a script element: no "<" that could end it or open a comment."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").encode("utf-8", "replace").decode("utf-8")


def page_data(cases: Sequence[Case], bases: Sequence[KnowledgeBase], names: Mapping[str, Sequence[str]],
              title: str) -> dict[str, Any]:
    """What the template's script reads: see there for the fields."""
    passages, concepts, lists = Interned(), [Interned() for _ in bases], Interned()
    written = [_case(case, passages, concepts, lists) for case in cases]
    return {"title": title, "unit": UNIT, "bases": [base.label for base in bases],
            "names": [[names[base.name][number - 1] for number in used.items]
                      for base, used in zip(bases, concepts, strict=True)],
            "lists": [list(numbers) for numbers in lists.items],
            "passages": [{"words": words, "pieces": pieces, "owners": owners}
                         for words, pieces, owners in passages.items],
            "cases": written}


def _case(case: Case, passages: Interned, concepts: Sequence[Interned], lists: Interned) -> dict[str, Any]:
    count = case.query_length
    memory = []
    for used, readings in zip(concepts, case.readings, strict=True):
        memory.append([[reading.position, lists.number(tuple(used.number(concept) for concept in reading.concepts)),
                        *whole_parts(reading.weights)] for reading in readings])
    values = {"id": case.id, "question": case.question_words, "pieces": case.pieces[:count],
              "owners": case.piece_to_word[:count],
              "passage": passages.number((case.passage_words, case.pieces[count:], case.piece_to_word[count:])),
              "start": _sparse(case.start), "end": _sparse(case.end), "span": case.span, "answer": case.prediction,
              "nbest": [[entry.text, round(entry.probability, 7)] for entry in case.decoded.nbest],
              "memory": memory}
    if case.gold is not None and case.score is not None:
        values |= {"gold": list(dict.fromkeys(case.gold)), "right": case.score[0] == 1.0,
                   "f1": round(100.0 * case.score[1], 1)}
    return values


def _sparse(probabilities: np.ndarray) -> list[int]:
    """Position, parts, position, parts, ... of the probabilities that are not 0 in whole parts."""
    parts = whole_parts(probabilities)
    return [number for position, part in enumerate(parts) if part for number in (position, part)]


def whole_parts(shares: np.ndarray) -> list[int]:
    """Shares that sum to 1 as whole parts that sum to exactly ``UNIT``, each off by less than one part.

    >>> whole_parts(np.array([2 / 3, 1 / 3]))
    [6666667, 3333333]
    """
    exact = np.asarray(shares, np.float64)
    exact = exact / exact.sum() * UNIT
    parts = np.floor(exact).astype(np.int64)
    missing = UNIT - int(parts.sum())
    parts[np.argsort(parts - exact, kind="stable")[:missing]] += 1      # those that lost most by the floor
    return parts.tolist()
