# SPDX-License-Identifier: Apache-2.0
"""Write cases as one self-contained HTML page: JSON data inside the template, drawn by the template's script."""
from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.config import KnowledgeBase
from src.viewer.cases import Case
from src.viewer.looked import Looked
from src.viewer.names import describe
from utils.util import write_text

TEMPLATE = Path(__file__).with_name("template.html")
PLACEHOLDER = "/*DATA*/"
UNIT = 10_000_000      # probabilities are written as whole ten-millionths, which are exact and short
TITLE = "KT-NET: which knowledge it used"
Gloss = Callable[[str], str]      # name of a concept -> what it means, "" if that is not known


class Interned:
    """Numbers things in the order of their first use, so that a page holds each once."""

    def __init__(self) -> None:
        self.items: dict[Any, int] = {}

    def number(self, item: Any) -> int:
        """The number of a hashable thing."""
        return self.items.setdefault(item, len(self.items))


def write_page(path: Path | str, cases: Sequence[Case], bases: Sequence[KnowledgeBase],
               names: Mapping[str, Sequence[str]], title: str = TITLE, gloss: Gloss | None = None,
               looked: Sequence[Looked] = ()) -> None:
    """Write the page atomically.

    Args:
        path: the file.
        cases: one or many, with gold answers where they are known.
        bases: the knowledge bases in the order of the cases' readings.
        names: for each knowledge base the names of its concepts; concept i is at index i - 1.
        title: of the page.
        gloss: explains concepts.
        looked: where the network looked, for an evaluation.
    """
    write_text(path, render_page(cases, bases, names, title, gloss, looked))


def render_page(cases: Sequence[Case], bases: Sequence[KnowledgeBase], names: Mapping[str, Sequence[str]],
                title: str = TITLE, gloss: Gloss | None = None, looked: Sequence[Looked] = ()) -> str:
    """The HTML that :func:`write_page` writes."""
    template = TEMPLATE.read_text(encoding="utf-8")
    return template.replace(PLACEHOLDER, embed(page_data(cases, bases, names, title, gloss, looked)))


def embed(values: Any) -> str:
    """JSON that is safe inside a script element: no "<" that could end it or open a comment."""
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").encode("utf-8", "replace").decode("utf-8")


def page_data(cases: Sequence[Case], bases: Sequence[KnowledgeBase], names: Mapping[str, Sequence[str]],
              title: str, gloss: Gloss | None = None, looked: Sequence[Looked] = ()) -> dict[str, Any]:
    """What the template's script reads; the fields are described there."""
    passages, concepts, lists = Interned(), [Interned() for _ in bases], Interned()
    written = [_case(case, passages, concepts, lists) for case in cases]
    explain = gloss or (lambda name: "")
    used_names = [[names[base.name][number - 1] for number in used.items]
                  for base, used in zip(bases, concepts, strict=True)]
    return {"title": title, "unit": UNIT, "bases": [{"label": base.label, "key": base.key} for base in bases],
            "names": [[describe(name, explain(name)) for name in of_base] for of_base in used_names],
            "lists": [list(numbers) for numbers in lists.items],
            "passages": [{"words": words, "pieces": pieces, "owners": owners}
                         for words, pieces, owners in passages.items],
            "looked": [[row.base, row.group, row.pieces, row.right, row.wrong] for row in looked], "cases": written}


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
              "compared": [[other.label, other.prediction, round(other.probability, 7)] for other in case.compared],
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
