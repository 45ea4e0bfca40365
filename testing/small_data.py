# SPDX-License-Identifier: Apache-2.0
"""A data folder of a few sentences, with every file that conversion reads; all of it made up here."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from src.config import KNOWLEDGE_BASES, NELL, RECORD, SPLITS, SQUAD, WORDNET, DataFolder, WindowConfig
from src.conversion import Conversion
from src.feature_stream import READ_EXAMPLES
from src.knowledge.concepts import write_concept_vectors
from src.knowledge.formats import write_mapping, write_records
from src.reader.tokenization import BertTokenizer, split_words

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
PIECES = ["Where", "is", "Par", "##is", "?", "Paris", "lies", "on", "the", "Se", "##ine", ".", "The", "river", "'", "s",
          "banks", "are", "long", ",", "What", "runs", "through", "@", "highlight", "place", "##holder", "a", "town",
          "in", "Peru", "was", "hit", "by", "storm", "mayor", "of", "Lima", "said", "(", "1895", "-", "1943", ")"]
VOCABULARY = SPECIAL + PIECES

CONTEXT = "Paris lies on the Seine. The river's banks are long."
OTHER_CONTEXT = "The mayor of Lima (1895-1943) lies in a town by the river."
SYNSETS = {"river": ["__river_NN_1"], "banks": ["__bank_NN_1", "__depository_NN_1", "__bank_VB_1"],
           "town": ["__town_NN_1"], "storm": ["__storm_NN_1", "__storm_VB_1"], "lies": ["__lie_VB_1", "__lie_VB_2"]}
CATEGORIES = ["concept:city", "concept:river", "concept:country", "concept:person"]


def squad() -> dict[str, dict[str, Any]]:
    """split -> data set."""
    def question(identity: str, text: str, context: str, *answers: str) -> dict[str, Any]:
        return {"id": identity, "question": text,
                "answers": [{"text": answer, "answer_start": context.index(answer)} for answer in answers]}

    def paragraph(context: str, *questions: dict[str, Any]) -> dict[str, Any]:
        return {"context": context, "qas": list(questions)}

    train = [paragraph(CONTEXT, question("t1", "Where is Paris?", CONTEXT, "Seine"),
                       question("t2", "What are long?", CONTEXT, "The river's banks")),
             paragraph(OTHER_CONTEXT, question("t3", "Where lies the mayor?", OTHER_CONTEXT, "in a town"))]
    dev = [paragraph(CONTEXT, question("d1", "What runs through Paris?", CONTEXT, "the Seine", "Seine")),
           paragraph(OTHER_CONTEXT, question("d2", "Where is Lima?", OTHER_CONTEXT, "by the river"))]
    return {"train": {"version": "1.1", "data": [{"title": "Paris", "paragraphs": train[:1]},
                                                 {"title": "Lima", "paragraphs": train[1:]}]},
            "dev": {"version": "1.1", "data": [{"title": "Both", "paragraphs": dev}]}}


def record() -> dict[str, dict[str, Any]]:
    """split -> data set; the passage has a no-break space, and one entity that ends before it starts."""
    text = "A town in\xa0Peru was hit by a storm.\n@highlight\nThe mayor of Lima said"
    entities = [{"start": text.index("Peru"), "end": text.index("Peru") + 3}, {"start": 9, "end": 3},
                {"start": text.index("Lima"), "end": text.index("Lima") + 3}]
    answers = [{"start": entity["start"], "end": entity["end"], "text": text[entity["start"]:entity["end"] + 1]}
               for entity in entities[::2]]

    def item(identity: str) -> dict[str, Any]:
        return {"id": identity, "source": "us", "passage": {"text": text, "entities": entities},
                "qas": [{"id": f"{identity}-1", "query": "The storm hit @placeholder", "answers": answers}]}

    return {"train": {"version": "1.0", "data": [item("rt")]}, "dev": {"version": "1.0", "data": [item("rd")]}}


def entity(text: str, first: int, last: int, *concepts: str) -> dict[str, Any]:
    """One retrieved entity."""
    return {"entity_string": text, "token_start": first, "token_end": last, "retrieved_concepts": list(concepts),
            "retrieved_entities": [f"{concept}:{text}" for concept in concepts]}


def make_data(root: Path) -> DataFolder:
    """Write the whole folder."""
    data = DataFolder(root)
    data.bert().mkdir(parents=True)
    (data.bert() / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")
    names = sorted({name for synsets in SYNSETS.values() for name in synsets})
    write_concept_vectors(data.vectors(WORDNET), names, _numbers(len(names)))
    write_concept_vectors(data.vectors(NELL), CATEGORIES, _numbers(len(CATEGORIES)))
    for task, sets in ((SQUAD, squad()), (RECORD, record())):
        write_mapping(data.retrieved(WORDNET, task, "train"), SYNSETS)
        for split in SPLITS:
            path = data.dataset_json(task, split)
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(sets[split]), encoding="utf-8")
            make_tokens(data, task.name, split)
            make_entities(data, task.name, split)
    return data


def _numbers(rows: int) -> Any:
    import numpy as np

    return np.arange(3 * rows, dtype=np.float32).reshape(rows, 3) / 10


def make_tokens(data: DataFolder, dataset: str, split: str, lower_case: bool = False) -> None:
    """Write the token file of a split from its data set."""
    task = {"squad": SQUAD, "record": RECORD}[dataset]
    tokenizer = BertTokenizer(data.bert() / "vocab.txt", lower_case)
    records = []
    for example in READ_EXAMPLES[dataset](data.dataset_json(task, split), split, False):
        values: dict[str, Any] = {"id": example.id}
        for side, text in (("query", example.question), ("document", example.passage)):
            analysis = tokenizer.analyse(split_words(text)[0])
            values |= {f"{side}_tokens": analysis.tokens, f"{side}_subtokens": analysis.pieces,
                       f"{side}_sub_to_ori_index": analysis.piece_to_token, f"{side}_entities": []}
        records.append(values)
    write_records(data.tokens(task, split, lower_case), records)


def make_entities(data: DataFolder, dataset: str, split: str) -> None:
    """Write the NELL file of a split: Paris and Lima are cities, the Seine is a river, Lima also a person."""
    task = {"squad": SQUAD, "record": RECORD}[dataset]
    tokenizer = BertTokenizer(data.bert() / "vocab.txt", False)
    known = {"Paris": ["concept:city"], "Seine": ["concept:river"], "Lima": ["concept:city", "concept:person"]}
    records = []
    for example in READ_EXAMPLES[dataset](data.dataset_json(task, split), split, False):
        sides = {}
        for side, text in (("query", example.question), ("document", example.passage)):
            tokens = tokenizer.analyse(split_words(text)[0]).tokens
            sides[f"{side}_entities"] = [entity(token.lower(), place, place, *known[token])
                                         for place, token in enumerate(tokens) if token in known]
        records.append({"id": example.id, **sides})
    write_records(data.retrieved(NELL, task, split), records)


def conversion(data: DataFolder, dataset: str = "squad", split: str = "train", **options: Any) -> Conversion:
    """A conversion in the folder's own places."""
    task = {"squad": SQUAD, "record": RECORD}[dataset]
    values: dict[str, Any] = {
        "task": task, "split": split, "data": data, "json_path": data.dataset_json(task, split),
        "target": data.mindrecord(task, split), "vocab_path": data.bert() / "vocab.txt", "lower_case": False,
        "windows": WindowConfig(), "bases": KNOWLEDGE_BASES}
    return Conversion(**(values | options))
