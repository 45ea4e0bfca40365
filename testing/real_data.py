# SPDX-License-Identifier: Apache-2.0
"""Real data sets and what the independent converter made of them, for the tests that want them."""
from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(os.environ.get("KTNET_DATA") or Path(__file__).parents[2] / "shared" / "data")


def needs_shared(test: Callable[..., Any]) -> Callable[..., Any]:
    """Skip a test where the data is not there; it is slow where it is."""
    absent = pytest.mark.skipif(not (SHARED / "golden").is_dir(), reason="no real data (KTNET_DATA)")
    return pytest.mark.slow(absent(test))
