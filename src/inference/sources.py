# SPDX-License-Identifier: Apache-2.0
"""Where a network's vocabulary, sizes and knowledge come from: its model folder, or the files around a checkpoint."""
from __future__ import annotations

import dataclasses
from pathlib import Path

from src.config import SQUAD, DataFolder, KnowledgeBase
from src.reader.tokenization import BertTokenizer
from src.settings import AS_CONVERTED, PredictionSettings
from src.weights.folder import is_model_folder, read_folder
from src.weights.sizes import load_config, load_options
from utils.util import InputError


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
    trained = {"max_seq_len": config.max_seq_len, **load_options(checkpoint)}
    values = {flag: trained[flag] for flag in AS_CONVERTED if flag not in settings.given and flag in trained}
    vocabulary = read_folder(checkpoint).vocabulary if is_model_folder(checkpoint) else trained.get("vocab_path")
    if vocabulary and vocabulary.is_file() and "vocab_path" not in settings.given:
        values["vocab_path"] = vocabulary
    return settings.with_flags(**values)


def knowledge_files(settings: PredictionSettings) -> tuple[DataFolder, tuple[KnowledgeBase, ...], dict[str, Path]]:
    """Where the knowledge of a network is: the folder, the bases in the order of its memories, their concepts' files.

    Raises:
        InputError: --kb_config does not describe the knowledge base of a memory.
    """
    checkpoint = settings.checkpoint.load_checkpoint_path
    if is_model_folder(checkpoint):
        model = read_folder(checkpoint)
        folder = DataFolder(model.path)
        return folder, model.bases, {base.name: folder.vectors(base) for base in model.bases}
    bases = checkpoint_bases(settings)
    return settings.data.folder, bases, {base.name: settings.vectors(base, settings.question.task) for base in bases}


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
