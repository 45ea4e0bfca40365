# SPDX-License-Identifier: Apache-2.0
"""Retrieval for your own knowledge base, from a map of words or entities to concepts.

The map is a JSON object beside the vectors, ``KB_embeddings/<name>_map.json``: ``{"heart": ["organ", "muscle"]}``.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from src.config import DataFolder, KnowledgeBase
from src.knowledge.entity_retrieval import Belief
from src.knowledge.tokens import uncased_tokens
from utils.util import InputError, read_json


def map_path(folder: DataFolder, base: KnowledgeBase) -> Path:
    """Where the map of a knowledge base lies."""
    return folder.vectors(base).parent / f"{base.name}_map.json"


class ConceptMap:
    """Words or entities -> concepts.

    Args:
        path: the map; keys are compared as uncased tokens.
        names: the concepts that have vectors.

    Raises:
        InputError: the file is not a map from strings to lists of strings, a concept has no vector, or two keys are the
            same when case and accents are ignored.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._concepts: dict[tuple[str, ...], list[str]] = {}
        entries = read_json(path)
        if not isinstance(entries, dict):
            raise InputError(f"{path}: no map; write {{\"word\": [\"concept\", ...], ...}}")
        self.concepts = known = frozenset(names)
        for key, concepts in entries.items():
            if not isinstance(concepts, list) or not all(isinstance(concept, str) for concept in concepts):
                raise InputError(f"{path}: the entry {key[:60]!r} is no list of concept names")
            for concept in concepts:
                if concept not in known:
                    raise InputError(f"{path}: the entry {key[:60]!r} names {concept[:60]!r}, which has no vector")
            words = uncased_tokens(key)
            if words in self._concepts:
                raise InputError(f"{path}: the entry {key[:60]!r} comes twice when case and accents are ignored")
            self._concepts[words] = concepts

    def retrieve(self, words: Iterable[str]) -> dict[str, list[str]]:
        """Concepts of every uncased word that has some: the content of a word file."""
        return {word: concepts for word in words if (concepts := self._concepts.get((word,)))}

    def find(self, words: tuple[str, ...]) -> Sequence[Belief]:
        """Concepts of an entity given as uncased tokens."""
        return [Belief(" ".join(words), concept) for concept in self._concepts.get(words, ())]


def check_paths(bases: Iterable[KnowledgeBase]) -> None:
    """Refuse bases whose files for two data sets or splits would be one.

    Raises:
        InputError: the path of a base lacks ``{dataset}``, or ``{split}`` for an entity base.
    """
    for base in bases:
        for part in ("{dataset}", "{split}") if base.key == "entity" else ("{dataset}",):
            if part not in base.retrieved:
                raise InputError(f"knowledge base {base.name[:40]}: retrieved is {base.retrieved[:80]!r}; the path "
                                 f"must hold {part}, for there is a file for each")
