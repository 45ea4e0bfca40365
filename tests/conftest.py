# SPDX-License-Identifier: Apache-2.0
"""For all tests: matrix products in float32, which auto takes for --compute_type where this is set."""
from __future__ import annotations

import os

os.environ["ONEDNN_DEFAULT_FPMATH_MODE"] = "STRICT"
