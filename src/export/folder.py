# SPDX-License-Identifier: Apache-2.0
"""A checkpoint to a model folder (see :mod:`src.weights.folder`) that answers on any machine."""
from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from src.config import NELL, SQUAD, TASKS, WORDNET, DataFolder, KnowledgeBase, KTNetConfig
from src.knowledge.concepts import concept_digest, read_concept_names
from src.knowledge.own import map_path
from src.knowledge.wordnet_db import find_wordnet
from src.settings import AS_CONVERTED, ExportSettings, FeatureSettings
from src.weights.checkpoint import AVERAGE_PREFIX, Checkpoint, open_checkpoint
from src.weights.folder import (
    CARD,
    CONCEPTS,
    CONFIG,
    FORMAT,
    SUMS,
    VOCABULARY,
    WEIGHTS,
    is_model_folder,
    read_folder,
)
from src.weights.sizes import check_meaning, load_options
from utils.util import InputError, file_digest, read_json, text_digest, usual_mode, write_json, write_text

BELIEFS = Path("retrieve_nell") / "promoted_beliefs.tsv"


@dataclass(frozen=True)
class Ingredients:
    """Where the parts of a model folder come from.

    Args:
        checkpoint: the trained network.
        options: windows and casing, by the flags' names.
        bases: the knowledge bases of its memories.
        vectors: their vectors files, by name; only the names of the concepts are taken.
        vocabulary: word pieces.
        data: the data folder: with the index of NELL's beliefs and your own maps.
        wordnet: WordNet's folder or zip; None if it is not needed.
        evaluation: folder of an evaluation's results, for the model card.
    """

    checkpoint: Checkpoint
    options: Mapping[str, Any]
    bases: Sequence[KnowledgeBase]
    vectors: Mapping[str, Path]
    vocabulary: Path
    data: DataFolder
    wordnet: Path | None = None
    evaluation: Path | None = None


def export_folder(settings: ExportSettings) -> Path:
    """What ``export.py --file_format FOLDER`` does; returns the folder.

    Raises:
        InputError: see :func:`write_model_folder`; or a flag is missing.
    """
    if settings.folder.export_path is None:
        raise InputError("--file_format FOLDER: give the folder to write by --export_path DIR")
    checkpoint = open_checkpoint(settings.checkpoint.load_checkpoint_path)
    if checkpoint.config is None:
        raise InputError(f"{checkpoint.path}: no sizes are saved beside it, so it cannot become a model folder; train "
                         "it further with this version")
    if settings.file.dataset is not None:
        check_meaning(checkpoint.config, {"settings": {"dataset": settings.file.dataset}, "knowledge_bases": []},
                      checkpoint.path)
        checkpoint = dataclasses.replace(checkpoint, config=dataclasses.replace(checkpoint.config,
                                                                                dataset=settings.file.dataset))
    return write_model_folder(find_ingredients(settings, checkpoint), settings.folder.export_path)


def find_ingredients(settings: ExportSettings, checkpoint: Checkpoint) -> Ingredients:
    """The files that belong to a checkpoint, or to the model folder that it is.

    Raises:
        InputError: a memory is of a knowledge base that --kb_config does not describe, or there is no WordNet.
    """
    assert checkpoint.config is not None
    data, vocabulary = settings.data.folder, settings.data.vocab_path
    trained = load_options(checkpoint.path)
    own: Path | None
    if is_model_folder(checkpoint.path):
        model = read_folder(checkpoint.path)
        data, bases, own = DataFolder(model.path), model.bases, model.vocabulary
    else:
        known = {base.name: base for base in settings.data.bases()}
        unknown = [memory.name for memory in checkpoint.config.memories if memory.name not in known]
        if unknown:
            raise InputError(f"--kb_config: {checkpoint.path} reads the knowledge base {unknown[0]}; give the file "
                             "that describes it")
        bases = tuple(dataclasses.replace(known[memory.name], max_concepts=memory.max_concepts)
                      for memory in checkpoint.config.memories)
        own = trained.get("vocab_path")
    if "vocab_path" not in settings.given and own and own.is_file():
        vocabulary = own
    defaults = FeatureSettings()
    options = {name: trained.get(name, getattr(defaults, name)) for name in AS_CONVERTED if name != "max_seq_len"}
    task = TASKS.get(checkpoint.config.dataset, SQUAD)
    vectors = {base.name: data.table(base, task) for base in bases}
    wordnet = (settings.folder.wordnet_path or find_wordnet(data.root)) if needs_wordnet(bases) else None
    return Ingredients(checkpoint, options, bases, vectors, vocabulary, data, wordnet,
                       settings.folder.evaluation)


