# SPDX-License-Identifier: Apache-2.0
"""Print a data set's questions with the gold and the predicted answers.

Example: python -m examples.quickstart.show_answers DATASET.json predictions.json [--limit 20]
"""
from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from src.reader.metrics import exact_match
from utils.util import read_json, run_main

WIDTHS = (58, 26, 26)       # characters for question, gold and predicted answer


def questions(dataset: dict[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """Id, text and gold answers of every question of a SQuAD or ReCoRD file."""
    for item in dataset["data"]:
        for holder in item.get("paragraphs", [item]):
            for question in holder["qas"]:
                text = question["question"] if "question" in question else question["query"]
                yield question["id"], text, [answer["text"] for answer in question["answers"]]


def row(*cells: str) -> str:
    """One line of the table."""
    return "  ".join(textwrap.shorten(cell, width, placeholder="...").ljust(width)
                     for cell, width in zip(cells, WIDTHS, strict=True))


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table; a star marks an answer that is exactly right."""
    parser = argparse.ArgumentParser(description="Print gold and predicted answers side by side.")
    parser.add_argument("dataset", type=Path, help="SQuAD or ReCoRD file")
    parser.add_argument("predictions", type=Path, help="predictions.json")
    parser.add_argument("--limit", type=int, default=20, help="questions that are shown")
    args = parser.parse_args(argv)
    predictions = read_json(args.predictions)
    entries = list(questions(read_json(args.dataset)))
    print("  " + row("question", "gold", "answer"))
    for identity, text, gold in entries[:args.limit]:
        answer = predictions.get(identity, "")
        right = any(exact_match(answer, one) for one in gold)
        print(("* " if right else "  ") + row(text, gold[0] if gold else "(no answer)", answer))
    if len(entries) > args.limit:
        print(f"  ... and {len(entries) - args.limit} more: {args.predictions}")


if __name__ == "__main__":
    run_main(main)
