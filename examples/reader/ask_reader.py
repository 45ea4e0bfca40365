# SPDX-License-Identifier: Apache-2.0
"""Ask a model folder from a program: one question, many at once, and where the answers are in the passage.

python -m examples.reader.ask_reader MODEL_FOLDER
"""
from __future__ import annotations

import sys

from src.inference import Reader

PASSAGE = ("The Brass Bridge of Tarn was opened in 1911. It was built by the engineer Ida Roth, who had learned her "
           "trade in Lisbon, and it carries the road from Tarn to the harbour.")
QUESTIONS = ["Who built the Brass Bridge?", "When was the bridge opened?", "Where had Ida Roth learned her trade?"]


def main(folder: str) -> None:
    """Print the answers."""
    reader = Reader.from_folder(folder)
    result = reader.ask(PASSAGE, QUESTIONS[0])
    print(f"{result.question} {result.answer} ({result.probability:.0%})")
    print(f"... {PASSAGE[max(result.start - 20, 0):result.start]}[{PASSAGE[result.start:result.end]}]"
          f"{PASSAGE[result.end:result.end + 20]} ...")
    for entity in result.entities:
        print(f"entity: {entity.text}, characters {entity.start} to {entity.end}")
    for result in reader.ask_many([(PASSAGE, question) for question in QUESTIONS]):
        others = ", ".join(f"{entry.text} ({entry.probability:.0%})" for entry in result.n_best[1:3])
        print(f"{result.question} {result.answer} ({result.probability:.0%}); or: {others}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m examples.reader.ask_reader MODEL_FOLDER")
    main(sys.argv[1])
