# SPDX-License-Identifier: Apache-2.0
"""The data of the reading probes and of the cloze set, and the intervals that their results come with."""
from __future__ import annotations

import json
import random

import numpy as np
import pytest

from benchmarks import cloze, paired, probe_data
from benchmarks.knowledge import fit_linear, linear_bound, lines_of
from benchmarks.probe_data import Kind, Probe, ProbeSizes
from src.config import NELL, SQUAD, WORDNET, DataFolder
from src.knowledge.concepts import write_concept_vectors
from src.knowledge.nell import promoted_beliefs

KINDS = 5
SENTENCES = (("One reads of {0}, {1}, {2} and {3}.", "Which one is {1} {0}?"),)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """Vectors of five categories, one axis each."""
    folder = DataFolder(tmp_path_factory.mktemp("vectors"))
    for base in (WORDNET, NELL):
        folder.vectors(base).parent.mkdir(exist_ok=True)
        write_concept_vectors(folder.vectors(base), [f"concept:kind{number}" for number in range(KINDS)], np.eye(KINDS))
    return folder


def make_probe(base):
    kinds = [Kind("animal" if number == 0 else f"kind{number}", (f"Ta{letter}", f"Tb{letter}"), (f"Da{letter}",))
             for number, letter in enumerate("klmnp")]
    concepts = {word: (f"concept:kind{number}",) for number, kind in enumerate(kinds)
                for word in (*kind.training, *kind.dev)}
    return Probe(base, tuple(kinds), concepts, SENTENCES)


@pytest.mark.parametrize("base", [WORDNET, NELL])
def test_a_probe_is_an_ordinary_data_folder(tmp_path, vectors, base):
    probe = make_probe(base)
    probe_data.write_probe(tmp_path, vectors, probe, ProbeSizes(KINDS, 40, 20), seed=3)
    folder = DataFolder(tmp_path)
    words = {"train": {word for kind in probe.kinds for word in kind.training},
             "dev": {word for kind in probe.kinds for word in kind.dev}}
    for split, count in (("train", 40), ("dev", 20)):
        plain = json.loads(folder.dataset_json(SQUAD, split).read_text())["data"][0]["paragraphs"]
        tagged = json.loads((tmp_path / "raw" / folder.tagged_json(SQUAD, split).name).read_text())
        assert len(plain) == count
        for paragraph, with_entities in zip(plain, tagged["data"][0]["paragraphs"], strict=True):
            question, text = paragraph["qas"][0], paragraph["context"]
            answer = question["answers"][0]
            assert text[answer["answer_start"]:].startswith(answer["text"]) and answer["text"] in words[split]
            kind = next(kind for kind in probe.kinds if answer["text"] in (*kind.training, *kind.dev))
            assert question["question"] == f"Which one is {'an' if kind.name == 'animal' else 'a'} {kind.name}?"
            entities = [text[entity["start"]:entity["end"] + 1] for entity in with_entities["context_entities"]]
            assert len(set(entities)) == (4 if base is NELL else 0) and set(entities) <= words[split]
    beliefs = list(promoted_beliefs(tmp_path / "raw" / "NELL.probe.esv.csv"))
    assert len(beliefs) == (15 if base is NELL else 1)      # what WordNet's probe asks for, no belief tells
    assert linear_bound(folder, probe) == 100.0


def test_concepts_of_dev_words_are_not_trained():
    words = {f"w{number}": {f"c{number // 2}", f"other{number}"} for number in range(60)}   # two words share a concept
    kind = probe_data._split_words("kind", words, random.Random(1))
    of_dev = {concept for word in kind.dev for concept in words[word]}
    assert len(kind.dev) == 20 and kind.training
    assert not of_dev & {concept for word in kind.training for concept in words[word]}


def test_words_whose_ending_tells_their_kind_are_left_out():
    many = {f"{stem}ship" for stem in ("friend", "king", "lord", "owner", "town", "work")}
    few = {"curate", "magistrate", "cadre", "office"}
    assert probe_data._without_common_endings(many | few) == few
    assert probe_data._without_common_endings(few | set(sorted(many)[:5])) == few | set(sorted(many)[:5])


