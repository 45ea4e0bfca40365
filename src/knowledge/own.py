# SPDX-License-Identifier: Apache-2.0
"""Retrieval for your own knowledge base, from a map of words, phrases or entities to concepts.

The map is a JSON object beside the vectors, ``KB_embeddings/<name>_map.json``: ``{"heart": ["organ", "muscle"]}``.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path

from src.config import DataFolder, KnowledgeBase
from src.knowledge.entity_retrieval import Belief
from src.knowledge.phrases import Lemma, PhraseFinder
from src.reader.tokenization import basic_tokens
from utils.util import InputError, read_json


def map_path(folder: DataFolder, base: KnowledgeBase) -> Path:
    """The path of a knowledge base's map."""
    return folder.vectors(base).parent / f"{base.name}_map.json"


class ConceptMap:
    """Words, phrases or entities -> concepts.

    Args:
        path: the map; keys are compared as uncased tokens.
        names: the concepts that have vectors; None if only some have, those of a pruned table.
        lemma: gives the base forms of words, if phrases are also to be compared by these.

    Raises:
        InputError: the file is not a map from strings to lists of strings, a concept has no vector, or two keys are the
            same when case and accents are ignored.
    """

    def __init__(self, path: Path, names: Sequence[str] | None, lemma: Lemma | None = None) -> None:
        self._concepts: dict[str, list[str]] = {}      # uncased tokens joined by blanks -> concepts
        self._lemma = lemma
        entries = read_json(path)
        if not isinstance(entries, dict):
            raise InputError(f"{path}: no map; write {{\"word\": [\"concept\", ...], ...}}")
        known = None if names is None else frozenset(names)
        for key, concepts in entries.items():
            if not isinstance(concepts, list) or not all(isinstance(concept, str) for concept in concepts):
                raise InputError(f"{path}: the entry {key[:60]!r} is no list of concept names")
            for concept in concepts:
                if known is not None and concept not in known:
                    raise InputError(f"{path}: the entry {key[:60]!r} names {concept[:60]!r}, which has no vector")
            words = " ".join(basic_tokens(key, lower_case=True))
            if words in self._concepts:
                raise InputError(f"{path}: the entry {key[:60]!r} comes twice when case and accents are ignored")
            self._concepts[words] = concepts
        self.concepts = known if known is not None else frozenset(chain.from_iterable(self._concepts.values()))

    @cached_property
    def _phrases(self) -> PhraseFinder:
        return PhraseFinder(self._concepts, self._lemma)

    def retrieve(self, words: Iterable[str]) -> dict[str, list[str]]:
        """Concepts of every uncased word that has some: the content of a word file."""
        return {word: concepts for word in words if (concepts := self._concepts.get(word))}

    def retrieve_phrases(self, words: Sequence[str]) -> dict[str, list[str]]:
        """Concepts of the longest phrases of a text in uncased words, by the phrases as the text has them."""
        return {" ".join(words[match.start:match.stop]): self._concepts[match.phrase]
                for match in self._phrases.find(words)}

    def find(self, words: tuple[str, ...]) -> Sequence[Belief]:
        """Concepts of an entity given as uncased tokens."""
        return [Belief(" ".join(words), concept) for concept in self._concepts.get(" ".join(words), ())]


def check_paths(bases: Iterable[KnowledgeBase]) -> None:
    """Refuse bases whose files for two data sets or splits would be one.

    Raises:
        InputError: a path of a base lacks ``{dataset}``, or ``{split}`` for what an entity base retrieves.
    """
    for base in bases:
        if base.pruned and "{dataset}" not in base.pruned:
            raise InputError(f"knowledge base {base.name[:40]}: pruned is {base.pruned[:80]!r}; the path must hold "
                             "{dataset}, for there is a file for each")
        for part in ("{dataset}", "{split}") if base.key == "entity" else ("{dataset}",):
            if part not in base.retrieved:
                raise InputError(f"knowledge base {base.name[:40]}: retrieved is {base.retrieved[:80]!r}; the path "
                                 f"must hold {part}, for there is a file for each")
