# SPDX-License-Identifier: Apache-2.0
"""From data set JSON to model features, and from logits back to answer text; no MindSpore in here."""
