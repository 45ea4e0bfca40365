# SPDX-License-Identifier: Apache-2.0
"""Fields of what was read from a data set, with errors that name the file and the path inside it."""
from __future__ import annotations

import json
import re
from typing import Any, TypeVar

from src.reader.examples import Answer
from utils.util import InputError

T = TypeVar("T")
NOT_FOUND = -1      # offset of an answer that came without one and is not in its passage
SURROGATE = re.compile("[\ud800-\udfff]")
KIND_NAMES = {dict: "an object", list: "a list", str: "a text", int: "a whole number", bool: "true or false"}


def take(item: Any, key: str, kind: type[T], place: str) -> T:
    """``item[key]``, which must be there and of ``kind``.

    Args:
        item: what was read; it must be a dictionary itself.
        key: the field.
        kind: dict, list, str, int or bool (a bool is no int here).
        place: file and path of the item, for the error: ``dev.json: data[3].paragraphs[0]``.

    Raises:
        InputError: the field is missing or of another kind.
    """
    if not isinstance(item, dict):
        raise InputError(f"{place}: is {_short(item)}; it must be an object with the field {key!r}")
    value = item.get(key)
    if type(value) is not kind:
        if key not in item:
            raise InputError(f"{place}: the field {key!r} is missing; is this file in the data set's own format?")
        raise InputError(f"{place}.{key}: is {_short(value)}; it must be {KIND_NAMES[kind]}")
    if isinstance(value, str) and not value.isascii() and SURROGATE.search(value):
        raise InputError(f"{place}.{key}: holds half a surrogate pair, which is no character; remove it")
    return value


def take_answers(question: dict[str, Any], place: str) -> list[Any]:
    """The answers of a question; none where the field is missing, as in a file to be answered."""
    return take(question, "answers", list, place) if "answers" in question else []


def _short(value: Any) -> str:
    try:
        text = json.dumps(value)
    except (ValueError, RecursionError):      # a number of thousands of digits, nested too deeply
        return "not readable"
    return text if len(text) <= 40 else text[:37] + "..."


def make_answer(text: str, start: int, passage: str, place: str) -> Answer:
    """An answer whose characters lie inside its passage.

    Raises:
        InputError: they do not, or the text is empty.
    """
    if not text.strip():
        raise InputError(f"{place}: the answer's text is empty; remove the answer")
    if start == NOT_FOUND:
        return Answer(text=text, start=start)
    if start < 0 or start + len(text) > len(passage):
        raise InputError(f"{place}: the answer {_short(text)} takes characters {start} to {start + len(text) - 1}, the "
                         f"passage has 0 to {len(passage) - 1}; fix the answer's offset")
    return Answer(text=text, start=start)
