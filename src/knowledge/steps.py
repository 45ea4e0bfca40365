# SPDX-License-Identifier: Apache-2.0
"""The steps of retrieval: entities, tokens, WordNet, NELL and your own knowledge bases."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

from src.config import CORENLP_URL, NELL, SPLITS, WORDNET, DataFolder, KnowledgeBase, TaskConfig
from src.knowledge.concepts import prune_vectors, read_concept_names
from src.knowledge.entities import BATCH, CoreNLPTagger, SpacyTagger, TagCache, Tagger, tag_dataset
from src.knowledge.entity_retrieval import Finder, retrieve
from src.knowledge.formats import Format, read_mapping, read_records, write_mapping, write_records
from src.knowledge.nell import BeliefFile, NellFinder, build_belief_file
from src.knowledge.own import ConceptMap, check_paths, map_path
from src.knowledge.tokens import query_words, token_items, tokenize_passage, uncased_tokens
from src.knowledge.wordnet import SynsetRetriever
from src.knowledge.wordnet_db import WordNet, find_wordnet
from src.reader.passages import Passage, read_passages
from src.reader.tokenization import BertTokenizer, split_words
from utils.progress import follow
from utils.uptodate import RECORDS, Job, run_job
from utils.util import LOGGER, InputError

STEPS = ("entities", "wordnet", "nell", "own")      # what ``--step all`` does; tokens are made on request only
UNCASED_VOCAB = "uncased_L-24_H-1024_A-16/vocab.txt"
NELL_EXPORT = "NELL.*.esv.csv*"       # looked for in the data folder and in its folders raw and retrieve_nell


@dataclass(frozen=True)
class Options:
    """What the steps need to know beside the data folder's layout; None means the place below the data folder."""

    vocab_path: Path | None = None
    uncased_vocab_path: Path | None = None
    nell_beliefs: Path | None = None
    wordnet_path: Path | None = None
    ner: str = "spacy"
    ner_processes: int = 1
    corenlp_url: str = CORENLP_URL
    own: tuple[KnowledgeBase, ...] = ()      # knowledge bases with a map of their own (src/knowledge/own.py)
    force: bool = False
    form: Format = "json"


