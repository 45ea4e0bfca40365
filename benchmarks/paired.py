# SPDX-License-Identifier: Apache-2.0
"""Comparing networks on the same questions: scores of each question, mean and spread, bootstrap intervals."""
from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.reader.metrics import GoldAnswers, score_answer
from utils.util import read_json

RESAMPLES = 10_000
INTERVAL = 0.95


def gold_answers(data_set: Path) -> dict[str, GoldAnswers]:
    """The questions of a SQuAD or ReCoRD file by their id."""
    questions = (question for item in read_json(data_set)["data"] for part in item.get("paragraphs", [item])
                 for question in part["qas"])
    return {question["id"]: GoldAnswers(question["id"], tuple(answer["text"] for answer in question["answers"]))
            for question in questions}


def question_scores(predictions: Path, gold: Mapping[str, GoldAnswers]) -> np.ndarray:
    """Exact match and F1 of every question in percent: float64 [questions, 2], in the order of ``gold``."""
    answers = read_json(predictions)
    return 100 * np.array([score_answer(answers[identity], question) for identity, question in gold.items()])


def difference_interval(first: Sequence[np.ndarray], second: Sequence[np.ndarray], seed: int = 1) -> dict[str, float]:
    """How much better the first networks are than the second ones, with a bootstrap interval over the questions.

    Args:
        first: scores [questions] of networks that differ by their seed alone.
        second: those of the others, on the same questions.
        seed: of the resampling.

    Returns:
        The mean difference and both ends of its 95% interval.
    """
    differences = np.mean(first, axis=0) - np.mean(second, axis=0)
    generator = np.random.default_rng(seed)
    means = [differences[generator.integers(0, len(differences), len(differences))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])
    return {"difference": round(float(differences.mean()), 2), "low": round(float(low), 2),
            "high": round(float(high), 2)}


def spread(values: Sequence[float]) -> str:
    """Mean and, from two values on, the sample standard deviation."""
    mean = f"{statistics.mean(values):.2f}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
