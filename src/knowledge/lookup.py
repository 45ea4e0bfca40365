# SPDX-License-Identifier: Apache-2.0
"""From words and entity mentions to concept ids, for every word piece of a text."""
from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.config import KnowledgeBase
from src.knowledge.formats import retrieved_item_problem
from src.knowledge.phrases import PhraseFinder
from src.knowledge.tokens import uncased_tokens
from src.reader.storage import PieceConcepts
from src.reader.tokenization import CACHED_WORDS, Analysis, basic_tokens, strip_accents
from utils.util import InputError

NO_CONCEPTS = np.zeros(0, np.int32)


def unknown_concept(concept: str, place: str, vectors: Path) -> InputError:
    """The error for a concept that has no vector."""
    return InputError(f"{place}: concept {concept!r} has no vector in {vectors}; use the files of one knowledge base, "
                      "or run retrieve.py again")


class WordLookup:
    """Concepts by word, looked up lower-cased and without accents (WordNet)."""

    per_question = False

    def __init__(self, base: KnowledgeBase, mapping: Mapping[str, Sequence[str]], ids: Mapping[str, int],
                 path: Path, vectors: Path) -> None:
        """Translate the mapping.

        Args:
            base: the knowledge base; its lists are cut to its ``max_concepts``.
            mapping: word -> names of its concepts, as read from ``path``.
            ids: name -> id of every concept, as read from ``vectors``.
            path: for errors.
            vectors: for errors.

        Raises:
            InputError: a concept has no vector.
        """
        self.cut: Counter[str] = Counter()
        self._concepts: dict[str, np.ndarray] = {}
        self._beyond: dict[str, int] = {}          # word -> concepts beyond ``max_concepts``
        for word, names in mapping.items():
            known = known_names(names, ids, bool(base.pruned), self.cut)
            try:
                concepts = [ids[name] for name in known[:base.max_concepts]]
            except KeyError as error:
                raise unknown_concept(error.args[0], f"{path}: word {word!r}", vectors) from None
            self._concepts[word] = np.array(concepts, np.int32)
            if len(known) > base.max_concepts:
                self._beyond[word] = len(known) - base.max_concepts
        self._by_token: dict[str, np.ndarray] = {}

    def find(self, text: Analysis, side: str, record: Mapping[str, Any] | None = None) -> PieceConcepts:
        """Concepts of the pieces of ``text``, in the mapping's order."""
        by_token = [self._token(token) for token in text.tokens]
        for beyond in (self._beyond.get(_normalised(token), 0) for token in text.tokens if self._beyond):
            _count_cut(self.cut, beyond)
        by_piece = [by_token[token] for token in text.piece_to_token]
        return PieceConcepts(np.array([len(concepts) for concepts in by_piece], np.int32),
                             np.concatenate(by_piece) if by_piece else NO_CONCEPTS)

    def _token(self, token: str) -> np.ndarray:
        found = self._by_token.get(token)
        if found is None:
            if len(self._by_token) >= CACHED_WORDS:
                self._by_token.clear()
            found = self._by_token[token] = self._concepts.get(_normalised(token), NO_CONCEPTS)
        return found


def _normalised(token: str) -> str:
    return strip_accents(token.lower())


def _count_cut(cut: Counter[str], beyond: int) -> None:
    if beyond > 0:
        cut.update(words=1, concepts=beyond)


class EntityLookup:
    """Concepts by entity mention, found for each question beforehand (NELL)."""

    per_question = True

    def __init__(self, base: KnowledgeBase, ids: Mapping[str, int], path: Path, vectors: Path) -> None:
        """Remember where names have their ids; ``path`` and ``vectors`` are for errors."""
        self.cut: Counter[str] = Counter()
        self._width, self._ids, self._path, self._vectors = base.max_concepts, ids, path, vectors
        self._pruned = bool(base.pruned)
        self._tokens: Sequence[str] = ()           # of the text that was looked at last: often the same passage
        self._places: Sequence[int] = ()

    def find(self, text: Analysis, side: str, record: Mapping[str, Any] | None) -> PieceConcepts:
        """Concepts of the pieces of ``text``: the union over the entities that cover a piece's word, in their order.

        The entities' places count the words of the uncased text.

        Raises:
            InputError: an entity lies outside the text, a concept has no vector, or the record has another shape.
        """
        assert record is not None
        try:
            by_token = self._by_token(text, side, record[f"{side}_entities"])
        except (KeyError, TypeError, _OutsideError) as error:
            raise self._explain(error, text, side, record) from None
        return spread(by_token, text, self._width, self.cut)

    def _by_token(self, text: Analysis, side: str, entities: Sequence[Mapping[str, Any]]) -> dict[int, dict[int, None]]:
        """Token -> its concepts, as keys."""
        places = self._uncased_places(text) if side == "document" else uncased_places(text.tokens)
        by_token: dict[int, dict[int, None]] = {}
        for entity in entities:
            first, last = entity["token_start"], entity["token_end"]
            if not 0 <= first <= last < len(places):
                raise _OutsideError
            names = entity["retrieved_concepts"]
            if names:
                concepts = [self._ids[name] for name in known_names(names, self._ids, self._pruned, self.cut)]
                for place in range(first, last + 1):
                    by_token.setdefault(places[place], {}).update(dict.fromkeys(concepts))
        return by_token

    def _uncased_places(self, text: Analysis) -> Sequence[int]:
        if text.tokens is not self._tokens:
            self._tokens, self._places = text.tokens, uncased_places(text.tokens)
        return self._places

    def _explain(self, error: Exception, text: Analysis, side: str, record: Mapping[str, Any]) -> InputError:
        place = f"{self._path}: question {record.get('id')}"
        problem = retrieved_item_problem(dict(record))
        if problem:
            return InputError(f"{place}: {problem}; make the file again with retrieve.py")
        words = len(uncased_places(text.tokens))
        for entity in record[f"{side}_entities"]:
            if entity["token_end"] >= words:
                return InputError(f"{place}: {side} entity {str(entity.get('entity_string'))[:60]!r} ends at word "
                                  f"{entity['token_end']}, the text has {words}; the file was made from another text: "
                                  "make it again with retrieve.py")
        return unknown_concept(str(error.args[0]), place, self._vectors)


