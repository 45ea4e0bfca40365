# SPDX-License-Identifier: Apache-2.0
"""Training: the loop, the step, what it leaves behind, and concept vectors."""
