# SPDX-License-Identifier: Apache-2.0
"""Answers in characters of the passage."""
from __future__ import annotations

import random
from types import SimpleNamespace

import pytest

from src.config import WindowConfig
from src.inference.places import AnswerPlaces
from src.reader.batching_twomemory import FeatureBuilder
from src.reader.decoding import Decoded, DecodingOptions, NBestEntry, PassageText
from src.reader.examples import EvaluationExample, Example
from src.reader.tokenization import BertTokenizer
from testing.small_data import VOCABULARY

PASSAGE = ("The\tmayor of  Lima (1895-1943) lies\u202fin Paris' town by the Queen Zoë's river, said\n\nthe storm."
           "\u200b \U0001f600 ﬁne x\u0301y Par is ")


@pytest.fixture(scope="module", params=[False, True])
def places(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("places") / "vocab.txt"
    letters = sorted(set("abcdefghijklmnopqrstuvwxyzQTLZPë"))
    pieces = [*VOCABULARY, *letters, *(f"##{letter}" for letter in letters)]
    path.write_text("\n".join(dict.fromkeys(pieces)) + "\n", encoding="utf-8")
    builder = FeatureBuilder(BertTokenizer(path, request.param), WindowConfig(), (), "dev")
    _, example = builder.build(Example("q", "Where is Paris?", PASSAGE, answers=()), ())
    return AnswerPlaces(PASSAGE, example, request.param), PassageText(example, request.param)


def test_the_characters_are_the_answers(places):
    where, text = places
    count, draw = len(where.example.pieces), random.Random(3)
    assert count > 30
    for _ in range(2000):
        first = draw.randrange(count)
        last = min(first + draw.randrange(6), count - 1)
        start, end = where.characters(first, last)
        assert " ".join(PASSAGE[start:end].split()) == " ".join(text.span_text(first, last).split())
        assert 0 <= start < end <= len(PASSAGE)


@pytest.mark.parametrize(("part", "whole"), [("iver", "river"), ("189", "1895"), ("aris' tow", "Paris' town"),
                                             ("river", "river"), ("(", "("), ("o", "Zoë"), ("x", "x\u0301y")])
def test_answers_end_at_whole_words(places, part, whole):
    where, _ = places
    at = PASSAGE.index(part, PASSAGE.index("Queen") if part in ("iver", "river", "o") else 0)
    start, end = where.whole_words(at, at + len(part))
    assert PASSAGE[start:end] == whole


@pytest.mark.parametrize(("part", "whole"), [("古斯塔夫", "古斯塔夫"), ("889", "1889"), ("if", "Eiffel")])
def test_a_chinese_character_is_a_word(part, whole):
    passage = "铁塔由古斯塔夫建造于1889年，叫Eiffel塔"
    example = EvaluationExample("q", "", (passage,), (), (), 0, (), ())
    start, end = AnswerPlaces(passage, example, False).whole_words(at := passage.index(part), at + len(part))
    assert passage[start:end] == whole


def test_answers_that_widen_to_the_same_words_are_ranked_together(monkeypatch: pytest.MonkeyPatch) -> None:
    reader_module = pytest.importorskip("src.inference.reader", reason="MindSpore is not installed")
    spans = {"1934": (0, 4), "Rot": (5, 8), "oth": (6, 9)}
    places = SimpleNamespace(find=lambda *_: spans,
                             whole_words=lambda start, end: (5, 9) if start >= 5 else (start, end))
    monkeypatch.setattr(reader_module, "AnswerPlaces", lambda *_: places)
    nbest = tuple(NBestEntry(text, share, 0.0, 0.0) for text, share in (("1934", 0.4), ("Rot", 0.35), ("oth", 0.25)))
    prepared = SimpleNamespace(passage="1934 Roth", passage_entities=())
    prediction = SimpleNamespace(decoded=Decoded("q", "1934", nbest), prepared=prepared, results=(), compared=(),
                                 example=SimpleNamespace(windows=(), document_offset=0, question="Who?"))
    reader = object.__new__(reader_module.Reader)
    reader.whole_words, reader.options, reader._entities_matter = True, DecodingOptions(), False
    result = reader.result(prediction)
    assert [(one.text, round(one.probability, 6)) for one in result.n_best] == [("Roth", 0.6), ("1934", 0.4)]
    assert (result.answer, result.start, result.end) == ("Roth", 5, 9)
    reader.whole_words = False
    assert reader.result(prediction).answer == "1934"
