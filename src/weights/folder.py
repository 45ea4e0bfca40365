# SPDX-License-Identifier: Apache-2.0
"""A model folder: a trained network with all that it needs to answer, to be copied to any machine.

    config.json         sizes, windows, casing, knowledge bases
    model.safetensors   the (averaged) weights
    vocab.txt           word pieces
    concepts/           the names of every knowledge base's concepts in the order of their ids, your own maps
    retrieve_nell/      the index of NELL's beliefs
    nltk/               WordNet
    README.md           what it is, and how well it answers
    SHA256SUMS          digest of every file; checked before anything is used

Below the top the folders are those of a data folder, so what reads knowledge there reads it here. Nothing in a model
folder is ever executed or unpickled.
"""
from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from src.config import KnowledgeBase, KTNetConfig, read_fields
from utils.util import InputError, file_digest, read_json, read_text

CONFIG, WEIGHTS, VOCABULARY, CARD, SUMS = ("config.json", "model.safetensors", "vocab.txt", "README.md",
                                           "SHA256SUMS")
CONCEPTS, KNOWLEDGE = "concepts", ("concepts", "retrieve_nell", "nltk")
FORMAT = 1
FIX = "copy or download the folder again"
COPY_FIX = "copy or download it again"
DIGEST = "sha256"       # in the header of a checkpoint of ours
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


@dataclass(frozen=True)
class ModelFolder:
    """What ``config.json`` says."""

    path: Path
    network: KTNetConfig
    options: Mapping[str, Any]          # windows and casing, by the flags' names
    bases: tuple[KnowledgeBase, ...]    # in the order of the network's memories; their files are in this folder

    @property
    def vocabulary(self) -> Path:
        """The word pieces."""
        return self.path / VOCABULARY


def is_model_folder(path: Path | str) -> bool:
    """Whether a path is a folder and not a checkpoint file."""
    return Path(path).is_dir()


def read_folder(path: Path | str) -> ModelFolder:
    """Read ``config.json``; digests are checked by :func:`verify`.

    Raises:
        InputError: it is missing or says what cannot be.
    """
    source = Path(path) / CONFIG
    values = read_json(source)
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise InputError(f"{source}: not the configuration of a model folder in format {FORMAT}; export.py "
                         "--file_format FOLDER writes one")
    options, entries = values.get("options"), values.get("knowledge")
    if not isinstance(options, dict) or not isinstance(entries, list):
        raise InputError(f"{source}: options or knowledge are missing; {FIX}")
    bases = tuple(read_fields(KnowledgeBase, entry, f"{source}: knowledge[{number}]")
                  for number, entry in enumerate(entries))
    for base in bases:
        if not base.name.isidentifier():
            raise InputError(f"{source}: the name {base.name[:40]!r} must be letters, digits and underscores")
        check_name(base.vectors, source)
        if base.pruned not in ("", base.vectors):
            raise InputError(f"{source}: pruned {base.pruned[:60]!r} is not the file of vectors; {FIX}")
    network = KTNetConfig.from_dict(values.get("network"), source)
    if [memory.name for memory in network.memories] != [base.name for base in bases]:
        raise InputError(f"{source}: the knowledge bases are not those of the network's memories; {FIX}")
    return ModelFolder(Path(path), network, options, bases)


def check_name(name: str, source: Path) -> None:
    """Refuse a name that leads out of the folder; ``source`` is the file that has it."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise InputError(f"{source}: {name[:60]!r} leads out of the folder; do not use this folder")


def verify(folder: ModelFolder) -> None:
    """Check the digest of every file.

    Raises:
        InputError: a file is missing or has changed, one that would be used is not listed, or a name leads out of the
            folder.
    """
    source = folder.path / SUMS
    digests: dict[str, str] = {}
    for number, line in enumerate(read_text(source, FIX).splitlines(), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            raise InputError(f"{source}: line {number}: not a SHA-256 and a name; {FIX}")
        check_name(match[2], source)
        digests[match[2]] = match[1]
    used = [CONFIG, WEIGHTS, VOCABULARY, *(base.vectors for base in folder.bases)]
    used += [str(file.relative_to(folder.path).as_posix()) for top in KNOWLEDGE
             for file in sorted((folder.path / top).rglob("*")) if file.is_file()]
    for name in used:
        if name not in digests:
            raise InputError(f"{folder.path / name}: not listed in {SUMS}; {FIX}")
    for name, digest in digests.items():
        path = folder.path / name
        if not path.is_file():
            raise InputError(f"{path}: no such file, but {SUMS} lists it; {FIX}")
        if file_digest(path, "sha256") != digest:
            raise InputError(f"{path}: damaged or changed, its SHA-256 is not the one in {SUMS}; {FIX}")


def read_weights(folder: ModelFolder) -> dict[str, np.ndarray]:
    """The weights, float32, by the names of a checkpoint.

    Raises:
        InputError: the file is damaged, or holds something else than float32 numbers.
    """
    return read_safetensors(folder.path / WEIGHTS)


def write_safetensors(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Write arrays with the digest of their contents, which the format itself does not have."""
    from safetensors.numpy import save_file

    whole = {name: np.ascontiguousarray(values) for name, values in arrays.items()}
    save_file(whole, path, metadata={DIGEST: arrays_digest(whole)})


def arrays_digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of arrays by their names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(arrays[name].data)
    return digest.hexdigest()


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """The float32 arrays of a safetensors file.

    Raises:
        InputError: the file is missing or damaged, or holds something else than float32 numbers.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                if tensors.get_slice(name).get_dtype() != "F32":
                    raise InputError(f"{path}: {name} is stored as {tensors.get_slice(name).get_dtype()}, not as "
                                     f"float32; {COPY_FIX}")
            arrays = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
            told = (tensors.metadata() or {}).get(DIGEST)
    except SafetensorError as error:
        raise InputError(f"{path}: not a whole safetensors file ({error}); {COPY_FIX}") from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {COPY_FIX}") from None
    if told is not None and arrays_digest(arrays) != told:
        raise InputError(f"{path}: damaged or changed, its SHA-256 is not the one that was written; {COPY_FIX}")
    return arrays
