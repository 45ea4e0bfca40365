# SPDX-License-Identifier: Apache-2.0
"""Where answers are in the passage that was asked about, in characters; and answers that end at whole words."""
from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate

import numpy as np

from src.reader.decoding import DecodingOptions, PassageText, rank_spans
from src.reader.examples import EvaluationExample
from src.reader.tokenization import is_cjk, split_words


class AnswerPlaces:
    """Finds answers in the text of a passage.

    Args:
        passage: the text.
        example: a question about it.
        do_lower_case: as the word pieces were made.
    """

    def __init__(self, passage: str, example: EvaluationExample, do_lower_case: bool) -> None:
        self.passage, self.example = passage, example
        self._text = PassageText(example, do_lower_case)
        self._starts = split_words(passage)[1]

    def find(self, texts: Iterable[str], logits: Sequence[tuple[np.ndarray, np.ndarray]],
             options: DecodingOptions) -> dict[str, tuple[int, int]]:
        """The characters of the best span with each text; a text that is no span ("no answer") has none.

        Args:
            texts: answers as decoding gives them.
            logits: the start and end logits [S] of each of the question's windows.
            options: how the answers were chosen.
        """
        wanted = {text for text in texts if text}
        found: dict[str, tuple[int, int]] = {}
        for span in rank_spans(self.example, logits, options):
            if len(found) == len(wanted):
                break
            text = self._text.span_text(span.start, span.end)
            if text in wanted and text not in found:
                found[text] = self.characters(span.start, span.end)
        return found

    def characters(self, first: int, last: int) -> tuple[int, int]:
        """The first character of the word pieces ``first .. last``, and the one after them."""
        start, end = self._text.span_place(first, last)
        first_word = self.example.piece_to_word[first]
        words = self.example.words[first_word:self.example.piece_to_word[last] + 1]
        ends = list(accumulate(len(word) + 1 for word in words))     # in the joined words, with the space after each
        return self._place(first_word, ends, start), self._place(first_word, ends, end - 1) + 1

    def _place(self, first_word: int, ends: Sequence[int], character: int) -> int:
        number = bisect_right(ends, character)
        return self._starts[first_word + number] + character - (ends[number - 1] if number else 0)

    def whole_words(self, start: int, end: int) -> tuple[int, int]:
        """The characters widened to whole words."""
        text = self.passage
        while start > 0 and _in_word(text[start]) and _in_word(text[start - 1]):
            start -= 1
        while end < len(text) and _in_word(text[end - 1]) and _in_word(text[end]):
            end += 1
        return start, end


def _in_word(character: str) -> bool:
    """Whether a word goes on with a character: letters, digits, and the accents that combine with them.

    A Chinese character is a word by itself.
    """
    return (character.isalnum() and not is_cjk(character)) or unicodedata.category(character).startswith("M")
