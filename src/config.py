# SPDX-License-Identifier: Apache-2.0
"""Sizes and names that several modules share.

The letters used throughout the project, in comments and docstrings:

    B  batch size                        H  hidden width of the encoder
    S  sequence length in word pieces    D  width of a concept vector (padded)
    K  concepts a word piece can have    U  fused width: H plus one D per knowledge base

Nothing here is tied to one encoder or to the two official knowledge bases: the sizes of the encoder come from
``bert_config.json``, those of the tables from the vector files, the rest from the command line.
"""
from __future__ import annotations

import dataclasses
import os
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from utils.util import LOGGER, InputError, read_json

MAX_SEQ_LEN = 384        # word pieces in a feature
DOC_STRIDE = 128         # word pieces between the starts of two windows
MAX_QUERY_LEN = 64       # word pieces of a question that are kept
KB_PAD_MULTIPLE = 16     # rows and columns of a concept table are padded to a multiple of this, for Ascend
CORENLP_URL = "http://127.0.0.1:9753"      # where the authors' named-entity server answered
KB_CONFIG = "knowledge_bases.json"         # in a data folder: what --kb_config is there by default
PADDING_CONCEPT = 0      # row 0 of every concept table: all zeros, "no concept"


MAX_SIZE = 100_000_000   # of any number in a configuration file; more is a mistake or an attack
MAX_LAYERS = 1_000
MAX_WEIGHTS = 100e9      # of an encoder; BERT-large has a third of a billion

T = TypeVar("T")


def read_fields(cls: type[T], values: Any, source: Path | str) -> T:
    """Build a flat dataclass from the values of a JSON object; unknown keys are ignored.

    Args:
        cls: a dataclass whose fields are texts, true or false, numbers of at least 0 or whole numbers of at least 1.
        values: the parsed JSON.
        source: the file, and the location in it, for error messages.

    Raises:
        InputError: a field is missing or has the wrong type.
    """
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    if not isinstance(values, dict):
        raise InputError(f"{source}: must be an object with the fields {', '.join(item.name for item in fields)}")
    missing = [item.name for item in fields if item.default is dataclasses.MISSING and item.name not in values]
    if missing:
        raise InputError(f"{source}: {', '.join(missing)} missing; is this the right file?")
    for item in fields:
        value = values.get(item.name, item.default)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if item.type == "str" and not isinstance(value, str):
            raise InputError(f"{source}: {item.name} must be a string")
        if item.type == "bool" and not isinstance(value, bool):
            raise InputError(f"{source}: {item.name} must be true or false")
        if item.type == "int" and not (number and isinstance(value, int) and 1 <= value <= MAX_SIZE):
            raise InputError(f"{source}: {item.name} must be a positive whole number of at most {MAX_SIZE}")
        if item.type == "float" and not (number and 0 <= value <= MAX_SIZE):
            raise InputError(f"{source}: {item.name} must be a number of at least 0")
    return cls(**{item.name: values[item.name] for item in fields if item.name in values})


@dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT encoder, under the names of Google's and HuggingFace's configuration files."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12

    @property
    def weights(self) -> int:
        """Numbers in the matrices of the encoder; biases and layer norms are left out."""
        layer = 4 * self.hidden_size ** 2 + 2 * self.hidden_size * self.intermediate_size
        rows = self.vocab_size + self.max_position_embeddings + self.type_vocab_size
        return rows * self.hidden_size + self.num_hidden_layers * layer

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_attention_heads

    @classmethod
    def from_json_file(cls, path: Path | str) -> BertConfig:
        """Read a ``bert_config.json`` or a HuggingFace ``config.json``; keys that the encoder does not use are ignored.

        Raises:
            InputError: a size is missing, is not a positive whole number, or the heads do not divide the width.
        """
        return cls.from_dict(read_json(path), path)

    @classmethod
    def from_dict(cls, values: Any, source: Path | str) -> BertConfig:
        """As :meth:`from_json_file`, from the values of a file; ``source`` is for error messages."""
        config = read_fields(cls, values, source)
        if config.num_hidden_layers > MAX_LAYERS:
            raise InputError(f"{source}: num_hidden_layers is {config.num_hidden_layers}; at most {MAX_LAYERS} are "
                             "taken")
        if config.weights > MAX_WEIGHTS:
            raise InputError(f"{source}: an encoder of these sizes has {config.weights / 1e9:.0f} billion weights; are "
                             "hidden_size, intermediate_size and vocab_size right?")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if getattr(config, name) >= 1:
                raise InputError(f"{source}: {name} is {getattr(config, name)}; it must be below 1")
        if config.hidden_size % config.num_attention_heads:
            raise InputError(f"{source}: hidden_size {config.hidden_size} is not a multiple of num_attention_heads "
                             f"{config.num_attention_heads}")
        if config.hidden_act not in ("gelu", "gelu_new", "relu"):
            raise InputError(f"{source}: hidden_act {config.hidden_act[:40]!r} is unknown; use gelu, gelu_new or relu")
        return config


