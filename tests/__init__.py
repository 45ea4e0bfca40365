# SPDX-License-Identifier: Apache-2.0
"""Tests; run them with ``bash scripts/test.sh``."""
