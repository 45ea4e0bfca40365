# SPDX-License-Identifier: Apache-2.0
"""Knowledge bases: safe files, concept vectors, retrieval; no MindSpore in here."""
