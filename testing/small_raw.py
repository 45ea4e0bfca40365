# SPDX-License-Identifier: Apache-2.0
"""A data folder before retrieval: data sets, tagged entities, vectors, a toy WordNet, a few beliefs of NELL."""
from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from src.config import NELL, RECORD, SPLITS, SQUAD, WORDNET, DataFolder
from src.knowledge.concepts import write_concept_vectors
from src.knowledge.steps import find_tagged_json
from src.reader.passages import Passage, read_passages
from testing import small_data
from testing.toy_wordnet import make_wordnet

NELL_HEADER = "Entity\tRelation\tValue\tIteration of Promotion\tProbability\tSource\tmore\n"


def belief(entity: str, category: str, probability: str = "1.0", relation: str = "generalizations") -> str:
    """A row of a belief export."""
    return f"{entity}\t{relation}\t{category}\t75\t{probability}\tsource\tmore\n"


BELIEFS = (
    NELL_HEADER
    + belief("concept:city:lima", "concept:city")
    + belief("concept:river:seine", "concept:river", "0.9")
    + belief("concept:person:mayor", "concept:person", "0.89")
    + belief("concept:city:paris", "concept:unknown")
    + belief("concept:city:lima", "concept:country:peru", "0.97", "concept:atlocation")
    + belief("concept:person:mayor__of_lima_", "concept:person")
    + belief("concept:date:n1895", "concept:country")
)


def entity(text: str, name: str) -> dict[str, Any]:
    """An entity of a tagged file."""
    return {"text": name, "start": text.index(name), "end": text.index(name) + len(name) - 1}


def make_inputs(root: Path) -> DataFolder:
    """Write all that retrieval starts from, and nothing that it makes."""
    data = DataFolder(root)
    data.bert().mkdir()
    (data.bert() / "vocab.txt").write_text("\n".join(small_data.VOCABULARY) + "\n", encoding="utf-8")
    make_wordnet(root / "nltk" / "corpora" / "wordnet")
    write_concept_vectors(
        data.vectors(WORDNET), ["__river_NN_1", "__depository_NN_1", "__bank_VB_1", "__lie_VB_1"], np.ones((4, 3))
    )
    write_concept_vectors(data.vectors(NELL), small_data.CATEGORIES, np.ones((4, 3)))
    (root / "raw").mkdir()
    (root / "raw" / "NELL.toy.esv.csv").write_text(BELIEFS, encoding="utf-8")
    for task, sets in ((SQUAD, small_data.squad()), (RECORD, small_data.record())):
        (root / task.folder).mkdir()
        for split in SPLITS:
            data.dataset_json(task, split).write_text(json.dumps(sets[split]), encoding="utf-8")
    for split, articles in small_data.squad().items():
        for article in articles["data"]:
            for paragraph in article["paragraphs"]:
                text = paragraph["context"]
                paragraph["context_entities"] = [
                    entity(text, name) for name in ("Seine", "mayor of Lima", "Lima") if name in text
                ]
                for question in paragraph["qas"]:
                    question["question_entities"] = [
                        entity(question["question"], name)
                        for name in ("Paris", "Lima")
                        if name in question["question"]
                    ]
        data.tagged_json(SQUAD, split).write_text(json.dumps(articles), encoding="utf-8")
    return data


def tagged_passages(folder: DataFolder, split: str = "dev") -> Iterator[Passage]:
    """SQuAD's passages with the entities of the tagged file."""
    return read_passages(folder.dataset_json(SQUAD, split), "squad", find_tagged_json(folder, SQUAD, split))


def own_bases(folder: DataFolder) -> list[dict[str, Any]]:
    """A toy base by word and one by entity, beside WordNet."""
    write_concept_vectors(
        folder.root / "KB_embeddings/water_concept2vec.txt", ["wet", "flowing", "dry"], np.ones((3, 2))
    )
    write_concept_vectors(folder.root / "KB_embeddings/places_concept2vec.txt", ["town", "state"], np.ones((2, 2)))
    (folder.root / "KB_embeddings/water_map.json").write_text('{"River": ["flowing", "wet"], "lies": ["dry"]}')
    (folder.root / "KB_embeddings/places_map.json").write_text('{"LIMA": ["town"], "Peru": ["state", "town"]}')
    return [
        {
            "name": "wn",
            "label": "WordNet",
            "key": "word",
            "max_concepts": 49,
            "vectors": WORDNET.vectors,
            "retrieved": WORDNET.retrieved,
        },
        {
            "name": "water",
            "label": "water",
            "key": "word",
            "max_concepts": 1,
            "vectors": "KB_embeddings/water_concept2vec.txt",
            "retrieved": "retrieve_water/{dataset}.data",
        },
        {
            "name": "places",
            "label": "places",
            "key": "entity",
            "max_concepts": 2,
            "vectors": "KB_embeddings/places_concept2vec.txt",
            "retrieved": "retrieve_places/{dataset}.{split}.data",
        },
    ]
