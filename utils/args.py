# SPDX-License-Identifier: Apache-2.0
"""Parsers made from settings: a flag is a field of a frozen dataclass, declared once, with its type, default and help.

This is the only module that handles an ``argparse.Namespace``. Booleans are written the model zoo's way:
``--freeze True``. See docs/settings.md for how to add a flag.
"""
from __future__ import annotations

import argparse
import dataclasses
import difflib
import functools
import math
import operator
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeVar

from src.config import Shard, TaskConfig
from utils.util import LOGGER, InputError, is_text, read_json, read_text

S = TypeVar("S", bound="Settings")
CONFIG_HELP = ("YAML or JSON file of flags, as config/*.yaml or a saved options_*.json; flags on the command line win, "
               "and of several files the later one")
# What other people's scripts call our flags.
DASHES = ("-", "\u2013", "\u2014")      # the last two are what word processors and input methods make of "--"
ELSEWHERE = {"num_train_epochs": "epoch", "num_epochs": "epoch", "lr": "learning_rate", "seed": "random_seed",
             "per_device_train_batch_size": "batch_size", "train_batch_size": "batch_size", "device": "device_target",
             "output_dir": "checkpoints", "model_name_or_path": "load_pretrain_checkpoint_path",
             "max_seq_length": "max_seq_len", "gradient_accumulation_steps": "accumulation_steps",
             "warmup_ratio": "warmup_proportion", "data_dir": "data_url", "context": "passage",
             "resume_from_checkpoint": "resume", "checkpoint": "load_checkpoint_path"}


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Tells each flag's default, except where it is None: there the help's brackets say what is taken instead."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


class ExamplesFormatter(argparse.RawDescriptionHelpFormatter):
    """Begins with the description, examples included, as they are; no list of every flag above it."""

    def add_usage(self, *_: Any, **__: Any) -> None:
        """Leave it out."""


class OneLineParser(argparse.ArgumentParser):
    """Complains in one line and with exit code 2, naming what was probably meant; abbreviated flags are refused."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", HelpFormatter)
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and leave."""
        message = message.replace("expected one argument", "its value is missing")
        print(f"error: {self.prog}: {message} (--help lists the flags)", file=sys.stderr)
        sys.exit(2)

    def parse_args(self, args: Sequence[str] | None = None,  # type: ignore[override]
                   namespace: argparse.Namespace | None = None) -> argparse.Namespace:
        """Read a command line; refuse unknown flags with the nearest known ones."""
        values, unknown = self.parse_known_args(args, namespace)
        if unknown:
            known = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
            meant = [suggestion(word, known) for word in unknown if word.startswith(DASHES)]
            self.error(f"unrecognized arguments: {' '.join(unknown)}{''.join(meant)}")
        return values

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            raise argparse.ArgumentError(action, f"invalid choice: {shown(value)} (choose from {', '.join(choices)})"
                                         + suggestion(str(value), choices))


def suggestion(word: str, known: Sequence[str]) -> str:
    """Say what was probably meant by an unknown flag, key or value: "; did you mean X?", or nothing.

    >>> suggestion("--learning-rate", ["--epoch", "--learning_rate"])
    '; did you mean --learning_rate?'
    """
    def plain(text: str) -> str:
        return text.lstrip("".join(DASHES)).partition("=")[0].lower().replace("-", "_")

    by_plain = {plain(name): name for name in known}
    wanted = ELSEWHERE.get(plain(word), plain(word))
    near = [wanted] if wanted in by_plain else difflib.get_close_matches(wanted, by_plain, n=1)
    return f"; did you mean {by_plain[near[0]]}?" if near else ""


# --- types of flags ---------------------------------------------------------------------------------------------------

MOST = 2 ** 31 - 1


def shown(value: Any) -> str:
    """A value for a message, which is to stay one readable line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def boolean(text: str) -> bool:
    """Read True or False, as people write them: yes, t and 1 are True, too."""
    lowered = text.strip().lower()
    if lowered in ("true", "t", "yes", "y", "1"):
        return True
    if lowered in ("false", "f", "no", "n", "0"):
        return False
    raise argparse.ArgumentTypeError(f"{shown(text)} is neither True nor False")


def whole_number(text: str, least: int, most: int = MOST) -> int:
    """Read a whole number from ``least`` to ``most``, by default 2,147,483,647, as seeds and sizes must be."""
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not a whole number of at least {least}")
    if value > most:
        raise argparse.ArgumentTypeError(f"{shown(text)} is more than {most}, the greatest number there is here")
    return value


def positive_int(text: str) -> int:
    """Read a whole number of at least 1."""
    return whole_number(text, 1)


def non_negative_int(text: str) -> int:
    """Read a whole number of at least 0."""
    return whole_number(text, 0)


def pad_multiple(text: str) -> int:
    """Read a whole number from 1 to 1024."""
    return whole_number(text, 1, 1024)


def finite_float(text: str) -> float:
    """Read a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{shown(text)} is no finite number")
    return value