@dataclass(frozen=True)
class KnowledgeBase:
    """One knowledge base: where its files are in the data folder, and its name in the network.

    ``retrieved`` may hold ``{dataset}`` (squad, record) and ``{split}`` (train, dev), ``pruned`` the former.
    """

    name: str            # prefix of the feature's column and of the network's parameters
    label: str           # for people
    vectors: str         # file of concept vectors: name and numbers, one concept per line
    retrieved: str       # file of what retrieval found: word -> concepts or entity -> concepts
    key: str             # "word": concepts by lower-cased word; "phrase": by the longest sequence of words that the
                         # map has; "entity": by entity mention
    max_concepts: int    # K: most concepts of one word piece
    lemmas: bool = False # "phrase" only: words are also compared by their base forms (WordNet)
    pruned: str = ""     # file of the vectors that the network gets, those that retrieval found; "": all of ``vectors``

    @property
    def column(self) -> str:
        """Name of the feature's column."""
        return f"{self.name}_concept_ids"


WORDNET = KnowledgeBase(name="wn", label="WordNet", key="word", max_concepts=49,
                        vectors="KB_embeddings/wn_concept2vec.txt",
                        retrieved="retrieve_wordnet/output_{dataset}/retrived_synsets.data")
NELL = KnowledgeBase(name="nell", label="NELL", key="entity", max_concepts=27,
                     vectors="KB_embeddings/nell_concept2vec.txt",
                     retrieved="retrieve_nell/output_{dataset}/{split}.retrieved_nell_concepts.data")
KNOWLEDGE_BASES: tuple[KnowledgeBase, ...] = (WORDNET, NELL)


@dataclass(frozen=True)
class MemoryConfig:
    """Sizes of one knowledge base's table and memory in the network."""

    name: str            # as KnowledgeBase.name
    rows: int            # concepts + padding concept, rounded up
    width: int           # D, rounded up
    max_concepts: int    # K
    concepts_sha256: str = ""    # digest of the concepts' names in the order of the rows; "" if unknown

    @property
    def column(self) -> str:
        """Name of the feature's column."""
        return f"{self.name}_concept_ids"


@dataclass(frozen=True)
class KTNetConfig:
    """The shape of the network and the meaning of its inputs; saved with every checkpoint."""

    bert: BertConfig
    memories: tuple[MemoryConfig, ...] = ()
    max_seq_len: int = MAX_SEQ_LEN
    dataset: str = ""            # what it was trained on (squad, record); "" if unknown
    vocabulary_md5: str = ""     # of the vocabulary file, as in the manifest of features; "" if unknown

    @property
    def fused_width(self) -> int:
        """U: the encoder's width plus the width of every memory."""
        return self.bert.hidden_size + sum(memory.width for memory in self.memories)

    @property
    def match_width(self) -> int:
        """Width of self-matching's output o = [u, v, u*v, u-v, v', u-v']."""
        return 6 * self.fused_width

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Any, source: Path | str) -> KTNetConfig:
        """The inverse of :meth:`to_dict`.

        Raises:
            InputError: a size is missing or invalid; the message names ``source``.
        """
        if not isinstance(values, dict) or not isinstance(values.get("memories"), list):
            raise InputError(f"{source}: not the sizes of a KT-NET checkpoint; they are written beside the .ckpt")
        longest = values.get("max_seq_len")
        if not isinstance(longest, int) or not 1 <= longest <= MAX_SIZE:
            raise InputError(f"{source}: max_seq_len must be a positive whole number")
        meanings = {name: values.get(name, "") for name in ("dataset", "vocabulary_md5")}
        for name, value in meanings.items():
            if not isinstance(value, str):
                raise InputError(f"{source}: {name} must be a string")
        memories = tuple(read_fields(MemoryConfig, memory, f"{source}: memories[{number}]")
                         for number, memory in enumerate(values["memories"]))
        if len({memory.name for memory in memories}) < len(memories):
            raise InputError(f"{source}: two memories share a name")
        return cls(BertConfig.from_dict(values.get("bert"), f"{source}: bert"), memories, longest, **meanings)


