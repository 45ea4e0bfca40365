"""Turn a BERT encoder made elsewhere into a MindSpore checkpoint.

    python src/bert_ms_format.py --data_url DIR [--source DIR] [--output FILE.ckpt]

Two kinds of source are read: a HuggingFace folder (``config.json``, ``vocab.txt``, ``model.safetensors``) and the
folder of the PaddlePaddle archive (``bert_config.json``, ``vocab.txt``, ``params`` with one file a parameter). Every
tensor's name and shape is held against the sizes of the configuration before anything is written. The output's folder
ends up with all that the other scripts want of an encoder: checkpoint, ``bert_config.json`` and ``vocab.txt``.
"""
from __future__ import annotations

import dataclasses
import json
import os
import struct
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Callable, Protocol, Sequence

if __name__ == "__main__" and not __package__:
    # Started by its path, Python looks for modules in src, where the project's own packages are not but names like
    # "config" would hide other people's: look in the repository's root instead.
    _HERE = Path(__file__).resolve().parent
    sys.path[:] = [str(_HERE.parent), *(entry for entry in sys.path if Path(entry or ".").resolve() != _HERE)]

import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from src.config import BertConfig, DataFolder  # noqa: E402
from src.weights.names import Convention, NameRule, name_rules  # noqa: E402
from src.weights.persistables import read_header, read_persistable, to_float32  # noqa: E402
from utils.args import OneLineParser  # noqa: E402
from utils.util import LOGGER, InputError, atomic_path, read_json, run_main, set_up_logging  # noqa: E402

WANTED = ("wanted is a HuggingFace folder (config.json, vocab.txt, model.safetensors) or the PaddlePaddle archive's "
          "folder (bert_config.json, vocab.txt, params/)")
# What people have instead, and how it becomes one of the two.
OTHER_SOURCES = (
    ("model.safetensors.index.json", "the tensors are split over several files; save the model again in one "
                                     "model.safetensors: save_pretrained(DIR, max_shard_size=\"100GB\")"),
    ("pytorch_model.bin", "pickled PyTorch weights are not read; save the model again as model.safetensors: "
                          "BertModel.from_pretrained(DIR).save_pretrained(NEW_DIR)"),
    ("tf_model.h5", "TensorFlow weights are not read; save the model again as model.safetensors: "
                    "BertModel.from_pretrained(DIR, from_tf=True).save_pretrained(NEW_DIR)"),
    ("bert_model.ckpt.index", "Google's TensorFlow checkpoint is not read; convert it with transformers' "
                              "convert_bert_original_tf_checkpoint_to_pytorch and save it as model.safetensors"),
)
# Fields of the configuration that do not change what the encoder computes.
TRAINING_FIELDS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "initializer_range")


class EncoderSource(Protocol):
    """A folder that holds an encoder."""

    label: str                  # as people call it
    convention: Convention      # whose names it uses
    config_path: Path
    vocab_path: Path
    names: frozenset[str]       # of the tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape that the tensor ``name`` has there."""
        ...

    def place(self, name: str) -> str:
        """Where the tensor ``name`` stands, for messages."""
        ...

    def of_encoder(self, name: str) -> bool:
        """Whether ``name`` is the encoder's; heads and optimizer states are not."""
        ...

    def reader(self, names: Sequence[str]) -> Callable[[str], np.ndarray]:
        """Get ``names`` ready; returns what gives each as a float32 array in the shape that it has there."""
        ...


