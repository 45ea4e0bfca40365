# SPDX-License-Identifier: Apache-2.0
"""Phrases in a text: from left to right the longest that begins at a word, so that "heart attack" is one entry."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from src.reader.tokenization import CACHED_WORDS

Lemma = Callable[[str], str]      # an uncased word -> its base form


class Match(NamedTuple):
    """A phrase in a text: ``words[start:stop]``."""

    start: int
    stop: int
    phrase: str


class PhraseFinder:
    """Finds phrases in a text.

    Args:
        phrases: keyed by uncased words joined by blanks; kept, not copied.
        lemma: also compare base forms, so that "heart attacks" finds "heart attack"; None compares words alone.

    >>> [match.phrase for match in PhraseFinder({"york": 1, "new york": 2}).find(["new", "york", "or", "york"])]
    ['new york', 'york']
    """

    def __init__(self, phrases: Mapping[str, Any], lemma: Lemma | None = None) -> None:
        self._lemma = lru_cache(CACHED_WORDS)(lemma) if lemma else None
        self._forms: list[tuple[Mapping[str, Any], dict[str, tuple[int, ...]]]] = [(phrases, _lengths(phrases))]
        self._of_base_form: dict[str, str] = {}
        if self._lemma is not None:
            for phrase in phrases:
                self._of_base_form.setdefault(" ".join(map(self._lemma, phrase.split(" "))), phrase)
            self._forms.append((self._of_base_form, _lengths(self._of_base_form)))

    def find(self, words: Sequence[str]) -> Iterator[Match]:
        """The phrases of a text in uncased words, from left to right; none overlaps another."""
        forms = [words] if self._lemma is None else [words, [self._lemma(word) for word in words]]
        start = 0
        while start < len(words):
            found = max((self._longest(level, of_level, start) for level, of_level in enumerate(forms)),
                        key=lambda match: match.stop)      # the words themselves come first among equals
            if found.stop > start:
                yield found
            start = max(found.stop, start + 1)

    def _longest(self, level: int, words: Sequence[str], start: int) -> Match:
        """The longest phrase that begins at a word; an empty match if there is none."""
        known, lengths = self._forms[level]
        for length in lengths.get(words[start], ()):
            phrase = " ".join(words[start:start + length])
            if start + length <= len(words) and phrase in known:
                return Match(start, start + length, self._of_base_form[phrase] if level else phrase)
        return Match(start, start, "")


def _lengths(phrases: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """First word -> the lengths in words of the phrases that begin with it, the longest first."""
    lengths: dict[str, tuple[int, ...]] = {}
    for phrase in phrases:
        first, _, rest = phrase.partition(" ")
        length = rest.count(" ") + 2 if rest else 1
        known = lengths.get(first, ())
        if length not in known:
            lengths[first] = tuple(sorted((*known, length), reverse=True))
    return lengths