@dataclass(frozen=True)
class WindowConfig:
    """How a passage is split into features."""

    max_seq_len: int = MAX_SEQ_LEN
    doc_stride: int = DOC_STRIDE
    max_query_length: int = MAX_QUERY_LEN


@dataclass(frozen=True)
class FeatureColumn:
    """One column of a feature: name, shape of one sample (without the batch) and NumPy dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: str


def input_columns(memories: Sequence[MemoryConfig | KnowledgeBase],
                  max_seq_len: int = MAX_SEQ_LEN) -> tuple[FeatureColumn, ...]:
    """The network's inputs, in the order of its arguments, of the MindRecord columns and of the exported file.

    This is the only feature table: conversion, dataset, network, export and the C++ program all read it.
    """
    return (FeatureColumn("input_mask", (max_seq_len,), "float32"),
            FeatureColumn("src_ids", (max_seq_len,), "int32"),
            FeatureColumn("pos_ids", (max_seq_len,), "int32"),
            FeatureColumn("sent_ids", (max_seq_len,), "int32"),
            *(FeatureColumn(memory.column, (max_seq_len, memory.max_concepts, 1), "int32") for memory in memories))


TRAIN_LABELS = (FeatureColumn("start_positions", (1,), "int32"), FeatureColumn("end_positions", (1,), "int32"))
DEV_LABELS = (FeatureColumn("unique_id", (1,), "int32"),)
FIRST_UNIQUE_ID = 1000000000


def feature_columns(memories: Sequence[MemoryConfig | KnowledgeBase], split: str,
                    max_seq_len: int = MAX_SEQ_LEN) -> tuple[FeatureColumn, ...]:
    """All columns of a data set of ``split`` ("train" or "dev"): the inputs, then the labels."""
    return input_columns(memories, max_seq_len) + (TRAIN_LABELS if split == "train" else DEV_LABELS)


LrSchedule = Literal["linear", "constant"]


@dataclass(frozen=True)
class FirstStage:
    """How the layers above a frozen encoder learn in the first of two stages."""

    epochs: int
    learning_rate: float
    lr_schedule: LrSchedule
    warmup_proportion: float
    encoder_dropout: bool


@dataclass(frozen=True)
class TaskConfig:
    """What differs between the data sets: names, files, kind of answers and default hyper-parameters."""

    name: str                        # squad, record
    folder: str                      # below the data folder
    json_files: Mapping[str, str]    # split -> file name
    marks_entities: bool             # its JSON says where the named entities are; else retrieve.py finds them
    answers_are_entities: bool       # of the n best answers the first that is an entity is taken
    has_unanswerable: bool           # there is a version 2 with questions that the passage does not answer
    batch_size: int
    learning_rate: float
    epochs: int
    first_stages: Mapping[str, FirstStage]     # --recipe -> the first of two stages
    official_md5: Mapping[str, str] = field(default_factory=dict)


SQUAD = TaskConfig(name="squad", folder="SQuAD", marks_entities=False, answers_are_entities=False,
                   has_unanswerable=True, batch_size=8, learning_rate=4e-5, epochs=3,
                   first_stages={"default": FirstStage(4, 2e-3, "linear", 0.1, encoder_dropout=False),
                                 "authors": FirstStage(1, 3e-5, "constant", 0.0, encoder_dropout=True)},
                   json_files={"train": "train-v1.1.json", "dev": "dev-v1.1.json"},
                   official_md5={"train": "981b29407e0affa3b1b156f72073b945",
                                 "dev": "3e85deb501d4e538b6bc56f786231552"})
RECORD = TaskConfig(name="record", folder="ReCoRD", marks_entities=True, answers_are_entities=True,
                    has_unanswerable=False, batch_size=12, learning_rate=6e-5, epochs=4,
                    first_stages={"default": FirstStage(10, 2e-3, "linear", 0.1, encoder_dropout=False),
                                  "authors": FirstStage(10, 3e-4, "constant", 0.0, encoder_dropout=True)},
                    json_files={"train": "train.json", "dev": "dev.json"},
                    official_md5={"train": "ad550852cf26241b20e8364e40340a99",
                                  "dev": "60c70c4a7e8190483f9899a1c9bc4178"})
TASKS: Mapping[str, TaskConfig] = {task.name: task for task in (SQUAD, RECORD)}
SPLITS = ("train", "dev")


@dataclass(frozen=True)
class Shard:
    """One of several parts of a data set, for jobs that work side by side: some of the passages, told by their text."""

    number: int      # counts from 1
    count: int

    @classmethod
    def read(cls, text: str) -> Shard:
        """Read "2/4".

        Raises:
            ValueError: it is something else.
        """
        number, _, count = text.partition("/")
        if not (number.isascii() and number.isdigit() and count.isascii() and count.isdigit()
                and 1 <= int(number) <= int(count) <= MAX_SIZE):
            raise ValueError(f"{text[:40]!r} is not a part such as 1/4 to 4/4")
        return cls(int(number), int(count))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, passage: str) -> bool:
        """Whether a passage, and all its questions, belong to this part."""
        return zlib.crc32(passage.encode("utf-8", "surrogatepass")) % self.count == self.number - 1

    def file(self, path: Path) -> Path:
        """The name of this part's own file: ``train.mindrecord`` becomes ``train.2-of-4.mindrecord``."""
        return path.with_name(f"{path.stem}.{self.number}-of-{self.count}{path.suffix}")


