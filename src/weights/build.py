"""Builds the network that the flags and files ask for."""
from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np

from src.config import (
    KNOWLEDGE_BASES,
    BertConfig,
    DataFolder,
    KnowledgeBase,
    KTNetConfig,
    MemoryConfig,
    load_knowledge_bases,
)
from src.knowledge.concepts import concept_digest, padded_table, read_concept_vectors
from src.KTNET import KTNET
from src.weights.checkpoint import is_older_port, load_config, load_weights
from utils.util import LOGGER, InputError


def wanted_bases(args: argparse.Namespace) -> tuple[KnowledgeBase, ...]:
    """The knowledge bases that --kb_config, --use_wordnet and --use_nell leave."""
    bases = load_knowledge_bases(args.kb_config) if args.kb_config else KNOWLEDGE_BASES
    switched_off = {name for name, used in (("wn", args.use_wordnet), ("nell", args.use_nell)) if used is False}
    return tuple(base for base in bases if base.name not in switched_off)


def load_tables(bases: Sequence[KnowledgeBase], args: argparse.Namespace,
                manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The padded concept table of every knowledge base: name -> float32 [rows, D].

    Raises:
        InputError: a vectors file cannot be used, or is not the one whose order the features' ids follow.
    """
    converted = {base["name"]: base for base in manifest["knowledge_bases"]}
    paths = {"wn": args.wn_concept_embedding_path, "nell": args.nell_concept_embedding_path}
    tables = {}
    for base in bases:
        path = paths.get(base.name) or DataFolder(args.data_url).vectors(base)
        names, vectors = read_concept_vectors(path)
        if base.name not in converted:
            raise InputError(f"--kb_config: the features hold no {base.label} concepts; convert them with it as well")
        if converted[base.name]["concepts"] != len(names):
            raise InputError(f"{path}: {len(names)} concepts, but the features were made with "
                             f"{converted[base.name]['concepts']}; give the same file or run data_convert.py again")
        if converted[base.name].get("concepts_sha256", digest := concept_digest(names)) != digest:
            raise InputError(f"{path}: its concepts are not those, or not in the order, that the features were made "
                             "with, so every id would mean another concept; give the same file or run data_convert.py "
                             "again")
        tables[base.name] = padded_table(vectors, args.kb_pad_multiple)
    return tables


def check_lengths(bert: BertConfig, max_seq_len: int, source: Path) -> None:
    """Refuse a sequence that the encoder has no positions for."""
    if max_seq_len > bert.max_position_embeddings:
        raise InputError(f"--max_seq_len {max_seq_len}: the encoder of {source} has only "
                         f"{bert.max_position_embeddings} positions; give at most that and convert again")


def build_for_training(args: argparse.Namespace, manifest: Mapping[str, Any]) -> tuple[KTNET, KTNetConfig]:
    """The network with its initial weights: KT-NET's of --init_checkpoint, or a pretrained encoder's and new ones.

    Raises:
        InputError: a file is missing or does not fit.
    """
    bert = BertConfig.from_json_file(args.bert_config_path)
    check_lengths(bert, args.max_seq_len, args.bert_config_path)
    bases = wanted_bases(args)
    tables = load_tables(bases, args, manifest)
    memories = tuple(MemoryConfig(base.name, *tables[base.name].shape, base.max_concepts) for base in bases)
    config = KTNetConfig(bert, memories, args.max_seq_len)
    compute_type = ms.float32 if args.device_target == "CPU" else ms.float16
    network = KTNET(config, tables, is_training=True, compute_type=compute_type, seed=args.random_seed)
    if args.init_checkpoint is not None:
        report = load_weights(network, args.init_checkpoint, must_have=not is_older_port(args.init_checkpoint))
        LOGGER.info("%s: %s", args.init_checkpoint, report)
    else:
        report = load_weights(network, args.load_pretrain_checkpoint_path, prefix="bert.")
        LOGGER.info("%s: %s", args.load_pretrain_checkpoint_path, report)
    if args.freeze:
        for parameter in network.bert.get_parameters():
            parameter.requires_grad = False
    return network, config


def build_for_evaluation(args: argparse.Namespace, checkpoint: Path, manifest: Mapping[str, Any],
                         network_class: type[KTNET] = KTNET) -> tuple[KTNET, KTNetConfig]:
    """The network of a checkpoint, with the sizes saved beside it, or else those that the flags give.

    Args:
        args: flags.
        checkpoint: a .ckpt file.
        manifest: of the converted features, or the part of one that names the knowledge bases.
        network_class: the network, or a face of it that gives more than the logits.

    Raises:
        InputError: no checkpoint, or one that does not fit the features or the flags.
    """
    config = load_config(checkpoint)
    if config is None:
        bert = BertConfig.from_json_file(args.bert_config_path)
        tables = load_tables(wanted_bases(args), args, manifest)
        config = KTNetConfig(bert, tuple(MemoryConfig(base.name, *tables[base.name].shape, base.max_concepts)
                                         for base in wanted_bases(args)), args.max_seq_len)
    check_lengths(config.bert, args.max_seq_len, checkpoint)
    held = {memory.name for memory in config.memories}
    for flag, name in (("use_wordnet", "wn"), ("use_nell", "nell")):
        wanted = getattr(args, flag)
        if wanted is not None and wanted != (name in held):
            raise InputError(f"--{flag} {wanted}: {checkpoint} was trained "
                             f"{'with' if name in held else 'without'} this memory; leave the flag out")
    rows = {base["name"]: base["concepts"] for base in manifest["knowledge_bases"]}
    for memory in config.memories:
        if not rows.get(memory.name, memory.rows) < memory.rows:
            raise InputError(f"{checkpoint}: its {memory.name} table has {memory.rows} rows, too few "
                             "for the concepts of the features; convert with the vectors that it was trained with")
    compute_type = ms.float32 if args.device_target == "CPU" else ms.float16
    network = network_class(config, is_training=False, compute_type=compute_type)
    report = load_weights(network, checkpoint, use_average=args.use_ema,
                          must_have=not is_older_port(checkpoint))
    LOGGER.info("%s: %s", checkpoint, report)
    network.set_train(False)
    return network, config
