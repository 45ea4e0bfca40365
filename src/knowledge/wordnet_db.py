# SPDX-License-Identifier: Apache-2.0
"""WordNet's database files: the synsets of a word, base forms and relations.

Reads the files as NLTK lays them out (``corpora/wordnet`` with ``index.*``, ``data.*`` and ``*.exc``, as a folder or
as ``wordnet.zip``) and finds what NLTK 3.10.4's reader and ``morphy`` find, in the same order (a test compares them).
NLTK itself takes 20 times as long and refuses files that another account owns or can write to, as is usual for data
folders on shared machines; see docs/deviations.md.
"""
from __future__ import annotations

import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from utils.util import InputError

VERSION = "3.0"
NOUN, VERB, ADJECTIVE, ADVERB = "noun", "verb", "adj", "adv"
PARTS_OF_SPEECH = (NOUN, VERB, ADJECTIVE, ADVERB)      # the order of a word's synsets
TAGS = {NOUN: "NN", VERB: "VB", ADJECTIVE: "JJ", ADVERB: "RB"}
_OF_TAG = {tag: part for part, tag in TAGS.items()}
_OF_LETTER = {"n": NOUN, "v": VERB, "a": ADJECTIVE, "s": ADJECTIVE, "r": ADVERB}
_CONCEPT = re.compile(r"__(.+)_(NN|VB|JJ|RB)_([0-9]{1,4})")
_FIX = "run scripts/get_wordnet.sh"
_FIX_PRESENT = "move it elsewhere and run scripts/get_wordnet.sh, which never replaces what is there"

