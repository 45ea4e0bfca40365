# SPDX-License-Identifier: Apache-2.0
"""Turn a BERT encoder, or a KT-NET of the authors, into a MindSpore checkpoint.

    python src/bert_ms_format.py --data_url DIR [--source DIR] [--output FILE.ckpt]

Four kinds of source are read: a HuggingFace folder (``config.json``, ``vocab.txt``, ``model.safetensors``), the folder
of the PaddlePaddle archive (``bert_config.json``, ``vocab.txt``, ``params``, one file per parameter), a checkpoint of
MindSpore's BERT (``bert.bert.*`` names), and the authors' trained KT-NETs (a folder of persistables). The name and
shape of every tensor is checked against the configuration before anything is written. An encoder's configuration and
vocabulary are put beside the checkpoint; a KT-NET gets the JSON file with its sizes.
"""
from __future__ import annotations

if __name__ == "__main__":      # before the imports, which may fail
    import runpy
    from pathlib import Path
    runpy.run_path(f"{Path(__file__).resolve().parents[1]}/utils/start.py", {"SCRIPT": __file__})

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from src.config import (
    KB_PAD_MULTIPLE,
    KNOWLEDGE_BASES,
    MAX_SEQ_LEN,
    TASKS,
    BertConfig,
    DataFolder,
)
from src.knowledge.concepts import concept_digest, read_concept_vectors
from src.settings import EncoderSettings
from src.weights.authors import AuthorsHead
from src.weights.names import NameRule, name_rules
from src.weights.sources import (
    OUR_ENCODER,
    EncoderSource,
    PaddleFolder,
    check_finite,
    open_source,
)
from utils.progress import follow
from utils.util import LOGGER, InputError, atomic_path, set_up_logging, text_digest

# Fields of the configuration that do not change what the encoder computes.
TRAINING_FIELDS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range")


def read_config(source: EncoderSource) -> BertConfig:
    """Sizes of the source's encoder; says so where the kind of source, not the file, tells how it computes."""
    config = BertConfig.from_json_file(source.config_path)
    if source.overrides and config.hidden_act == "gelu":
        config = dataclasses.replace(config, **source.overrides)
        LOGGER.info("%s: written with %s, which is what that encoder computed", source.label,
                    ", ".join(f"{name} {value}" for name, value in source.overrides.items()))
    return config


def match_tensors(source: EncoderSource, config: BertConfig) -> dict[NameRule, str]:
    """Find every parameter of an encoder of these sizes in the source and check its shape.

    Returns:
        Rule of the parameter -> its name in the source.

    Raises:
        InputError: a tensor is missing, has another shape, or belongs to an encoder of other sizes.
    """
    found: dict[NameRule, str] = {}
    missing: list[str] = []
    for rule in name_rules(config):
        names = [name for name in rule.names(source.convention) if name in source.names]
        if names:
            _check_shape(source, config, rule, names[0])
            found[rule] = names[0]
        else:
            missing.append(rule.names(source.convention)[0])
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InputError(f"{source.place(missing[0])}: missing{more}; {source.config_path} asks for a BERT of "
                         f"{config.num_hidden_layers} layers: is the source whole, and a BERT?")
    unused = sorted(source.names - set(found.values()))
    foreign = [name for name in unused if source.of_encoder(name)]
    if foreign:
        raise InputError(f"{source.place(foreign[0])}: has no place in the encoder of {source.config_path} "
                         f"({config.num_hidden_layers} layers); give the configuration of this encoder")
    return found


def _check_shape(source: EncoderSource, config: BertConfig, rule: NameRule, name: str) -> None:
    """Refuse a tensor of other sizes than the configuration's."""
    shape, expected, sizes = source.shape(name), rule.shape(config), rule.sizes
    if rule.transposed(source.convention):
        expected, sizes = expected[::-1], sizes[::-1]
    if shape != expected:
        raise InputError(f"{source.place(name)}: shape {list(shape)}, but {source.config_path} says {list(expected)} "
                         f"({', '.join(sizes)}); give the configuration of this encoder")


def read_parameters(source: EncoderSource, config: BertConfig) -> dict[str, np.ndarray]:
    """Every parameter of the encoder under our name and in our orientation, float32.

    Raises:
        InputError: as :func:`match_tensors`, or a tensor holds NaN or infinite values.
    """
    found = match_tensors(source, config)
    read = source.reader(list(found.values()))
    parameters = {}
    for rule, name in follow(found.items(), "parameters", len(found), "parameters"):
        values = check_finite(read(name), source.place(name))
        parameters[rule.target] = np.ascontiguousarray(values.T if rule.transposed(source.convention) else values)
    return parameters


def check_companions(source: EncoderSource, config: BertConfig, folder: Path) -> dict[Path, bytes]:
    """Compare the source's vocabulary and configuration with those that the output's folder already has.

    Returns:
        Files to write: path -> contents.

    Raises:
        InputError: the vocabulary does not fit the encoder, or the folder holds another encoder's files.
    """
    pieces = source.vocab_path.read_bytes().splitlines()
    if len(pieces) > config.vocab_size:
        raise InputError(f"{source.vocab_path}: {len(pieces)} word pieces, but vocab_size in {source.config_path} is "
                         f"{config.vocab_size}; give the vocabulary of this encoder")
    files = {}
    vocab, bert_config = folder / "vocab.txt", folder / "bert_config.json"
    if not vocab.exists():
        files[vocab] = source.vocab_path.read_bytes()
    elif vocab.read_bytes().splitlines() != pieces:
        raise InputError(f"{vocab}: another vocabulary than {source.vocab_path}; remove it, or give --output in "
                         "another folder")
    if not bert_config.exists():
        own = (json.dumps(dataclasses.asdict(config), indent=2) + "\n").encode()
        files[bert_config] = own if source.overrides else source.config_path.read_bytes()
    else:
        present = dataclasses.asdict(BertConfig.from_json_file(bert_config))
        differing = [f"{name} is {present[name]}, not {value}" for name, value in dataclasses.asdict(config).items()
                     if name not in TRAINING_FIELDS and value != present[name]]
        if differing:
            raise InputError(f"{bert_config}: another encoder than {source.config_path}: {', '.join(differing)}; "
                             "remove it, or give --output in another folder")
    return files


