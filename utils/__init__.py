# SPDX-License-Identifier: Apache-2.0
"""Command-line options, logging, devices and files: what every entry script needs."""