class PhraseLookup:
    """Concepts by phrase: every word piece of the longest match has those of the phrase."""

    per_question = False

    def __init__(self, base: KnowledgeBase, mapping: Mapping[str, Sequence[str]], ids: Mapping[str, int],
                 path: Path, vectors: Path) -> None:
        """Translate the mapping from phrases (uncased words joined by blanks); as :class:`WordLookup`."""
        self.cut: Counter[str] = Counter()
        self._width = base.max_concepts
        self._finder = PhraseFinder(mapping)
        self._concepts: dict[str, list[int]] = {}
        for phrase, names in mapping.items():
            known = known_names(names, ids, bool(base.pruned), self.cut)
            try:
                self._concepts[phrase] = [ids[name] for name in known]
            except KeyError as error:
                raise unknown_concept(error.args[0], f"{path}: phrase {phrase!r}", vectors) from None

    def find(self, text: Analysis, side: str, record: Mapping[str, Any] | None = None) -> PieceConcepts:
        """Concepts of the pieces of ``text``, in the mapping's order."""
        places = uncased_places(text.tokens)
        words = [word for token in text.tokens for word in uncased_tokens(token)]
        by_token: dict[int, dict[int, None]] = {}
        for match in self._finder.find(words):
            for place in range(match.start, match.stop):
                by_token.setdefault(places[place], {}).update(dict.fromkeys(self._concepts[match.phrase]))
        return spread(by_token, text, self._width, self.cut)


def known_names(names: Sequence[str], ids: Mapping[str, int], pruned: bool, cut: Counter[str]) -> Sequence[str]:
    """The concepts without those that a pruned table lacks, which are counted in ``cut["unknown"]``."""
    if not pruned:
        return names
    known = [name for name in names if name in ids]
    if len(known) < len(names):
        cut["unknown"] += len(names) - len(known)
    return known


def spread(by_token: Mapping[int, Mapping[int, None]], text: Analysis, width: int, cut: Counter[str]) -> PieceConcepts:
    """From the concepts of a text's tokens, as keys, to those of its pieces; at most ``width`` of each."""
    counts = np.zeros(len(text.pieces), np.int32)
    found: list[int] = []
    pieces = text.piece_to_token
    stop = 0
    for token in sorted(by_token):
        first = bisect_left(pieces, token, stop)
        stop = bisect_right(pieces, token, first)
        concepts = list(by_token[token])[:width]
        _count_cut(cut, len(by_token[token]) - width)
        counts[first:stop] = len(concepts)
        found += concepts * (stop - first)
    return PieceConcepts(counts, np.array(found, np.int32) if found else NO_CONCEPTS)


class _OutsideError(ValueError):
    """An entity lies outside its text."""


def uncased_places(tokens: Sequence[str]) -> Sequence[int]:
    """For each word of the uncased text, the index in ``tokens`` of the (cased or uncased) token it comes from.

    They differ only where taking off an accent empties a token or brings out a punctuation mark.
    """
    if "".join(tokens).isascii():
        return range(len(tokens))
    places: list[int] = []
    for number, token in enumerate(tokens):
        places += [number] * (1 if token.isascii() else len(basic_tokens(token, lower_case=True)))
    return places


MAPPING_LOOKUPS: Mapping[str, type[WordLookup | PhraseLookup]] = {"word": WordLookup, "phrase": PhraseLookup}
