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

NETWORK_DIGEST = "network_sha256"           # beside the sizes: a changed one would compute something else


def config_path(checkpoint: Path | str) -> Path:
    """Where the sizes and options of a checkpoint or model folder are."""
    return Path(checkpoint) / CONFIG if is_model_folder(checkpoint) else Path(checkpoint).with_suffix(".json")


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