def non_negative_float(text: str) -> float:
    """Read a finite number of at least 0."""
    value = finite_float(text)
    if value < 0.0:
        raise argparse.ArgumentTypeError(f"{shown(text)} is no number of at least 0")
    return value


def fraction(text: str) -> float:
    """Read a number from 0 up to, but not including, 1."""
    value = non_negative_float(text)
    if value >= 1.0:
        raise argparse.ArgumentTypeError(f"{shown(text)} is not in [0, 1)")
    return value


def shard(text: str) -> Shard:
    """Read a part of a data set, such as 2/4."""
    try:
        return Shard.read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class Switch:
    """Marks a flag without a value: given or not."""


PositiveInt = Annotated[int, positive_int]
NonNegativeInt = Annotated[int, non_negative_int]
PadMultiple = Annotated[int, pad_multiple]
NonNegativeFloat = Annotated[float, non_negative_float]
Fraction = Annotated[float, fraction]
OnOff = Annotated[bool, Switch]
ShardOf = Annotated[Shard, shard]


@dataclass(frozen=True)
class FlagType:
    """What a field's annotation says about its flag."""

    read: Callable[[str], Any] = str
    choices: tuple[str, ...] | None = None
    is_switch: bool = False
    is_list: bool = False


def flag_type(annotation: Any) -> FlagType:
    """Read an annotation: bool, int, float, str, Path, Literal, a type of above, ``tuple[X, ...]`` or ``X | None``.

    >>> flag_type(Literal["a", "b"] | Literal["c"] | None).choices
    ('a', 'b', 'c')
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        parts = [flag_type(part) for part in arguments if part is not type(None)]
        return dataclasses.replace(parts[0], choices=sum((part.choices for part in parts if part.choices), ()) or None)
    if origin is Annotated:
        return FlagType(is_switch=True) if arguments[1] is Switch else FlagType(arguments[1])
    if origin is Literal:
        return FlagType(choices=arguments)
    if origin is tuple:
        return dataclasses.replace(flag_type(arguments[0]), is_list=True)
    return FlagType({bool: boolean, float: finite_float}.get(annotation, annotation))


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


class FlagGroup:
    """Base of a class of flags that scripts share: ``class Name(FlagGroup, title="its heading in the help")``."""

    title: ClassVar[str]

    def __init_subclass__(cls, title: str = "", **options: Any) -> None:
        """Keep the heading; a class without one has its base's."""
        super().__init_subclass__(**options)
        cls.title = title or cls.title


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
    examples: ClassVar[tuple[str, ...]] = ()       # flags of two calls, for the help
    no_effect: ClassVar[Mapping[type, tuple[str, ...]]] = {}       # class -> its flags that are accepted and not read

    task: TaskConfig | None = None                 # of a script for one data set
    given: frozenset[str] = frozenset()            # names of the flags that the user gave
    typed: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False)      # flag -> alias in its place

    @classmethod
    def parser(cls, task: TaskConfig | None = None) -> OneLineParser:
        """The parser; what it gives holds only the flags that were given."""
        prog = cls.prog.format(task=task)
        script = prog if prog.startswith("python ") else f"python {prog}"
        lines = [cls.description.format(task=task), "", *(
            f"  {script} {example if task is None else example.format(task=task)}" for example in cls.examples)]
        parser = OneLineParser(prog=prog, description="\n".join(lines), argument_default=argparse.SUPPRESS,
                               formatter_class=ExamplesFormatter)
        parser.add_argument("--config", type=Path, action="append", metavar="FILE", help=CONFIG_HELP)
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
        """Read the command line; a flag that is invalid ends the program with one line and exit code 2."""
        parser = cls.parser(task)
        words = sys.argv[1:] if argv is None else argv
        given = vars(parser.parse_args(words))
        for name, value in given.items():
            refuse_other_bytes(parser, name, value)
        files = [cls.from_file(path, task) for path in given.pop("config", [])]
        given = functools.reduce(operator.or_, [*files, given])
        ignored = [one.name for one in cls.unread(task) if one.name in given]
        if ignored:
            LOGGER.warning("%s: no effect here, only training reads %s", parser.prog, ", ".join(
                f"--{name}" for name in ignored))
        missing = [f"--{one.name}" for one in declared(cls, task) if one.default is MISSING and one.name not in given]
        if missing:
            parser.error(f"the following arguments are required: {', '.join(missing)}")
        settings = cls.of({name: value for name, value in given.items() if name not in ignored}, task)
        return dataclasses.replace(settings, typed=further_names(parser, words))

    def spelled(self, name: str) -> str:
        """A flag as the user wrote it, for messages: ``--model`` for the flag load_checkpoint_path."""
        return f"--{self.typed.get(name, name)}"

    @classmethod
    def from_file(cls, path: Path, task: TaskConfig | None = None) -> dict[str, Any]:
        """The flags that a file sets; one that is null counts as left out.

        Raises:
            InputError: the file is missing, is not a mapping, or has an unknown key or a value that is invalid.
        """
        if not path.exists():
            raise InputError(f"--config {path}: no such file; the recipes that come with this are in config/")
        return cls.from_values(read_mapping_file(path), path, task)

    @classmethod
    def from_values(cls, values: Mapping[str, Any], source: Path | str, task: TaskConfig | None = None
                    ) -> dict[str, Any]:
        """As :meth:`from_file`, from the values of a file; ``source`` is for error messages."""
        known = {name: one for one in (*declared(cls, task), *cls.unread(task))
                 for name in (one.name, *one.flag.aliases)}
        given: dict[str, Any] = {}
        for key, value in values.items():
            if key not in known:
                raise InputError(f"{source}: {key}: {cls.prog.format(task=task)} has no such flag"
                                 f"{suggestion(str(key), list(known))}")
            name = known[key].name
            if value is not None:
                if name in given:
                    raise InputError(f"{source}: {key}: {name} is given twice, under two names; remove one")
                given[name] = read_value(known[key], value, source)
        return given

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


