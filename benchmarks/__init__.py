# SPDX-License-Identifier: Apache-2.0
"""Measurements; each runs as ``python -m benchmarks.NAME``."""
