# SPDX-License-Identifier: Apache-2.0
"""Names of concepts for people: ``__trout_NN_1`` is the noun "trout", ``concept:visualartist`` a visual artist."""
from __future__ import annotations

import re
from typing import NamedTuple

_SYNSET = re.compile(r"__(.+)_(NN|VB|JJ|RB)_([0-9]+)")
_PARTS_OF_SPEECH = {"NN": "noun", "VB": "verb", "JJ": "adjective", "RB": "adverb"}
_NELL = "concept:"

# NELL writes its categories in one word; these are the ones that people write in several, or otherwise.
_CATEGORIES = """
academic field, agricultural product, automobile engine, automobile maker, automobile model,
award trophy tournament, baked good, bathroom item, bedroom item, biotech company, board game, body part,
bombing event, brain tissue, building feature, building material, card game, cell type, character trait, coffee drink,
cognitive actions, consumer electronic item, creative work, credit union, crime or charge, date literal, day of week,
earthquake event, economic sector, ethnic group, event outcome, film festival, floor item, game score,
geometric shape, geopolitical entity, geopolitical location, geopolitical organization, government organization,
grand prix, hallway item, high school, household item, job position, kitchen item, landscape features, lymph node,
media company, media type, medical procedure, meeting event title, meeting event type, military conflict,
military event type, mountain range, music album, music artist, music festival, music genre, music instrument,
music song, nonprofit organization,
office building room, office item, oil gas field, parlour game, perception action, perception event,
person by location, personal care item, petroleum refining company, physical action, physical characteristic,
physics term, physiological condition, place of worship, political office, political party, politics bill,
politics blog, politics group, politics issue, product launch event, professional organization, programming language,
protest event, radio station, record label, refinery product, research project, retail store, road accident event,
scientific term, shopping mall, ski area, sports equipment, sports event, sports game, sports league, sports team,
sports team position, stadium or event venue, state or province, table item, television network, television show,
television station, terrorist organization, trade union, traditional game, train station, video game,
video game system, visual art form, visual artist, visual art movement, visualizable attribute, visualizable scene,
wall item, weather phenomenon, zip code
"""
_READABLE = {"".join(name.split()): " ".join(name.split()) for name in _CATEGORIES.split(",")} | {
    "caf_": "café", "ceo": "CEO", "url": "URL", "mlalgorithm": "machine learning algorithm",
    "mlarea": "machine learning area", "mlauthor": "machine learning author",
    "mlconference": "machine learning conference", "mldataset": "machine learning data set",
    "mlmetric": "machine learning metric", "mlsoftware": "machine learning software",
    "nongovorganization": "non-governmental organization", "nondiseasecondition": "condition other than a disease",
    "nonneginteger": "non-negative integer", "personafrica": "person from Africa", "personasia": "person from Asia",
    "personaustralia": "person from Australia", "personcanada": "person from Canada",
    "personeurope": "person from Europe", "personmexico": "person from Mexico",
    "personnorthamerica": "person from North America", "personsouthamerica": "person from South America",
    "personus": "person from the US", "politicianus": "politician from the US"}


class Concept(NamedTuple):
    """A concept as the page shows it."""

    label: str           # what to call it
    detail: str = ""     # part of speech and sense of a synset
    gloss: str = ""      # what it means, where that is known


def describe(name: str, gloss: str = "") -> Concept:
    """The readable form of a concept's name; names of other knowledge bases lose their underscores.

    >>> describe("__alarm_clock_NN_1", "a clock that wakes a sleeper")
    Concept(label='alarm clock', detail='noun, sense 1', gloss='a clock that wakes a sleeper')
    >>> describe("concept:visualartist").label
    'visual artist'
    """
    synset = _SYNSET.fullmatch(name)
    if synset:
        return Concept(_spaced(synset[1]), f"{_PARTS_OF_SPEECH[synset[2]]}, sense {synset[3]}", gloss)
    if name.startswith(_NELL):
        category = name[len(_NELL):]
        return Concept(_READABLE.get(category) or _spaced(category), gloss=gloss)
    return Concept(_spaced(name), gloss=gloss)


def _spaced(name: str) -> str:
    return name.replace("_", " ").strip() or name
