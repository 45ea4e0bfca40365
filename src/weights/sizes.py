# SPDX-License-Identifier: Apache-2.0
"""What is beside a checkpoint: the network's sizes and the options of its run. Imports no MindSpore."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.config import KTNetConfig
from src.settings import AS_CONVERTED, PredictionSettings
from src.weights.folder import CONFIG, is_model_folder, read_folder
from utils.util import InputError, json_digest, read_json, write_json

EXPORTED = (".mindir", ".onnx", ".air")
NETWORK_DIGEST = "network_sha256"           # beside the sizes: a changed one would compute something else


def config_path(checkpoint: Path | str) -> Path:
    """Where the sizes and options of a checkpoint, model folder or exported network are."""
    path = Path(checkpoint)
    if is_model_folder(path):
        return path / CONFIG
    return path.with_name(f"{path.name}.json") if path.suffix in EXPORTED else path.with_suffix(".json")


def save_config(checkpoint: Path | str, network: KTNetConfig, options: Mapping[str, Any]) -> None:
    """Write the network's sizes and the run's options beside a checkpoint."""
    sizes = network.to_dict()
    write_json(config_path(checkpoint), {"network": sizes, NETWORK_DIGEST: json_digest(sizes),
                                         "options": dict(options)})


def load_config(checkpoint: Path | str) -> KTNetConfig | None:
    """The sizes saved beside a checkpoint; None if there are none (a checkpoint of the older port).

    Raises:
        InputError: the file is broken, or was changed.
    """
    if is_model_folder(checkpoint):
        return read_folder(checkpoint).network
    path = config_path(checkpoint)
    if not path.is_file():
        return None
    values = read_json(path)
    network = values.get("network") if isinstance(values, dict) else None
    config = KTNetConfig.from_dict(network, path)
    if values.get(NETWORK_DIGEST, digest := json_digest(network)) != digest:
        raise InputError(f"{path}: what it says of the network was changed since it was written; copy it again from "
                         "where the network was trained")
    return config


def load_options(checkpoint: Path | str) -> dict[str, Any]:
    """The flags with which a checkpoint's features were made, as far as the file with its sizes says them.

    Raises:
        InputError: the file is broken, or a value is none that the flag can have.
    """
    path = config_path(checkpoint)
    values = read_json(path)
    options = values.get("options", {}) if isinstance(values, dict) else None
    if not isinstance(options, dict):
        raise InputError(f"{path}: its options are not an object; copy it again from where the network was trained")
    return PredictionSettings.from_values({name: options[name] for name in (*AS_CONVERTED, "vocab_path")
                                           if name in options}, path)


def check_dataset(config: KTNetConfig | None, dataset: str, checkpoint: Path) -> None:
    """Refuse questions of another data set than the network was trained on, as far as both are known.

    Raises:
        InputError: it was trained on another one.
    """
    if config is not None and config.dataset and dataset and dataset != config.dataset:
        raise InputError(f"{checkpoint}: was trained on {config.dataset}, the questions are those of {dataset}; give a "
                         f"checkpoint of {dataset}")


def vocabulary_md5(manifest: Mapping[str, Any]) -> str:
    """MD5 of the vocabulary that features were made with; "" where it is not known."""
    return str(manifest.get("inputs", {}).get("vocabulary", {}).get("md5", ""))


def check_meaning(config: KTNetConfig, manifest: Mapping[str, Any], checkpoint: Path,
                  same_dataset: bool = True) -> None:
    """Refuse features whose numbers mean something else than those that the network was trained on.

    Args:
        config: of the checkpoint.
        manifest: of the features, or the part of one that is known; what one side does not know is not compared.
        checkpoint: for messages.
        same_dataset: whether the features must be of the data set that the network was trained on.

    Raises:
        InputError: another data set, another vocabulary, or concepts in another order.
    """
    if same_dataset:
        check_dataset(config, manifest.get("settings", {}).get("dataset", ""), checkpoint)
    pieces = vocabulary_md5(manifest)
    if config.vocabulary_md5 and pieces and pieces != config.vocabulary_md5:
        raise InputError(f"--vocab_path: not the vocabulary that {checkpoint} was trained with (MD5 {pieces}, its own "
                         f"{config.vocabulary_md5}), so every id would mean another word piece; give that one, and "
                         "convert with it")
    digests = {base["name"]: base.get("concepts_sha256", "") for base in manifest["knowledge_bases"]}
    for memory in config.memories:
        digest = digests.get(memory.name, "")
        if memory.concepts_sha256 and digest and digest != memory.concepts_sha256:
            raise InputError(f"{checkpoint}: the {memory.name} concepts are not those, or not in the order, that it "
                             "was trained with, so every id would mean another concept; give the vectors file that it "
                             "was trained with, and convert with it")


def check_model(model: Path | None, manifest: Mapping[str, Any]) -> None:
    """Refuse features that an exported network was not made for, as far as the file beside it says.

    Raises:
        InputError: another data set, another vocabulary, or concepts in another order.
    """
    if model is not None and (config := load_config(model)) is not None:
        check_meaning(config, manifest, model)