def check_output(output: Path) -> None:
    """Refuse an output that is no checkpoint's name."""
    if output.suffix != ".ckpt" or output.is_dir():
        raise InputError(f"--output {output}: give the name of a file that ends in .ckpt")


def convert_encoder(source: EncoderSource, output: Path) -> None:
    """Write an encoder to ``output``, with its configuration and vocabulary beside it.

    Raises:
        InputError: the source cannot be used or the output's folder holds another encoder; nothing is written then.
    """
    check_output(output)
    config = read_config(source)
    files = check_companions(source, config, output.parent)
    LOGGER.info("%s, %d layers of width %d, vocabulary of %d", source.label, config.num_hidden_layers,
                config.hidden_size, config.vocab_size)
    unused = sorted(source.names - set(match_tensors(source, config).values()))
    if unused:
        LOGGER.info("not used: %s%s", ", ".join(unused[:5]), f" and {len(unused) - 5} more" if len(unused) > 5 else "")
    parameters = read_parameters(source, config)
    from src.weights.checkpoint import (
        write_checkpoint,  # MindSpore takes seconds to import: not for what is refused above
    )
    for path, contents in files.items():
        with atomic_path(path) as temporary:
            temporary.write_bytes(contents)
        LOGGER.info("wrote %s", path)
    write_checkpoint(output, parameters)    # last: where the checkpoint is, the rest is too
    tell_written(output, parameters)


def tell_written(output: Path, parameters: dict[str, np.ndarray]) -> None:
    """One line on what was written."""
    LOGGER.info("wrote %s: %d parameters, %.1f million numbers", output, len(parameters),
                sum(values.size for values in parameters.values()) / 1e6)


def convert_ktnet(source: PaddleFolder, data: DataFolder, dataset: str, output: Path) -> None:
    """Write a KT-NET of the authors as a checkpoint of ours, with its sizes beside it.

    Args:
        source: the folder.
        data: the data folder; its concept vectors tell what the rows of the tables mean.
        dataset: what the network was trained on.
        output: the checkpoint.

    Raises:
        InputError: the folder cannot be used, or its tables are not those of the data folder's vectors; nothing is
            written then.
    """
    check_output(output)
    vectors = {base: read_concept_vectors(data.vectors(base)) for base in KNOWLEDGE_BASES
               if data.vectors(base).is_file()}
    bert = read_config(source)
    head = AuthorsHead(source, {base.name: len(names) for base, (names, _) in vectors.items()}, KB_PAD_MULTIPLE)
    config = head.config(bert, MAX_SEQ_LEN)
    parameters = {**read_parameters(source, bert), **head.parameters(config)}
    for base in head.bases:
        if base not in vectors:
            raise InputError(f"{data.vectors(base)}: no such file; the concepts of {source.place('')} have no names "
                             "without it: fetch the vectors that the network was trained with (scripts/get_data.sh)")
        check_table(parameters[f"embedding_{base.name}.embedding_table"], vectors[base][1], data.vectors(base))
    digests = {base.name: concept_digest(names) for base, (names, _) in vectors.items()}
    config = dataclasses.replace(
        config, dataset=dataset, vocabulary_md5=text_digest(source.vocab_path),
        memories=tuple(dataclasses.replace(memory, concepts_sha256=digests[memory.name])
                       for memory in config.memories))
    from src.weights.checkpoint import write_checkpoint
    from src.weights.sizes import save_config
    save_config(output, config, {"do_lower_case": False, "trained_by": "the authors"})
    write_checkpoint(output, parameters)
    tell_written(output, parameters)


def check_table(table: np.ndarray, vectors: np.ndarray, path: Path) -> None:
    """Refuse vectors that are not those of a trained network's table, which training leaves as they are.

    Args:
        table: float32 [rows, D], padded.
        vectors: float32 [N, width].
        path: of the vectors, for the message.
    """
    rows, width = vectors.shape
    if table.shape[0] <= rows or table.shape[1] < width or \
            not np.allclose(table[1:rows + 1, :width], vectors, rtol=1e-4, atol=1e-5):
        raise InputError(f"{path}: not the vectors of the network's table; put those that it was trained with there")


def dataset_of(folder: Path) -> str:
    """The data set that the authors' folder, or the one around it, names: KTNET_fine-tuned-model_squad_both."""
    found = [name for part in folder.resolve().parts[:-3:-1] for name in TASKS if name in part][:1]
    if len(found) != 1:
        raise InputError(f"--dataset: {folder} does not name the data set that the network was trained on; give squad "
                         "or record")
    return found[0]


def main(argv: Sequence[str] | None = None) -> None:
    """Convert as the command line asks."""
    settings = EncoderSettings.parse(argv)
    set_up_logging()
    data = DataFolder(settings.data_url)
    source = open_source(settings.source, settings.reader, data.bert())
    if isinstance(source, PaddleFolder) and source.is_ktnet:
        dataset = settings.dataset or dataset_of(settings.source)
        output = settings.output or data.root / f"KTNET_{dataset}_authors.ckpt"
        convert_ktnet(source, data, dataset, output)
    else:
        convert_encoder(source, settings.output or data.bert() / OUR_ENCODER)
