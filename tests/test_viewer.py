# SPDX-License-Identifier: Apache-2.0
"""The viewer's page: its data, and what a browser shows of it."""
from __future__ import annotations

import dataclasses
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
from src.viewer.cases import Alternative, Case, Reading, WindowResult, make_case
from src.viewer.looked import where_it_looked
from src.viewer.names import describe
from src.viewer.page import UNIT, embed, page_data, render_page, whole_parts, write_page
from testing import browser, small_data

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


@pytest.mark.parametrize("name, label, detail", [
    ("__trout_NN_1", "trout", "noun, sense 1"), ("__alarm_clock_NN_2", "alarm clock", "noun, sense 2"),
    ("__give_up_VB_10", "give up", "verb, sense 10"), ("concept:visualartist", "visual artist", ""),
    ("concept:politicianus", "politician from the US", ""), ("concept:city", "city", ""), ("organ", "organ", ""),
    ("heart_valve", "heart valve", ""), ("_", "_", "")])
def test_names_are_readable(name, label, detail):
    assert describe(name, "a gloss") == (label, detail, "a gloss")


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
    unknown = make_case(dataclasses.replace(example, answers=()), results, tokenizer,
                        DecodingOptions(ignore_padding=True), has_gold=True)      # a file to be answered
    assert unknown.span == case.span and unknown.gold is None and unknown.score is None


