# SPDX-License-Identifier: Apache-2.0
"""WordNet retrieval: every word of the texts with the concepts it may stand for."""
from __future__ import annotations

import string
from collections.abc import Iterable, Sequence

from src.knowledge.wordnet_db import WordNet
from utils.util import LOGGER, InputError

# NLTK's English stop words as they stood when the data sets were made (its list has grown since), without those that
# hold an apostrophe: BERT's tokens never do.
_STOP_TEXT = (
    "i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she her hers "
    "herself it its itself they them their theirs themselves what which who whom this that these those am is are "
    "was were be been being have has had having do does did doing a an the and but if or because as until while of "
    "at by for with about against between into through during before after above below to from up down in out on "
    "off over under again further then once here there when where why how all any both each few more most other "
    "some such no nor not only own same so than too very s t can will just don should now d ll m o re ve y ain aren "
    "couldn didn doesn hadn hasn haven isn ma mightn mustn needn shan shouldn wasn weren won wouldn")
STOP_WORDS = frozenset(_STOP_TEXT.split())


class SynsetRetriever:
    """Word -> names of its synsets, as far as they have a vector.

    WN18 knows a synset by its place in WordNet's files without the part of speech, and so do the authors' retrieved
    files: a synset that has no vector is taken for one of another part of speech in the same place ("nearby" for
    "solidify"). It concerns three words in a thousand and is kept, for networks have been trained with it.

    Args:
        wordnet: the database.
        names: the concepts that have vectors.

    Raises:
        InputError: not one of the concepts is a synset of this WordNet.
    """

    def __init__(self, wordnet: WordNet, names: Sequence[str]) -> None:
        self._wordnet = wordnet
        places = {name: wordnet.locate(name) for name in names}
        self._by_place = {place: name for name, place in places.items() if place is not None}
        self._by_offset: dict[int, str] = {}
        for (_, offset), name in self._by_place.items():
            self._by_offset.setdefault(offset, name)
        unknown = [name for name, place in places.items() if place is None]
        if not self._by_place:
            raise InputError(f"{wordnet.path}: none of the {len(names)} concepts is a synset there; the vectors file "
                             "must name synsets as in __dog_NN_1")
        if unknown:
            LOGGER.warning("%s: %d of %d concepts are no synsets there and will never be found: %s%s", wordnet.path,
                           len(unknown), len(names), ", ".join(unknown[:5]), ", ..." if len(unknown) > 5 else "")

    def concepts(self, word: str) -> list[str]:
        """Concepts of a lower-cased word in WordNet's order."""
        found = (self._by_place.get(synset) or self._by_offset.get(synset[1]) for synset in self._wordnet.synsets(word))
        return [name for name in found if name]

    def retrieve(self, words: Iterable[str]) -> dict[str, list[str]]:
        """Concepts of every word that has some; stop words and punctuation marks have none."""
        found = {}
        for word in words:
            if word not in STOP_WORDS and not (len(word) == 1 and word in string.punctuation):
                concepts = self.concepts(word)
                if concepts:
                    found[word] = concepts
        return found
