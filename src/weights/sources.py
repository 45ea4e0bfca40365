# SPDX-License-Identifier: Apache-2.0
"""Folders that hold a network made elsewhere: what they are, and how their tensors are read."""
from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from src.weights.names import MINDSPORE_DEFAULTS, Convention
from src.weights.persistables import read_header, read_persistable, to_float32
from utils.util import LOGGER, InputError, read_json

WANTED = ("wanted is a HuggingFace folder (config.json, vocab.txt, model.safetensors), a folder of PaddlePaddle's "
          "persistables (bert_config.json, vocab.txt, params/) or a checkpoint of MindSpore's BERT (.ckpt)")
# What people have instead, and how it becomes one of them.
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
OUR_ENCODER = "roberta.ckpt"        # what bert_ms_format.py writes
READERS = ("builtin", "paddle")     # of persistables
KTNET_MARK = "cls_squad_out_w"      # the answer layer: the folder holds a complete KT-NET of the authors


class EncoderSource(Protocol):
    """A folder or file that holds an encoder."""

    label: str                      # as people call it
    convention: Convention          # whose names it uses
    overrides: Mapping[str, Any]    # settings that the configuration file does not tell
    config_path: Path
    vocab_path: Path
    names: frozenset[str]           # of the tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of the tensor ``name`` in the source."""
        ...

    def place(self, name: str) -> str:
        """Where the tensor ``name`` is, for messages."""
        ...

    def of_encoder(self, name: str) -> bool:
        """Whether ``name`` belongs to the encoder; heads and optimizer states do not."""
        ...

    def reader(self, names: Sequence[str]) -> Callable[[str], np.ndarray]:
        """Prepare to read ``names``; the result gives each as a float32 array in the source's shape."""
        ...


class HuggingFaceFolder:
    """``config.json``, ``vocab.txt`` and ``model.safetensors``; names with or without the prefix ``bert.``."""

    label = "HuggingFace folder"
    convention: Convention = "huggingface"
    overrides: Mapping[str, Any] = {}
    _DTYPES = ("F64", "F32", "F16", "BF16")

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError, safe_open
        self.config_path = first_file([folder], "config.json", "bert_config.json")
        self.vocab_path = first_file([folder], "vocab.txt")
        self._path = folder / "model.safetensors"
        try:
            self._tensors = safe_open(self._path, framework="np")
        except SafetensorError as error:
            raise InputError(f"{self._path}: not a complete safetensors file ({error}); fetch it again") from None
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
        """Poolers and heads are not; nor is position_ids, a constant 0, 1, 2, ... found in older files."""
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
        """NumPy has no bfloat16, so safetensors cannot return such a tensor: read its bits from the file."""
        with open(self._path, "rb") as source:
            (length,) = struct.unpack("<Q", source.read(8))
            entry = json.loads(source.read(length))[full_name]
            begin, end = entry["data_offsets"]
            source.seek(8 + length + begin)
            return np.frombuffer(source.read(end - begin), "<u2").reshape(entry["shape"])


class PaddleFolder:
    """A folder of persistables, each file one parameter, with ``bert_config.json`` and ``vocab.txt`` near it.

    Args:
        params: the folder.
        places: where the configuration and the vocabulary are looked for.
        reader: "builtin", our own reader of the layout, or "paddle", PaddlePaddle itself. Every header is checked in
            both cases, because Paddle accepts a truncated file silently.
    """

    label = "PaddlePaddle folder"
    convention: Convention = "paddle"
    overrides: Mapping[str, Any] = {}

    def __init__(self, params: Path, places: Sequence[Path], reader: str = "builtin") -> None:
        self.config_path = first_file(places, "bert_config.json", "config.json")
        self.vocab_path = first_file(places, "vocab.txt")
        self._params, self._reader = params, reader
        self.names = frozenset(path.name for path in params.iterdir() if path.is_file())

    @property
    def is_ktnet(self) -> bool:
        """Whether the folder holds a complete trained KT-NET, not only an encoder."""
        return KTNET_MARK in self.names

    def shape(self, name: str) -> tuple[int, ...]:
        """As the header of the file says, which is checked against the file's size."""
        return read_header(self._params / name).shape

    def place(self, name: str) -> str:
        """The file."""
        return str(self._params / name)

    def of_encoder(self, name: str) -> bool:
        """Adam's states, which a folder saved during training also holds, are not."""
        return name.startswith("encoder_layer_") and not any(mark in name for mark in ("_moment", "_pow_acc"))

    def reader(self, names: Sequence[str]) -> Callable[[str], np.ndarray]:
        """Paddle reads them all at once, our own reader one by one."""
        if self._reader == "builtin":
            return lambda name: read_persistable(self._params / name)
        try:
            import paddle
        except ImportError:
            raise InputError("--reader paddle: PaddlePaddle is not installed; install requirements-paddle.txt, or "
                             "leave --reader out") from None
        LOGGER.info("reading the persistables with PaddlePaddle %s", paddle.__version__)
        # paddle.load fails on any other file in the folder (a README, __model__): show it only what is wanted
        with tempfile.TemporaryDirectory() as view:
            for name in names:
                os.symlink((self._params / name).resolve(), Path(view) / name)
            loaded = paddle.load(view)
        return lambda name: to_float32(np.asarray(loaded[name]))


