# SPDX-License-Identifier: Apache-2.0
"""The encoder layer as CPU computes it, with C++ kernels."""
