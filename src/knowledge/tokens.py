# SPDX-License-Identifier: Apache-2.0
"""Word-level tokens: the passages and questions in BERT's basic tokens, and which of them each entity covers."""
from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from src.reader.passages import Passage, Question
from src.reader.tokenization import CACHED_WORDS, BertTokenizer, basic_tokens, split_words

EntitySpan = tuple[str, int, int]              # text, first token, last token
Splitter = Callable[[str], Sequence[str]]      # a text's basic tokens


class TokenizedQuestion(NamedTuple):
    """One question and its passage in basic tokens, with the entities of both."""

    id: str
    query_tokens: list[str]
    query_entities: list[EntitySpan]
    document_tokens: list[str]
    document_entities: list[EntitySpan]


@lru_cache(maxsize=CACHED_WORDS)
def uncased_tokens(text: str) -> tuple[str, ...]:
    """BERT's basic tokens of a text, lower-cased and without accents."""
    return tuple(basic_tokens(text, lower_case=True))


def tokenize_passage(passage: Passage, split: Splitter) -> Iterator[TokenizedQuestion]:
    """All questions of a passage in basic tokens.

    Args:
        passage: the passage.
        split: a word or other text -> its basic tokens, cased or uncased.
    """
    words, starts = split_words(passage.text)
    tokens: list[str] = []
    firsts = []                # a word's first token
    for word in words:
        firsts.append(len(tokens))
        tokens.extend(split(word))
    firsts.append(len(tokens))
    document_entities = []
    for mention in passage.entities:
        first = firsts[max(bisect_right(starts, mention.start) - 1, 0)]
        last = firsts[max(bisect_right(starts, mention.end), 1 if words else 0)] - 1
        if first <= last:
            document_entities.append((mention.text, *_narrow(tokens, first, last, split(mention.text))))
    # "Japan" marked inside "Japanese" is looked up as "japanese", as in the authors' files.
    passage_names = [tuple(tokens[first:last + 1]) for _, first, last in document_entities]
    for question in passage.questions:
        names = [*passage_names, *(tuple(split(mention.text)) for mention in question.entities)]
        query_tokens = query_words(question, split)
        yield TokenizedQuestion(question.id, query_tokens, find_names(query_tokens, names), tokens, document_entities)


def query_words(question: Question, split: Splitter) -> list[str]:
    """A question in basic tokens."""
    return [token for word in split_words(question.text)[0] for token in split(word)]


def _narrow(tokens: Sequence[str], first: int, last: int, name: Sequence[str]) -> tuple[int, int]:
    """The part of ``tokens[first..last]`` that is the entity itself, or all of it.

    An entity "Swansea" inside the word "Swansea-born" covers one of the word's three tokens.
    """
    for start in range(first, last - len(name) + 2):
        if list(tokens[start:start + len(name)]) == list(name):
            return start, start + len(name) - 1
    return first, last


def find_names(tokens: Sequence[str], names: Iterable[tuple[str, ...]]) -> list[EntitySpan]:
    """Where names occur in a text as whole tokens, from left to right; matches inside a longer one are ignored.

    >>> find_names(["new", "york", "city", "in", "york"], [("york",), ("new", "york")])
    [('new york', 0, 1), ('york', 4, 4)]
    """
    by_first: dict[str, set[tuple[str, ...]]] = {}
    for name in names:
        if name:
            by_first.setdefault(name[0], set()).add(name)
    spans: list[EntitySpan] = []
    covered = -1               # the last token of the spans so far, which begin at or before the present one
    for start, token in enumerate(tokens):
        lengths = [len(name) for name in by_first.get(token, ()) if tuple(tokens[start:start + len(name)]) == name]
        if lengths and start + max(lengths) - 1 > covered:
            covered = start + max(lengths) - 1
            spans.append((" ".join(tokens[start:covered + 1]), start, covered))
    return spans


def token_items(passages: Iterable[Passage], tokenizer: BertTokenizer) -> Iterator[dict[str, Any]]:
    """Items of a token file, one per question: tokens and entities of question and passage, and their word pieces."""
    def split(text: str) -> Sequence[str]:
        return tokenizer.word(text).tokens

    for passage in passages:
        document = tokenizer.analyse(split_words(passage.text)[0])
        for original, question in zip(passage.questions, tokenize_passage(passage, split), strict=True):
            query = tokenizer.analyse(split_words(original.text)[0])
            yield {"id": question.id,
                   "query_tokens": question.query_tokens, "query_subtokens": query.pieces,
                   "query_entities": question.query_entities, "query_sub_to_ori_index": query.piece_to_token,
                   "document_tokens": question.document_tokens, "document_subtokens": document.pieces,
                   "document_entities": question.document_entities,
                   "document_sub_to_ori_index": document.piece_to_token}
