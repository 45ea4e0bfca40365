"""Parsers made from settings: a flag is a field of a frozen dataclass, declared once, with its type, default and help.

This is the only module that handles an ``argparse.Namespace``. Booleans are written the model zoo's way:
``--freeze True``. See docs/settings.md for how to add a flag.
"""
from __future__ import annotations

import argparse
import dataclasses
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeVar

from src.config import TaskConfig
from utils.util import LOGGER

S = TypeVar("S", bound="Settings")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Tells each flag's default, except where it is None: there the help's brackets say what is taken instead."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


class OneLineParser(argparse.ArgumentParser):
    """Complains in one line and with exit code 2; abbreviated flags are refused."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", HelpFormatter)
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and leave."""
        print(f"error: {self.prog}: {message} (--help lists the flags)", file=sys.stderr)
        sys.exit(2)


# --- types of flags ---------------------------------------------------------------------------------------------------

def boolean(text: str) -> bool:
    """Read True or False in the ways people write them."""
    lowered = text.strip().lower()
    if lowered in ("true", "t", "yes", "y", "1"):
        return True
    if lowered in ("false", "f", "no", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")


def whole_number(text: str, least: int) -> int:
    """Read a whole number of at least ``least``."""
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least {least}")
    return value


def positive_int(text: str) -> int:
    """Read a whole number of at least 1."""
    return whole_number(text, 1)


def non_negative_int(text: str) -> int:
    """Read a whole number of at least 0."""
    return whole_number(text, 0)


def non_negative_float(text: str) -> float:
    """Read a finite number of at least 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 0")
    return value


def fraction(text: str) -> float:
    """Read a number from 0 up to, but not including, 1."""
    value = non_negative_float(text)
    if value >= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not in [0, 1)")
    return value


class Switch:
    """Marks a flag without a value: given or not."""


PositiveInt = Annotated[int, positive_int]
NonNegativeInt = Annotated[int, non_negative_int]
NonNegativeFloat = Annotated[float, non_negative_float]
Fraction = Annotated[float, fraction]
OnOff = Annotated[bool, Switch]


@dataclass(frozen=True)
class FlagType:
    """What a field's annotation says about its flag."""

    read: Callable[[str], Any] = str
    choices: tuple[str, ...] | None = None
    is_switch: bool = False
    is_list: bool = False


def flag_type(annotation: Any) -> FlagType:
    """Read an annotation: bool, int, float, str, Path, Literal, a type of above, ``tuple[X, ...]`` or ``X | None``.

    >>> flag_type(Literal["a", "b"] | None).choices
    ('a', 'b')
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return flag_type(next(part for part in arguments if part is not type(None)))
    if origin is Annotated:
        return FlagType(is_switch=True) if arguments[1] is Switch else FlagType(arguments[1])
    if origin is Literal:
        return FlagType(choices=arguments)
    if origin is tuple:
        return dataclasses.replace(flag_type(arguments[0]), is_list=True)
    return FlagType(boolean if annotation is bool else annotation)


# --- declaring flags --------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Flag:
    """What a field says about its flag beside name, type and default."""

    help: str
    aliases: tuple[str, ...] = ()
    derive: Callable[[Any], Any] | None = None
    of_task: str | None = None
    metavar: str | None = None


def flag(default: Any = MISSING, help: str = "", *, aliases: Sequence[str] = (),  # noqa: A002 - as argparse calls it
         derive: Callable[[Any], Any] | None = None, of_task: str | None = None, metavar: str | None = None) -> Any:
    """Declare a field of a settings class as a flag of the same name.

    Args:
        default: the value when it is left out; without one (nor derive, nor of_task) the flag is required.
        help: one line. In scripts for one data set ``{task.folder}`` and the like are filled in.
        aliases: further names, without the dashes.
        derive: settings -> the value when the flag is left out, from other flags.
        of_task: attribute of the data set's :class:`src.config.TaskConfig` that is the default.
        metavar: stands for the value in the help.
    """
    if default is MISSING and (derive is not None or of_task is not None):
        default = None
    return dataclasses.field(default=default, kw_only=True,
                             metadata={"flag": Flag(help, tuple(aliases), derive, of_task, metavar)})


@dataclass(frozen=True)
class Group:
    """How a script has a class of flags."""

    defaults: Mapping[str, Any]
    left_out: Mapping[str, str]
    aliases: Mapping[str, str]


def group(left_out: Mapping[str, str] | None = None, aliases: Mapping[str, str] | None = None,
          **defaults: Any) -> Any:
    """Declare a field of :class:`Settings` whose class declares flags.

    Args:
        left_out: for flags that are not what their default says when they are left out: what they are then.
        aliases: flag -> a further name that it has in this script.
        defaults: for flags with another default in this script.
    """
    return dataclasses.field(kw_only=True, metadata={"group": Group(defaults, left_out or {}, aliases or {})})


@dataclass(frozen=True)
class Declared:
    """A flag as a script has it."""

    name: str
    flag: Flag
    type: FlagType
    title: str              # of its group in the help
    default: Any
    left_out: str | None


def declared(cls: type, task: TaskConfig | None = None) -> Iterator[Declared]:
    """The flags of a settings class, those of its groups included, in the order of the help."""
    hints = typing.get_type_hints(cls, include_extras=True)
    for item in dataclasses.fields(cls):
        if "group" in item.metadata:
            here: Group = item.metadata["group"]
            for inner in declared(hints[item.name], task):
                aliases = (*inner.flag.aliases, *(here.aliases[name] for name in [inner.name] if name in here.aliases))
                yield dataclasses.replace(inner, default=here.defaults.get(inner.name, inner.default),
                                          flag=dataclasses.replace(inner.flag, aliases=aliases),
                                          left_out=here.left_out.get(inner.name))
        elif "flag" in item.metadata:
            said: Flag = item.metadata["flag"]
            default = getattr(task, said.of_task) if said.of_task is not None else item.default
            title = getattr(cls, "title", "options")
            yield Declared(item.name, said, flag_type(hints[item.name]), title, default, None)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All flags of a script, frozen; subclasses have groups of flags, or flags, as their fields."""

    prog: ClassVar[str] = ""
    description: ClassVar[str] = ""
    no_effect: ClassVar[Mapping[type, tuple[str, ...]]] = {}       # class -> its flags that are accepted and not read

    task: TaskConfig | None = None                 # of a script for one data set
    given: frozenset[str] = frozenset()            # names of the flags that the user gave

    @classmethod
    def parser(cls, task: TaskConfig | None = None) -> OneLineParser:
        """The parser; what it gives holds only the flags that were given."""
        parser = OneLineParser(prog=cls.prog.format(task=task), description=cls.description.format(task=task),
                               argument_default=argparse.SUPPRESS, formatter_class=argparse.HelpFormatter)
        groups: dict[str, argparse._ArgumentGroup] = {}
        for one in declared(cls, task):
            if one.title not in groups:
                groups[one.title] = parser.add_argument_group(one.title)
            add_flag(groups[one.title], one, task)
        if cls.no_effect:
            accepted = list(cls.unread(task))
            target = parser.add_argument_group("no effect here", "accepted, as training has them: " + ", ".join(
                f"--{name}" for one in accepted for name in (one.name, *one.flag.aliases)))
            for one in accepted:
                add_flag(target, dataclasses.replace(one, flag=dataclasses.replace(one.flag, help=argparse.SUPPRESS)))
        return parser

    @classmethod
    def unread(cls, task: TaskConfig | None = None) -> Iterator[Declared]:
        """The flags that are accepted without an effect."""
        for owner, names in cls.no_effect.items():
            yield from (one for one in declared(owner, task) if one.name in names)

    @classmethod
    def parse(cls: type[S], argv: Sequence[str] | None, task: TaskConfig | None = None) -> S:
        """Read the command line; a flag that cannot be used ends the program with one line and exit code 2."""
        parser = cls.parser(task)
        given = vars(parser.parse_args(argv))
        ignored = [one.name for one in cls.unread(task) if one.name in given]
        if ignored:
            LOGGER.warning("%s: no effect here, only training reads %s", parser.prog, ", ".join(
                f"--{name}" for name in ignored))
        missing = [f"--{one.name}" for one in declared(cls, task) if one.default is MISSING and one.name not in given]
        if missing:
            parser.error(f"the following arguments are required: {', '.join(missing)}")
        return cls.of({name: value for name, value in given.items() if name not in ignored}, task)

    @classmethod
    def of(cls: type[S], given: Mapping[str, Any], task: TaskConfig | None = None) -> S:
        """Settings with these values given, and all others worked out."""
        values = {one.name: one.default for one in declared(cls, task)} | dict(given)
        lists = {one.name for one in declared(cls, task) if one.type.is_list}
        values |= {name: tuple(value) for name, value in values.items() if name in lists}
        return make(cls, values, task=task, given=frozenset(given)).resolved()

    def flags(self) -> dict[str, Any]:
        """Every flag by its name."""
        return dict(flag_values(self))

    def plain(self) -> dict[str, Any]:
        """Every flag as a JSON value, by its name, sorted."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in sorted(flag_values(self))}

    def with_flags(self: S, **values: Any) -> S:
        """The same with other values; what counts as given stays."""
        return change(self, values)

    def giving(self: S, names: Iterable[str]) -> S:
        """The same with these flags counted as given."""
        return dataclasses.replace(self, given=self.given.union(names))

    def resolved(self: S) -> S:
        """The same with every flag that was left out and follows from others worked out."""
        derived = {one.name: one.flag.derive(self) for one in declared(type(self), self.task)
                   if one.flag.derive is not None and one.name not in self.given}
        return change(self, derived)


def add_flag(target: argparse._ArgumentGroup, one: Declared, task: TaskConfig | None = None) -> None:
    """Add a flag to a parser."""
    options: dict[str, Any] = {}
    if one.type.is_switch:
        options["action"] = "store_true"
    else:
        options |= {"type": one.type.read, "choices": one.type.choices, "metavar": one.flag.metavar}
        if one.type.is_list:
            options["action"] = "append"
    text = one.flag.help if task is None else one.flag.help.format(task=task)
    if text == argparse.SUPPRESS:
        pass
    elif one.default is MISSING:
        text += " (required)"
    elif one.left_out is not None:
        text += f" [{one.left_out}]"
    elif one.default not in (None, ()) and not one.type.is_switch:
        text += f" (default: {one.default})"
    target.add_argument(*(f"--{name}" for name in (one.name, *one.flag.aliases)), dest=one.name, help=text, **options)


def make(cls: type[S], values: Mapping[str, Any], **more: Any) -> S:
    """Put values into a settings class and its groups."""
    hints = typing.get_type_hints(cls)
    for item in dataclasses.fields(cls):
        if "group" in item.metadata:
            more[item.name] = make(hints[item.name], values)
        elif "flag" in item.metadata:
            more[item.name] = values[item.name]
    return cls(**more)


def change(settings: S, values: Mapping[str, Any]) -> S:
    """A copy with other values for some flags, wherever they are declared."""
    changed = {}
    for item in dataclasses.fields(settings):
        if "group" in item.metadata:
            changed[item.name] = change(getattr(settings, item.name), values)
        elif item.name in values:
            changed[item.name] = values[item.name]
    return dataclasses.replace(settings, **changed)


def flag_values(settings: Any) -> Iterator[tuple[str, Any]]:
    """Name and value of every flag."""
    for item in dataclasses.fields(settings):
        if "group" in item.metadata:
            yield from flag_values(getattr(settings, item.name))
        elif "flag" in item.metadata:
            yield item.name, getattr(settings, item.name)