@dataclass(frozen=True)
class DataFolder:
    """The location of every file below ``--data_url`` (the layout of the model zoo's data folder).

    With a shard, files that are made from the passages are the shard's own.
    """

    root: Path
    shard: Shard | None = None

    def holds(self, passage: str) -> bool:
        """Whether a passage is in the shard."""
        return self.shard is None or self.shard.holds(passage)

    def _own(self, path: Path) -> Path:
        return path if self.shard is None else self.shard.file(path)

    def first_of(self, place: Callable[[DataFolder], Path]) -> Path:
        """The shard's own file where it is there, else that of the whole data set; ``place`` says where that is."""
        own = place(self)
        return own if own.is_file() else place(DataFolder(self.root))

    def dataset_json(self, task: TaskConfig, split: str) -> Path:
        """The data set itself: the official JSON file, or, where that is not there, rows as the hub publishes them.

        These are ``train`` or ``validation``: a folder of shards, JSON lines or Parquet.
        """
        folder = self.root / task.folder
        official = folder / task.json_files[split]
        others = [folder / f"{name}{ending}" for name in {"train": ("train",), "dev": ("validation", "dev")}[split]
                  for ending in ("", ".jsonl", ".parquet", "-00000-of-00001.parquet")]
        return next((path for path in (official, *others) if path.exists()), official)

    def tasks(self, dataset: str) -> list[TaskConfig]:
        """The data sets selected by ``--dataset``: the one it names, or for "all" those that have a file here.

        If none has, all are returned, so that opening them reports what is missing.
        """
        if dataset != "all":
            return [TASKS[dataset]]
        present = [task for task in TASKS.values()
                   if any(self.dataset_json(task, split).exists() for split in SPLITS)]
        if present:
            for task in TASKS.values():
                if task not in present:
                    LOGGER.info("%s: no data set there, skipped", self.root / task.folder)
        return present or list(TASKS.values())

    def tagged_json(self, task: TaskConfig, split: str) -> Path:
        """The data set with its named entities, as the entities step writes it."""
        name = task.json_files[split]
        return self._own(self.root / task.folder / (name[: -len(".json")] + ".tagged.json"))

    def tokens(self, task: TaskConfig, split: str, lower_case: bool) -> Path:
        """Word-level tokens of every question."""
        case = "uncased" if lower_case else "cased"
        return self._own(self.root / f"tokenization_{task.name}" / "tokens" / f"{split}.tokenization.{case}.data")

    def retrieved(self, kb: KnowledgeBase, task: TaskConfig, split: str) -> Path:
        """What retrieval found in ``kb``."""
        return self._own(self.root / kb.retrieved.format(dataset=task.name, split=split))

    def vectors(self, kb: KnowledgeBase) -> Path:
        """Concept vectors of ``kb``, of all that it has."""
        return self.root / kb.vectors

    def table(self, kb: KnowledgeBase, task: TaskConfig) -> Path:
        """The concept vectors that a network gets: all of ``kb``, or of a pruned base those that retrieval found."""
        return self.root / kb.pruned.format(dataset=task.name) if kb.pruned else self.vectors(kb)

    def mindrecord(self, task: TaskConfig, split: str) -> Path:
        """Converted features."""
        return self._own(self.root / task.folder / f"{split}.mindrecord")

    def kb_config(self) -> Path | None:
        """The folder's own list of knowledge bases, if it has one."""
        path = self.root / KB_CONFIG
        return path if path.is_file() else None

    def bert(self) -> Path:
        """The encoder's folder: vocab.txt, bert_config.json, params or a HuggingFace model, roberta.ckpt."""
        return self.root / "cased_L-24_H-1024_A-16"


