"""Questions about any passage: text to features to answers, with everything loaded once."""
from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.config import (
    KNOWLEDGE_BASES,
    RECORD,
    SQUAD,
    TASKS,
    DataFolder,
    KnowledgeBase,
    KTNetConfig,
    WindowConfig,
    load_knowledge_bases,
)
from src.inference.attention import KTNETAttention
from src.inference.evaluate import decoding_options
from src.inference.windows import WindowRunner, gather_logits
from src.knowledge.concepts import concept_digest
from src.knowledge.live import LiveKnowledge
from src.knowledge.texts import Mention, Passage, Question
from src.KTNET import KTNET
from src.prepare import CONVERSION_FLAGS
from src.reader.batching_twomemory import FeatureBuilder
from src.reader.decoding import Decoded
from src.reader.examples import EvaluationExample, Example
from src.reader.record_twomemory import NO_BREAK_SPACE
from src.reader.tokenization import BertTokenizer
from src.viewer.cases import Case, WindowResult, answer, make_case
from src.viewer.page import write_page
from src.weights.build import build_for_evaluation, wanted_bases
from src.weights.checkpoint import config_path, load_config
from utils.device import set_up_device
from utils.util import LOGGER, InputError, file_digest, read_json, read_text

SHOWN = 3      # answers printed for people


@dataclass(frozen=True)
class Prediction:
    """The answer to one question, and what it was computed from."""

    example: EvaluationExample
    entities: tuple[Mention, ...]            # of passage and question
    results: tuple[WindowResult, ...]        # one a window
    decoded: Decoded

    @property
    def probability(self) -> float:
        """Of the answer, among the n best."""
        return next((entry.probability for entry in self.decoded.nbest if entry.text == self.decoded.prediction), 0.0)

    def to_dict(self) -> dict[str, Any]:
        """For machines; an empty answer is "no answer"."""
        values = {"question": self.example.question, "answer": self.decoded.prediction,
                  "probability": self.probability, "nbest": [vars(entry) for entry in self.decoded.nbest],
                  "entities": list(dict.fromkeys(mention.text for mention in self.entities))}
        return values if self.decoded.null_odds is None else {**values, "null_odds": self.decoded.null_odds}

    def to_text(self) -> str:
        """For people."""
        others = [entry for entry in self.decoded.nbest if entry.text != self.decoded.prediction][:SHOWN - 1]
        lines = [f"{self.decoded.prediction or 'no answer'}  ({self.probability:.1%})"]
        lines += [f"    or: {entry.text or 'no answer'}  ({entry.probability:.1%})" for entry in others]
        return "\n".join(lines)


