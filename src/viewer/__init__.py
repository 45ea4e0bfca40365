# SPDX-License-Identifier: Apache-2.0
"""The page that shows what the network read: built from plain arrays, without MindSpore."""