# Endings and what replaces them in a base form (WordNet's morphy).
_ENDINGS = {
    NOUN: (("s", ""), ("ses", "s"), ("ves", "f"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"),
           ("men", "man"), ("ies", "y")),
    VERB: (("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")),
    ADJECTIVE: (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    ADVERB: (),
}
# WordNet's pointer symbols under the names of WN18's relations.
_RELATIONS = {
    "@": "_hypernym", "~": "_hyponym", "@i": "_instance_hypernym", "~i": "_instance_hyponym",
    "#m": "_member_holonym", "%m": "_member_meronym", "#p": "_part_of", "%p": "_has_part",
    "+": "_derivationally_related_form", "^": "_also_see", "$": "_verb_group", "&": "_similar_to",
    ";c": "_synset_domain_topic_of", "-c": "_member_of_domain_topic",
    ";u": "_synset_domain_usage_of", "-u": "_member_of_domain_usage",
    ";r": "_synset_domain_region_of", "-r": "_member_of_domain_region",
}


def find_wordnet(data_url: Path) -> Path:
    """WordNet below the data folder (``nltk/corpora/wordnet``), else where NLTK keeps its own data.

    Raises:
        InputError: there is none.
    """
    roots = [data_url / "nltk", *map(Path, filter(None, os.environ.get("NLTK_DATA", "").split(os.pathsep))),
             Path(os.path.expanduser("~/nltk_data")), Path("/usr/share/nltk_data"), Path("/usr/local/share/nltk_data")]
    for root in roots:
        for name in ("wordnet", "wordnet.zip"):
            if (root / "corpora" / name).exists():
                return root / "corpora" / name
    raise InputError(f"{roots[0] / 'corpora' / 'wordnet'}: no WordNet there nor in NLTK's own folders; {_FIX}")


class WordNet:
    """WordNet 3.0.

    Args:
        path: the folder, or NLTK's ``wordnet.zip``.

    Raises:
        InputError: a file is missing, or it is another version: its senses are numbered differently.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._data = {part: self._read(f"data.{part}") for part in PARTS_OF_SPEECH}
        self._names: dict[tuple[str, int], str] = {}
        found = re.search(rb"WordNet ([0-9.]+) Copyright", self._data[NOUN][:4096])
        version = found[1].decode() if found else "unknown"
        if version != VERSION:
            raise InputError(f"{self.path}: this is WordNet {version}; the concepts are named after WordNet {VERSION}: "
                             f"{_FIX_PRESENT}")

    def _read(self, name: str) -> bytes:
        try:
            if self.path.suffix == ".zip":
                with zipfile.ZipFile(self.path) as archive:
                    content = archive.read(f"wordnet/{name}")
            else:
                content = (self.path / name).read_bytes()
        except (FileNotFoundError, KeyError):
            fix = _FIX_PRESENT if self.path.exists() else _FIX
            raise InputError(f"{self.path}: {name} is missing; {fix}") from None
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError):
            raise InputError(f"{self.path}: no zip file, or a damaged one; {_FIX_PRESENT}") from None
        if content and not content.endswith(b"\n"):      # words of what is missing would have no synsets
            raise self._damaged(name)
        return content

    def _damaged(self, name: str) -> InputError:
        return InputError(f"{self.path}: {name} is damaged; {_FIX_PRESENT}")

    @cached_property
    def _index(self) -> dict[str, dict[str, str]]:
        """Part of speech -> lemma -> the rest of its index line."""
        index: dict[str, dict[str, str]] = {}
        for part in PARTS_OF_SPEECH:
            lines = self._read(f"index.{part}").decode("latin-1").split("\n")
            try:
                index[part] = dict(line.split(" ", 1) for line in lines if line and line[0] != " ")
            except ValueError:
                raise self._damaged(f"index.{part}") from None
        return index

    @cached_property
    def _exceptions(self) -> dict[str, dict[str, list[str]]]:
        """Part of speech -> irregular form -> its base forms."""
        exceptions: dict[str, dict[str, list[str]]] = {}
        for part in PARTS_OF_SPEECH:
            lines = self._read(f"{part}.exc").decode("latin-1").split("\n")
            exceptions[part] = {words[0]: words[1:] for line in lines if (words := line.split())}
        return exceptions

    def offsets(self, lemma: str, part: str) -> list[int]:
        """Offsets of the lemma's synsets, sense 1 first; none if the lemma is unknown."""
        line = self._index[part].get(lemma)
        if line is None:
            return []
        fields = line.split()     # part of speech, number of synsets, ..., and as many offsets at the end
        try:
            return [int(field) for field in fields[-int(fields[1]):]]
        except (ValueError, IndexError):
            raise self._damaged(f"index.{part}") from None

    def nouns(self) -> list[str]:
        """Every noun, in alphabetical order."""
        return sorted(self._index[NOUN])

    def base_forms(self, word: str, part: str) -> list[str]:
        """The word itself and its possible base forms, as far as WordNet has them."""
        forms = self._exceptions[part].get(word)
        if forms is None:
            forms = [word[:-len(ending)] + base for ending, base in _ENDINGS[part] if word.endswith(ending)]
        return list(dict.fromkeys(form for form in [word, *forms] if form in self._index[part]))

    def lemmas(self, word: str) -> list[str]:
        """The first base form for each part of speech that has one, without repetition."""
        firsts = (self.base_forms(word, part)[:1] for part in PARTS_OF_SPEECH)
        return list(dict.fromkeys(form for forms in firsts for form in forms))

    def base_form(self, word: str) -> str:
        """The first of its :meth:`lemmas`, else the word itself."""
        return next(iter(self.lemmas(word)), word)

    def synsets(self, word: str) -> list[tuple[str, int]]:
        """Part of speech and offset of all synsets of a lower-cased word, in WordNet's order.

        A synset that several base forms share ("customs", "custom") is listed once for each, as in NLTK.
        """
        return [(part, offset) for part in PARTS_OF_SPEECH
                for form in self.base_forms(word, part) for offset in self.offsets(form, part)]

    def name(self, part: str, offset: int) -> str:
        """A synset's name: its first lemma, tag and the lemma's sense, as in ``__dog_NN_1``."""
        key = part, offset
        if key not in self._names:
            data = self._data[part]
            # offset, file, type, number of words, first word (adjectives may have a marker in brackets)
            try:
                lemma = data[offset:offset + 200].split(b" ", 5)[4].decode("latin-1").partition("(")[0].lower()
            except IndexError:
                raise self._damaged(f"data.{part}") from None
            senses = self.offsets(lemma, part)
            if offset not in senses:
                raise InputError(f"{self.path}: data.{part} and index.{part} do not belong together; {_FIX_PRESENT}")
            self._names[key] = f"__{lemma}_{TAGS[part]}_{senses.index(offset) + 1}"
        return self._names[key]

    def locate(self, name: str) -> tuple[str, int] | None:
        """Part of speech and offset of a synset by its name; None if there is no such sense."""
        match = _CONCEPT.fullmatch(name)
        offsets = self.offsets(match[1], _OF_TAG[match[2]]) if match else []
        if not match or not 1 <= int(match[3]) <= len(offsets):
            return None
        return _OF_TAG[match[2]], offsets[int(match[3]) - 1]

    def gloss(self, name: str) -> str:
        """What a synset means, without WordNet's examples; "" for a name that is no synset."""
        located = self.locate(name)
        if located is None:
            return ""
        part, offset = located
        data = self._data[part]
        line = data[offset:data.find(b"\n", offset)].decode("latin-1")
        return line.partition(" | ")[2].partition('; "')[0].strip()

    def triples(self) -> Iterator[tuple[str, str, str]]:
        """All relations between synsets as (head, relation, tail), with the 18 relations of WN18."""
        for part in PARTS_OF_SPEECH:
            for line in self._data[part].decode("latin-1").split("\n"):
                if not line or line[0] == " ":
                    continue
                try:
                    yield from self._relations_in(part, line.split(" | ")[0].split())
                except InputError:
                    raise
                except (ValueError, LookupError):
                    raise self._damaged(f"data.{part}") from None

    def _relations_in(self, part: str, fields: list[str]) -> list[tuple[str, str, str]]:
        """The relations of one line of data."""
        head = self.name(part, int(fields[0]))
        start = 4 + 2 * int(fields[3], 16)      # after the words: the number of pointers
        pointers = (fields[place:place + 3] for place in range(start + 1, start + 1 + 4 * int(fields[start]), 4))
        return [(head, _RELATIONS[symbol], self.name(_OF_LETTER[letter], int(offset)))
                for symbol, offset, letter in pointers if symbol in _RELATIONS]
