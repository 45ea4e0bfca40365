# SPDX-License-Identifier: Apache-2.0
"""Questions about any passage: text to features to answers, with everything loaded once."""
from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.config import RECORD, SQUAD, KnowledgeBase, KTNetConfig
from src.inference.attention import KTNETAttention
from src.inference.compare import alternative, memories_off
from src.inference.evaluate import decoding_options
from src.inference.windows import WindowRunner, gather_logits
from src.knowledge.concepts import concept_digest
from src.knowledge.live import LiveKnowledge
from src.KTNET import KTNET
from src.reader.batching_twomemory import FeatureBuilder, warn_without_overlap
from src.reader.decoding import Decoded
from src.reader.examples import EvaluationExample, Example, Mention
from src.reader.passages import Passage, Question
from src.reader.record_twomemory import NO_BREAK_SPACE
from src.reader.tokenization import BertTokenizer
from src.settings import AS_CONVERTED, PredictionSettings, QuestionSettings
from src.viewer.cases import Alternative, Case, WindowResult, answer, make_case
from src.viewer.page import write_page
from src.weights.build import build_for_evaluation
from src.weights.checkpoint import config_path, load_config
from utils.device import set_up_device
from utils.util import LOGGER, InputError, file_digest, is_text, read_json, read_text

SHOWN = 3      # answers printed for people


@dataclass(frozen=True)
class Prediction:
    """The answer to one question, and what it was computed from."""

    example: EvaluationExample
    entities: tuple[Mention, ...]            # of passage and question
    results: tuple[WindowResult, ...]        # one per window
    decoded: Decoded
    compared: tuple[Alternative, ...] = ()   # with memories switched off, if that is wanted

    def to_dict(self) -> dict[str, Any]:
        """For machines; an empty answer is "no answer"."""
        values = {"question": self.example.question, "answer": self.decoded.prediction,
                  "probability": self.decoded.probability, "nbest": [vars(entry) for entry in self.decoded.nbest],
                  "entities": list(dict.fromkeys(mention.text for mention in self.entities))}
        if self.compared:
            values["compared"] = [dataclasses.asdict(other) for other in self.compared]
        return values if self.decoded.null_odds is None else {**values, "null_odds": self.decoded.null_odds}

    def to_text(self) -> str:
        """For people."""
        others = [entry for entry in self.decoded.nbest if entry.text != self.decoded.prediction][:SHOWN - 1]
        lines = [f"{self.decoded.prediction or 'no answer'}  ({self.decoded.probability:.1%})"]
        lines += [f"    or: {entry.text or 'no answer'}  ({entry.probability:.1%})" for entry in others]
        lines += [f"    {other.label}: {other.prediction or 'no answer'}  ({other.probability:.1%})"
                  for other in self.compared]
        return "\n".join(lines)


