# SPDX-License-Identifier: Apache-2.0
"""How entry scripts start: with any Python, from anywhere, and in one line where that cannot be."""
from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_interrupt import interrupt

ROOT = Path(__file__).parents[1]
FILES = [*ROOT.glob("*.py"), *ROOT.glob("src/**/*.py"), *ROOT.glob("utils/*.py")]
SCRIPTS = sorted(str(path.relative_to(ROOT)) for path in FILES if path.name != "start.py"
                 and re.search(r"^(def main\(argv|main = )", path.read_text("utf-8"), re.M))


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_bare_python_that_does_not_look_beside_the_script(script, tmp_path):
    """It finds our modules; what is missing of other people's is named in one line."""
    ended = subprocess.run([sys.executable, "-S", ROOT / script, "--help"], cwd=tmp_path, capture_output=True,
                           text=True, env={**os.environ, "PYTHONSAFEPATH": "1"}, check=False)
    if ended.returncode == 0:
        assert "show this help message" in ended.stdout and not ended.stderr
    else:
        assert ended.returncode == 2
        assert re.fullmatch(r"error: No module named '(numpy|tokenizers|yaml)': not installed for .*/bin/python\n",
                            ended.stderr)


@pytest.mark.parametrize("text, message", [
    ("import no_such_library", "No module named 'no_such_library': not installed for"),
    ("raise ImportError('libgomp.so.1: no such\\nobject file')", "libgomp.so.1: no such object file: cannot be ")])
def test_a_broken_installation(text, message, tmp_path):
    (tmp_path / "numpy.py").write_text(text, encoding="utf-8")
    ended = subprocess.run([sys.executable, ROOT / "export.py"], capture_output=True, text=True, check=False,
                           env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert ended.returncode == 2 and message in ended.stderr and ended.stderr.count("\n") == 1


def test_an_interrupt_during_the_imports(tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(20)", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert interrupt([sys.executable, "export.py"], "importing") == (130, ["interrupted"])


def test_a_working_folder_that_cannot_be_used(tmp_path):
    script = f"exec {sys.executable} {ROOT / 'utils' / 'rank_table.py'} x"
    latin = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(latin)
    for cwd, before, said in ((tmp_path, "mkdir gone; cd gone; rmdir ../gone", "the working folder was removed"),
                              (latin, ":", "the name of the working folder is not UTF-8")):
        ended = subprocess.run(["bash", "-c", f"{before}; {script}"], cwd=cwd, capture_output=True, text=True,
                               check=False)
        assert ended.returncode == 2 and said in ended.stderr and ended.stderr.count("\n") == 1
