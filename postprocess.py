# SPDX-License-Identifier: Apache-2.0
"""Turn the inference harness's results into predictions.json, nbest_predictions.json and eval_result.json."""
from __future__ import annotations

if __name__ == "__main__":      # before the imports, which may fail
    import runpy
    from pathlib import Path
    runpy.run_path(f"{Path(__file__).resolve().parent}/utils/start.py", {"SCRIPT": __file__})

import json
from collections.abc import Sequence

from src.export.postprocess import postprocess
from src.settings import PostprocessSettings
from utils.util import set_up_logging


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, decode, print the figures as one JSON line."""
    settings = PostprocessSettings.parse(argv)
    set_up_logging()
    harness, results = settings.harness, settings.results
    result = postprocess(harness.predict_mindrecord_file, harness.dataset, harness.inputs,
                         results.result_path, results.output_path, settings.decoding.save_logits, harness.model_path,
                         ignore_padding=results.ignore_padding, **settings.decoding.choices())
    print(json.dumps(result))
