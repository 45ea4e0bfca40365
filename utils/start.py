# SPDX-License-Identifier: Apache-2.0
"""Starts an entry script, which runs this file by its path before it imports anything else of ours.

The script is imported as a module, and its ``main`` called, inside :func:`utils.util.run_main`: a package that is
missing, or Ctrl-C, ends in one line during the imports as well. Modules are looked for in the repository's root, as
where the script lies there; Python itself would look in the script's own folder, or, with PYTHONSAFEPATH, in neither.

Run with the global ``SCRIPT``: the script's ``__file__``.
"""
from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPT: str = globals()["SCRIPT"]


def main(argv: Sequence[str] | None) -> None:
    """Import the script, call its main."""
    importlib.import_module(".".join(script.relative_to(ROOT).with_suffix("").parts)).main(argv)


script = Path(SCRIPT).resolve()
sys.argv[0] = SCRIPT        # run_path has put this file there
# The script's own folder would make modules like src/config.py hide other people's of that name.
sys.path[:] = [str(ROOT), *(entry for entry in sys.path if not os.path.isabs(entry)
                            or Path(entry).resolve() not in (ROOT, script.parent))]

from utils.util import run_main  # noqa: E402

run_main(main)
sys.exit()                  # the rest of the script has been run as a module
