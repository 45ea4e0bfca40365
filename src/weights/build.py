# SPDX-License-Identifier: Apache-2.0
"""Builds the network that the flags and files ask for."""
from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mindspore as ms
import numpy as np

from src.config import TASKS, BertConfig, KnowledgeBase, KTNetConfig, MemoryConfig
from src.knowledge.concepts import concept_digest, padded_table, read_concept_vectors
from src.KTNET import KTNET
from src.settings import (
    EvaluationSettings,
    NetworkDeviceSettings,
    NetworkRunSettings,
    PredictionSettings,
    TrainingSettings,
)
from src.weights.checkpoint import load_weights, open_checkpoint, open_encoder
from src.weights.names import MINDSPORE_DEFAULTS
from src.weights.sizes import check_meaning, vocabulary_md5
from utils.util import LOGGER, InputError

UNSEEN = ("num_attention_heads", "hidden_act", "layer_norm_eps")    # sizes of an encoder that no weight's shape tells

def compute_type(device: NetworkDeviceSettings) -> Any:
    """The type of the tensors that are multiplied; on CPU oneDNN itself rounds float32 to bfloat16."""
    return ms.float32 if device.is_cpu else {"float32": ms.float32, "bfloat16": ms.bfloat16}.get(
        device.compute_type, ms.float16)


class ConceptTable(NamedTuple):
    """The concepts of one knowledge base."""

    values: np.ndarray      # float32 [rows, D], padded
    sha256: str             # of the names in their order


def load_tables(settings: NetworkRunSettings, manifest: Mapping[str, Any]) -> dict[str, ConceptTable]:
    """The concept table of every knowledge base in use, by its name.

    Raises:
        InputError: a vectors file cannot be used, or is not the one whose order the features' ids follow.
    """
    tables = {}
    for base in settings.wanted_bases():
        path = settings.vectors(base, TASKS[manifest["settings"]["dataset"]])
        names, vectors = read_concept_vectors(path)
        digest = check_concepts(base.name, names, path, manifest)
        tables[base.name] = ConceptTable(padded_table(vectors, settings.network.kb_pad_multiple), digest)
    return tables


def check_concepts(base: str, names: Sequence[str], path: Path, manifest: Mapping[str, Any]) -> str:
    """Refuse a vectors file whose order the ids of converted features do not follow; returns the names' digest.

    Raises:
        InputError: it is another, or the features hold nothing of this knowledge base.
    """
    converted = {one["name"]: one for one in manifest["knowledge_bases"]}.get(base)
    if converted is None:
        raise InputError(f"--kb_config: the features hold no {base} concepts; convert them with it as well")
    if converted["concepts"] != len(names):
        raise InputError(f"{path}: {len(names)} concepts, but the features were made with {converted['concepts']}; "
                         "give the same file or run data_convert.py again")
    digest = concept_digest(names)
    if converted.get("concepts_sha256", digest) != digest:
        raise InputError(f"{path}: its concepts are not those, or not in the order, that the features were made with, "
                         "so every id would mean another concept; give the same file or run data_convert.py again")
    return digest


def make_memories(bases: Sequence[KnowledgeBase], tables: Mapping[str, ConceptTable]) -> tuple[MemoryConfig, ...]:
    """The sizes of the memories that read these tables."""
    memories = []
    for base in bases:
        rows, width = tables[base.name].values.shape
        memories.append(MemoryConfig(base.name, rows, width, max_concepts=base.max_concepts,
                                     concepts_sha256=tables[base.name].sha256))
    return tuple(memories)


def warn_about_cuts(memories: Sequence[MemoryConfig], manifest: Mapping[str, Any]) -> None:
    """Say where features hold more or fewer concepts of a word than the network reads."""
    held = {base["name"]: base.get("max_concepts") for base in manifest["knowledge_bases"]}
    for memory in memories:
        if held.get(memory.name) not in (None, memory.max_concepts):
            LOGGER.warning("%s: the network reads up to %d concepts of a word, the features were converted with up to "
                           "%d: give the same --kb_config to both", memory.name, memory.max_concepts,
                           held[memory.name])


def as_older_port(bert: BertConfig, checkpoint: Path) -> BertConfig:
    """The encoder as the older port computed it: with its framework's defaults."""
    LOGGER.info("%s: a checkpoint of the older port, computed as it was trained: GELU by tanh, layer norms with "
                "epsilon %g", checkpoint, MINDSPORE_DEFAULTS["layer_norm_eps"])
    return dataclasses.replace(bert, **MINDSPORE_DEFAULTS)