def further_names(parser: argparse.ArgumentParser, words: Iterable[str]) -> dict[str, str]:
    """Which flags a command line gives by one of their aliases: flag -> that alias."""
    known = {name: action.dest for action in parser._actions for name in action.option_strings[1:]}
    names = [word.partition("=")[0] for word in words]
    return {known[name]: name.lstrip("-") for name in names if name in known}


def refuse_other_bytes(parser: OneLineParser, name: str, value: Any) -> None:
    """Refuse text that is not UTF-8: Python represents its bytes by half surrogate pairs."""
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, (str, Path)) and not is_text(str(text)):
            what = "name of a file or folder" if isinstance(text, Path) else "text"
            parser.error(f"argument --{name}: {ascii(str(text))[1:-1][:80]}: the {what} is not UTF-8; "
                         f"{'rename it' if isinstance(text, Path) else 'write it in UTF-8'}")


def read_mapping_file(path: Path) -> dict[str, Any]:
    """Read a YAML or, by its ending, a JSON file of one mapping.

    Raises:
        InputError: it is missing or is something else.
    """
    if path.suffix == ".json":
        values = read_json(path)
    else:
        import yaml  # seldom needed

        try:
            text = read_text(path)
            refuse_repeated(yaml.compose(text, yaml.SafeLoader), path)
            values = yaml.safe_load(text)
        except InputError:
            raise
        except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
            # PyYAML does not check what an explicit tag (!!bool, !!timestamp) is given to
            raise InputError(f"{path}: not YAML ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: not a list of flags; write lines such as \"epoch: 2\"")
    return values


def refuse_repeated(node: Any, path: Path) -> None:
    """Refuse a YAML mapping (None: an empty file) that has a key twice: the first value would be ignored."""
    seen = set()
    for key, _ in node.value if node is not None and node.id == "mapping" else []:
        if key.id == "scalar" and key.value in seen:
            raise InputError(f"{path}: {key.value} is given twice; remove one")
        seen.add(str(key.value))


def read_value(one: Declared, value: Any, source: Path | str) -> Any:
    """Read a flag's value from a file as the command line would read it.

    Raises:
        InputError: it is invalid.
    """
    if one.type.is_list:
        whole = dataclasses.replace(one, type=dataclasses.replace(one.type, is_list=False))
        return [read_value(whole, part, source) for part in (value if isinstance(value, (list, tuple)) else [value])]
    try:
        if isinstance(value, (list, dict)):
            raise argparse.ArgumentTypeError("one value is wanted")
        text = str(value)
        read = boolean(text) if one.type.is_switch else one.type.read(text)
        if one.type.choices and read not in one.type.choices:
            raise argparse.ArgumentTypeError(f"{shown(read)} is none of {', '.join(one.type.choices)}"
                                             f"{suggestion(str(read), one.type.choices)}")
        if isinstance(read, (str, Path)) and not is_text(str(read).replace("\0", "\ud800")):
            raise argparse.ArgumentTypeError("holds a character that no text or name of a file has")
    except (argparse.ArgumentTypeError, ValueError) as error:
        raise InputError(f"{source}: {one.name}: {error}") from None
    return read


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
