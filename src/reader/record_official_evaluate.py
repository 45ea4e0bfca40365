# SPDX-License-Identifier: Apache-2.0
"""Exact match and F1 of ReCoRD predictions.

python -m src.reader.record_official_evaluate DATASET.json PREDICTIONS.json
"""
from __future__ import annotations

from collections.abc import Sequence

from src.reader.metrics import evaluate_files, list_questions
from utils.util import run_main


def main(argv: Sequence[str] | None = None) -> None:
    """Score a predictions file and print the figures as one JSON line."""
    evaluate_files(argv, "src.reader.record_official_evaluate", list_questions)


if __name__ == "__main__":
    run_main(main)