class Retrieval:
    """All steps over one data folder.

    Args:
        folder: the data folder.
        options: the rest.
    """

    def __init__(self, folder: DataFolder, options: Options) -> None:
        self.folder, self.options = folder, options

    def run(self, step: str, task: TaskConfig) -> None:
        """Run one step for one data set: for the splits whose JSON is there.

        Raises:
            InputError: the data set is missing, or an input of the step is missing or broken.
        """
        splits = [split for split in SPLITS if self.folder.dataset_json(task, split).exists()]
        if not splits:
            raise InputError(f"{self.folder.dataset_json(task, SPLITS[0])}: no such file; put the {task.folder} "
                             "data set there")
        jobs = {"entities": self._entities, "tokens": self._tokens, "wordnet": self._wordnet_jobs, "nell": self._nell,
                "own": self._own}
        for job in jobs[step](task, splits):
            if job.output.suffix == ".data":
                job = replace(job, settings={**job.settings, "format": self.options.form})
            run_job(job, self.folder.root, self.options.force)

    # --- entities --------------------------------------------------------------------------------------------------

    def _entities(self, task: TaskConfig, splits: list[str]) -> Iterator[Job]:
        if task.marks_entities:
            return
        for split in splits:
            target = self.folder.tagged_json(task, split)
            whole = DataFolder(self.folder.root).tagged_json(task, split)
            there = [path for path in (whole, self.folder.root / "raw" / whole.name) if path != target]
            other = next((path for path in there if path.is_file()), None)
            if other is not None and not target.exists() and not self.options.force:
                LOGGER.info("%s: used as it is (--force makes %s)", other, target)
                continue
            source = self.folder.dataset_json(task, split)
            yield Job(target, [source], partial(self._tag, source, target), {"ner": self.options.ner})

    def _tag(self, source: Path, target: Path) -> None:
        cache = self.folder.root / RECORDS / f"entities-{self._tagger().name}.jsonl"
        shard, processes = self.folder.shard, self.options.ner_processes
        cache = shard.file(cache) if shard else cache           # jobs side by side must not write into one file
        batch = BATCH if processes == 1 else BATCH * 8 * processes
        tag_dataset(source, target, TagCache(cache, batch), self._tagger, self.folder.holds)

    @lru_cache(maxsize=1)   # noqa: B019 - one tagger for the length of a run
    def _tagger(self) -> Tagger:
        options = self.options
        return SpacyTagger(options.ner_processes) if options.ner == "spacy" else CoreNLPTagger(options.corenlp_url)

    def _passages(self, task: TaskConfig, split: str, what: str, with_entities: bool = True) -> Iterator[Passage]:
        tagged = find_tagged_json(self.folder, task, split) if with_entities and not task.marks_entities else None
        passages = read_passages(self.folder.dataset_json(task, split), task.name, tagged,
                                 self.folder.holds if self.folder.shard else None)
        return follow(passages, f"{what}, {task.name} {split}", None, "passages")

    def _text_files(self, task: TaskConfig, split: str) -> list[Path]:
        """The files that passages with entities come from."""
        files = [self.folder.dataset_json(task, split)]
        return files if task.marks_entities else [*files, find_tagged_json(self.folder, task, split)]

    # --- tokens ----------------------------------------------------------------------------------------------------

    def _tokens(self, task: TaskConfig, splits: list[str]) -> Iterator[Job]:
        cased = self.options.vocab_path or self.folder.bert() / "vocab.txt"
        uncased = self.options.uncased_vocab_path or self.folder.root / UNCASED_VOCAB
        for vocabulary, lower_case in ((cased, False), (uncased, True)):
            if lower_case and not self.options.uncased_vocab_path and not uncased.is_file():
                LOGGER.info("%s: no such file, so no uncased token files (only uncased encoders need them)", uncased)
                continue
            if not lower_case and self.options.uncased_vocab_path and not (self.options.vocab_path or cased.is_file()):
                LOGGER.info("%s: no such file, so no cased token files (only cased encoders need them)", cased)
                continue
            for split in splits:
                target = self.folder.tokens(task, split, lower_case)
                yield Job(target, [*self._text_files(task, split), vocabulary],
                          partial(self._write_tokens, task, split, vocabulary, lower_case, target))

    def _write_tokens(self, task: TaskConfig, split: str, vocabulary: Path, lower_case: bool, target: Path) -> None:
        what = "uncased tokens" if lower_case else "cased tokens"
        write_records(target, token_items(self._passages(task, split, what), BertTokenizer(vocabulary, lower_case)),
                      self.options.form)

    # --- WordNet ---------------------------------------------------------------------------------------------------

    @cached_property
    def _wordnet_files(self) -> Path:
        return self.options.wordnet_path or find_wordnet(self.folder.root)

    @cached_property
    def _wordnet(self) -> WordNet:
        return WordNet(self._wordnet_files)

    def _wordnet_jobs(self, task: TaskConfig, splits: list[str]) -> Iterator[Job]:
        vectors = self.folder.vectors(WORDNET)
        target = self.folder.retrieved(WORDNET, task, SPLITS[0])      # one file for both splits
        yield Job(target, [*(self.folder.dataset_json(task, split) for split in splits), vectors, self._wordnet_files],
                  partial(self._write_synsets, task, splits, vectors, target))

    def _write_synsets(self, task: TaskConfig, splits: list[str], vectors: Path, target: Path) -> None:
        retriever = SynsetRetriever(self._wordnet, read_concept_names(vectors))
        words = self._words(task, splits, "WordNet")
        found = retriever.retrieve(follow(words, f"WordNet, {task.name}", len(words), "words"))
        LOGGER.info("%s: %d of %d words have synsets, at most %d", task.name, len(found), len(words),
                    max(map(len, found.values()), default=0))
        write_mapping(target, found, self.options.form)

    def _words(self, task: TaskConfig, splits: list[str], what: str) -> dict[str, None]:
        """All uncased words of a data set, in the order of their first use."""
        words: dict[str, None] = {}
        for split in splits:
            for passage in self._passages(task, split, what, with_entities=False):
                words.update(dict.fromkeys(chain.from_iterable(_uncased_texts(passage))))
        return words

    # --- NELL ------------------------------------------------------------------------------------------------------

    def _nell_export(self) -> Path:
        if self.options.nell_beliefs:
            return self.options.nell_beliefs
        for place in (self.folder.root, self.folder.root / "raw", self.folder.root / "retrieve_nell"):
            for path in sorted(place.glob(NELL_EXPORT)):
                if path.suffix != ".part":       # an unfinished download of get_data.sh
                    return path
        raise InputError(f"{self.folder.root}: no NELL belief export ({NELL_EXPORT}) there nor in raw; fetch "
                         "NELL.08m.1115.esv.csv.gz or give another with --nell_beliefs")

    def _nell(self, task: TaskConfig, splits: list[str]) -> Iterator[Job]:
        beliefs = self.folder.root / "retrieve_nell" / "promoted_beliefs.tsv"
        export = self._nell_export()
        yield Job(beliefs, [export], partial(build_belief_file, export, beliefs))
        for split in splits:
            target = self.folder.retrieved(NELL, task, split)
            vectors = self.folder.vectors(NELL)
            yield Job(target, [*self._text_files(task, split), beliefs, vectors, self._wordnet_files],
                      partial(self._write_categories, task, split, beliefs, vectors, target))

    def _write_categories(self, task: TaskConfig, split: str, beliefs: Path, vectors: Path, target: Path) -> None:
        with BeliefFile(beliefs) as found:
            finder = NellFinder(found, read_concept_names(vectors), self._wordnet)
            write_records(target, self._entity_items(task, split, "NELL", finder), self.options.form)

    def _entity_items(self, task: TaskConfig, split: str, what: str, finder: Finder) -> Iterator[dict[str, Any]]:
        for passage in self._passages(task, split, what):
            for question in tokenize_passage(passage, uncased_tokens):
                yield retrieve(question, finder)

    # --- your own knowledge bases ------------------------------------------------------------------------------

    def _own(self, task: TaskConfig, splits: list[str]) -> Iterator[Job]:
        check_paths(self.options.own)
        for base in self.options.own:
            vectors = self.folder.vectors(base)
            sources = [map_path(self.folder, base), vectors, *([self._wordnet_files] if base.lemmas else [])]
            if base.key == "entity":
                targets = [self.folder.retrieved(base, task, split) for split in splits]
                for split, target in zip(splits, targets, strict=True):
                    yield Job(target, [*self._text_files(task, split), *sources],
                              partial(self._write_own_entities, base, task, split, target))
            else:
                target = self.folder.retrieved(base, task, SPLITS[0])      # one file for both splits
                targets, texts = [target], [self.folder.dataset_json(task, split) for split in splits]
                yield Job(target, [*texts, *sources], partial(self._write_own_words, base, task, splits, target),
                          {"key": base.key, "lemmas": base.lemmas} if base.key == "phrase" else {})
            if base.pruned and self.folder.shard:
                raise InputError(f"--shard {self.folder.shard}: the table of {base.label} is pruned to what all texts "
                                 "name; run the step own without --shard")
            if base.pruned:
                table = self.folder.table(base, task)
                yield Job(table, [*targets, vectors], partial(self._write_pruned, base, targets, table))

    @lru_cache(maxsize=1)   # noqa: B019 - the map of the base at work
    def _own_map(self, base: KnowledgeBase) -> ConceptMap:
        return ConceptMap(map_path(self.folder, base), read_concept_names(self.folder.vectors(base)),
                          self._wordnet.base_form if base.lemmas else None)

    def _write_own_words(self, base: KnowledgeBase, task: TaskConfig, splits: list[str], target: Path) -> None:
        own = self._own_map(base)
        if base.key == "word":
            found = own.retrieve(self._words(task, splits, base.label))
        else:
            found = {}
            for split in splits:
                for passage in self._passages(task, split, base.label, with_entities=False):
                    for words in _uncased_texts(passage):
                        found |= own.retrieve_phrases(words)
        write_mapping(target, found, self.options.form)

    def _write_own_entities(self, base: KnowledgeBase, task: TaskConfig, split: str, target: Path) -> None:
        write_records(target, self._entity_items(task, split, base.label, self._own_map(base)), self.options.form)

    def _write_pruned(self, base: KnowledgeBase, retrieved: Sequence[Path], target: Path) -> None:
        used: set[str] = set()
        for path in retrieved:
            if base.key == "entity":
                used.update(concept for record in read_records(path) for side in ("document", "query")
                            for entity in record[f"{side}_entities"] for concept in entity["retrieved_concepts"])
            else:
                used.update(chain.from_iterable(read_mapping(path).values()))
        kept, whole = prune_vectors(self.folder.vectors(base), used, target)
        LOGGER.info("%s: %d of %d concepts of %s are found in the texts", target, kept, whole, base.label)


def find_tagged_json(folder: DataFolder, task: TaskConfig, split: str) -> Path:
    """The file with a data set's entities: beside the data set, else in the folder ``raw``.

    Raises:
        InputError: there is none.
    """
    path = folder.tagged_json(task, split)
    whole = DataFolder(folder.root).tagged_json(task, split)
    for candidate in (path, whole, folder.root / "raw" / whole.name):
        if candidate.is_file():
            return candidate
    raise InputError(f"{path}: no such file; run retrieve.py --step entities")


def _uncased_texts(passage: Passage) -> Iterator[list[str]]:
    """A passage and each of its questions in uncased tokens."""
    yield [token for word in split_words(passage.text)[0] for token in uncased_tokens(word)]
    for question in passage.questions:
        yield query_words(question, uncased_tokens)
