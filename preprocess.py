"""Write the dev features as raw files, one a feature and input, for the inference harness."""
from __future__ import annotations

from collections.abc import Sequence

from src.config import TASKS, DataFolder
from utils.args import preprocess_parser
from utils.util import run_main, set_up_logging


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, write."""
    args = preprocess_parser().parse_args(argv)
    set_up_logging()
    from src.export.preprocess import preprocess  # imports MindSpore: not for --help and wrong flags

    mindrecord = args.predict_mindrecord_file or DataFolder(args.data_url).mindrecord(TASKS[args.dataset], "dev")
    unused = [name for name, used in (("wn", args.use_wordnet), ("nell", args.use_nell)) if not used]
    preprocess(mindrecord, args.dataset, args.preprocess_path, unused)


if __name__ == "__main__":
    run_main(main)
