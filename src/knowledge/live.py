# SPDX-License-Identifier: Apache-2.0
"""Knowledge for texts that no data set holds: what retrieve.py finds for whole files, found for one question."""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.config import NELL, WORDNET, DataFolder, KnowledgeBase
from src.knowledge.concepts import concept_ids
from src.knowledge.entities import CoreNLPTagger, SpacyTagger, Tagger
from src.knowledge.entity_retrieval import Finder, retrieve
from src.knowledge.lookup import MAPPING_LOOKUPS, EntityLookup
from src.knowledge.nell import BeliefFile, NellFinder
from src.knowledge.own import ConceptMap, map_path
from src.knowledge.tokens import tokenize_passage, uncased_tokens
from src.knowledge.wordnet import SynsetRetriever
from src.knowledge.wordnet_db import WordNet, find_wordnet
from src.reader.batching_twomemory import Lookup
from src.reader.examples import Mention
from src.reader.passages import Passage
from src.reader.storage import PieceConcepts
from src.reader.tokenization import Analysis
from utils.util import LOGGER, InputError

Retrieve = Callable[[Sequence[str]], Mapping[str, Sequence[str]]]    # words or phrases of a text -> their concepts


class LiveWordLookup:
    """Concepts by word or phrase, retrieved when a text is looked at."""

    per_question = False

    def __init__(self, base: KnowledgeBase, retrieve_words: Retrieve, ids: Mapping[str, int], vectors: Path) -> None:
        """Remember the retrieval; ``vectors`` is for errors."""
        self.cut: Counter[str] = Counter()
        self._base, self._retrieve, self._ids, self._vectors = base, retrieve_words, ids, vectors

    def find(self, text: Analysis, side: str, record: Mapping[str, Any] | None = None) -> PieceConcepts:
        """Concepts of the pieces of ``text``, as from a file of retrieved words."""
        words = [word for token in text.tokens for word in uncased_tokens(token)]
        if self._base.key == "word":
            words = list(dict.fromkeys(words))
        lookup = MAPPING_LOOKUPS[self._base.key](self._base, self._retrieve(words), self._ids, self._vectors,
                                                 self._vectors)
        found = lookup.find(text, side)
        self.cut.update(lookup.cut)
        return found


class NoKnowledge:
    """Finds nothing: takes the place of a knowledge base whose files are missing."""

    concepts: Collection[str] = ()

    def find(self, words: tuple[str, ...]) -> Sequence[Any]:
        """No belief about any entity."""
        return ()


class LiveKnowledge:
    """The knowledge bases of a network, opened once.

    Args:
        folder: the data folder: vectors, WordNet, the index of NELL's beliefs, the maps of your own knowledge bases.
        bases: in the order of the network's memories.
        wordnet_path: WordNet's files; by default where retrieve.py looks for them.
        ner: finder of named entities: spacy, corenlp or none.
        corenlp_url: address of the CoreNLP server.
        names_matter: whether entities are wanted even if no knowledge base needs them (ReCoRD picks answers by them).
        vectors: places of vectors files that are not in the data folder, by the base's name.

    Raises:
        InputError: vectors or WordNet are missing.
    """

    def __init__(self, folder: DataFolder, bases: Sequence[KnowledgeBase], wordnet_path: Path | None = None,
                 ner: str = "spacy", corenlp_url: str = "", names_matter: bool = False,
                 vectors: Mapping[str, Path] | None = None) -> None:
        self.bases = tuple(bases)
        self._folder, self._wordnet_path = folder, wordnet_path
        self._wordnet: WordNet | None = None
        self._vectors = {base.name: (vectors or {}).get(base.name) or folder.vectors(base) for base in bases}
        ids = {base.name: concept_ids(self._vectors[base.name]) for base in bases}
        self.names = {name: list(of_base) for name, of_base in ids.items()}      # the concept with id i at i - 1
        self.lookups: list[Lookup] = []
        self._finders: list[Finder | None] = []
        for base in bases:
            path, names = self._vectors[base.name], self.names[base.name]
            if base.key == "entity":
                self.lookups.append(EntityLookup(base, ids[base.name], path, path))
                self._finders.append(self._nell(names) if base.name == NELL.name else self._own(base))
            else:
                self.lookups.append(LiveWordLookup(base, self._retrieve_words(base), ids[base.name], path))
                self._finders.append(None)
        needed = names_matter or any(finder and not isinstance(finder, NoKnowledge) for finder in self._finders)
        self._tagger = _find_tagger(ner, corenlp_url) if needed else None

    def _open_wordnet(self) -> WordNet:
        if self._wordnet is None:
            self._wordnet = WordNet(self._wordnet_path or find_wordnet(self._folder.root))
        return self._wordnet

    def _own(self, base: KnowledgeBase) -> ConceptMap:
        return ConceptMap(map_path(self._folder, base), None if base.pruned else self.names[base.name],
                          self._open_wordnet().base_form if base.lemmas else None)

    def _retrieve_words(self, base: KnowledgeBase) -> Retrieve:
        """What gives the concepts of a text's words or phrases."""
        if base.name == WORDNET.name:
            return SynsetRetriever(self._open_wordnet(), self.names[base.name]).retrieve
        own = self._own(base)
        return own.retrieve if base.key == "word" else own.retrieve_phrases

    def _nell(self, names: Sequence[str]) -> Finder:
        beliefs = self._folder.root / "retrieve_nell" / "promoted_beliefs.tsv"
        if not beliefs.is_file():
            LOGGER.warning("%s: not there, so no word gets NELL concepts; retrieve.py --step nell makes it", beliefs)
            return NoKnowledge()
        return NellFinder(BeliefFile(beliefs), names, self._open_wordnet())

    def unknown_concepts(self) -> Iterator[tuple[KnowledgeBase, int]]:
        """How many concepts the texts since the last call named that a pruned table lacks, for bases with any."""
        for base, lookup in zip(self.bases, self.lookups, strict=True):
            if count := lookup.cut.pop("unknown", 0):
                yield base, count

    def gloss(self, name: str) -> str:
        """What a concept means, if it is a synset and WordNet is open anyway; else ""."""
        return self._wordnet.gloss(name) if self._wordnet else ""

    def tag(self, texts: Sequence[str]) -> list[tuple[Mention, ...]]:
        """The named entities of each text."""
        return [tuple(found) for found in self._tagger.tag(texts)] if self._tagger else [()] * len(texts)

    def records(self, passage: Passage) -> list[Mapping[str, Any] | None]:
        """For each knowledge base the retrieved record of the passage's one question, if it goes by entities."""
        question = next(iter(tokenize_passage(passage, uncased_tokens)))
        return [retrieve(question, finder) if finder else None for finder in self._finders]


def _find_tagger(ner: str, url: str) -> Tagger | None:
    if ner == "none":
        return None
    try:
        return SpacyTagger() if ner == "spacy" else CoreNLPTagger(url)
    except InputError as error:
        LOGGER.warning("no entities are found, so no word gets concepts by entity (NELL): %s", error)
        return None
