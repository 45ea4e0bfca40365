# SPDX-License-Identifier: Apache-2.0
"""From features to answers: evaluation, questions about a passage, pages."""
from typing import Any

READER = ("Reader", "Result", "Candidate", "Entity")


def __getattr__(name: str) -> Any:
    """``from src.inference import Reader``; MindSpore is imported only then."""
    if name in READER:
        from src.inference import reader
        return getattr(reader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
