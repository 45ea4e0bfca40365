"""Tests; run them with ``bash scripts/test.sh``."""
