# SPDX-License-Identifier: Apache-2.0
"""Text to words to word pieces, exactly as Google's BERT does it, cased or uncased.

Three levels, used by every reader:

* *words*: the passage split on white space, what answers are cut from;
* *tokens* (BERT's basic tokens): words without control and unassigned characters, split at punctuation and CJK
  characters, and for uncased models lower-cased and without accents;
* *pieces*: tokens cut by the vocabulary, greedily from the left (HuggingFace ``tokenizers`` does this step).

The first two levels are ours because the library's normaliser follows other Unicode tables and lower-cases a Greek
final sigma differently; each distinct word passes here once, the rest is a look-up.
"""
from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from tokenizers import models

from utils.util import InputError, read_text

PAD, UNK, CLS, SEP = "[PAD]", "[UNK]", "[CLS]", "[SEP]"
MAX_TOKEN_CHARACTERS = 100     # a longer token becomes [UNK]
WORD_SEPARATORS = " \t\r\n\u202f"
CACHED_WORDS = 100_000         # distinct words kept; bounds the memory on data sets of any size

_ASCII_TOKENS = re.compile(r"[0-9A-Za-z]+|[!-/:-@\[-`{-~]")
_TO_SPACE = str.maketrans(dict.fromkeys(WORD_SEPARATORS, " "))
_CJK_BLOCKS = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
               (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F))


def load_vocabulary(path: Path | str) -> dict[str, int]:
    """Read a ``vocab.txt``: one piece per line, its line number (from 0) is its id.

    Raises:
        InputError: the file is missing, is not UTF-8 text, has a piece twice or lacks a special token.
    """
    vocabulary: dict[str, int] = {}
    text = read_text(path, "give the encoder's vocab.txt with --vocab_path")
    lines = text.split("\n")
    for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines, 1):
        piece = line.strip()
        if piece in vocabulary:
            raise InputError(f"{path}: line {number}: piece {piece!r} is already on line {vocabulary[piece] + 1}; "
                             "give the encoder's own vocab.txt")
        vocabulary[piece] = len(vocabulary)
    missing = [token for token in (PAD, UNK, CLS, SEP) if token not in vocabulary]
    if missing:
        raise InputError(f"{path}: {', '.join(missing)} missing; give the vocab.txt of a BERT encoder")
    if vocabulary[PAD] != 0:
        raise InputError(f"{path}: {PAD} is on line {vocabulary[PAD] + 1}; it must be the first piece, "
                         "features are padded with 0")
    return vocabulary


def split_words(text: str) -> tuple[list[str], list[int]]:
    """Split a passage on white space.

    Returns:
        The words and the offset of each word's first character.
    """
    words: list[str] = []
    starts: list[int] = []
    position = 0
    for word in text.translate(_TO_SPACE).split(" "):
        if word:
            words.append(word)
            starts.append(position)
        position += len(word) + 1
    return words, starts


def basic_tokens(text: str, lower_case: bool) -> list[str]:
    """BERT's basic tokens of ``text``.

    >>> basic_tokens("Don't, naïve!", lower_case=True)
    ['don', "'", 't', ',', 'naive', '!']
    """
    if text.isascii() and text.isprintable():
        return _ASCII_TOKENS.findall(text.lower() if lower_case else text)
    tokens = []
    for word in "".join(map(_clean_character, text)).split():
        if lower_case:
            word = strip_accents(word.lower())
        tokens.extend("".join(f" {character} " if is_punctuation(character) else character
                              for character in word).split())
    return tokens


def strip_accents(text: str) -> str:
    """``text`` decomposed (NFD) and without combining marks."""
    if text.isascii():
        return text
    return "".join(character for character in unicodedata.normalize("NFD", text)
                   if unicodedata.category(character) != "Mn")


@lru_cache(maxsize=4096)
def is_punctuation(character: str) -> bool:
    """Unicode punctuation, or any ASCII character that is neither letter, digit, space nor control character."""
    if character.isascii():
        return "!" <= character <= "~" and not character.isalnum()
    return unicodedata.category(character).startswith("P")


