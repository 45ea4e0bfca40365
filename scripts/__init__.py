"""Launchers; the package marker is part of the model zoo's layout."""
