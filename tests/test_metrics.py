# SPDX-License-Identifier: Apache-2.0
"""Exact match and F1: the published figures, the rules one by one, and what bad files bring."""
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.reader import record_official_evaluate, squad_v1_official_evaluate
from src.reader.metrics import GoldAnswers, evaluate, exact_match, f1, normalize_answer, score_answer
from testing.real_data import SHARED, needs_shared
from utils.util import InputError

ROOT = Path(__file__).parents[1]
SYSTEMS = ("Logistic", "r-net_plus", "Match-LSTM", "BERT", "SLQA_plus")


@needs_shared
@pytest.mark.parametrize("system", SYSTEMS)
def test_published_systems_get_their_published_figures(system, capsys):
    squad_v1_official_evaluate.main([str(SHARED / "SQuAD" / "dev-v1.1.json"),
                                     str(SHARED / "predictions" / f"{system}.json")])
    printed = capsys.readouterr()
    expected = json.loads((SHARED / "predictions" / "expected.json").read_text())[system]
    figures = json.loads(printed.out)
    assert figures["exact_match"] == pytest.approx(expected["exact_match"], abs=1e-9)
    assert figures["f1"] == pytest.approx(expected["f1"], abs=1e-9)
    assert printed.err.count("will receive score 0") == expected["questions"] - expected["answered"]


@pytest.mark.parametrize(("text", "normal"), [
    ("The  Black-Death.", "blackdeath"),
    ("a\tthe an", ""),
    ("Theatre and an anthem", "theatre and anthem"),
    ("«Été» — 5%", "«été» — 5"),      # only ASCII punctuation goes, accents stay
    ("U.S.A.", "usa"),
])
def test_normalisation(text, normal):
    assert normalize_answer(text) == normal


def test_f1_counts_words_as_often_as_they_occur():
    assert f1("new new york", "new york york") == pytest.approx(2 / 3)
    assert f1("the cat", "cat") == 1.0
    assert f1("dog", "cat") == 0.0
    assert f1("the", "the") == 0.0         # nothing is left to share, although the texts match
    assert exact_match("the", "an") == 1.0


WORDS = st.lists(st.sampled_from(["the", "a", "Rome", "rome,", "river", "of", "Of!"]), max_size=6).map(" ".join)


@given(WORDS, WORDS)
def test_f1_is_symmetric_and_between_0_and_1(one, other):
    value = f1(one, other)
    assert 0.0 <= value <= 1.0
    assert value == pytest.approx(f1(other, one))
    if normalize_answer(one) and exact_match(one, other):
        assert value == 1.0


def test_best_gold_answer_counts_for_each_figure_by_itself():
    gold = GoldAnswers("q", ("grain", "grain from Egypt"))
    assert score_answer("the grain", gold) == (1.0, 1.0)
    assert score_answer("Egypt", gold) == (0.0, 0.5)


def test_rules_of_squad_2():
    impossible = GoldAnswers("q", (), may_be_none=True)
    assert score_answer("", impossible) == (1.0, 1.0)
    assert score_answer("grain", impossible) == (0.0, 0.0)
    answerable = GoldAnswers("q", ("the", "grain"), may_be_none=True)    # "the" is nothing after normalisation
    assert score_answer("", answerable) == (0.0, 0.0)
    assert score_answer("grain", answerable) == (1.0, 1.0)
    assert score_answer("", GoldAnswers("q", ("the",))) == (1.0, 0.0)    # SQuAD 1.1 compares what is left


def test_a_question_without_gold_answer_cannot_be_scored():
    with pytest.raises(InputError, match="question q: no gold answer"):
        score_answer("Rome", GoldAnswers("q", ()))


def test_unanswered_questions_score_zero_and_are_named(capsys):
    gold = [GoldAnswers("one", ("Rome",)), GoldAnswers("two", ("Egypt",))]
    assert evaluate(gold, {"one": "rome", "three": "x"}) == {"exact_match": 50.0, "f1": 50.0}
    assert capsys.readouterr().err == "Unanswered question two will receive score 0.\n"


def squad(*questions):
    return {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": "c", "qas": list(questions)}]}]}


def question(name, *answers, **more):
    return {"id": name, "question": "?", "answers": [{"text": text, "answer_start": 0} for text in answers], **more}


def write(path, values):
    path.write_text(values if isinstance(values, str) else json.dumps(values), encoding="utf-8")
    return str(path)


def test_squad_2_file(tmp_path, capsys):
    dataset = write(tmp_path / "dev.json", squad(question("one", is_impossible=True),
                                                 question("two", "Rome", is_impossible=False)))
    squad_v1_official_evaluate.main([dataset, write(tmp_path / "p.json", {"one": "", "two": "in Rome"})])
    assert json.loads(capsys.readouterr().out) == {"exact_match": 50.0, "f1": pytest.approx(250 / 3)}


def test_record_file_as_a_command(tmp_path):
    dataset = write(tmp_path / "dev.json", {"data": [{"passage": {}, "qas": [question("one", "CNN", "CNN News")]}]})
    predictions = write(tmp_path / "p.json", {"one": "cnn news!"})
    done = subprocess.run([sys.executable, "-m", "src.reader.record_official_evaluate", dataset, predictions],
                          cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"exact_match": 100.0, "f1": 100.0}
    done = subprocess.run([sys.executable, "-m", "src.reader.record_official_evaluate", dataset, dataset + "x"],
                          cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"error: {dataset}x: no such file\n"


GOOD = squad(question("one", "Rome"))


@pytest.mark.parametrize(("dataset", "predictions", "message"), [
    (GOOD, {"other": "Rome"}, "answers none of the 1 questions; is it of another data set?"),
    (GOOD, ["Rome"], "not an object of question ids and answers"),
    (GOOD, {"one": [{"text": "Rome"}]}, "the answer to question one is list, not text"),
    (GOOD, {"one": None}, "the answer to question one is NoneType, not text"),
    (GOOD, '{"one": "Ro', "not JSON"),
    ({"data": []}, {"one": "Rome"}, "no question to score"),
    ([], {}, "not a data set"),
    ({"version": "1.1"}, {}, "no list \"data\""),
    (squad(question("one")), {}, "data[0].paragraphs[0].qas[0]: question one has no answer"),
    (squad(question("one", "Rome"), question("one", "Rome")), {}, "qas[1]: question one occurs twice"),
    ({"data": [{"passage": {}, "qas": []}]}, {}, "data[0]: the field 'paragraphs' is missing"),
    ({"data": ["text"]}, {}, "data[0]: is \"text\""),
    (squad({"id": 5, "answers": []}), {}, "qas[0].id: is 5"),
    (squad({"id": "one", "answers": ["Rome"]}), {}, "qas[0].answers[0]: is \"Rome\""),
])
def test_bad_files(tmp_path, dataset, predictions, message):
    with pytest.raises(InputError) as error:
        squad_v1_official_evaluate.main([write(tmp_path / "d.json", dataset), write(tmp_path / "p.json", predictions)])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_squad_file_given_to_the_record_evaluation(tmp_path):
    with pytest.raises(InputError, match="'qas' is missing"):
        record_official_evaluate.main([write(tmp_path / "d.json", GOOD), write(tmp_path / "p.json", {"one": "Rome"})])
