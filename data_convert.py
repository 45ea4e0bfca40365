"""Convert SQuAD and ReCoRD with their knowledge into MindRecord files."""
from __future__ import annotations

from typing import Optional, Sequence

from src.config import KNOWLEDGE_BASES, SPLITS, SQUAD, TASKS, DataFolder, WindowConfig, load_knowledge_bases
from src.conversion import Conversion
from src.data_convert import convert_all
from utils import args as flags
from utils.util import run_main, set_up_logging


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Parse, convert."""
    parser = flags.OneLineParser(prog="data_convert.py", description=__doc__)
    flags.add_data_flags(parser)
    flags.add_conversion_flags(parser)
    args = flags.parse(parser, argv)
    set_up_logging()
    data = DataFolder(args.data_url)
    convert_all([Conversion(
        task=task, split=split, data=data, json_path=data.dataset_json(task, split),
        target=data.mindrecord(task, split), vocab_path=args.vocab_path or data.bert() / "vocab.txt",
        lower_case=args.do_lower_case, version_2=args.version_2_with_negative and task is SQUAD,
        windows=WindowConfig(args.max_seq_len, args.doc_stride, args.max_query_length),
        bases=load_knowledge_bases(args.kb_config) if args.kb_config else KNOWLEDGE_BASES)
        for task in TASKS.values() if args.dataset in (task.name, "all")
        for split in SPLITS if args.split in (split, "all")], args.num_workers, args.force)


if __name__ == "__main__":
    run_main(main)
