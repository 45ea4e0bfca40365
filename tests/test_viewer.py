"""The viewer's page: its data, and what a browser makes of it."""
from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.config import KNOWLEDGE_BASES, NELL, WORDNET
from src.reader.decoding import Decoded, DecodingOptions, NBestEntry
from src.reader.examples import EvaluationExample, Window
from src.reader.tokenization import BertTokenizer, split_words
from src.viewer.cases import Case, Reading, WindowResult, make_case
from src.viewer.page import UNIT, embed, page_data, whole_parts, write_page
from tests import browser, small_data

NASTY = ['<script>alert("x")</script>', "</script><!--", "quote\"s", "it's", "&amp;", "\U0001f600", "שלום", "مرحبا",
         "${0}", "\\u003c", "\u2028", "river"]
NAMES = {WORDNET.name: ["__river_NN_1", "__bank_NN_1", "__a<b_NN_1"], NELL.name: ["concept:city", "concept:river"]}


def make(number: int, words: list[str], right: bool = True, answer: tuple[int, int] | None = (0, 1),
         knowledge: int = 3) -> Case:
    """A case of one piece a word with made-up numbers."""
    random = np.random.default_rng(number)
    question = (f"What{number}", "is", "it?")
    count = len(question) + len(words)
    readings = [[], []]
    for base, names in enumerate(NAMES.values()):
        for position in range(base, count, 2 if base == 0 else 7):
            concepts = tuple(int(random.integers(1, len(names) + 1)) for _ in range(knowledge))
            weights = random.random(1 + knowledge)
            readings[base].append(Reading(position, concepts, (weights / weights.sum()).astype(np.float32)))
    start, end = random.random(len(words)) ** 20, random.random(len(words)) ** 20
    text = "" if answer is None else " ".join(words[answer[0]:answer[1] + 1])
    return Case(id=f"q{number}", question_words=question, passage_words=tuple(words), pieces=(*question, *words),
                piece_to_word=(*range(len(question)), *range(len(words))), query_length=len(question),
                start=start / start.sum(), end=end / end.sum(), readings=tuple(map(tuple, readings)),
                decoded=Decoded(f"q{number}", text, (NBestEntry(text, 0.75, 2.0, 1.0), NBestEntry("", 0.25, 1.0, 0.9))),
                prediction=text, span=answer, gold=("gold <b>",), score=(1.0, 1.0) if right else (0.0, 0.5))


# --- numbers ----------------------------------------------------------------------------------------------------------

@given(st.lists(st.floats(0, 30, width=16), min_size=1, max_size=60))
def test_parts_sum_to_one_and_keep_every_share(scores):
    weights = np.exp(np.array(scores, np.float32))
    shares = weights / weights.sum()
    parts = whole_parts(shares)
    assert sum(parts) == UNIT and min(parts) >= 0
    assert np.abs(np.array(parts) / UNIT - shares).max() < 3e-7


@given(st.text())
def test_embedded_text_cannot_end_its_element(text):
    embedded = embed({"text": text})
    assert "<" not in embedded
    expected = text.encode("utf-8", "replace").decode()
    assert json.loads(embedded)["text"] == expected


