# SPDX-License-Identifier: Apache-2.0
"""What predict.py does: questions from flags, a pipe or a terminal, answers for people or programs."""
from __future__ import annotations

import json
import sys
from collections.abc import Iterator

from src.inference.reader import Reader, Result
from src.inference.serve import serve
from src.inference.windows import gather_logits
from src.settings import PredictionSettings, QuestionSettings
from src.viewer.page import write_page
from utils.util import LOGGER, InputError, is_text, read_text

SHOWN = 3      # answers printed for people


def read_passage(given: QuestionSettings) -> str:
    """The passage of the flags.

    Raises:
        InputError: not exactly one is given, or its file cannot be read.
    """
    if given.passage is not None and given.passage_file is None:
        return given.passage
    if given.passage_file is None or given.passage is not None:
        raise InputError("give one of --passage, --passage_file and --evaluation")
    return read_text(given.passage_file)


def read_questions(given: QuestionSettings) -> Iterator[str]:
    """Questions from the flags, else from standard input, with a prompt at a terminal."""
    if given.question:
        yield from given.question
        return
    prompt = sys.stdin.isatty()
    if prompt:
        print("Ask about the passage; an empty line ends.", file=sys.stderr)
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


def to_json(result: Result) -> str:
    """One line of JSON that standard output can show."""
    text = json.dumps(result.to_dict(), ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(result.to_dict())
    return text


def to_text(result: Result) -> str:
    """A result for people."""
    others = [entry for entry in result.n_best if entry.text != result.answer][:SHOWN - 1]
    lines = [f"{result.answer or 'no answer'}  ({result.probability:.1%})"]
    lines += [f"    or: {entry.text or 'no answer'}  ({entry.probability:.1%})" for entry in others]
    lines += [f"    {other.label}: {other.prediction or 'no answer'}  ({other.probability:.1%})"
              for other in result.compared]
    return "\n".join(lines)


def run_prediction(settings: PredictionSettings) -> None:
    """What predict.py does with a passage."""
    given = settings.question
    if given.serve is not None:
        if given.passage is not None or given.passage_file is not None or given.question or given.html is not None:
            raise InputError("--serve: passages and questions come over HTTP; leave --passage, --passage_file, "
                             "--question and --html out")
        serve(Reader(settings), given.serve)
        return
    passage = read_passage(given)
    reader = Reader(settings)
    predictions, cases = [], []
    for question in read_questions(given):
        prediction = reader.predict(passage, question)
        result = reader.result(prediction)
        print(to_json(result) if given.json else f"{question}\n  {to_text(result)}", flush=True)
        predictions.append(prediction)
        if given.html:
            cases.append(reader.case(prediction))
    if not predictions:
        raise InputError("--question: no question was given, nor one per line on standard input")
    if given.html:
        write_page(given.html, cases, reader.knowledge.bases, reader.knowledge.names, gloss=reader.knowledge.gloss)
        LOGGER.info("%s: open it in a browser", given.html)
    if settings.decoding.save_logits:
        gather_logits({window.unique_id: result for prediction in predictions
                       for window, result in zip(prediction.example.windows, prediction.results, strict=True)}
                      ).save(settings.decoding.save_logits)
