# SPDX-License-Identifier: Apache-2.0
"""Model folders on the HuggingFace hub, by their names there (``owner/name``)."""
from __future__ import annotations

import re
from pathlib import Path
from typing import TypeVar

from src.weights.folder import CARD, CONFIG, KNOWLEDGE, SUMS, VOCABULARY, WEIGHTS
from utils.args import Settings
from utils.util import LOGGER, InputError, describe

S = TypeVar("S", bound=Settings)
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_FILES = [CONFIG, WEIGHTS, VOCABULARY, CARD, SUMS, *(f"{folder}/*" for folder in KNOWLEDGE)]


def is_hub_name(path: Path) -> bool:
    """Whether a path is no path here but can be a name on the hub."""
    return (_NAME.fullmatch(str(path)) is not None and not path.exists() and not path.parent.exists()
            and path.suffix not in (".ckpt", ".safetensors"))


def local_model(path: Path, flag: str = "--model") -> Path:
    """The path itself, or the folder that a model of the hub has been fetched into (``HF_ENDPOINT`` names the hub).

    Args:
        path: a path, or a name on the hub.
        flag: where it was given, for messages.

    Raises:
        InputError: the model cannot be fetched.
    """
    if not is_hub_name(path):
        return path
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise InputError(f"{flag} {path}: no such folder; to fetch a model of this name from the HuggingFace hub, pip "
                         "install huggingface_hub") from None
    LOGGER.info("%s: no such folder here; fetching the model of this name from the HuggingFace hub", path)
    try:
        return Path(snapshot_download(str(path), allow_patterns=_FILES))
    except Exception as error:      # of whatever its HTTP client raises
        raise InputError(f"{flag} {path}: no such folder, and not to be had from the HuggingFace hub "
                         f"({describe(error)[:200]}); give a folder, or check the name and the network") from None


def with_local_models(settings: S) -> S:
    """The settings with every model of the hub that a flag names fetched."""
    values = settings.flags()
    return settings.with_flags(**{name: local_model(values[name], settings.spelled(name))
                                  for name in ("load_checkpoint_path", "init_checkpoint")
                                  if values.get(name) is not None})
