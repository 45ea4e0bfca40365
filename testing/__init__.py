# SPDX-License-Identifier: Apache-2.0
"""Tiny data, networks and stand-ins that tests and benchmarks share; nothing here is a test."""