class Predictor:
    """A network with tokenizer and knowledge, loaded once.

    Args:
        args: flags of predict.py.

    Raises:
        InputError: a file is missing or does not fit the checkpoint.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.tokenizer = make_tokenizer(args)
        bases = checkpoint_bases(args)
        given = {"wn": args.wn_concept_embedding_path, "nell": args.nell_concept_embedding_path}
        self._is_record = TASKS[args.dataset] is RECORD
        self.knowledge = LiveKnowledge(DataFolder(args.data_url), bases, args.wordnet_path, args.ner, args.corenlp_url,
                                       names_matter=self._is_record,
                                       vectors={name: path for name, path in given.items() if path})
        windows = WindowConfig(args.max_seq_len, args.doc_stride, args.max_query_length)
        self._builder = FeatureBuilder(self.tokenizer, windows, self.knowledge.lookups, "dev")
        self.runner, self.config = open_network(args, {
            "settings": {"dataset": args.dataset}, "inputs": {"vocabulary": {"md5": file_digest(args.vocab_path)}},
            "knowledge_bases": [{"name": name, "concepts": len(names), "concepts_sha256": concept_digest(names)}
                                for name, names in self.knowledge.names.items()]})
        self.options = decoding_options(args, {"dataset": args.dataset, "lower_case": args.do_lower_case,
                                               "version_2_with_negative": args.version_2_with_negative})
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
            InputError: the passage or the question holds no word.
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
                          entities=tuple(mention.text for mention in passage_entities) if self._is_record else ())
        features, entry = self._builder.build(example, records)
        if entry is None or not entry.windows or not entry.query_length:
            raise InputError(f"no words in the {'question' if features else 'passage'}; give some text")
        results = tuple(self.runner.run(feature)[1] for feature in features)
        return Prediction(entry, (*passage_entities, *question_entities), results,
                          answer(entry, results, self.options))

    def case(self, prediction: Prediction) -> Case:
        """What the viewer shows of a prediction."""
        return make_case(prediction.example, prediction.results, self.tokenizer, self.options)


def fill_settings(args: argparse.Namespace) -> None:
    """Give flags that were left out the values that the checkpoint was trained with, else the defaults."""
    path = config_path(args.load_checkpoint_path)
    config = load_config(args.load_checkpoint_path)
    trained = {} if config is None else {"max_seq_len": config.max_seq_len, **read_json(path).get("options", {})}
    args.dataset = args.dataset or dataset_of(args.load_checkpoint_path)
    for flag, default in CONVERSION_FLAGS.items():
        if getattr(args, flag) is None:
            value = trained.get(flag)
            setattr(args, flag, default if value is None else value)
    if args.vocab_path is None:
        own = trained.get("vocab_path")
        args.vocab_path = Path(own) if own and Path(own).is_file() else DataFolder(args.data_url).bert() / "vocab.txt"
    if args.bert_config_path is None:
        args.bert_config_path = DataFolder(args.data_url).bert() / "bert_config.json"


def dataset_of(checkpoint: Path) -> str:
    """What a checkpoint was trained on; SQuAD where it does not say."""
    config = load_config(checkpoint)
    return (config.dataset if config is not None else "") or SQUAD.name


def checkpoint_bases(args: argparse.Namespace) -> tuple[KnowledgeBase, ...]:
    """The knowledge bases of a checkpoint's memories, in their order.

    Raises:
        InputError: a memory is of a knowledge base that --kb_config does not describe.
    """
    config = load_config(args.load_checkpoint_path)
    if config is None:
        return wanted_bases(args)
    known = {base.name: base for base in (load_knowledge_bases(args.kb_config) if args.kb_config else KNOWLEDGE_BASES)}
    for memory in config.memories:
        if memory.name not in known:
            raise InputError(f"--kb_config: {args.load_checkpoint_path} reads the knowledge base {memory.name}; give "
                             "the file that describes it")
    return tuple(dataclasses.replace(known[memory.name], max_concepts=memory.max_concepts)
                 for memory in config.memories)


def make_tokenizer(args: argparse.Namespace) -> BertTokenizer:
    """The encoder's tokenizer.

    Raises:
        InputError: the vocabulary is missing, broken or not the encoder's.
    """
    tokenizer = BertTokenizer(args.vocab_path, args.do_lower_case)
    config = load_config(args.load_checkpoint_path)
    if config is not None and len(tokenizer.vocabulary) > config.bert.vocab_size:
        raise InputError(f"--vocab_path {args.vocab_path}: {len(tokenizer.vocabulary)} word pieces, the checkpoint's "
                         f"encoder knows {config.bert.vocab_size}; give the vocabulary that it was trained with")
    return tokenizer


def open_network(args: argparse.Namespace, manifest: Mapping[str, Any]) -> tuple[WindowRunner, KTNetConfig]:
    """The checkpoint's network, ready to run; with its attention where a page is wanted.

    Args:
        args: flags.
        manifest: of the features, or the part of one that says what their numbers mean.
    """
    set_up_device(args)
    network, config = build_for_evaluation(args, args.load_checkpoint_path, manifest,
                                           KTNETAttention if args.html else KTNET)
    return WindowRunner(network, config.memories, args.max_seq_len, full_length=bool(args.save_logits)), config


def read_passage(args: argparse.Namespace) -> str:
    """The passage of the flags.

    Raises:
        InputError: not exactly one is given, or its file cannot be read.
    """
    if (args.passage is None) == (args.passage_file is None):
        raise InputError("give one of --passage, --passage_file and --evaluation")
    if args.passage is not None:
        return args.passage
    return read_text(args.passage_file)


def read_questions(args: argparse.Namespace) -> Iterator[str]:
    """Questions of the flags, else of standard input; at a terminal there is a prompt."""
    if args.question:
        yield from args.question
        return
    prompt = sys.stdin.isatty()
    if prompt:
        print("Ask about the passage; an empty line ends.", file=sys.stderr)
    while True:
        try:
            line = input("question> ") if prompt else next(sys.stdin)
        except (EOFError, StopIteration):
            return
        if line.strip():
            yield line.strip()
        elif prompt:
            return


def run_prediction(args: argparse.Namespace) -> None:
    """What predict.py does with a passage."""
    passage = read_passage(args)
    fill_settings(args)
    predictor = Predictor(args)
    predictions, cases = [], []
    for question in read_questions(args):
        prediction = predictor.ask(passage, question)
        print(json.dumps(prediction.to_dict(), ensure_ascii=False) if args.json else
              f"{question}\n  {prediction.to_text()}", flush=True)
        predictions.append(prediction)
        if args.html:
            cases.append(predictor.case(prediction))
    if not predictions:
        raise InputError("--question: no question was given, nor one a line on standard input")
    if args.html:
        write_page(args.html, cases, predictor.knowledge.bases, predictor.knowledge.names,
                   gloss=predictor.knowledge.gloss)
        LOGGER.info("%s: open it in a browser", args.html)
    if args.save_logits:
        gather_logits({window.unique_id: result for prediction in predictions
                       for window, result in zip(prediction.example.windows, prediction.results, strict=True)}
                      ).save(args.save_logits)
