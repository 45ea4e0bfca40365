# SPDX-License-Identifier: Apache-2.0
"""Networks and features as files for inference elsewhere."""
