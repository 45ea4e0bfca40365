# SPDX-License-Identifier: Apache-2.0
"""Triples of a knowledge graph: reading them, and judging vectors by them (filtered ranks)."""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.progress import follow
from utils.util import InputError, read_text

Triple = tuple[str, str, str]      # head, relation, tail
RANKED_AT_A_TIME = 500             # queries whose scores are held at a time


@dataclass(frozen=True)
class Graph:
    """Numbered entities and relations, and triples as int32 [N, 3] (head, relation, tail).

    Every relation r has a reciprocal, numbered ``len(relations) + r``: the question for the head of (?, r, t) is the
    question for the tail of (t, reciprocal of r, ?).
    """

    entities: tuple[str, ...]
    relations: tuple[str, ...]
    train: np.ndarray
    test: np.ndarray
    known: np.ndarray      # all true triples, the test set's included

    def with_reciprocals(self, triples: np.ndarray) -> np.ndarray:
        """The triples, then the same seen from their tails: int32 [2N, 3]."""
        turned = np.stack([triples[:, 2], triples[:, 1] + len(self.relations), triples[:, 0]], axis=1)
        return np.concatenate([triples, turned])


def read_triples(path: Path) -> list[Triple]:
    """Read a file with one triple per line: head, relation and tail, separated by tabs or blanks.

    Between tabs a name may hold blanks, which become ``_`` as in a vectors file. ConceptNet's assertions (five columns,
    the first begins with ``/a/``) are read as they are.

    Raises:
        InputError: the file is missing, empty, or a line has not three parts.
    """
    lines = read_text(path, "give a folder with train.txt and test.txt").rstrip("\n").split("\n")
    triples: list[Triple] = []
    for number, line in enumerate(lines if lines != [""] else [], 1):
        words = ["_".join(name.split()) for name in line.split("\t")] if line.count("\t") > 1 else line.split()
        if len(words) == 5 and words[0].startswith("/a/"):
            words = [words[2], words[1], words[3]]
        if len(words) != 3 or not all(words):
            raise InputError(f"{path}: line {number} has {len(words)} words; a triple is head, relation and tail")
        triples.append((words[0], words[1], words[2]))
    if not triples:
        raise InputError(f"{path}: empty; give a folder with train.txt and test.txt")
    return triples


def number_triples(train: Iterable[Triple], test: Iterable[Triple] = (), others: Iterable[Triple] = ()) -> Graph:
    """Number entities and relations in the order of their first use in training, then test, then other triples.

    Args:
        train: to learn from.
        test: to judge by.
        others: also true, so not counted as mistakes (a validation set).
    """
    entities: dict[str, int] = {}
    relations: dict[str, int] = {}

    def number(triples: Iterable[Triple]) -> np.ndarray:
        rows = [(entities.setdefault(head, len(entities)), relations.setdefault(relation, len(relations)),
                 entities.setdefault(tail, len(entities))) for head, relation, tail in triples]
        return np.array(rows, np.int32).reshape(-1, 3)

    learned, judged, more = number(train), number(test), number(others)
    return Graph(tuple(entities), tuple(relations), learned, judged, np.concatenate([learned, judged, more]))


@dataclass(frozen=True)
class Ranking:
    """How well the true tail (or head) ranks among all entities, other true ones ignored."""

    mrr: float         # mean of 1 / rank over heads and tails
    mrr_tail: float
    mrr_head: float
    hits_at_10: float

    def __str__(self) -> str:
        """One line."""
        return (f"filtered MRR {self.mrr:.4f} (tails {self.mrr_tail:.4f}, heads {self.mrr_head:.4f}), "
                f"hits@10 {self.hits_at_10:.4f}")


def rank_test_set(graph: Graph, entities: np.ndarray, relations: np.ndarray) -> Ranking:
    """Rank the test set's tails and heads by the score sum(head * relation * tail).

    Args:
        graph: with R relations.
        entities: float32 [E, D].
        relations: float32 [2R, D]: relations, then reciprocals.

    Returns:
        The figures; entities of equal score share the mean of their ranks.
    """
    answers = _answers(graph)
    queries = graph.with_reciprocals(graph.test)
    ranks = np.empty(len(queries))
    starts = range(0, len(queries), RANKED_AT_A_TIME)
    for start in follow(starts, "ranking", len(starts), "batches"):
        part = queries[start:start + RANKED_AT_A_TIME]
        scores = (entities[part[:, 0]] * relations[part[:, 1]]) @ entities.T                # [Q, E]
        for row, (head, relation, tail) in enumerate(part.tolist()):
            score = scores[row, tail]
            scores[row, answers[head, relation]] = -np.inf
            better, equal = np.count_nonzero(scores[row] > score), np.count_nonzero(scores[row] == score)
            ranks[start + row] = 1 + better + equal / 2
    tails, heads = 1 / ranks[:len(graph.test)], 1 / ranks[len(graph.test):]
    return Ranking(mrr=float(np.mean(1 / ranks)), mrr_tail=float(tails.mean()), mrr_head=float(heads.mean()),
                   hits_at_10=float(np.mean(ranks <= 10)))


def _answers(graph: Graph) -> dict[tuple[int, int], Sequence[int]]:
    """(head, relation) -> all true tails, over relations and reciprocals."""
    answers: dict[tuple[int, int], list[int]] = {}
    for head, relation, tail in graph.with_reciprocals(graph.known).tolist():
        answers.setdefault((head, relation), []).append(tail)
    return dict(answers)