class Predictor:
    """A network with tokenizer and knowledge, loaded once.

    Args:
        settings: of predict.py, as :func:`filled_settings` gives them.

    Raises:
        InputError: a file is missing or does not fit the checkpoint.
    """

    def __init__(self, settings: PredictionSettings) -> None:
        self.tokenizer = make_tokenizer(settings)
        bases = checkpoint_bases(settings)
        features, live, task = settings.features, settings.knowledge, settings.question.task
        self._is_record = task is RECORD
        self.knowledge = LiveKnowledge(settings.data.folder, bases, live.wordnet_path, live.ner, live.corenlp_url,
                                       names_matter=self._is_record,
                                       vectors={base.name: settings.vectors(base) for base in bases})
        self._windows, self._warned = features.windows, False
        self._builder = FeatureBuilder(self.tokenizer, self._windows, self.knowledge.lookups, "dev")
        self.runner, self.config = open_network(settings, {
            "settings": {"dataset": task.name},
            "inputs": {"vocabulary": {"md5": file_digest(settings.data.vocab_path)}},
            "knowledge_bases": [{"name": name, "concepts": len(names), "concepts_sha256": concept_digest(names)}
                                for name, names in self.knowledge.names.items()]})
        self.options = decoding_options(settings.decoding, {
            "dataset": task.name, "lower_case": features.do_lower_case,
            "version_2_with_negative": features.version_2_with_negative})
        self._off = memories_off(bases) if settings.question.compare else []
        self._mentions: tuple[str, tuple[Mention, ...]] | None = None      # of the passage asked about last

    def ask(self, passage: str, question: str, passage_entities: Sequence[Mention] | None = None,
            question_entities: Sequence[Mention] | None = None) -> Prediction:
        """Answer one question.

        Args:
            passage: the text.
            question: the question, or a ReCoRD query with its @placeholder.
            passage_entities: named entities of the passage; found by the tagger if None.
            question_entities: those of the question.

        Raises:
            InputError: the passage or the question has no words.
        """
        if self._is_record:
            passage, question = (text.replace(NO_BREAK_SPACE, " ") for text in (passage, question))
        if passage_entities is None:
            if self._mentions is None or self._mentions[0] != passage:
                self._mentions = (passage, self.knowledge.tag(passage))
            passage_entities = self._mentions[1]
        if question_entities is None:
            question_entities = () if self._is_record else self.knowledge.tag(question)
        identity = f"q{self._builder.tally.questions + 1}"
        records = self.knowledge.records(Passage(passage, tuple(passage_entities), (
            Question(identity, question, tuple(question_entities)),)))
        example = Example(identity, question, passage, answers=(),
                          entities=tuple(passage_entities) if self._is_record else ())
        features, entry = self._builder.build(example, records)
        if self._builder.tally.without_overlap and not self._warned:
            self._warned = True
            warn_without_overlap(self._builder.tally, self._windows)
        if entry is None or not entry.windows or not entry.query_length:
            raise InputError(f"no words in the {'question' if features else 'passage'}; give some text")
        results = tuple(self.runner.run(feature)[1] for feature in features)
        compared = [alternative(label, entry, [self.runner.run(feature, names)[1] for feature in features],
                                self.options) for label, names in self._off]
        return Prediction(entry, (*passage_entities, *question_entities), results,
                          answer(entry, results, self.options), tuple(compared))

    def case(self, prediction: Prediction) -> Case:
        """What the viewer shows of a prediction."""
        return make_case(prediction.example, prediction.results, self.tokenizer, self.options,
                         compared=prediction.compared)


def with_dataset(settings: PredictionSettings) -> PredictionSettings:
    """The settings with the checkpoint's data set unless one was given; SQuAD if neither says."""
    if settings.question.dataset is not None:
        return settings
    config = load_config(settings.checkpoint.load_checkpoint_path)
    return settings.with_flags(dataset=(config.dataset if config is not None else "") or SQUAD.name).resolved()


def filled_settings(settings: PredictionSettings) -> PredictionSettings:
    """The settings with the checkpoint's own values for omitted flags."""
    settings = with_dataset(settings)
    checkpoint = settings.checkpoint.load_checkpoint_path
    config = load_config(checkpoint)
    if config is None:
        return settings
    trained = {"max_seq_len": config.max_seq_len, **read_json(config_path(checkpoint)).get("options", {})}
    values = {flag: trained[flag] for flag in AS_CONVERTED
              if flag not in settings.given and trained.get(flag) is not None}
    vocabulary = trained.get("vocab_path")
    if vocabulary and Path(vocabulary).is_file() and "vocab_path" not in settings.given:
        values["vocab_path"] = Path(vocabulary)
    return settings.with_flags(**values)


def checkpoint_bases(settings: PredictionSettings) -> tuple[KnowledgeBase, ...]:
    """The knowledge bases of a checkpoint's memories, in their order.

    Raises:
        InputError: --kb_config does not describe the knowledge base of a memory.
    """
    checkpoint = settings.checkpoint.load_checkpoint_path
    config = load_config(checkpoint)
    if config is None:
        return settings.wanted_bases()
    known = {base.name: base for base in settings.data.bases()}
    for memory in config.memories:
        if memory.name not in known:
            raise InputError(f"--kb_config: {checkpoint} reads the knowledge base {memory.name}; give the file that "
                             "describes it")
    return tuple(dataclasses.replace(known[memory.name], max_concepts=memory.max_concepts)
                 for memory in config.memories)