@pytest.mark.slow
def test_a_page_of_500_questions_stays_small(tmp_path):
    """As long as SQuAD's: 150 words a passage, five questions each, as many concepts as real WordNet gives."""
    random = np.random.default_rng(1)
    lexicon = [f"word{number}" for number in range(3000)]
    passages = [[lexicon[number] for number in random.integers(0, 3000, 170)] for _ in range(100)]
    cases = [make(number, passages[number // 5], right=number % 3 > 0, knowledge=6) for number in range(500)]
    write_page(tmp_path / "many.html", cases, KNOWLEDGE_BASES, NAMES)
    assert 1e6 < (tmp_path / "many.html").stat().st_size < 10e6
    assert len(page_data(cases, KNOWLEDGE_BASES, NAMES, "t")["passages"]) == 100


def test_the_page_asks_for_nothing_outside_itself():
    text = render_page([make(0, NASTY)], KNOWLEDGE_BASES, NAMES)
    assert "http:" not in text and "https:" not in text
    assert not re.search(r"(?:src|href)=(?![\"']?data:)|@import|fetch\(|XMLHttpRequest|innerHTML|document\.write", text)
    assert "default-src 'none'" in text


def looked_cases() -> list[Case]:
    """A right and a wrong case: nouns 0.6 and 0.2 of "Henrik", 0.4 of the wrong one's "Dale"; a city 0.5."""
    right = read_case({(0, 0): (0.8, (1, 4)), (1, 1): (0.5, (1,))}, score=(1.0, 1.0))
    wrong = read_case({(0, 1): (0.4, (2,))}, score=(0.0, 0.5))
    return [right, dataclasses.replace(wrong, id="q2")]


VERB_TOO = NAMES | {WORDNET.name: [*NAMES[WORDNET.name], "__flow_VB_1"]}


def test_where_it_looked_tells_right_from_wrong():
    rows = [(row.base, row.group, row.pieces, row.right and round(row.right, 6), row.wrong and round(row.wrong, 6))
            for row in where_it_looked(looked_cases(), KNOWLEDGE_BASES, VERB_TOO)]
    assert rows == [(0, "all concepts", 2, 0.8, 0.4), (0, "noun", 2, 0.48, 0.4), (0, "verb", 1, 0.32, None),
                    (1, "all concepts", 1, 0.5, None), (1, "city", 1, 0.5, None)]


def test_rare_groups_are_put_together():
    names = {WORDNET.name: [], NELL.name: [f"concept:c{number}" for number in range(12)]}
    cases = [read_case({(1, 0): (1.0, tuple(range(1, 13 - number)))}, score=(1.0, 1.0)) for number in range(3)]
    rows = where_it_looked(cases, KNOWLEDGE_BASES, names)
    assert [row.group for row in rows] == ["all concepts", *[f"c{number}" for number in range(8)], "others"]
    assert rows[-1].pieces == 3 + 3 + 2 + 1


# --- in a browser -----------------------------------------------------------------------------------------------------

needs_browser = pytest.mark.skipif(bool(browser.missing()), reason=browser.missing())
GLOSSES = {"__river_NN_1": "a large natural stream of water (larger than a creek); used of other things as well"}


@pytest.fixture(scope="module")
def window(tmp_path_factory):
    with browser.open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def phone(tmp_path_factory):
    with browser.open_browser(tmp_path_factory.mktemp("profile"), 390, 844) as opened:
        yield opened


def show(window, path: Path, cases: list[Case]) -> None:
    write_page(path, cases, KNOWLEDGE_BASES, NAMES, gloss=lambda name: GLOSSES.get(name, ""))
    window.open(path)


def read_case(shares: dict[tuple[int, int], tuple[float, tuple[int, ...]]], **changes) -> Case:
    """A case over "Henrik Dale caught trout near Tarn." with given readings.

    Args:
        shares: (knowledge base, passage word) -> what was read (1 - sentinel) and the concepts, the first of which got
            most of it.
        changes: other fields.
    """
    case = make(1, ["Henrik", "Dale", "caught", "trout", "near", "Tarn."])
    readings: tuple[list[Reading], list[Reading]] = ([], [])
    for (base, word), (share, concepts) in sorted(shares.items()):
        parts = np.array([1.5, *[1.0] * (len(concepts) - 1)])
        weights = np.array([1 - share, *share * parts / parts.sum()], np.float32)
        readings[base].append(Reading(case.query_length + word, concepts, weights))
    return dataclasses.replace(case, readings=tuple(map(tuple, readings)), **changes)


WORDS = "return [...document.querySelectorAll('#passage .word')].map(node => node.textContent)"
CHOSEN = ("return [...document.querySelectorAll('#passage .word')]"
          ".findIndex(node => node.getAttribute('aria-pressed') === 'true')")
SENTENCE = "return document.getElementById('sentence').textContent"
LISTED = ("return [...document.querySelectorAll('#cases tbody tr')]"
          ".map(row => row.querySelector('a').textContent.slice(0, 5))")
LINES = """return [...document.querySelectorAll('#passage .word')].map(node =>
    (getComputedStyle(node).backgroundImage.match(/gradient/g) || []).length)"""


@needs_browser
def test_texts_are_shown_as_text(window, tmp_path):
    case = make(0, NASTY, answer=(0, 1))
    show(window, tmp_path / "nasty.html", [case])
    assert window.run(WORDS) == NASTY
    assert window.run("return document.getElementById('answer').textContent") == " ".join(NASTY[:2])
    assert window.run("return document.body.textContent.includes('Gold: gold <b>')")
    best = window.run("return [...document.querySelectorAll('.best li')].map(item => [item.textContent, "
                      "item.querySelector('bdi').textContent])")      # the figure stands apart in both directions
    assert best == [[f"{' '.join(NASTY[:2])} (75%)", " ".join(NASTY[:2])], ["no answer (25%)", "no answer"]]
    assert window.run("return document.scripts.length") == 2 and window.log() == []


@needs_browser
def test_the_page_shows_the_numbers_of_the_case(window, tmp_path):
    case = make(4, small_data.CONTEXT.split(), answer=(2, 3))
    show(window, tmp_path / "one.html", [case])
    assert window.run("return document.getElementById('browse').hidden")
    marked = "return [...document.querySelectorAll('.word.answer')].map(node => node.textContent)"
    assert window.run(marked) == small_data.CONTEXT.split()[2:4]
    for position in range(len(case.pieces)):
        group = "question" if position < case.query_length else "passage"
        tables, pieces = window.run(
            f"document.querySelectorAll('#{group} .word')[arguments[0]].click();"
            "const rows = (table) => [...table.rows].map(row => [row.cells[0].firstChild.textContent, "
            "...[...row.querySelectorAll('data')].map(data => data.value)]);"
            "const all = [...document.querySelectorAll('#knowledge table')];"
            "const pieces = all.filter(one => one.closest('.pieces'));"
            "return [all.filter(one => !pieces.includes(one)).map(rows), pieces.map(rows)]",
            position - (0 if group == "question" else case.query_length))
        found = [(base.name, reading) for base, readings in zip(KNOWLEDGE_BASES, case.readings, strict=True)
                 for reading in readings if reading.position == position]
        assert len(tables) == len(found)
        for rows, (name, reading) in zip(tables, found, strict=True):
            assert rows[-1][0] == "none of these"
            assert abs(float(rows[-1][1]) - reading.weights[0]) < 1e-6
            assert sum(round(float(value) * UNIT) for _, value in rows) == UNIT
            expected = sorted(zip((describe(NAMES[name][concept - 1]).label for concept in reading.concepts),
                                  reading.weights[1:].tolist(), strict=True))
            for (shown, value), (concept, weight) in zip(
                    sorted((shown, float(value)) for shown, value in rows[:-1]), expected, strict=True):
                assert shown == concept and abs(value - weight) < 1e-6
        if group == "passage":
            piece = position - case.query_length
            assert [float(value) for value in pieces[0][1][-2:]] == pytest.approx([case.start[piece], case.end[piece]],
                                                                                 abs=1e-6)


@needs_browser
def test_one_sentence_says_what_was_looked_up(window, tmp_path):
    artist, river, bank = (1,), (1,), (2,)
    show(window, tmp_path / "said.html", [read_case({
        (1, 0): (0.6, artist), (1, 1): (0.52, artist), (0, 3): (0.42, (1, 2)), (0, 2): (0.30, bank),
        (1, 5): (0.2, (2,)), (0, 0): (0.05, river)})])
    assert window.run(SENTENCE) == ("Henrik Dale (NELL: city, 56%), trout (WordNet: river, a large natural stream of "
                                    "water, 42%) and caught (WordNet: bank, 30%) were looked up most.")
    window.run("document.querySelectorAll('#sentence .phrase')[1].click()")
    assert window.run(CHOSEN) == 3
    assert window.run("return document.querySelector('#knowledge').innerText").count("larger than a creek") == 1
    show(window, tmp_path / "little.html", [read_case({(0, 3): (0.004, river)})])
    assert window.run(SENTENCE) == ("Hardly anything was looked up: no word gave a knowledge base more than 0.40% of "
                                    "its attention.")
    show(window, tmp_path / "nothing.html", [read_case({})])
    assert window.run(SENTENCE) == "No word here has a concept in WordNet and NELL."
    show(window, tmp_path / "single.html", [read_case({(0, 3): (0.5, river)})])
    assert window.run(SENTENCE).endswith("50%) was looked up most.")


@needs_browser
def test_underlines_are_as_strong_as_the_reading_and_can_be_switched_off(window, tmp_path):
    show(window, tmp_path / "lines.html", [read_case({(0, 3): (0.9, (1,)), (0, 2): (0.1, (2,)), (1, 0): (0.5, (1,))},
                                                     start=np.eye(6)[5], end=np.eye(6)[5])])
    assert window.run(LINES) == [1, 0, 1, 1, 0, 1]      # three underlined, the last word is shaded as the answer
    look = """return [...document.querySelectorAll('#passage .word')].map(node => {
        const style = getComputedStyle(node), shown = style.backgroundImage.match(/rgba?\\(([^)]*)\\)/);
        return shown && [...shown[1].split(',').map(Number), parseFloat(style.backgroundSize.split(' ')[1])]})"""
    henrik, _, caught, trout, _, _ = window.run(look)
    assert trout[:3] == caught[:3] != henrik[:3]        # one colour for each knowledge base
    assert trout[3] > henrik[3] > caught[3] and trout[4] > henrik[4] > caught[4]      # opacity and thickness
    window.run("document.querySelector('#switches input').click()")
    henrik, _, caught, trout, _, _ = window.run(look)
    assert trout[3] == caught[3] == 0 < henrik[3]
    assert window.run("return [...document.querySelectorAll('#switches label')].map(label => label.textContent)") == [
        "WordNet knows 2 of 9 words, 11% read on average", "NELL knows 1 of 9 words, 5.6% read on average"]


@needs_browser
def test_answers_with_a_memory_off_stand_beside_the_answer(window, tmp_path):
    show(window, tmp_path / "off.html", [read_case({}, compared=(Alternative("without NELL", "trout", 0.314),
                                                                 Alternative("without both", "", 0.02)))])
    assert window.run("return [...document.querySelectorAll('.compare tr')].map(row => row.textContent)") == [
        "without NELLtrout (31%)", "without bothno answer (2.0%)"]


@needs_browser
def test_the_keyboard_is_enough(window, tmp_path):
    show(window, tmp_path / "keys.html", [make(number, small_data.CONTEXT.split()) for number in range(3)])
    window.run("document.querySelectorAll('#cases a')[1].focus()")
    window.press("Enter")
    window.settle()
    assert window.run("return location.hash") == "#q1"
    assert window.run("return document.activeElement.id") == "asked"
    window.run("document.querySelector('#passage .word[tabindex=\"0\"]').focus()")
    window.press("Home")
    assert window.run(CHOSEN) == 0
    window.press("ArrowRight", "ArrowRight")
    assert window.run(CHOSEN) == 2
    assert window.run("return document.querySelector('#knowledge h3').textContent") == small_data.CONTEXT.split()[2]
    window.press("End")
    assert window.run(CHOSEN) == len(small_data.CONTEXT.split()) - 1
    window.run("document.querySelector('#walk a').focus()")
    window.press("Enter")
    window.settle()
    assert not window.run("return document.getElementById('browse').hidden")
    assert window.run("return document.activeElement.textContent").startswith("What1 is it?")


@needs_browser
def test_the_table_is_filtered_sorted_and_opened(window, tmp_path):
    cases = [dataclasses.replace(read_case({(0, 3): (share, (1,)), (1, 0): (1 - share, (1,))}), id=f"q{number}",
                                 question_words=(f"What{number}", "is", "it?"),
                                 prediction="" if number == 3 else "trout", score=(float(number % 2 == 0), 0.6))
             for number, share in enumerate((0.3, 0.9, 0.1, 0.5, 0.7))]
    show(window, tmp_path / "list.html", cases)
    assert window.run("return document.getElementById('figures').textContent") == \
        "5 questions, exact match 60.00, F1 60.00"
    choose = "document.querySelector(`[value=${arguments[0]}]`).click();" + LISTED
    assert window.run(choose, "wrong") == ["What1", "What3"]
    assert window.run(choose, "right") == ["What0", "What2", "What4"]
    assert len(window.run(choose, "all")) == 5
    sort = "[...document.querySelectorAll('thead button')].find(one => one.textContent === arguments[0]).click();"
    assert window.run(sort + LISTED, "WordNet used") == ["What1", "What4", "What3", "What0", "What2"]
    assert window.run("return document.querySelector('[aria-sort]').ariaSort") == "descending"
    assert window.run(sort + LISTED, "WordNet used") == ["What2", "What0", "What3", "What4", "What1"]
    assert window.run(sort + LISTED, "NELL used") == ["What2", "What0", "What3", "What4", "What1"]
    assert window.run(sort + LISTED, "Question") == ["What0", "What1", "What2", "What3", "What4"]
    search = "const box = document.getElementById('search'); box.value = arguments[0];" \
             "box.dispatchEvent(new Event('input'));" + LISTED
    assert window.run(search, "NO ANSWER") == ["What3"]
    row = window.run("return [...document.querySelectorAll('#cases tbody tr > *')].map(cell => cell.innerText)")
    assert row == ["What3 is it?", "no answer", "gold <b>", "60.0", "trout (WordNet: river) and Henrik (NELL: city)",
                   "5.6%", "5.6%"]
    window.run("document.querySelector('#cases a').click()")
    window.settle()
    assert window.run("return document.getElementById('answer').textContent") == "no answer"
    assert window.run("return document.getElementById('browse').hidden") and window.log() == []


@needs_browser
def test_where_it_looked_stands_above_the_questions(window, tmp_path):
    cases = looked_cases()
    write_page(tmp_path / "looked.html", cases, KNOWLEDGE_BASES, VERB_TOO,
               looked=where_it_looked(cases, KNOWLEDGE_BASES, VERB_TOO))
    window.open(tmp_path / "looked.html")
    rows = window.run("document.querySelector('#looked summary').click();"
                      "return [...document.querySelectorAll('#looked tbody tr')].map(row => row.innerText)")
    assert rows[0].split("\t") == ["WordNet: all concepts", "2", "80%", "40%"]
    assert rows[2].split("\t") == ["verb", "1", "32%", "\u2013"]
    assert rows[3].split("\t")[0] == "NELL: all concepts" and window.log() == []
    show(window, tmp_path / "one.html", [make(1, ["one", "two"])])
    assert window.run("return document.getElementById('looked').hidden")


@needs_browser
def test_a_link_opens_a_case(window, tmp_path):
    write_page(tmp_path / "linked.html", [make(number, ["one", "two"]) for number in range(3)], KNOWLEDGE_BASES, NAMES)
    window.open(tmp_path / "linked.html", "#q2")
    assert window.run("return document.getElementById('question').textContent.trim()") == "What2 is it?"
    assert window.run("return [...document.querySelectorAll('#walk a')].map(link => link.getAttribute('href'))") == [
        "#", "#q1"]


@pytest.mark.slow
@needs_browser
def test_on_a_phone_the_panel_covers_no_word_and_nothing_is_too_wide(phone, tmp_path):
    show(phone, tmp_path / "phone.html", [make(number, [*NASTY, "x" * 300, *NASTY]) for number in range(2)])
    assert phone.run("return innerWidth") == 390
    assert phone.run("return document.documentElement.scrollWidth <= innerWidth")
    phone.run("document.querySelector('#cases a').click()")
    phone.settle()
    assert phone.run("return document.getElementById('knowledge')") is None      # until a word is chosen
    covered = """document.querySelectorAll('#passage .word')[arguments[0]].click();
        const panel = document.getElementById('knowledge').getBoundingClientRect();
        return [...document.querySelectorAll('.word')].filter(word => [...word.getClientRects()].some(box =>
            box.bottom > panel.top + 1 && box.top < panel.bottom - 1)).length"""
    for number in range(0, 2 * len(NASTY) + 1, 3):
        assert phone.run(covered, number) == 0, number
        assert phone.run("return document.documentElement.scrollWidth <= innerWidth")
    phone.run("document.querySelector('#knowledge .close').click()")
    assert phone.run("return document.getElementById('knowledge')") is None
