"""Turn the inference harness's results into predictions.json, nbest_predictions.json and eval_result.json."""
from __future__ import annotations

import json
from collections.abc import Sequence

from src.config import TASKS, DataFolder
from src.export.postprocess import postprocess
from utils.args import postprocess_parser
from utils.util import run_main, set_up_logging


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, decode, print the figures as one JSON line."""
    args = postprocess_parser().parse_args(argv)
    set_up_logging()
    mindrecord = args.predict_mindrecord_file or DataFolder(args.data_url).mindrecord(TASKS[args.dataset], "dev")
    result = postprocess(mindrecord, args.dataset, args.preprocess_path, args.result_path, args.output_path,
                         args.save_logits, n_best_size=args.n_best_size, max_answer_length=args.max_answer_length,
                         null_score_diff_threshold=args.null_score_diff_threshold, ignore_padding=args.ignore_padding)
    print(json.dumps(result))


if __name__ == "__main__":
    run_main(main)