def test_a_case_takes_every_piece_from_the_window_that_sees_it_best(tmp_path):
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(small_data.VOCABULARY) + "\n", encoding="utf-8")
    tokenizer = BertTokenizer(vocabulary, lower_case=False)
    words = split_words(small_data.CONTEXT)[0]
    passage = tokenizer.analyse(words)
    question = "Where is Paris?"
    query = tokenizer.analyse(split_words(question)[0])
    total, length = len(passage.pieces), 8
    windows = tuple(Window(number, start, min(length, total - start)) for number, start in enumerate((0, 4, 8)))
    example = EvaluationExample("a", question, tuple(words), tuple(passage.pieces), tuple(passage.piece_to_word),
                                len(query.pieces), windows, answers=("the Seine",))
    random = np.random.default_rng(3)
    results = []
    for number, window in enumerate(windows):
        size = example.document_offset + window.length + 1
        ids = np.zeros((size, 2), np.int32)
        ids[1, 0] = 1                                            # the question's first piece
        ids[example.document_offset:size - 1, 0] = 1 + number    # tells the window
        weights = random.dirichlet(np.ones(3), size).astype(np.float32)
        weights[:, 2] = 0
        logits = random.normal(size=(2, size + 5)).astype(np.float32)    # padded
        if number == 0:
            start = passage.pieces.index("the") - window.doc_start + example.document_offset
            logits[0, start] = logits[1, start + 2] = 50.0
        results.append(WindowResult(*logits, (ids,), (weights,)))
    case = make_case(example, results, tokenizer, DecodingOptions(ignore_padding=True), has_gold=True)
    assert case.prediction == "the Seine" and case.score == (1.0, 1.0) and case.gold == ("the Seine",)
    assert case.pieces[:case.query_length] == tuple(query.pieces)
    first, last = case.span
    assert " ".join(example.pieces[first:last + 1]) == "the Se ##ine"
    assert case.start.argmax() == first and case.start.sum() == pytest.approx(1) and case.end.argmax() == last
    shown = {reading.position - case.query_length: reading.concepts[0] for reading in case.readings[0]}
    assert shown.pop(-case.query_length) == 1 and sorted(shown) == list(range(total))
    # Least of left and right context, + 0.01 x length: piece 5 has 2 in (0, 8) and 1 in (4, 8); piece 6 has 1 and 2.
    assert [shown[piece] for piece in (0, 5, 6, 9, 10)] == [1, 1, 2, 2, 3]
    # The answer's window (0, 8) says where it ends, also for piece 6, which (4, 8) sees better.
    offset = example.document_offset
    ends = np.array([results[0 if piece < 8 else 1 if piece < 10 else 2].end_logits[
        offset + piece - (0 if piece < 8 else 4 if piece < 10 else 8)] for piece in range(total)], np.float64)
    starts = np.array([results[0 if piece < 6 else 1 if piece < 10 else 2].start_logits[
        offset + piece - (0 if piece < 6 else 4 if piece < 10 else 8)] for piece in range(total)], np.float64)
    for shares, logits in ((case.end, ends), (case.start, starts)):
        np.testing.assert_allclose(shares, np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum(),
                                   rtol=1e-9)
    other = make_case(example, results, tokenizer, DecodingOptions(ignore_padding=True), prediction="")
    assert other.span is None and other.gold is None and other.score is None


