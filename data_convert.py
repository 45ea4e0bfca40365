"""Convert SQuAD and ReCoRD, with what the knowledge bases say about them, into MindRecord files."""
from __future__ import annotations

import argparse
from typing import Optional, Sequence

from src.config import (
    KNOWLEDGE_BASES,
    RECORD,
    SPLITS,
    DataFolder,
    TaskConfig,
    WindowConfig,
    load_knowledge_bases,
)
from src.conversion import Conversion
from src.data_convert import convert_all
from utils import args as flags
from utils.util import run_main, set_up_logging


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Convert the splits that the flags name."""
    parser = flags.OneLineParser(prog="data_convert.py", description=__doc__)
    flags.add_data_flags(parser)
    flags.add_conversion_flags(parser)
    args = flags.parse(parser, argv)
    set_up_logging()
    conversions = [choose_conversion(task, split, args) for task in DataFolder(args.data_url).tasks(args.dataset)
                   for split in SPLITS if args.split in (split, "all")]
    convert_all(conversions, args.num_workers, args.force)


def choose_conversion(task: TaskConfig, split: str, args: argparse.Namespace) -> Conversion:
    """One split in the data folder's own places."""
    data = DataFolder(args.data_url)
    return Conversion(
        task=task, split=split, data=data, json_path=data.dataset_json(task, split),
        target=data.mindrecord(task, split), vocab_path=args.vocab_path or data.bert() / "vocab.txt",
        lower_case=args.do_lower_case, windows=WindowConfig(args.max_seq_len, args.doc_stride, args.max_query_length),
        bases=load_knowledge_bases(args.kb_config) if args.kb_config else KNOWLEDGE_BASES,
        # Converting "all", the flag is for SQuAD; asked for ReCoRD alone, its reader refuses it.
        version_2=args.version_2_with_negative and (task is not RECORD or args.dataset == RECORD.name))


if __name__ == "__main__":
    run_main(main)
