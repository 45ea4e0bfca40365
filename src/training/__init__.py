# SPDX-License-Identifier: Apache-2.0
"""Training: the loop, the step, checkpoints and logs, and concept vectors."""
