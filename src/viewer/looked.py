# SPDX-License-Identifier: Apache-2.0
"""Where a network looked: how much weight its memories gave to kinds of concepts, for right and for wrong answers."""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from src.config import KnowledgeBase
from src.viewer.cases import Case
from src.viewer.names import describe

ALL, OTHERS = "all concepts", "others"
MOST_GROUPS = 8          # of a knowledge base; the rest are put together


@dataclass(frozen=True)
class Looked:
    """One kind of concepts of one knowledge base."""

    base: int                # index of the knowledge base
    group: str               # a part of speech of WordNet, a category of NELL, or ALL
    pieces: int              # word pieces that have such concepts
    right: float | None      # mean weight on these concepts where the answer is right; None: no such piece
    wrong: float | None      # the same where it is wrong


def where_it_looked(cases: Sequence[Case], bases: Sequence[KnowledgeBase],
                    names: Mapping[str, Sequence[str]]) -> list[Looked]:
    """Mean weights over all word pieces that have a concept of a group, the largest groups first.

    A word piece whose concepts are nouns and verbs counts for both, each with the weight on its own concepts.

    Args:
        cases: with scores.
        bases: in the order of the cases' readings.
        names: for each knowledge base the names of its concepts; concept i is at index i - 1.
    """
    rows = []
    for number, base in enumerate(bases):
        groups = [group_of(name) for name in names[base.name]]
        weights: dict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))    # right, wrong
        for case in cases:
            wrong = case.score is None or case.score[0] < 1
            for reading in case.readings[number]:
                sums: dict[str, float] = defaultdict(float)
                for concept, weight in zip(reading.concepts, reading.weights[1:], strict=True):
                    sums[groups[concept - 1]] += float(weight)
                for group, weight in [(ALL, 1 - float(reading.weights[0])), *sums.items()]:
                    weights[group][wrong].append(weight)
        largest = sorted(weights, key=lambda group: (group != ALL, -sum(map(len, weights[group])), group))
        for group in largest[1 + MOST_GROUPS:]:
            for together, values in zip(weights[OTHERS], weights[group], strict=True):
                together.extend(values)
        shown = [*largest[:1 + MOST_GROUPS], *([OTHERS] if len(largest) > 1 + MOST_GROUPS else [])]
        rows += [Looked(number, group, sum(map(len, weights[group])), *map(mean, weights[group])) for group in shown]
    return rows


def group_of(name: str) -> str:
    """A synset's part of speech, a category's readable name.

    >>> group_of("__trout_NN_1"), group_of("concept:visualartist")
    ('noun', 'visual artist')
    """
    concept = describe(name)
    return concept.detail.partition(",")[0] or concept.label


def mean(values: Sequence[float]) -> float | None:
    """The mean; None for none."""
    return float(np.mean(values)) if values else None


def describe_looked(rows: Sequence[Looked], bases: Sequence[KnowledgeBase]) -> list[str]:
    """The rows as lines of text."""
    def cell(share: float | None) -> str:
        return f"{'-' if share is None else f'{share:.3f}':>7}"

    heads = f"{'weight on':<40}{'word pieces':>12}{'right':>7}{'wrong':>7}"
    return [heads, *(f"{f'{bases[row.base].label}: {row.group}':<40}{row.pieces:>12}{cell(row.right)}{cell(row.wrong)}"
                     for row in rows)]
