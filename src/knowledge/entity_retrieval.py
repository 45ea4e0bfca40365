# SPDX-License-Identifier: Apache-2.0
"""Entities of a question and its passage with their concepts: the records of NELL's file and of files like it."""
from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, Protocol

from src.knowledge.tokens import EntitySpan, TokenizedQuestion


class Belief(NamedTuple):
    """What a knowledge base says of an entity: ``concept:politician:barack_obama`` is a ``concept:politician``."""

    entity: str
    category: str


class Finder(Protocol):
    """Looks entities up in a knowledge base."""

    @property
    def concepts(self) -> Collection[str]:
        """The concepts that have a vector."""

    def find(self, words: tuple[str, ...]) -> Sequence[Belief]:
        """Beliefs about an entity given as uncased tokens, each once."""


def retrieve(question: TokenizedQuestion, finder: Finder) -> dict[str, Any]:
    """One record of a file of retrieved entities.

    Where one entity's name ends with another's, the shorter one gets the categories of the longer one, if that has any:
    "Trump" gets those of "Donald Trump", wherever that name occurs in the question or passage. Categories without a
    vector are dropped afterwards, which may leave none.

    Args:
        question: in uncased tokens.
        finder: the knowledge base.
    """
    sides = {"document_entities": (question.document_tokens, question.document_entities),
             "query_entities": (question.query_tokens, question.query_entities)}
    own: dict[str, Sequence[Belief]] = {}
    for tokens, entities in sides.values():
        for _, first, last in entities:
            words = tuple(tokens[first:last + 1])
            if " ".join(words) not in own:
                own[" ".join(words)] = finder.find(words)
    backwards = sorted((name[::-1], number) for number, name in enumerate(own))     # longer names follow their ends
    found = list(own.values())
    final: dict[str, Sequence[Belief]] = {}
    for name, beliefs in own.items():
        longer = [belief for number in _numbers_ending(backwards, name[::-1]) for belief in found[number]]
        final[name] = [belief for belief in dict.fromkeys(longer or beliefs) if belief.category in finder.concepts]
    return {"id": question.id, **{key: [_item(tokens, span, final) for span in entities]
                                  for key, (tokens, entities) in sides.items()}}


def _numbers_ending(backwards: Sequence[tuple[str, int]], end: str) -> list[int]:
    """Numbers of the other names with this ending; names and ``end`` are spelled backwards."""
    first = last = bisect_right(backwards, (end, len(backwards)))
    while last < len(backwards) and backwards[last][0].startswith(end):
        last += 1
    return sorted(number for _, number in backwards[first:last])


def _item(tokens: Sequence[str], span: EntitySpan, beliefs: dict[str, Sequence[Belief]]) -> dict[str, Any]:
    _, first, last = span
    name = " ".join(tokens[first:last + 1])
    return {"entity_string": name, "token_start": first, "token_end": last,
            "retrieved_concepts": list(dict.fromkeys(belief.category for belief in beliefs[name])),
            "retrieved_entities": list(dict.fromkeys(belief.entity for belief in beliefs[name]))}
