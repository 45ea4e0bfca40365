# SPDX-License-Identifier: Apache-2.0
"""Launchers; the package marker is part of the model zoo's layout."""
