# SPDX-License-Identifier: Apache-2.0
"""From features to answers: evaluation, questions about a passage, pages."""
