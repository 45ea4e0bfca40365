# SPDX-License-Identifier: Apache-2.0
"""Exact match and F1 of SQuAD predictions.

python -m src.reader.squad_v1_official_evaluate DATASET.json PREDICTIONS.json

Questions of SQuAD 2.0 (those with ``is_impossible``) are scored by the rules of 2.0, all others by those of 1.1.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from src.reader.fields import take
from src.reader.metrics import evaluate_files, list_questions
from utils.util import run_main


def questions_below(article: Any, place: str) -> Iterator[tuple[str, Any]]:
    """The questions of all paragraphs of an article, each with its place in the file."""
    for number, paragraph in enumerate(take(article, "paragraphs", list, place)):
        yield from list_questions(paragraph, f"{place}.paragraphs[{number}]")


def main(argv: Sequence[str] | None = None) -> None:
    """Score a predictions file and print the figures as one JSON line."""
    evaluate_files(argv, "src.reader.squad_v1_official_evaluate", questions_below)


if __name__ == "__main__":
    run_main(main)