def as_trained(bert: BertConfig, trained: BertConfig, checkpoint: Path) -> BertConfig:
    """The encoder with what its weights do not show taken from the checkpoint that training starts from."""
    own = {name: getattr(trained, name) for name in UNSEEN if getattr(trained, name) != getattr(bert, name)}
    if own:
        LOGGER.info("%s: computed as it was trained, not as the encoder's file says: %s", checkpoint,
                    ", ".join(f"{name} {value}" for name, value in own.items()))
    return dataclasses.replace(bert, **own)


def check_lengths(bert: BertConfig, max_seq_len: int, source: Path) -> None:
    """Refuse a sequence that the encoder has no positions for."""
    if max_seq_len > bert.max_position_embeddings:
        raise InputError(f"--max_seq_len {max_seq_len}: the encoder of {source} has only "
                         f"{bert.max_position_embeddings} positions; give at most that and convert again")


def build_for_training(settings: TrainingSettings, manifest: Mapping[str, Any]) -> tuple[KTNET, KTNetConfig]:
    """The network with its initial weights: KT-NET's of --init_checkpoint, or a pretrained encoder's and new ones.

    Raises:
        InputError: a file is missing or does not fit.
    """
    job, max_seq_len = settings.job, settings.features.max_seq_len
    bert = BertConfig.from_json_file(settings.network.bert_config_path)
    check_lengths(bert, max_seq_len, settings.network.bert_config_path)
    tables = load_tables(settings, manifest)
    start = (open_encoder(job.load_pretrain_checkpoint_path) if job.init_checkpoint is None
             else open_checkpoint(job.init_checkpoint))
    if start.is_older_port:
        bert = as_older_port(bert, start.path)
    elif start.config is not None:
        bert = as_trained(bert, start.config.bert, start.path)
    config = KTNetConfig(bert, make_memories(settings.wanted_bases(), tables), max_seq_len,
                         manifest["settings"]["dataset"], vocabulary_md5(manifest))
    if start.config is not None:
        check_meaning(start.config, manifest, start.path, same_dataset=False)
    warn_about_cuts(config.memories, manifest)
    network = KTNET(config, {name: table.values for name, table in tables.items()}, is_training=True,
                    compute_type=compute_type(settings.device), seed=settings.recipe.random_seed)
    report = load_weights(network, start, prefix="bert." if job.init_checkpoint is None else "")
    LOGGER.info("starting from %s: %s", start.path, report)
    return network, config


def build_for_evaluation(settings: EvaluationSettings | PredictionSettings, manifest: Mapping[str, Any],
                         network_class: type[KTNET] = KTNET) -> tuple[KTNET, KTNetConfig]:
    """The network of a checkpoint, with the sizes saved beside it, or else those that the flags give.

    Args:
        settings: of the run; they name the checkpoint.
        manifest: of the converted features, or the part of one that says what their numbers mean.
        network_class: the network, or a subclass that returns more than the logits.

    Raises:
        InputError: no checkpoint, or one that does not fit the features or the flags.
    """
    opened = open_checkpoint(settings.checkpoint.load_checkpoint_path)
    checkpoint, max_seq_len = opened.path, settings.features.max_seq_len
    config = opened.config
    if config is None:
        bert = BertConfig.from_json_file(settings.network.bert_config_path)
        bert = as_older_port(bert, checkpoint) if opened.is_older_port else bert
        config = KTNetConfig(bert, make_memories(settings.wanted_bases(), load_tables(settings, manifest)), max_seq_len)
    check_meaning(config, manifest, checkpoint)
    check_lengths(config.bert, max_seq_len, checkpoint)
    held = {memory.name for memory in config.memories}
    for flag, name, wanted in (("use_wordnet", "wn", settings.network.use_wordnet),
                               ("use_nell", "nell", settings.network.use_nell)):
        if flag in settings.given and wanted != (name in held):
            raise InputError(f"--{flag} {wanted}: {checkpoint} was trained "
                             f"{'with' if name in held else 'without'} this memory; leave the flag out")
    rows = {base["name"]: base["concepts"] for base in manifest["knowledge_bases"]}
    for memory in config.memories:
        if memory.name not in rows:
            raise InputError(f"{checkpoint}: reads the knowledge base {memory.name}, of which the features hold "
                             "nothing; convert them with it (--kb_config)")
        if not rows[memory.name] < memory.rows:
            raise InputError(f"{checkpoint}: its {memory.name} table has {memory.rows} rows, too few "
                             "for the concepts of the features; convert with the vectors that it was trained with")
    warn_about_cuts(config.memories, manifest)
    # Every weight is about to be replaced: zeros are made faster than random numbers.
    blank = dataclasses.replace(config, bert=dataclasses.replace(config.bert, initializer_range=0.0))
    network = network_class(blank, is_training=False, compute_type=compute_type(settings.device))
    report = load_weights(network, opened, use_average=settings.checkpoint.use_ema)
    if not report.is_exact:
        LOGGER.info("%s: %s", checkpoint, report)
    network.set_train(False)
    return network, config
