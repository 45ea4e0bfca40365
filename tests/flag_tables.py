# SPDX-License-Identifier: Apache-2.0
"""The flags of every script as docs/flags.md lists them; run as ``python -m tests.flag_tables`` to write that page."""
from __future__ import annotations

import argparse
import importlib
import re
from pathlib import Path
from unittest import mock

from utils.args import boolean

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "flags.md"
HEADER = """# Flags

Written by `python -m tests.flag_tables` from the parsers; `--help` of each script says the same. Unknown flags are
refused, abbreviations are not taken, and booleans need a value (`--freeze True`).
"""
# Scripts with the same flags stand together; defaults that differ are listed for each.
SCRIPTS = (("data_convert.py",), ("retrieve.py",), ("src/bert_ms_format.py",), ("train_kb_embedding.py",),
           ("run_KTNET_squad.py", "run_KTNET_record.py"), ("run_KTNET_squad_eval.py", "run_KTNET_record_eval.py"),
           ("predict.py",), ("export.py",), ("preprocess.py",), ("postprocess.py",))


class _CapturedError(Exception):
    """Carries the parser of a script out of its main function."""


def parser_of(script: str) -> argparse.ArgumentParser:
    """The parser that a script builds, without running the script."""
    def capture(self: argparse.ArgumentParser, *args: object, **kwargs: object) -> None:
        raise _CapturedError(self)

    main = importlib.import_module(script.removesuffix(".py").replace("/", ".")).main
    with mock.patch.object(argparse.ArgumentParser, "parse_known_args", capture):
        try:
            main([])
        except _CapturedError as captured:
            return captured.args[0]
    raise AssertionError(f"{script}: main parses no flags")


def flags(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    """Name -> declaration, in the order of --help."""
    return {action.option_strings[0]: action for group in parser._action_groups for action in group._group_actions
            if action.option_strings and action.dest != "help" and action.help != argparse.SUPPRESS}


def split_help(parser: argparse.ArgumentParser, action: argparse.Action) -> tuple[str, str]:
    """What the help says, and the default as the table shows it."""
    text = " ".join(parser._get_formatter()._expand_help(action).split())
    if text.endswith(" (required)"):
        return text.removesuffix(" (required)"), "required"
    found = re.fullmatch(r"(.*) \(default: ([^)]*)\)", text)
    return (found[1], f"`{found[2]}`") if found else (text, "")


def values(action: argparse.Action) -> str:
    """What a flag takes: its choices, or what the function that reads it says in its first line."""
    if action.nargs == 0:
        return "none"
    if action.choices is not None:
        return ", ".join(f"`{choice}`" for choice in action.choices)
    if action.type is boolean:
        return "`True`, `False`"
    if action.type in (None, str):
        return "text"
    if action.type is Path:
        return "path"
    said = re.fullmatch(r"Read (?:an? )?(.*)\.", (action.type.__doc__ or "").splitlines()[0])
    assert said, f"{action.dest}: the docstring of {action.type} says what it reads"
    return said[1]


def table(scripts: tuple[str, ...]) -> str:
    """The section of scripts that have the same flags."""
    parsers = [parser_of(script) for script in scripts]
    declared = [flags(parser) for parser in parsers]
    assert all(list(other) == list(declared[0]) for other in declared), scripts
    lines = [f"## {', '.join(scripts)}", "", "| flag | value | default | |", "| --- | --- | --- | --- |"]
    for name, action in declared[0].items():
        defaults = list(dict.fromkeys(split_help(parser, other[name])[1]
                                      for parser, other in zip(parsers, declared, strict=True)))
        text = split_help(parsers[0], action)[0].replace("|", r"\|")
        names = ", ".join(f"`{option}`" for option in action.option_strings)
        lines.append(f"| {names} | {values(action)} | {'; ReCoRD: '.join(defaults)} | {text} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The whole page."""
    return "\n".join([HEADER, *map(table, SCRIPTS)])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
