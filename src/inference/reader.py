# SPDX-License-Identifier: Apache-2.0
"""A reader to call from a program: passages and questions in, answers with their places and probabilities out.

from src.inference import Reader

reader = Reader.from_folder("model")
result = reader.ask("The tower was built by Ida Roth in 1911.", "Who built the tower?")
result.answer, result.probability, result.start, result.end
"""
from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.config import KTNetConfig
from src.inference.attention import KTNETAttention
from src.inference.compare import memories_off
from src.inference.evaluate import decoding_options
from src.inference.graph_cache import GraphCache, cache_folder
from src.inference.places import AnswerPlaces
from src.inference.sources import filled_settings, knowledge_files, make_tokenizer
from src.inference.windows import WindowRunner
from src.knowledge.concepts import concept_digest
from src.knowledge.live import LiveKnowledge
from src.KTNET import KTNET
from src.reader.batching_twomemory import FeatureBuilder, warn_without_overlap
from src.reader.decoding import Decoded, NBestEntry
from src.reader.examples import EvaluationExample, Example, Mention
from src.reader.passages import Passage, Question
from src.reader.record_twomemory import NO_BREAK_SPACE
from src.settings import PredictionSettings
from src.viewer.cases import Alternative, Case, WindowResult, answer, make_case
from src.weights.build import build_for_evaluation
from src.weights.hub import local_model
from utils.device import set_up_device
from utils.util import LOGGER, InputError, text_digest

BATCH_SIZE = 16      # windows that run at once


@dataclass(frozen=True)
class Candidate:
    """A possible answer."""

    text: str                  # "" is "no answer"
    probability: float         # among the candidates
    start: int | None          # its characters in the passage are passage[start:end]; None for "no answer"
    end: int | None


@dataclass(frozen=True)
class Entity:
    """A named entity of the passage: passage[start:end]."""

    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Result:
    """The answer to one question."""

    question: str
    answer: str                          # "" is "no answer"
    probability: float
    start: int | None
    end: int | None
    n_best: tuple[Candidate, ...]        # the best first; the answer is one of them
    entities: tuple[Entity, ...]
    null_odds: float | None = None       # SQuAD 2.0: how far "no answer" is ahead of the best answer
    compared: tuple[Alternative, ...] = ()    # the answers with memories switched off, if that was asked for

    def to_dict(self) -> dict[str, Any]:
        """For JSON, under the names that predict.py has always used."""
        values = dataclasses.asdict(self)
        values["nbest"] = values.pop("n_best")
        return {name: value for name, value in values.items()
                if name not in ("null_odds", "compared") or value not in (None, ())}


@dataclass(frozen=True)
class Prepared:
    """A question on its way into the network."""

    passage: str
    example: EvaluationExample
    features: Sequence[Sequence[np.ndarray]]       # one per window
    passage_entities: tuple[Mention, ...]
    question_entities: tuple[Mention, ...]


@dataclass(frozen=True)
class Prediction:
    """The answer to one question, and what it was computed from."""

    prepared: Prepared
    results: tuple[WindowResult, ...]              # one per window
    decoded: Decoded
    compared: tuple[tuple[str, Prediction], ...] = ()    # with memories switched off, if that is wanted: label, answer

    @property
    def example(self) -> EvaluationExample:
        """The question and its windows."""
        return self.prepared.example


def open_network(settings: PredictionSettings, manifest: Mapping[str, Any]) -> tuple[WindowRunner, KTNetConfig]:
    """The checkpoint's network, ready to run; with its attention if a page is wanted.

    Args:
        settings: of predict.py.
        manifest: of the features, or the part that describes their ids.
    """
    devices = set_up_device(settings.device.device_target, settings.device.device_id)
    settings = settings.on_device(devices.target)
    network, config = build_for_evaluation(settings, manifest, KTNETAttention if settings.question.wants_attention
                                           else KTNET)
    cache = GraphCache(network, config, cache_folder()) if settings.device.is_cpu else None
    return WindowRunner(network, config.memories, settings.features.max_seq_len,
                        full_length=settings.decoding.save_logits is not None, cache=cache), config