@lru_cache(maxsize=4096)
def _clean_character(character: str) -> str:
    """White space becomes a space, CJK characters stand alone, all of Unicode's categories C* are dropped.

    Google's later code keeps Co, Cn and Cs; the authors' archives were made without them, and count places accordingly.
    """
    if character in " \t\n\r":
        return " "
    category = unicodedata.category(character)
    if character == "\ufffd" or category.startswith("C"):
        return ""
    if category == "Zs":
        return " "
    return f" {character} " if is_cjk(character) else character


def is_cjk(character: str) -> bool:
    """Whether a character is one of those that stand alone, as BERT has it: Chinese characters, not kana or Hangul."""
    point = ord(character)
    return any(low <= point <= high for low, high in _CJK_BLOCKS)


class WordPieces(NamedTuple):
    """One word on all three levels."""

    tokens: tuple[str, ...]          # basic tokens of the word
    pieces: tuple[str, ...]          # word pieces of the word
    piece_ids: tuple[int, ...]       # their ids
    piece_to_token: tuple[int, ...]  # word piece -> index in tokens
    simple: bool                     # one token of one piece, as most words are


class BertTokenizer:
    """Google BERT's tokenizer over one vocabulary."""

    def __init__(self, vocab_path: Path | str, lower_case: bool) -> None:
        """Read the vocabulary.

        Raises:
            InputError: as :func:`load_vocabulary`.
        """
        self.vocab_path = Path(vocab_path)
        self.lower_case = lower_case
        self.vocabulary = load_vocabulary(vocab_path)
        self.cls_id, self.sep_id = self.vocabulary[CLS], self.vocabulary[SEP]
        self._model = models.WordPiece(self.vocabulary, unk_token=UNK,
                                       max_input_chars_per_word=MAX_TOKEN_CHARACTERS)
        self._words: dict[str, WordPieces] = {}

    def word(self, word: str) -> WordPieces:
        """All levels of one white-space word (of any text, in fact); remembered."""
        found = self._words.get(word)
        if found is None:
            if len(self._words) >= CACHED_WORDS:
                self._words.clear()
            found = self._words[word] = self._analyse(word)
        return found

    def _analyse(self, text: str) -> WordPieces:
        tokens = basic_tokens(text, self.lower_case)
        pieces: list[str] = []
        ids: list[int] = []
        owners: list[int] = []
        for number, token in enumerate(tokens):
            for piece in self._model.tokenize(token):
                pieces.append(piece.value)
                ids.append(piece.id)
                owners.append(number)
        return WordPieces(tuple(tokens), tuple(pieces), tuple(ids), tuple(owners), owners == [0] and len(tokens) == 1)

    def analyse(self, words: Iterable[str]) -> Analysis:
        """All levels of a text that was split on white space."""
        known = self._words
        found = [known.get(word) or self.word(word) for word in words]
        piece_to_token: list[int] = []
        piece_to_word: list[int] = []
        first = 0
        for number, word in enumerate(found):
            if word.simple:
                piece_to_token.append(first)
                piece_to_word.append(number)
                first += 1
            else:
                piece_to_token += [first + owner for owner in word.piece_to_token]
                piece_to_word += [number] * len(word.pieces)
                first += len(word.tokens)
        return Analysis([token for word in found for token in word.tokens],
                        [piece for word in found for piece in word.pieces],
                        [piece for word in found for piece in word.piece_ids], piece_to_token, piece_to_word)

    def tokenize(self, text: str) -> list[str]:
        """Word pieces of a text."""
        return self.analyse(split_words(text)[0]).pieces


class Analysis(NamedTuple):
    """A text on all levels; every list but ``tokens`` has one entry per word piece."""

    tokens: list[str]            # BERT's basic tokens
    pieces: list[str]
    piece_ids: list[int]
    piece_to_token: list[int]    # word piece -> index in tokens
    piece_to_word: list[int]     # word piece -> white-space word
