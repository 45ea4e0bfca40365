# SPDX-License-Identifier: Apache-2.0
"""Exact match and F1 of ReCoRD predictions.

python -m src.reader.record_official_evaluate DATASET.json PREDICTIONS.json
"""
from __future__ import annotations

if __name__ == "__main__":      # before the imports, which may fail
    import runpy
    from pathlib import Path
    runpy.run_path(f"{Path(__file__).resolve().parents[2]}/utils/start.py", {"SCRIPT": __file__})

from collections.abc import Sequence

from src.reader.metrics import evaluate_files, list_questions


def main(argv: Sequence[str] | None = None) -> None:
    """Score a predictions file and print the figures as one JSON line."""
    evaluate_files(argv, "src.reader.record_official_evaluate", list_questions)