def test_a_page_of_500_questions_stays_small(tmp_path):
    """As long as SQuAD's: 150 words a passage, five questions each, as many concepts as real WordNet gives."""
    random = np.random.default_rng(1)
    lexicon = [f"word{number}" for number in range(3000)]
    passages = [[lexicon[number] for number in random.integers(0, 3000, 170)] for _ in range(100)]
    cases = [make(number, passages[number // 5], right=number % 3 > 0, knowledge=6) for number in range(500)]
    write_page(tmp_path / "many.html", cases, KNOWLEDGE_BASES, NAMES)
    assert 1e6 < (tmp_path / "many.html").stat().st_size < 10e6
    assert len(page_data(cases, KNOWLEDGE_BASES, NAMES, "t")["passages"]) == 100


def test_the_page_asks_for_nothing_outside_itself(tmp_path):
    write_page(tmp_path / "page.html", [make(0, NASTY)], KNOWLEDGE_BASES, NAMES)
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "http:" not in text and "https:" not in text
    assert not re.search(r"(?:src|href)=(?![\"']?data:)|@import|fetch\(|XMLHttpRequest|innerHTML|document\.write", text)
    assert "default-src 'none'" in text


# --- in a browser -----------------------------------------------------------------------------------------------------

needs_browser = pytest.mark.skipif(bool(browser.missing()), reason=browser.missing())


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with browser.open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def show(window, path: Path, cases: list[Case]) -> None:
    write_page(path, cases, KNOWLEDGE_BASES, NAMES)
    window.open(path)


WORDS = "return [...document.querySelectorAll('[aria-label=Passage] .word')].map(node => node.textContent)"
CHOSEN = ("return [...document.querySelectorAll('[aria-label=Passage] .word')]"
          ".findIndex(node => node.getAttribute('aria-pressed') === 'true')")


@needs_browser
def test_texts_are_shown_as_text(window, tmp_path):
    case = make(0, NASTY, answer=(0, 1))
    show(window, tmp_path / "nasty.html", [case])
    assert window.run(WORDS) == NASTY
    assert window.run("return document.getElementById('answer').textContent") == " ".join(NASTY[:2])
    assert window.run("return document.body.textContent.includes('Gold: gold <b>')")
    best = window.run("return [...document.querySelectorAll('.best li')].map(item => [item.textContent, "
                      "item.querySelector('bdi').textContent])")      # apart from the figure, whichever way it runs
    assert best == [[f"{' '.join(NASTY[:2])}  (75.0%)", " ".join(NASTY[:2])], ["no answer  (25.0%)", "no answer"]]
    assert window.run("return document.scripts.length") == 2 and window.log() == []


@needs_browser
def test_what_the_page_shows_are_the_cases_numbers(window, tmp_path):
    case = make(4, small_data.CONTEXT.split(), answer=(2, 3))
    show(window, tmp_path / "one.html", [case])
    assert window.run("return document.getElementById('browse').hidden")
    marked = "return [...document.querySelectorAll('.word.answer')].map(node => node.textContent)"
    assert window.run(marked) == small_data.CONTEXT.split()[2:4]
    for position in range(len(case.pieces)):
        group = "Question" if position < case.query_length else "Passage"
        tables = window.run(f"document.querySelectorAll('[aria-label={group}] .word')[arguments[0]].click();"
                            "return [...document.querySelectorAll('#knowledge table')].map(table => "
                            "[...table.rows].map(row => [row.cells[0].textContent, row.cells[1].textContent]))",
                            position - (0 if group == "Question" else case.query_length))
        found = [(base.name, reading) for base, readings in zip(KNOWLEDGE_BASES, case.readings, strict=True)
                 for reading in readings if reading.position == position]
        assert len(tables) == len(found)
        for rows, (name, reading) in zip(tables, found, strict=True):
            assert rows[-1][0] == "sentinel"
            assert abs(float(rows[-1][1]) - reading.weights[0]) < 1e-6
            assert sum(round(float(value) * UNIT) for _, value in rows) == UNIT
            expected = sorted(zip((NAMES[name][concept - 1] for concept in reading.concepts),
                                  reading.weights[1:].tolist(), strict=True))
            for (shown, value), (concept, weight) in zip(
                    sorted((shown, float(value)) for shown, value in rows[:-1]), expected, strict=True):
                assert shown == concept and abs(value - weight) < 1e-6
        if group == "Passage":
            text = window.run("return document.querySelector('#knowledge p').textContent")
            numbers = [float(number) for number in re.findall(r"[01]\.\d+", text)]
            piece = position - case.query_length
            assert numbers == pytest.approx([case.start[piece], case.end[piece]], abs=1e-6)


@needs_browser
def test_the_keyboard_is_enough(window, tmp_path):
    show(window, tmp_path / "keys.html", [make(number, small_data.CONTEXT.split()) for number in range(3)])
    window.run("document.querySelector('[aria-label=Passage] .word[tabindex=\"0\"]').focus()")
    window.press("Home")
    assert window.run(CHOSEN) == 0
    window.press("ArrowRight", "ArrowRight")
    assert window.run(CHOSEN) == 2
    assert window.run("return document.querySelector('#knowledge h2').textContent") == small_data.CONTEXT.split()[2]
    window.press("End")
    assert window.run(CHOSEN) == len(small_data.CONTEXT.split()) - 1
    window.run("document.querySelector('#list button').focus()")
    window.press("ArrowDown", " ")
    assert window.run("return document.querySelector('[aria-current=true]').textContent").startswith("What1 is it?")
    assert window.run("return location.hash") == "#q1"


@needs_browser
def test_questions_are_filtered_and_opened(window, tmp_path):
    cases = [make(number, small_data.CONTEXT.split(), right=number % 2 == 0, answer=None if number == 3 else (1, 1))
             for number in range(5)]
    show(window, tmp_path / "list.html", cases)
    listed = ("return [...document.querySelectorAll('#list li')].filter(item => !item.hidden)"
              ".map(item => item.textContent.slice(0, 5))")
    assert window.run("return document.getElementById('figures').textContent") == \
        "5 questions: 3 exactly right (60.0%), F1 80.0"
    choose = "document.querySelector(`[value=${arguments[0]}]`).click();" + listed
    assert window.run(choose, "wrong") == ["What1", "What3"]
    assert window.run(choose, "right") == ["What0", "What2", "What4"]
    assert len(window.run(choose, "all")) == 5
    search = "const box = document.getElementById('search'); box.value = arguments[0];" \
             "box.dispatchEvent(new Event('input'));" + listed
    assert window.run(search, "NO ANSWER") == ["What3"]
    window.run("document.querySelectorAll('#list button')[3].click()")
    assert window.run("return document.getElementById('answer').textContent") == "no answer"
    assert window.run("return document.querySelectorAll('.word.answer').length") == 0
    assert window.log() == []


@needs_browser
def test_nothing_is_wider_than_a_phone(tmp_path):
    with browser.open_browser(tmp_path / "profile", 360, 740) as phone:
        show(phone, tmp_path / "phone.html", [make(number, [*NASTY, "x" * 300]) for number in range(2)])
        assert phone.run("return document.documentElement.scrollWidth <= window.innerWidth")