KEYS = ("word", "phrase", "entity")
PLACEHOLDER = re.compile(r"\{(dataset|split)\}")     # in KnowledgeBase.retrieved


def load_knowledge_bases(path: Path | str) -> tuple[KnowledgeBase, ...]:
    """Read a list of knowledge bases from a JSON file: a list of objects with the fields of :class:`KnowledgeBase`.

    Raises:
        InputError: a field is missing, unknown or of the wrong kind, or two bases share a name.
    """
    entries = read_json(path)
    if not isinstance(entries, list):
        raise InputError(f"{path}: not a list of knowledge bases; write [{{\"name\": ..., \"vectors\": ...}}]")
    fields = dataclasses.fields(KnowledgeBase)
    needed = [item.name for item in fields if item.default is dataclasses.MISSING]
    optional = [item.name for item in fields if item.name not in needed]
    bases: list[KnowledgeBase] = []
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict) or not set(needed) <= set(entry) <= {*needed, *optional}:
            raise InputError(f"{path}: entry {number} must have exactly these fields: {', '.join(needed)}; it may have "
                             f"{' and '.join(optional)}")
        base = read_fields(KnowledgeBase, entry, f"{path}: entry {number}")
        if base.key not in KEYS:
            raise InputError(f"{path}: entry {number}: key is {base.key[:40]!r}; use "
                             + " or ".join(f'"{key}"' for key in KEYS))
        if base.lemmas and base.key != "phrase":
            raise InputError(f"{path}: entry {number}: lemmas are for the key \"phrase\" alone; remove them")
        if not base.name.isidentifier():
            raise InputError(f"{path}: entry {number}: name {base.name[:40]!r} must be letters, digits and underscores")
        if re.search("[{}]", PLACEHOLDER.sub("", base.retrieved)):
            raise InputError(f"{path}: entry {number}: retrieved is {base.retrieved[:80]!r}; only {{dataset}} and "
                             "{split} may appear in braces")
        if re.search("[{}]", base.pruned.replace("{dataset}", "")) or base.pruned and base.name in ("wn", "nell"):
            raise InputError(f"{path}: entry {number}: pruned is {base.pruned[:80]!r}; " + (
                "the tables of WordNet and NELL are never pruned" if base.name in ("wn", "nell") else
                "only {dataset} may appear in braces"))
        if "\0" in base.vectors + base.retrieved + base.pruned:
            raise InputError(f"{path}: entry {number}: a path contains a null character")
        bases.append(base)
    if len({base.name for base in bases}) < len(bases):
        raise InputError(f"{path}: two knowledge bases share a name")
    written = [os.path.normpath(file) for base in bases for file in (base.retrieved, base.pruned) if file]
    read = [os.path.normpath(base.vectors) for base in bases]
    for file in written:
        if written.count(file) + read.count(file) > 1:
            raise InputError(f"{path}: {file[:80]!r} is written by one knowledge base and is another's file, or its "
                             "vectors; give retrieved and pruned names of their own")
    return tuple(bases)