class MindSporeCheckpoint:
    """A checkpoint of MindSpore's own BERT (``bert.bert.*`` names), with its configuration and vocabulary beside it.

    Its networks used the defaults of the framework: the tanh form of GELU and layer norms with epsilon 1e-7.
    """

    label = "checkpoint of MindSpore's BERT"
    convention: Convention = "mindspore"
    overrides: Mapping[str, Any] = MINDSPORE_DEFAULTS
    _PREFIX = "bert.bert."

    def __init__(self, path: Path) -> None:
        self.config_path = first_file([path.parent], "bert_config.json", "config.json")
        self.vocab_path = first_file([path.parent], "vocab.txt")
        self._path = path
        from src.weights.checkpoint import read_checkpoint
        self._values = {name.removeprefix(self._PREFIX): value for name, value in read_checkpoint(path).items()
                        if name.startswith(self._PREFIX)}
        self.names = frozenset(self._values)
        if not self.names:
            raise InputError(f"{path}: no parameter is named {self._PREFIX}*, as in MindSpore's BERT; a checkpoint of "
                             "this project needs no conversion")

    def shape(self, name: str) -> tuple[int, ...]:
        """Of the parameter."""
        return tuple(self._values[name].shape)

    def place(self, name: str) -> str:
        """File and parameter."""
        return f"{self._path}: parameter {self._PREFIX}{name}"

    def of_encoder(self, name: str) -> bool:
        """The pooler is not."""
        return name.startswith("bert_e")

    def reader(self, names: Sequence[str]) -> Callable[[str], np.ndarray]:
        """They have been read."""
        return lambda name: to_float32(self._values[name].asnumpy())


def check_finite(values: np.ndarray, place: str) -> np.ndarray:
    """Refuse a broken tensor; ``place`` is for the message."""
    if not np.isfinite(values).all():
        raise InputError(f"{place}: holds NaN or infinite values; the network is broken: fetch it again or take an "
                         "earlier checkpoint of its training")
    return values


def first_file(folders: Sequence[Path], *names: str) -> Path:
    """The first of ``names`` that is a file in one of ``folders``."""
    for folder in folders:
        for name in names:
            if (folder / name).is_file():
                return folder / name
    raise InputError(f"{folders[0] / names[0]}: no such file; it belongs to the encoder: put it beside the weights")


def open_source(folder: Path, reader: str = "builtin", encoder_folder: Path | None = None) -> EncoderSource:
    """Recognise what ``folder`` holds.

    Args:
        folder: a folder, or a checkpoint file of MindSpore's BERT.
        reader: of persistables.
        encoder_folder: where the configuration and vocabulary of the authors' trained networks are, if not with them.

    Raises:
        InputError: none of the known kinds; the message says what is wanted.
    """
    if folder.is_file() and folder.suffix == ".ckpt":
        return MindSporeCheckpoint(folder)
    if not folder.is_dir():
        what = "a file, not a folder: unpack it and give the folder" if folder.exists() else "no such folder"
        raise InputError(f"{folder}: {what}; {WANTED}")
    if (folder / "model.safetensors").is_file():
        return HuggingFaceFolder(folder)
    inner = sorted(path for path in folder.iterdir() if path.is_dir())      # where archives of the authors have them
    params = [place for place in (folder / "params", folder, *inner) if (place / "word_embedding").is_file()]
    if params or (folder / "params").is_dir():
        place = params[0] if params else folder / "params"
        around = [folder, folder.resolve().parent]
        if encoder_folder is not None and (place / KTNET_MARK).is_file():
            around.append(encoder_folder)
        return PaddleFolder(place, around, reader)
    for name, advice in OTHER_SOURCES:
        if (folder / name).exists():
            raise InputError(f"{folder / name}: {advice}")
    checkpoints = [path for path in folder.glob("*.ckpt") if path.name != OUR_ENCODER]
    if len(checkpoints) == 1:
        return MindSporeCheckpoint(checkpoints[0])
    raise InputError(f"{folder}: no encoder that can be read; {WANTED}")