def write_model_folder(parts: Ingredients, target: Path) -> Path:
    """Write a model folder, whole or not at all.

    Raises:
        InputError: the target exists, or a part is missing or does not belong to the network.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"--export_path {target}: is there already; give a new folder")
    names = {base.name: read_concept_names(parts.vectors[base.name]) for base in parts.bases}
    config = checked_config(parts, names)
    figures = read_figures(parts.evaluation)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
        folder = Path(temporary) / "model"
        folder.mkdir()
        write_contents(folder, parts, config, names)
        write_text(folder / CARD, model_card(config, parts, figures))
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        write_text(folder / SUMS, "".join(f"{file_digest(path, 'sha256')}  {path.relative_to(folder).as_posix()}\n"
                                          for path in files))
        for path in [folder, *folder.rglob("*")]:
            path.chmod(usual_mode(0o777 if path.is_dir() else 0o666))
        if target.exists():
            target.rmdir()
        os.replace(folder, target)
    return target


def checked_config(parts: Ingredients, names: Mapping[str, Sequence[str]]) -> KTNetConfig:
    """The network's sizes with what its numbers mean.

    Raises:
        InputError: the vocabulary or a vectors file is not the one that the network was trained with.
    """
    config, place = parts.checkpoint.config, parts.checkpoint.path
    assert config is not None
    memories = []
    for memory in config.memories:
        path, digest = parts.vectors[memory.name], concept_digest(names[memory.name])
        if memory.concepts_sha256 not in ("", digest):
            raise InputError(f"{path}: its concepts are not those, or not in the order, that {place} was trained with; "
                             "give the same file")
        if len(names[memory.name]) >= memory.rows:
            raise InputError(f"{path}: {len(names[memory.name])} concepts, but the table of {place} has "
                             f"{memory.rows} rows; give the file that it was trained with")
        memories.append(dataclasses.replace(memory, concepts_sha256=digest))
    vocabulary = text_digest(parts.vocabulary)
    if config.vocabulary_md5 not in ("", vocabulary):
        raise InputError(f"--vocab_path {parts.vocabulary}: not the vocabulary that {place} was trained with; give "
                         "that one")
    return dataclasses.replace(config, memories=tuple(memories), vocabulary_md5=vocabulary)


def write_contents(folder: Path, parts: Ingredients, config: KTNetConfig, names: Mapping[str, Sequence[str]]) -> None:
    """Write everything but the card and the digests."""
    places = {base.name: f"{CONCEPTS}/{base.name}.txt" for base in parts.bases}
    bases = [dataclasses.replace(base, vectors=places[base.name], retrieved="",
                                 pruned=base.pruned and places[base.name]) for base in parts.bases]
    write_json(folder / CONFIG, {"format": FORMAT, "network": config.to_dict(), "options": dict(parts.options),
                                 "knowledge": [dataclasses.asdict(base) for base in bases]})
    values = parts.checkpoint.values
    save_file({name: np.ascontiguousarray(values.get(AVERAGE_PREFIX + name, value).asnumpy())
               for name, value in values.items() if not name.startswith(AVERAGE_PREFIX)}, folder / WEIGHTS)
    shutil.copyfile(parts.vocabulary, folder / VOCABULARY)
    (folder / CONCEPTS).mkdir()
    for base, copy in zip(parts.bases, bases, strict=True):
        write_text(folder / copy.vectors, "".join(f"{name}\n" for name in names[base.name]))
        own = map_path(parts.data, base)
        if own.is_file():
            shutil.copyfile(own, folder / CONCEPTS / own.name)
    beliefs = parts.data.root / BELIEFS
    if beliefs.is_file():
        (folder / BELIEFS).parent.mkdir()
        shutil.copyfile(beliefs, folder / BELIEFS)
    if parts.wordnet is not None:
        place = folder / "nltk" / "corpora"
        place.mkdir(parents=True)
        if parts.wordnet.is_dir():
            shutil.copytree(parts.wordnet, place / "wordnet", copy_function=shutil.copyfile)
        else:
            shutil.copyfile(parts.wordnet, place / "wordnet.zip")


def needs_wordnet(bases: Sequence[KnowledgeBase]) -> bool:
    """Whether concepts for new text are found with WordNet: its own, NELL's by the lemmas of names, or phrases'."""
    return any(base.name in (WORDNET.name, NELL.name) or base.lemmas for base in bases)


def read_figures(evaluation: Path | None) -> dict[str, float]:
    """exact_match and f1 of an evaluation's folder; none without one.

    Raises:
        InputError: the folder holds no result.
    """
    if evaluation is None:
        return {}
    path = evaluation / "eval_result.json"
    values = read_json(path)
    if not isinstance(values, dict) or not all(isinstance(values.get(key), float) for key in ("exact_match", "f1")):
        raise InputError(f"{path}: no exact_match and f1; give the folder of run_KTNET_*_eval.py's results")
    return {key: values[key] for key in ("exact_match", "f1")}


def model_card(config: KTNetConfig, parts: Ingredients, figures: Mapping[str, float]) -> str:
    """README.md of the folder."""
    bert = config.bert
    labels = " and ".join(base.label for base in parts.bases) or "no knowledge base"
    trained = {"squad": "SQuAD", "record": "ReCoRD"}.get(config.dataset, "a data set that its checkpoint does not name")
    result = (f"On the dev set of {trained}: exact match {figures['exact_match']:.2f}, F1 {figures['f1']:.2f}."
              if figures else "It was exported without figures of an evaluation.")
    knowledge = "\n".join(f"| {base.label} | {memory.max_concepts} | {memory.rows} x {memory.width} |"
                          for base, memory in zip(parts.bases, config.memories, strict=True))
    return f"""# KT-NET: reading comprehension with {labels}

A KT-NET (Yang et al., ACL 2019) that answers questions about a passage: a BERT encoder of {bert.num_hidden_layers}
layers, {bert.hidden_size} wide, with memory read from {labels}. Trained on {trained}.

{result}

## Use

    python predict.py --model FOLDER --passage "..." --question "..."

    from src.inference import Reader
    reader = Reader.from_folder("FOLDER")
    reader.ask("The tower was built by Ida Roth in 1911.", "Who built the tower?").answer

## Sizes

Passages are cut into windows of {config.max_seq_len} word pieces, one every {parts.options.get('doc_stride')}.

| knowledge base | concepts of a word, at most | table |
| --- | --- | --- |
{knowledge}

## Limits

It copies its answer from the passage. It was trained on one data set, in English, and answers with confidence where it
is wrong; the probability compares its own candidates with each other.

## Licences

WordNet 3.0 is Princeton University's (WordNet licence), NELL's beliefs and categories are Carnegie Mellon University's,
SQuAD is CC BY-SA 4.0. The encoder's licence is that of its makers.

`SHA256SUMS` holds the digest of every file: `sha256sum -c SHA256SUMS`.
"""
