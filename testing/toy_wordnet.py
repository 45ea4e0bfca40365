# SPDX-License-Identifier: Apache-2.0
"""A WordNet of a few synsets, in the layout of the real one's files."""
from __future__ import annotations

from pathlib import Path

LETTERS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
# part of speech -> synsets: their lemmas (a lemma's senses are numbered in this order) and hypernym's number or None
# (an adjective's is the one that it is similar to)
SYNSETS: dict[str, list[tuple[list[str], int | None]]] = {
    "noun": [(["river"], 6), (["bank"], 6), (["depository", "bank"], None), (["mayor", "city_manager"], 4),
             (["person"], None), (["foot"], 6), (["thing"], None), (["customs", "custom"], 6), (["custom"], 6)],
    "verb": [(["bank"], None), (["lie"], None), (["run"], 1)],
    "adj": [(["good"], None), (["big", "large"], 0)],
    "adv": [(["well"], None)]}
EXCEPTIONS = {"noun": "feet foot\n", "verb": "ran run\n", "adj": "better good well\n", "adv": ""}


def make_wordnet(folder: Path, version: str = "3.0", collide: bool = False) -> Path:
    """Write the files; returns the folder. Synsets of two parts of speech lie in the same place only on request."""
    folder.mkdir(parents=True)
    places_of: dict[str, list[int]] = {}
    for part, synsets in SYNSETS.items():
        header = f"  1 WordNet {version} Copyright 2006 by nobody{'' if collide else '.' * len(places_of)}\n"
        places: list[int] = []
        lines: list[str] = []
        for _ in range(2):      # the first time for the places, the second with them
            written, places, lines = places, [], []
            offset = len(header)
            for number, (lemmas, hypernym) in enumerate(synsets):
                symbol = "&" if part == "adj" else "@"
                pointers = "000" if hypernym is None else (
                    f"001 {symbol} {(written or [0] * len(synsets))[hypernym]:08d} {LETTERS[part]} 0000")
                words = " ".join(f"{lemma.title()}{'(a)' if part == 'adj' else ''} 0" for lemma in lemmas)
                kind = "s" if (part, number) == ("adj", 1) else LETTERS[part]
                gloss = 'a gloss; "an example"  '
                lines.append(f"{offset:08d} 03 {kind} {len(lemmas):02x} {words} {pointers} | {gloss}\n")
                places.append(offset)
                offset += len(lines[-1])
        (folder / f"data.{part}").write_text(header + "".join(lines), encoding="latin-1")
        places_of[part] = places
        index: dict[str, list[int]] = {}
        for place, (lemmas, _) in zip(places, synsets, strict=True):
            for lemma in lemmas:
                index.setdefault(lemma, []).append(place)
        (folder / f"index.{part}").write_text(header + "".join(
            f"{lemma} {LETTERS[part]} {len(found)} 1 @ {len(found)} 0 {' '.join(f'{place:08d}' for place in found)}  \n"
            for lemma, found in sorted(index.items())), encoding="latin-1")
        (folder / f"{part}.exc").write_text(EXCEPTIONS[part], encoding="latin-1")
    return folder
