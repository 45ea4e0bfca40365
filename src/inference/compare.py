# SPDX-License-Identifier: Apache-2.0
"""What the same network answers with memories switched off."""
from __future__ import annotations

from collections.abc import Sequence

from src.config import KnowledgeBase
from src.reader.decoding import DecodingOptions
from src.reader.examples import EvaluationExample
from src.viewer.cases import Alternative, WindowResult, answer


def memories_off(bases: Sequence[KnowledgeBase]) -> list[tuple[str, tuple[str, ...]]]:
    """What can be switched off, each memory by itself and then all: (label, names of the knowledge bases)."""
    single = [(f"without {base.label}", (base.name,)) for base in bases]
    every = [("without any memory", tuple(base.name for base in bases))] if len(bases) > 1 else []
    return single + every


def alternative(label: str, example: EvaluationExample, results: Sequence[WindowResult],
                options: DecodingOptions) -> Alternative:
    """The answer from the results of a network some of whose memories were off."""
    decoded = answer(example, results, options)
    return Alternative(label, decoded.prediction, decoded.probability)
