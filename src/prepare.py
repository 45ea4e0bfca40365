"""Converted features for a run: made when they are missing, checked against the flags when they are there."""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from src.config import (
    DOC_STRIDE,
    KNOWLEDGE_BASES,
    MAX_QUERY_LEN,
    MAX_SEQ_LEN,
    DataFolder,
    TaskConfig,
    WindowConfig,
    load_knowledge_bases,
)
from src.data_convert import Conversion, convert
from src.reader.storage import ConvertedFiles, open_converted
from utils.util import LOGGER, InputError, file_digest

# Flag -> what a conversion that is made now takes when the flag is left out.
CONVERSION_FLAGS = {"do_lower_case": False, "max_seq_len": MAX_SEQ_LEN, "doc_stride": DOC_STRIDE,
                    "max_query_length": MAX_QUERY_LEN, "version_2_with_negative": False}
SETTING_OF_FLAG = {"do_lower_case": "lower_case"}      # where the manifest's name differs from the flag's


def prepare_features(task: TaskConfig, split: str, args: argparse.Namespace) -> dict[str, Any]:
    """Make sure that a split is converted as the flags say; fill in the flags that were left out.

    Returns:
        The manifest of the converted split.

    Raises:
        InputError: the features were converted otherwise than a flag says, or cannot be made.
    """
    target: Path = args.train_mindrecord_file if split == "train" else args.predict_mindrecord_file
    if not ConvertedFiles(target).manifest.is_file() and not target.is_file():
        LOGGER.info("%s is not there: converting", target)
        convert(planned_conversion(task, split, args))
    manifest = open_converted(target)
    settings = manifest["settings"]
    for flag in CONVERSION_FLAGS:
        converted = settings[SETTING_OF_FLAG.get(flag, flag)]
        wanted = getattr(args, flag)
        if wanted is not None and wanted != converted:
            raise InputError(f"--{flag} {wanted}: {target} was converted with {converted}; leave the flag out or run "
                             "data_convert.py again with it")
        setattr(args, flag, converted)
    if args.vocab_path.is_file() and file_digest(args.vocab_path) != manifest["vocab_md5"]:
        raise InputError(f"--vocab_path {args.vocab_path}: {target} was converted with another vocabulary; give that "
                         "one or run data_convert.py again")
    return manifest


def planned_conversion(task: TaskConfig, split: str, args: argparse.Namespace) -> Conversion:
    """The conversion that makes a split's features as the flags say."""
    chosen = {flag: default if getattr(args, flag) is None else getattr(args, flag)
              for flag, default in CONVERSION_FLAGS.items()}
    return Conversion(
        task=task, split=split, data=DataFolder(args.data_url),
        target=args.train_mindrecord_file if split == "train" else args.predict_mindrecord_file,
        json_path=args.train_file if split == "train" else args.predict_file, vocab_path=args.vocab_path,
        lower_case=chosen["do_lower_case"], version_2=chosen["version_2_with_negative"],
        windows=WindowConfig(chosen["max_seq_len"], chosen["doc_stride"], chosen["max_query_length"]),
        bases=load_knowledge_bases(args.kb_config) if args.kb_config else KNOWLEDGE_BASES)