class HuggingFaceFolder:
    """``config.json``, ``vocab.txt`` and ``model.safetensors``; names with or without the prefix ``bert.``."""

    label = "HuggingFace folder"
    convention: Convention = "huggingface"
    _DTYPES = ("F64", "F32", "F16", "BF16")

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError, safe_open
        self.config_path = _first_file(folder, "config.json", "bert_config.json")
        self.vocab_path = _first_file(folder, "vocab.txt")
        self._path = folder / "model.safetensors"
        try:
            self._tensors = safe_open(self._path, framework="np")
        except SafetensorError as error:
            raise InputError(f"{self._path}: not a whole safetensors file ({error}); fetch it again") from None
        self._full_names = {name.removeprefix("bert."): name for name in self._tensors.keys()}  # noqa: SIM118
        self.names = frozenset(self._full_names)
        self._check_kind()

    def _check_kind(self) -> None:
        """Refuse relatives of BERT whose tensors have the same names but which compute something else."""
        settings = read_json(self.config_path)
        wanted = {"model_type": "bert", "position_embedding_type": "absolute"}
        for key, value in wanted.items():
            if isinstance(settings, dict) and settings.get(key, value) != value:
                raise InputError(f"{self.config_path}: {key} is {settings[key]!r}; only {value!r} can be converted")

    def shape(self, name: str) -> tuple[int, ...]:
        """As the header of the file says; refuses quantized tensors."""
        tensor = self._tensors.get_slice(self._full_names[name])
        if tensor.get_dtype() not in self._DTYPES:
            raise InputError(f"{self.place(name)}: stored as {tensor.get_dtype()}; "
                             f"wanted are floating-point weights ({', '.join(self._DTYPES)})")
        return tuple(tensor.get_shape())

    def place(self, name: str) -> str:
        """File and tensor."""
        return f"{self._path}: tensor {self._full_names.get(name, name)}"

    def of_encoder(self, name: str) -> bool:
        """Poolers and heads are not; nor is position_ids, a constant 0, 1, 2, ... that older files carry along."""
        return name.startswith(("embeddings.", "encoder.")) and name != "embeddings.position_ids"

    def reader(self, names: Sequence[str]) -> Callable[[str], np.ndarray]:
        """Tensors are read when they are asked for."""
        return self._read

    def _read(self, name: str) -> np.ndarray:
        full_name = self._full_names[name]
        if self._tensors.get_slice(full_name).get_dtype() == "BF16":
            return to_float32(self._bfloat16_bits(full_name))
        return to_float32(self._tensors.get_tensor(full_name))

    def _bfloat16_bits(self, full_name: str) -> np.ndarray:
        """NumPy has no bfloat16, so safetensors cannot hand such a tensor over: take its bits from the file."""
        with open(self._path, "rb") as source:
            (length,) = struct.unpack("<Q", source.read(8))
            entry = json.loads(source.read(length))[full_name]
            begin, end = entry["data_offsets"]
            source.seek(8 + length + begin)
            return np.frombuffer(source.read(end - begin), "<u2").reshape(entry["shape"])


class PaddleFolder:
    """``bert_config.json``, ``vocab.txt`` and a folder of persistables, each file one parameter.

    Paddle reads them where it is installed; where it is not, our own reader of the layout does. Its check of each
    header comes first in both cases, because Paddle takes a file that was cut short without a word.
    """

    label = "PaddlePaddle folder"
    convention: Convention = "paddle"

    def __init__(self, folder: Path, params: Path) -> None:
        self.config_path = _first_file(folder, "bert_config.json", "config.json")
        self.vocab_path = _first_file(folder, "vocab.txt")
        self._params = params
        self.names = frozenset(path.name for path in params.iterdir() if path.is_file())

    def shape(self, name: str) -> tuple[int, ...]:
        """As the header of the file says, which is held against the file's size."""
        return read_header(self._params / name).shape

    def place(self, name: str) -> str:
        """The file."""
        return str(self._params / name)

    def of_encoder(self, name: str) -> bool:
        """Adam's states, which a folder saved in the middle of training also holds, are not."""
        return name.startswith("encoder_layer_") and not any(mark in name for mark in ("_moment", "_pow_acc"))

    def reader(self, names: Sequence[str]) -> Callable[[str], np.ndarray]:
        """Paddle reads them all at once, our own reader one by one."""
        try:
            import paddle
        except ImportError:
            LOGGER.info("paddlepaddle is not installed: reading its persistables by their published layout")
            return lambda name: read_persistable(self._params / name)
        LOGGER.info("reading the persistables with paddlepaddle %s", paddle.__version__)
        # paddle.load stumbles over any other file in the folder (a README, __model__): show it only what is wanted
        with tempfile.TemporaryDirectory() as view:
            for name in names:
                os.symlink((self._params / name).resolve(), Path(view) / name)
            loaded = paddle.load(view)
        return lambda name: to_float32(np.asarray(loaded[name]))


def _first_file(folder: Path, *names: str) -> Path:
    """The first of ``names`` that is a file in ``folder``."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise InputError(f"{folder / names[0]}: no such file; it belongs to the encoder: put it beside the weights")


def open_source(folder: Path) -> EncoderSource:
    """Recognise what ``folder`` holds.

    Raises:
        InputError: none of the two kinds; the message says what is wanted.
    """
    if not folder.is_dir():
        what = "a file, not a folder: unpack it and give the folder" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {what}; {WANTED}")
    if (folder / "model.safetensors").is_file():
        return HuggingFaceFolder(folder)
    if (folder / "params").is_dir():
        return PaddleFolder(folder, folder / "params")
    if (folder / "word_embedding").is_file():
        return PaddleFolder(folder.resolve().parent, folder)
    for name, mend in OTHER_SOURCES:
        if (folder / name).exists():
            raise InputError(f"{folder / name}: {mend}")
    raise InputError(f"{folder}: no encoder that can be read; {WANTED}")


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
    if unused:
        LOGGER.info("not used: %s%s", ", ".join(unused[:5]), f" and {len(unused) - 5} more" if len(unused) > 5 else "")
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
        InputError: as :func:`match_tensors`.
    """
    found = match_tensors(source, config)
    read = source.reader(list(found.values()))
    parameters = {}
    for rule, name in tqdm(found.items(), desc="parameters", unit="", disable=None):
        values = read(name)
        parameters[rule.target] = np.ascontiguousarray(values.T if rule.transposed(source.convention) else values)
    return parameters


