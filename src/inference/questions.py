# SPDX-License-Identifier: Apache-2.0
"""What predict.py is asked: the passage of the flags, and questions from flags, a pipe or a terminal."""
from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from src.reader.tokenization import basic_tokens
from src.settings import PredictionSettings, QuestionSettings
from utils.util import InputError, is_text, read_text

PATH = re.compile(r"(\.{0,2}|~)/\S[^\n]*|[^\n]*\.(txt|md|html?|json|pdf|docx?|csv)", re.IGNORECASE)
LONGEST_PATH = 256      # characters of what is taken for one


def check_flags(settings: PredictionSettings) -> None:
    """Refuse flags of predict.py that do not go together, and questions without words.

    Raises:
        InputError: so it is.
    """
    given = settings.question
    text = given.passage is not None or given.passage_file is not None or bool(given.question)
    if given.serve is not None and (text or given.html is not None or settings.page.evaluation is not None):
        raise InputError("--serve: passages and questions come over HTTP; leave --passage, --passage_file, --question, "
                         "--html and --evaluation out")
    if settings.page.evaluation is not None and (text or given.html is None):
        raise InputError("--evaluation: needs --html FILE, and takes no passage and no question")
    if given.html is not None and not given.html.absolute().parent.is_dir():
        raise InputError(f"--html {given.html}: there is no folder {given.html.parent}; make it first")
    for question in given.question:
        if not has_words(question):
            raise InputError(f"--question {question!r}: no words in the question; give some text, or leave the flag "
                             "out for a prompt")


def has_words(text: str) -> bool:
    """Whether there is anything in a text that a network can read."""
    return bool(basic_tokens(text, lower_case=False))


def read_passage(settings: PredictionSettings) -> str | None:
    """The passage of the flags; None with --serve and --evaluation, which take none.

    Raises:
        InputError: not exactly one is given, its file cannot be read or has no words, or its text looks like the name
            of a file.
    """
    given = settings.question
    if given.serve is not None or settings.page.evaluation is not None:
        return None
    if given.passage is not None and given.passage_file is None:
        check_text(given.passage)
        return given.passage
    if given.passage_file is None or given.passage is not None:
        raise InputError("give one of --passage, --passage_file, --evaluation and --serve")
    text = read_text(given.passage_file)
    if not has_words(text):
        raise InputError(f"--passage_file {given.passage_file}: no words in the passage; give a text file")
    return text


def check_text(passage: str) -> None:
    """Refuse a passage that is a path or a single word.

    Raises:
        InputError: it is.
    """
    text = passage.strip()
    if not has_words(text):
        raise InputError("no words in the passage; give a text or a text file")
    if len(text) < LONGEST_PATH and (PATH.fullmatch(text) or Path(text).is_file()):
        there = Path(os.path.expanduser(text))
        state = "a folder" if there.is_dir() else "a file" if there.exists() else "no such file"
        raise InputError(f"passage {text[:200]!r}: {state}; give the text itself, or a text file by --passage_file "
                         "(ask.sh: as its first argument)")
    if len(text.split()) == 1 and text.isascii():
        raise InputError(f"passage {text[:200]!r}: neither a file nor a passage of several words "
                         "(passages are English text)")


def read_questions(given: QuestionSettings) -> Iterator[str]:
    """Questions from the flags, else from standard input, with a prompt at a terminal."""
    if given.question:
        yield from given.question
        return
    prompt = sys.stdin.isatty()
    if prompt:
        with contextlib.suppress(ImportError):      # input() then edits lines and keeps their history
            import readline  # noqa: F401
        print("Ask about the passage; arrow up brings back a question, an empty line ends.", file=sys.stderr)
    while True:
        try:
            line = input("question> ") if prompt else next(sys.stdin)
        except (EOFError, StopIteration):
            return
        except UnicodeDecodeError as error:
            raise InputError(f"standard input: byte 0x{error.object[error.start]:02x} is not UTF-8; write the "
                             "questions in UTF-8") from None
        if not is_text(line):
            raise InputError("standard input: the question is not UTF-8; write it in UTF-8")
        if line.strip():
            yield line.strip()
        elif prompt:
            return