def test_a_linear_classifier_needs_informative_vectors():
    random_state = np.random.RandomState(0)
    labels = random_state.randint(3, size=300)
    told, untold = np.eye(3)[labels] + 0.1 * random_state.randn(300, 3), random_state.randn(300, 3)
    for inputs, most, least in ((told, 1.0, 0.98), (untold, 0.55, 0.0)):
        weight = fit_linear(inputs, np.eye(3)[labels])
        assert least <= ((inputs @ weight[:-1] + weight[-1]).argmax(1) == labels).mean() <= most


def test_intervals_are_paired_by_question():
    generator = np.random.default_rng(2)
    hard = 100.0 * (generator.random(1000) < 0.5)               # half of the questions are hard for both
    better = np.where(generator.random(1000) < 0.05, 100.0, hard)
    found = paired.difference_interval([better, better], [hard, hard])
    assert found["difference"] == pytest.approx((better - hard).mean(), abs=0.01)
    assert 0 < found["low"] < found["difference"] < found["high"] < 5       # unpaired it would reach below 0
    same = paired.difference_interval([hard], [hard])
    assert same == {"difference": 0.0, "low": 0.0, "high": 0.0}


def test_scores_of_questions(tmp_path):
    (tmp_path / "dev.json").write_text(json.dumps({"data": [{"paragraphs": [{"qas": [
        {"id": "a", "answers": [{"text": "the Seine"}]}, {"id": "b", "answers": [{"text": "two words"}]}]}]}]}))
    (tmp_path / "predictions.json").write_text(json.dumps({"b": "words", "a": "Seine"}))
    scores = paired.question_scores(tmp_path / "predictions.json", paired.gold_answers(tmp_path / "dev.json"))
    np.testing.assert_allclose(scores, [[100, 100], [0, 200 / 3]])


def test_a_cloze_question_takes_its_sentence_out():
    first = "Ann Lee met Bob in Lima one day. Later Bob went home to write a book."
    second = "Nobody saw Ann Lee again in that year."
    paragraphs = [{"context": text, "context_entities": [
        {"text": name, "start": text.index(name), "end": text.index(name) + len(name) - 1}
        for name in ("Ann Lee", "Bob", "Lima") if name in text]} for text in (first, second)]
    items = list(cloze.cloze_items({"title": "T", "paragraphs": paragraphs}))
    asked = {item["qas"][0]["query"]: item for item in items}
    assert "@placeholder met Bob in Lima one day." in asked
    assert not any("in @placeholder one day" in query for query in asked)      # the rest does not name Lima
    for item in items:
        text, answers = item["passage"]["text"], item["qas"][0]["answers"]
        assert answers and all(text[one["start"]:one["end"] + 1] == one["text"] for one in answers)
        places = {(entity["start"], entity["end"]) for entity in item["passage"]["entities"]}
        assert {(one["start"], one["end"]) for one in answers} <= places
        assert item["qas"][0]["query"].replace("@placeholder", answers[0]["text"]) not in text


def test_passages_of_the_training_split_overlap():
    paragraphs = [{"context": f"Ann Lee is in part {number}.", "context_entities": []} for number in range(4)]
    texts = {split: [text.splitlines() for text, _ in cloze.passages({"paragraphs": paragraphs}, step)]
             for split, step in cloze.STEPS.items()}
    parts = [paragraph["context"] for paragraph in paragraphs]
    assert texts == {"train": [parts[:2], parts[1:3], parts[2:], parts[3:]], "dev": [parts[:2], parts[2:]]}


def test_networks_are_compared_each_at_its_best_stages() -> None:
    def runs(right: int) -> dict[str, np.ndarray]:
        return {"45": np.repeat([[100.0, 100.0], [0.0, 0.0]], [right, 10 - right], axis=0)}

    lines = lines_of({"both_two": runs(9), "none_two": runs(3), "both_one": runs(5), "none_one": runs(6)})
    differences = {line["compared"]: line["difference"] for line in lines if "compared" in line}
    assert differences == pytest.approx({"both in two minus none in two": 60, "both in one minus none in one": -10,
                                         "both in two minus none in one": 30})
