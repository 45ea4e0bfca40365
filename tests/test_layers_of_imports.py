# SPDX-License-Identifier: Apache-2.0
"""Who may import whom: arrows between the rooms of src/ point down, and the lower rooms run without MindSpore."""
from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Lowest first; a room imports from those before it. Names of one line know each other.
ORDER = (
    ("src.config",), ("utils",), ("src.settings",),
    ("src.reader",), ("src.knowledge",), ("src.viewer",),
    ("src.conversion",), ("src.feature_stream",), ("src.feature_files",), ("src.data_convert",), ("src.checks",),
    ("src.batch_plan",), ("src.dataset",),
    ("src.dropout",), ("src.bert",), ("src.layers",), ("src.cpu",), ("src.KTNET",), ("src.KTNET_eval",),
    ("src.weights",), ("src.bert_ms_format",), ("src.export",), ("src.inference",), ("src.training",))
# Files that need nothing of their room: the ground of all, and what says where a training puts its files.
GROUND = {("src.config", "utils.util"), ("src.checks", "src.training.lock"), ("src.checks", "src.training.log")}
WITHOUT_MINDSPORE = ("src/reader", "src/knowledge", "src/viewer", "src/config.py", "src/settings.py",
                     "src/conversion.py",
                     "src/feature_stream.py", "src/checks.py", "src/batch_plan.py", "utils/args.py", "utils/util.py")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def room_of(module: str) -> str:
    parts = module.split(".")
    return "utils" if parts[0] == "utils" else ".".join(parts[:2])


def imports(path: Path) -> set[str]:
    """Modules that a file imports, at its top or in a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            found.update(name if (ROOT / Path(*name.split("."))).with_suffix(".py").is_file() else node.module
                         for name in whole)
    return found


FILES = [path for folder in ("src", "utils") for path in sorted((ROOT / folder).rglob("*.py"))
         if path.name != "__init__.py"]


def test_every_room_has_its_place():
    ranked = {room for rooms in ORDER for room in rooms}
    assert {room_of(module_of(path)) for path in FILES} == ranked


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_arrows_point_down(path):
    ranks = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
    me = module_of(path)
    for name in imports(path):
        if name.split(".")[0] in ("src", "utils") and (me, name) not in GROUND and room_of(name) != room_of(me):
            assert ranks[room_of(name)] <= ranks[room_of(me)], f"{me} imports {name}"


def test_lower_rooms_import_no_mindspore():
    """Nor does anything that they import at their top."""
    def top_level(path: Path) -> set[str]:
        names: set[str] = set()
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.update([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
        return names

    waiting = [path for name in WITHOUT_MINDSPORE for path in ([ROOT / name] if name.endswith(".py")
                                                               else (ROOT / name).rglob("*.py"))]
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for name in top_level(path):
            assert name.split(".")[0] != "mindspore", path
            file = (ROOT / Path(*name.split("."))).with_suffix(".py")
            if name.split(".")[0] in ("src", "utils") and file.is_file():
                waiting.append(file)
    assert len(seen) > 30


def test_only_tests_import_tests():
    """What tests share with benchmarks is in testing/."""
    for folder in ("src", "utils", "benchmarks", "testing", "examples", "scripts", "."):
        for path in (ROOT / folder).glob("*.py" if folder == "." else "**/*.py"):
            assert not {name for name in imports(path) if name.split(".")[0] == "tests"}, path


def test_the_project_itself_imports_no_stand_ins():
    for path in [*FILES, *ROOT.glob("*.py")]:
        assert not {name for name in imports(path) if name.split(".")[0] in ("testing", "benchmarks")}, path
