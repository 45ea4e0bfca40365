# SPDX-License-Identifier: Apache-2.0
"""Write the toy dictionary of the sample in the layout of WordNet's database, where retrieve.py reads it.

Example: python -m examples.quickstart.toy_wordnet examples/quickstart/toy_wordnet.json DATA/nltk/corpora/wordnet

The source lists synsets by part of speech, in the order of a word's senses: the words of each, the first of which names
it, and what they mean; and irregular forms with their base forms.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from utils.util import read_json, run_main, write_text

LETTERS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
HEADER = ("  1 A toy dictionary of a few words, written for the quickstart, in the layout and under the names of\n"
          "  2 WordNet 3.0 Copyright of the real WordNet: Princeton University. Nothing of it is in here.\n")


def database_files(part: str, synsets: Sequence[str]) -> tuple[str, str]:
    """The texts of ``data.<part>`` and ``index.<part>``.

    Args:
        part: noun, verb, adj or adv.
        synsets: of each synset the words, separated by blanks, and behind " | " what they mean.
    """
    data, senses = HEADER, dict[str, list[int]]()
    for synset in synsets:
        lemmas, _, gloss = synset.partition(" | ")
        words = lemmas.split()
        for word in words:
            senses.setdefault(word, []).append(len(data))      # ASCII: characters are bytes
        listed = "".join(f" {word} 0" for word in words)
        data += f"{len(data):08d} 00 {LETTERS[part]} {len(words):02x}{listed} 000 | {gloss}\n"
    index = HEADER + "".join(
        f"{word} {LETTERS[part]} {len(places)} 0 {len(places)} 0{''.join(f' {place:08d}' for place in places)}\n"
        for word, places in sorted(senses.items()))
    return data, index


def main(argv: Sequence[str] | None = None) -> None:
    """Read the source, write the twelve files."""
    parser = argparse.ArgumentParser(description="Write the sample's toy dictionary in WordNet's layout.")
    parser.add_argument("source", type=Path, help="toy_wordnet.json")
    parser.add_argument("target", type=Path, help="folder for index.noun, data.noun, noun.exc and so on")
    args = parser.parse_args(argv)
    source = read_json(args.source)
    for part in LETTERS:
        data, index = database_files(part, source["synsets"][part])
        write_text(args.target / f"data.{part}", data)
        write_text(args.target / f"index.{part}", index)
        forms = sorted(source["irregular"][part].items())
        write_text(args.target / f"{part}.exc", "".join(f"{form} {bases}\n" for form, bases in forms))


if __name__ == "__main__":
    run_main(main)
