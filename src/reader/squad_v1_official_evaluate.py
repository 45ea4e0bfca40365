# SPDX-License-Identifier: Apache-2.0
"""Exact match and F1 of SQuAD predictions.

python -m src.reader.squad_v1_official_evaluate DATASET.json PREDICTIONS.json

Questions of SQuAD 2.0 (those with ``is_impossible``) are scored by the rules of 2.0, all others by those of 1.1.
"""
from __future__ import annotations

if __name__ == "__main__":      # before the imports, which may fail
    import runpy
    from pathlib import Path
    runpy.run_path(f"{Path(__file__).resolve().parents[2]}/utils/start.py", {"SCRIPT": __file__})

from collections.abc import Iterator, Sequence
from typing import Any

from src.reader.fields import take
from src.reader.metrics import evaluate_files, list_questions


def questions_below(article: Any, place: str) -> Iterator[tuple[str, Any]]:
    """The questions of all paragraphs of an article, each with its place in the file."""
    for number, paragraph in enumerate(take(article, "paragraphs", list, place)):
        yield from list_questions(paragraph, f"{place}.paragraphs[{number}]")


def main(argv: Sequence[str] | None = None) -> None:
    """Score a predictions file and print the figures as one JSON line."""
    evaluate_files(argv, "src.reader.squad_v1_official_evaluate", questions_below)
