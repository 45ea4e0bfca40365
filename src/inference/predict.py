# SPDX-License-Identifier: Apache-2.0
"""What predict.py does: answers for people or programs, one a question."""
from __future__ import annotations

import json
import sys

from src.inference.questions import read_questions
from src.inference.reader import Reader, Result
from src.inference.windows import gather_logits
from src.settings import PredictionSettings
from src.viewer.page import write_page
from utils.util import LOGGER, InputError

SHOWN = 3      # answers printed for people


def to_json(result: Result) -> str:
    """One line of JSON that standard output can show."""
    text = json.dumps(result.to_dict(), ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(result.to_dict())
    return text


def percent(probability: float) -> str:
    """A probability for people.

    >>> percent(0.1234), percent(0.0001), percent(0.0)
    ('12.3%', '<0.1%', '0%')
    """
    if probability < 0.001:
        return "<0.1%" if probability > 0 else "0%"
    return f"{probability:.1%}"


def to_text(result: Result) -> str:
    """A result for people."""
    others = [entry for entry in result.n_best if entry.text != result.answer][:SHOWN - 1]
    lines = [f"{result.answer or 'no answer'}  ({percent(result.probability)})"]
    lines += [f"    or: {entry.text or 'no answer'}  ({percent(entry.probability)})" for entry in others]
    lines += [f"    {other.label}: {other.prediction or 'no answer'}  ({percent(other.probability)})"
              for other in result.compared]
    return "\n".join(lines)


def run_prediction(settings: PredictionSettings, passage: str) -> None:
    """What predict.py does with a passage."""
    given = settings.question
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