def check_companions(source: EncoderSource, config: BertConfig, folder: Path) -> dict[Path, Path]:
    """Compare the source's vocabulary and configuration with those that the output's folder already has.

    Returns:
        Files to copy: source -> destination.

    Raises:
        InputError: the vocabulary does not fit the encoder, or the folder holds another encoder's files.
    """
    pieces = source.vocab_path.read_bytes().splitlines()
    if len(pieces) > config.vocab_size:
        raise InputError(f"{source.vocab_path}: {len(pieces)} word pieces, but vocab_size in {source.config_path} is "
                         f"{config.vocab_size}; give the vocabulary of this encoder")
    copies = {}
    vocab, bert_config = folder / "vocab.txt", folder / "bert_config.json"
    if not vocab.exists():
        copies[source.vocab_path] = vocab
    elif vocab.read_bytes().splitlines() != pieces:
        raise InputError(f"{vocab}: another vocabulary than {source.vocab_path}; remove it, or give --output in "
                         "another folder")
    if not bert_config.exists():
        copies[source.config_path] = bert_config
    else:
        present = dataclasses.asdict(BertConfig.from_json_file(bert_config))
        differing = [f"{name} is {present[name]}, not {value}" for name, value in dataclasses.asdict(config).items()
                     if name not in TRAINING_FIELDS and value != present[name]]
        if differing:
            raise InputError(f"{bert_config}: another encoder than {source.config_path}: {', '.join(differing)}; "
                             "remove it, or give --output in another folder")
    return copies


def convert_encoder(folder: Path, output: Path) -> None:
    """Write the encoder in ``folder`` to ``output``, with its configuration and vocabulary beside it.

    Raises:
        InputError: the source cannot be used or the output's folder holds another encoder; nothing is written then.
    """
    if output.suffix != ".ckpt" or output.is_dir():
        raise InputError(f"--output {output}: give the name of a file that ends in .ckpt")
    source = open_source(folder)
    config = BertConfig.from_json_file(source.config_path)
    copies = check_companions(source, config, output.parent)
    LOGGER.info("%s: %s, %d layers of width %d, vocabulary of %d", folder, source.label, config.num_hidden_layers,
                config.hidden_size, config.vocab_size)
    parameters = read_parameters(source, config)
    from src.weights.checkpoint import (
        write_checkpoint,  # MindSpore takes seconds to import: not for what is refused above
    )
    for original, copy in copies.items():
        with atomic_path(copy) as temporary:
            temporary.write_bytes(original.read_bytes())
        LOGGER.info("wrote %s", copy)
    write_checkpoint(output, parameters)    # last: where the checkpoint is, the rest is too
    LOGGER.info("wrote %s: %d parameters, %.1f million numbers", output, len(parameters),
                sum(values.size for values in parameters.values()) / 1e6)


def parse_arguments(argv: Sequence[str] | None) -> Namespace:
    """Read the command line and fill in the defaults that depend on --data_url."""
    parser = OneLineParser(prog="bert_ms_format.py", description="Turn a BERT encoder into a MindSpore checkpoint.")
    parser.add_argument("--data_url", type=Path, default=Path("./data"), help="data folder")
    parser.add_argument("--source", type=Path, help="folder of the encoder [cased_L-24_H-1024_A-16 in --data_url]")
    parser.add_argument("--output", type=Path, help="checkpoint to write [cased_L-24_H-1024_A-16/roberta.ckpt in "
                                                    "--data_url]")
    arguments = parser.parse_args(argv)
    folder = DataFolder(arguments.data_url).bert()
    arguments.source = arguments.source or folder
    arguments.output = arguments.output or folder / "roberta.ckpt"
    return arguments


def main(argv: Sequence[str] | None = None) -> None:
    """Convert as the command line asks."""
    arguments = parse_arguments(argv)
    set_up_logging()
    convert_encoder(arguments.source, arguments.output)


if __name__ == "__main__":
    run_main(main)
