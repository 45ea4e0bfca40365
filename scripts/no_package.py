# SPDX-License-Identifier: Apache-2.0
"""Build backend that refuses: pip would otherwise make an empty package of the repository."""
from __future__ import annotations

import sys
from typing import Any, NoReturn

REASON = ("error: KT-NET is run from its repository and is not a package: install what it needs by "
          "bash scripts/quickstart.sh, or pip install -r requirements.txt")


def _refuse(*_: Any, **__: Any) -> NoReturn:
    print(REASON, file=sys.stderr)
    raise SystemExit(1)


get_requires_for_build_wheel = get_requires_for_build_sdist = get_requires_for_build_editable = _refuse
build_wheel = build_sdist = build_editable = _refuse