class Reader:
    """A network with its tokenizer and knowledge, loaded once.

    Args:
        settings: of predict.py.

    Raises:
        InputError: a file is missing or does not fit the network.
    """

    def __init__(self, settings: PredictionSettings) -> None:
        settings = filled_settings(settings)
        features, live, task = settings.features, settings.knowledge, settings.question.task
        self.tokenizer = make_tokenizer(settings)
        self.whole_words = settings.question.whole_words
        self._entities_matter = task.answers_are_entities
        folder, bases, vectors = knowledge_files(settings)
        LOGGER.info("loading what finds knowledge: %s", ", ".join(base.label for base in bases) or "none")
        self.knowledge = LiveKnowledge(folder, bases, live.wordnet_path, live.ner, live.corenlp_url,
                                       names_matter=self._entities_matter, vectors=vectors)
        self._windows, self._warned = features.windows, False
        self._builder = FeatureBuilder(self.tokenizer, self._windows, self.knowledge.lookups, "dev")
        LOGGER.info("loading the network %s", settings.checkpoint.load_checkpoint_path)
        self.runner, self.config = open_network(settings, {
            "settings": {"dataset": task.name},
            "inputs": {"vocabulary": {"md5": text_digest(settings.data.vocab_path)}},
            "knowledge_bases": [{"name": name, "concepts": len(names), "concepts_sha256": concept_digest(names)}
                                for name, names in self.knowledge.names.items()]})
        self.options = decoding_options(settings.decoding, {
            "dataset": task.name, "lower_case": features.do_lower_case,
            "version_2_with_negative": features.version_2_with_negative})
        self._off = memories_off(bases) if settings.question.compare else []
        self._mentions: dict[str, tuple[Mention, ...]] = {}        # of the texts that were asked about last

    @classmethod
    def from_folder(cls, folder: Path | str, **flags: Any) -> Reader:
        """A reader from a model folder or a checkpoint.

        Args:
            folder: what ``export.py --file_format FOLDER`` wrote, or the name of such a folder on the HuggingFace hub.
            flags: further flags of predict.py by their names, for instance ``ner="none"`` or ``whole_words=False``.

        Raises:
            InputError: the folder is damaged, something it needs is not installed, or a flag is unknown or invalid.
        """
        values = {"load_checkpoint_path": local_model(Path(folder)), **flags}
        return cls(PredictionSettings.of(PredictionSettings.from_values(values, "Reader.from_folder")))

    def ask(self, passage: str, question: str) -> Result:
        """Answer one question about a passage.

        Raises:
            InputError: the passage or the question has no words.
        """
        return self.result(self.predict(passage, question))

    def ask_many(self, questions: Iterable[tuple[str, str]], batch_size: int = BATCH_SIZE) -> list[Result]:
        """Answer many questions, each a (passage, question); faster than one by one.

        Args:
            questions: in any order; those about one passage are best kept together.
            batch_size: windows that the network gets at once; windows of similar length go together.

        Returns:
            The results in the order of the questions.

        Raises:
            InputError: a passage or a question has no words.
        """
        questions = list(questions)
        self._mentions = self._tag(text for pair in questions for text in (pair[:1] if self._entities_matter else pair))
        prepared = [self.prepare(passage, question) for passage, question in questions]
        found = dict(self.runner.run_many([feature for one in prepared for feature in one.features], batch_size))
        return [self.result(self.finish(one, [found[window.unique_id] for window in one.example.windows]))
                for one in prepared]

    def predict(self, passage: str, question: str, passage_entities: Sequence[Mention] | None = None,
                question_entities: Sequence[Mention] | None = None) -> Prediction:
        """Answer one question, and keep what the answer was computed from (arguments as for :meth:`prepare`)."""
        prepared = self.prepare(passage, question, passage_entities, question_entities)
        def run(off: Sequence[str] = ()) -> Prediction:
            return self.finish(prepared, self._run(prepared, off))

        return dataclasses.replace(run(), compared=tuple((label, run(names)) for label, names in self._off))

    def _run(self, prepared: Prepared, off: Sequence[str]) -> list[WindowResult]:
        """What the network gives for a question's windows; those of a long passage go in batches."""
        if len(prepared.features) < BATCH_SIZE:
            return [self.runner.run(feature, off)[1] for feature in prepared.features]
        found = dict(self.runner.run_many(prepared.features, BATCH_SIZE, off))
        return [found[window.unique_id] for window in prepared.example.windows]

    def prepare(self, passage: str, question: str, passage_entities: Sequence[Mention] | None = None,
                question_entities: Sequence[Mention] | None = None) -> Prepared:
        """Find the knowledge for one question and build its features.

        Args:
            passage: the text.
            question: the question, or a ReCoRD query with its @placeholder.
            passage_entities: named entities of the passage; found by the tagger if None.
            question_entities: those of the question.

        Raises:
            InputError: the passage or the question has no words.
        """
        passage, question = self._plain(passage), self._plain(question)
        if passage_entities is None:
            if passage not in self._mentions:
                self._mentions = self._tag([passage])
            passage_entities = self._mentions[passage]
        if question_entities is None:
            known = self._mentions if question in self._mentions or self._entities_matter else self._tag([question])
            question_entities = known.get(question, ())
        identity = f"q{self._builder.tally.questions + 1}"
        records = self.knowledge.records(Passage(passage, tuple(passage_entities), (
            Question(identity, question, tuple(question_entities)),)))
        example = Example(identity, question, passage, answers=(),
                          entities=tuple(passage_entities) if self._entities_matter else ())
        features, entry = self._builder.build(example, records)
        for base, count in self.knowledge.unknown_concepts():
            LOGGER.info("%s: %d concepts named by this passage and question are not in the network, whose table is "
                        "pruned, and are ignored", base.label, count)
        if self._builder.tally.without_overlap and not self._warned:
            self._warned = True
            warn_without_overlap(self._builder.tally, self._windows)
        if entry is None or not entry.windows or not entry.query_length:
            raise InputError(f"no words in the {'question' if features else 'passage'}; give some text")
        return Prepared(passage, entry, features, tuple(passage_entities), tuple(question_entities))

    def _plain(self, text: str) -> str:
        """A text as its data set's reader gives it."""
        return text.replace(NO_BREAK_SPACE, " ") if self._entities_matter else text

    def _tag(self, texts: Iterable[str]) -> dict[str, tuple[Mention, ...]]:
        """The entities of each text; tagging many at once is faster."""
        different = list(dict.fromkeys(map(self._plain, texts)))
        return dict(zip(different, self.knowledge.tag(different), strict=True))

    def finish(self, prepared: Prepared, results: Sequence[WindowResult]) -> Prediction:
        """Decode what the network gave for a question's windows."""
        return Prediction(prepared, tuple(results), answer(prepared.example, results, self.options))

    def result(self, prediction: Prediction) -> Result:
        """A prediction for people and programs: texts with their places in the passage."""
        decoded, passage = prediction.decoded, prediction.prepared.passage
        places = AnswerPlaces(passage, prediction.example, self.options.do_lower_case)
        sizes = [prediction.example.document_offset + window.length + 1 for window in prediction.example.windows]
        logits = [(result.start_logits[:size], result.end_logits[:size])
                  for result, size in zip(prediction.results, sizes, strict=True)]
        spans = places.find((entry.text for entry in decoded.nbest), logits, self.options)
        candidates: dict[str, Candidate] = {}
        shown = {}                                  # text as decoded -> as it is given
        for entry in decoded.nbest:
            start, end = spans.get(entry.text, (None, None))
            text = entry.text
            if self.whole_words and start is not None and end is not None:
                whole = places.whole_words(start, end)
                if whole != (start, end):
                    start, end = whole
                    text = " ".join(passage[start:end].split())
            shown[entry.text] = text
            known = candidates.get(text, Candidate(text, 0.0, start, end))      # two may be parts of the same words
            candidates[text] = dataclasses.replace(known, probability=known.probability + entry.probability)
        ranked = sorted(candidates.values(), key=lambda candidate: -candidate.probability)
        found = candidates.get(shown.get(decoded.prediction, ""), Candidate("", 0.0, None, None))
        if self.whole_words and found.text and not self._entities_matter:
            found = next(candidate for candidate in ranked if candidate.text)
        entities = tuple(Entity(mention.text, mention.start, mention.end + 1)
                         for mention in prediction.prepared.passage_entities)
        return Result(prediction.example.question, found.text, found.probability, found.start, found.end,
                      tuple(ranked), entities, decoded.null_odds,
                      tuple(self._alternative(label, other) for label, other in prediction.compared))

    def _alternative(self, label: str, prediction: Prediction) -> Alternative:
        """The answer with some memories off, for people and programs."""
        result = self.result(prediction)
        return Alternative(label, result.answer, result.probability)

    def case(self, prediction: Prediction) -> Case:
        """What the viewer shows of a prediction: the answers of :meth:`result`."""
        case = make_case(prediction.example, prediction.results, self.tokenizer, self.options,
                         compared=[self._alternative(label, other) for label, other in prediction.compared])
        result = self.result(prediction)
        nbest = tuple(NBestEntry(candidate.text, candidate.probability, 0.0, 0.0) for candidate in result.n_best)
        decoded = dataclasses.replace(case.decoded, nbest=nbest)
        return dataclasses.replace(case, prediction=result.answer, decoded=decoded)
