# SPDX-License-Identifier: Apache-2.0
"""Write the dev features as raw files, one per feature and input, for the inference harness."""
from __future__ import annotations

if __name__ == "__main__":      # before the imports, which may fail
    import runpy
    from pathlib import Path
    runpy.run_path(f"{Path(__file__).resolve().parent}/utils/start.py", {"SCRIPT": __file__})

from collections.abc import Sequence

from src.settings import PreprocessSettings, unused_bases
from utils.util import set_up_logging


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, write."""
    settings = PreprocessSettings.parse(argv)
    set_up_logging()
    from src.export.preprocess import preprocess  # imports MindSpore: not for --help and wrong flags

    harness, memories = settings.harness, settings.memories
    preprocess(harness.predict_mindrecord_file, harness.dataset, harness.preprocess_path,
               unused_bases(memories.use_wordnet, memories.use_nell), harness.model_path)
