# SPDX-License-Identifier: Apache-2.0
"""Checkpoints, pretrained encoders, and the network that flags and files ask for."""