def make_tokenizer(settings: PredictionSettings) -> BertTokenizer:
    """The encoder's tokenizer.

    Raises:
        InputError: the vocabulary is missing, broken or not the encoder's.
    """
    tokenizer = BertTokenizer(settings.data.vocab_path, settings.features.do_lower_case)
    config = load_config(settings.checkpoint.load_checkpoint_path)
    if config is not None and len(tokenizer.vocabulary) > config.bert.vocab_size:
        raise InputError(f"--vocab_path {settings.data.vocab_path}: {len(tokenizer.vocabulary)} word pieces, the "
                         f"checkpoint's encoder knows {config.bert.vocab_size}; give the vocabulary that it was "
                         "trained with")
    return tokenizer


def open_network(settings: PredictionSettings, manifest: Mapping[str, Any]) -> tuple[WindowRunner, KTNetConfig]:
    """The checkpoint's network, ready to run; with its attention if a page is wanted.

    Args:
        settings: of predict.py.
        manifest: of the features, or the part that describes their ids.
    """
    devices = set_up_device(settings.device.device_target, settings.device.device_id)
    settings = settings.on_device(devices.target)
    network, config = build_for_evaluation(settings, manifest,
                                           KTNETAttention if settings.question.html else KTNET)
    return WindowRunner(network, config.memories, settings.features.max_seq_len,
                        full_length=settings.decoding.save_logits is not None), config


def read_passage(given: QuestionSettings) -> str:
    """The passage of the flags.

    Raises:
        InputError: not exactly one is given, or its file cannot be read.
    """
    if given.passage is not None and given.passage_file is None:
        return given.passage
    if given.passage_file is None or given.passage is not None:
        raise InputError("give one of --passage, --passage_file and --evaluation")
    return read_text(given.passage_file)


def read_questions(given: QuestionSettings) -> Iterator[str]:
    """Questions from the flags, else from standard input, with a prompt at a terminal."""
    if given.question:
        yield from given.question
        return
    prompt = sys.stdin.isatty()
    if prompt:
        print("Ask about the passage; an empty line ends.", file=sys.stderr)
    while True:
        try:
            line = input("question> ") if prompt else next(sys.stdin)
        except (EOFError, StopIteration):
            return
        except UnicodeDecodeError as error:
            raise InputError(f"standard input: byte 0x{error.object[error.start]:02x} is not UTF-8; write the "
                             "questions in UTF-8") from None
        if not is_text(line):
            raise InputError("standard input: the question is not UTF-8; write it in UTF-8")
        if line.strip():
            yield line.strip()
        elif prompt:
            return


def to_json(prediction: Prediction) -> str:
    """One line of JSON that standard output can show."""
    text = json.dumps(prediction.to_dict(), ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(prediction.to_dict())
    return text


def run_prediction(settings: PredictionSettings) -> None:
    """What predict.py does with a passage."""
    given = settings.question
    passage = read_passage(given)
    predictor = Predictor(filled_settings(settings))
    predictions, cases = [], []
    for question in read_questions(given):
        prediction = predictor.ask(passage, question)
        print(to_json(prediction) if given.json else f"{question}\n  {prediction.to_text()}", flush=True)
        predictions.append(prediction)
        if given.html:
            cases.append(predictor.case(prediction))
    if not predictions:
        raise InputError("--question: no question was given, nor one a line on standard input")
    if given.html:
        write_page(given.html, cases, predictor.knowledge.bases, predictor.knowledge.names,
                   gloss=predictor.knowledge.gloss)
        LOGGER.info("%s: open it in a browser", given.html)
    if settings.decoding.save_logits:
        gather_logits({window.unique_id: result for prediction in predictions
                       for window, result in zip(prediction.example.windows, prediction.results, strict=True)}
                      ).save(settings.decoding.save_logits)
