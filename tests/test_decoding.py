# SPDX-License-Identifier: Apache-2.0
"""From logits to answers: the golden answers, an independent slow decoder beside ours, and broken input."""
import json
import math
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.config import FIRST_UNIQUE_ID, MAX_SEQ_LEN, RECORD, SQUAD, DataFolder, WindowConfig
from src.reader import record_twomemory, squad_twomemory
from src.reader.batching_twomemory import FeatureBuilder
from src.reader.decoding import (
    Decoded,
    DecodingOptions,
    NBestEntry,
    PassageText,
    answer_and_score,
    decode,
    pick_entity,
    score,
    top_positions,
    write_predictions,
)
from src.reader.examples import EvaluationExample, Window
from src.reader.logits import Logits
from src.reader.tokenization import BertTokenizer, basic_tokens, split_words
from testing.real_data import SHARED, needs_shared
from utils.util import InputError

# --- The golden answers -------------------------------------------------------------------------------------------

def shared_examples(task):
    """The side table of the shared dev set, as the conversion makes it."""
    data = DataFolder(SHARED)
    read = squad_twomemory.read_examples if task is SQUAD else record_twomemory.read_examples
    builder = FeatureBuilder(BertTokenizer(data.bert() / "vocab.txt", lower_case=False), WindowConfig(), [], "dev")
    for example in read(data.dataset_json(task, "dev"), "dev"):
        yield builder.build(example, [])[1]


@needs_shared
@pytest.mark.parametrize(("task", "features"), [(SQUAD, 1354), (RECORD, 8)], ids=["squad", "record"])
def test_golden_answers(task, features, tmp_path):
    golden = {name: json.loads((SHARED / "golden" / "postprocess" / f"{task.name}_{name}.json").read_bytes())
              for name in ("predictions", "nbest", "eval")}
    values = np.random.RandomState(2019).randn(features, 2, MAX_SEQ_LEN).astype("float32")
    logits = Logits(np.arange(features) + FIRST_UNIQUE_ID, values[:, 0], values[:, 1])
    examples = list(shared_examples(task))
    predictions = write_predictions(tmp_path, decode(examples, logits, DecodingOptions(pick_entity=task is RECORD)))

    assert json.loads((tmp_path / "predictions.json").read_bytes()) == predictions == golden["predictions"]
    nbest = json.loads((tmp_path / "nbest_predictions.json").read_bytes())
    assert list(nbest) == list(golden["nbest"])
    for name, entries in nbest.items():
        assert [entry["text"] for entry in entries] == [entry["text"] for entry in golden["nbest"][name]]
        for entry, expected in zip(entries, golden["nbest"][name], strict=True):
            for field in ("probability", "start_logit", "end_logit"):
                assert entry[field] == pytest.approx(expected[field], rel=1e-12)
    assert score(examples, predictions) == pytest.approx(golden["eval"], abs=1e-9)

# --- An independent decoder: slow, literal, one candidate after the other -------------------------------------------

def slow_text(example, first, last, lower):
    """The text of a span, character by character."""
    words = example.words[example.piece_to_word[first]:example.piece_to_word[last] + 1]
    text = " ".join(words)
    tokens = " ".join(basic_tokens(text, lower))
    pieces = " ".join(" ".join(example.pieces[first:last + 1]).replace(" ##", "").replace("##", "").split())
    begin = tokens.find(pieces)
    visible_text = [place for place, character in enumerate(text) if character != " "]
    visible_tokens = [place for place, character in enumerate(tokens) if character != " "]
    if begin < 0 or len(visible_text) != len(visible_tokens):
        return text
    end = begin + len(pieces) - 1
    return text[visible_text[visible_tokens.index(begin)]:visible_text[visible_tokens.index(end)] + 1]


def slow_decode(example, logits, options):
    """(prediction, [(text, start logit, end logit)], null odds) of one question."""
    candidates = []
    for number, window in enumerate(example.windows):
        used = example.document_offset + window.length + 1 if options.ignore_padding else None
        start_logits, end_logits = ([float(value) for value in row[:used]] for row in logits[window.unique_id])
        starts, ends = (sorted(range(len(row)), key=lambda place, row=row: -row[place])[:options.n_best_size]
                        for row in (start_logits, end_logits))
        for start in starts:
            for end in ends:
                first, last = (place - example.document_offset for place in (start, end))
                if not (0 <= first <= last < window.length and last - first < options.max_answer_length):
                    continue
                piece = window.doc_start + first
                contexts = [min(piece - w.doc_start, w.doc_start + w.length - 1 - piece) + 0.01 * w.length
                            if w.doc_start <= piece < w.doc_start + w.length else -1.0 for w in example.windows]
                if contexts.index(max(contexts)) == number:
                    text = slow_text(example, piece, window.doc_start + last, options.do_lower_case)
                    candidates.append((text, start_logits[start], end_logits[end]))
    nulls = [(float(logits[w.unique_id][0][0]), float(logits[w.unique_id][1][0])) for w in example.windows]
    null = ("", *min(nulls, key=sum))
    if options.version_2_with_negative:
        candidates.append(null)
    entries = []
    for candidate in sorted(candidates, key=lambda c: -(c[1] + c[2])):
        if len(entries) < options.n_best_size and candidate[0] not in [entry[0] for entry in entries]:
            entries.append(candidate)
    if not options.version_2_with_negative:
        entries = entries or [("empty", 0.0, 0.0)]
        return entries[0][0], entries, None
    if null not in entries:
        entries.append(null)
    best = next((entry for entry in entries if entry[0]), None)
    odds = null[1] + null[2] - (best[1] + best[2] if best else 0.0)
    return best[0] if best and odds <= options.null_score_diff_threshold else "", entries, odds


WORDS = st.text(st.sampled_from("abAB.'-é\u0301İß字\u00a0"), min_size=1, max_size=5)


def pieces_of(word, lower):
    """Word pieces by a rule in place of a vocabulary: at most two characters each."""
    for token in basic_tokens(word, lower):
        for place in range(0, len(token), 2):
            yield ("##" if place else "") + token[place:place + 2]


@st.composite
def questions(draw):
    """A question with overlapping windows, coarse logits (so that many are equal), and options."""
    lower = draw(st.booleans())
    words = tuple(draw(st.lists(WORDS, min_size=1, max_size=8)))
    owned = [(piece, number) for number, word in enumerate(words) for piece in pieces_of(word, lower)]
    owned = owned or [("[UNK]", 0)]
    room, stride, query = draw(st.integers(1, 8)), draw(st.integers(1, 8)), draw(st.integers(0, 3))
    windows = []
    for start in range(0, len(owned), min(room, stride)):
        windows.append(Window(FIRST_UNIQUE_ID + len(windows), start, min(room, len(owned) - start)))
    example = EvaluationExample("q", "?", words, tuple(piece for piece, _ in owned), tuple(word for _, word in owned),
                                query, tuple(windows), ())
    options = DecodingOptions(n_best_size=draw(st.integers(1, 6)), max_answer_length=draw(st.integers(1, 6)),
                              version_2_with_negative=draw(st.booleans()), do_lower_case=lower,
                              ignore_padding=draw(st.booleans()),
                              null_score_diff_threshold=draw(st.sampled_from([-1.0, 0.0, 0.5])))
    length = query + 3 + room + draw(st.integers(0, 3))
    values = st.lists(st.sampled_from([-1.5, -0.5, 0.0, -0.0, 0.25, 1.0]), min_size=length, max_size=length)
    rows = [[draw(values), draw(values)] for _ in windows]
    return example, np.array(rows, dtype=draw(st.sampled_from(["float32", "float16", "float64"]))), options


@settings(max_examples=150, deadline=None)
@given(questions())
def test_equals_the_slow_decoder(question):
    example, values, options = question
    ids = np.array([window.unique_id for window in example.windows])
    logits = Logits(ids, values[:, 0], values[:, 1])
    (answer,) = decode([example], logits, options)
    prediction, entries, odds = slow_decode(example, logits, options)
    assert answer.prediction == prediction
    assert [(entry.text, entry.start_logit, entry.end_logit) for entry in answer.nbest] == entries
    assert answer.null_odds == odds
    total = sum(math.exp(start + end) for _, start, end in entries)
    assert [entry.probability for entry in answer.nbest] == pytest.approx(
        [math.exp(start + end) / total for _, start, end in entries])


# --- The steps one by one -------------------------------------------------------------------------------------------

def test_ties_go_to_the_first_position():
    logits = np.array([1, 3, 2, 3, 2, 2, 0], "float32")
    assert top_positions(logits, 4).tolist() == [1, 3, 2, 4]
    assert top_positions(logits, 7).tolist() == top_positions(logits, 99).tolist() == [1, 3, 2, 4, 5, 0, 6]
    assert top_positions(np.array([-0.0, 0.0, -0.0], "float32"), 2).tolist() == [0, 1]


def passage(text, lower=False):
    """A side table line for ``text`` in one window, its pieces made by :func:`pieces_of`."""
    words = tuple(split_words(text)[0])
    owned = [(piece, number) for number, word in enumerate(words) for piece in pieces_of(word, lower)]
    return EvaluationExample("q", "?", words, tuple(piece for piece, _ in owned), tuple(word for _, word in owned), 2,
                             (Window(FIRST_UNIQUE_ID, 0, len(owned)),), ())


@pytest.mark.parametrize(("text", "lower", "first", "last", "answer"), [
    ("Queen Zoë's grain", True, "qu", "zo", "Queen Zo"),
    ("Queen Zoë's grain", True, "zo", "##e", "Zoë"),
    ("the NaNA port", True, "##na", "##na", "Na"),                # "na" is found at its first place, as in BERT
    ("Ships (of Rome).", False, "of", "##me", "of Rome"),
    ("Ships (of Rome).", False, "(", ".", "(of Rome)."),
    ("Its  price\n was $5.50!", False, "$", "50", "$5.50"),
    ("the İzmir port", True, "iz", "##r", "İzmir"),               # i and a dot become one letter
])
def test_text_of_a_span(text, lower, first, last, answer):
    example = passage(text, lower)
    pieces = list(example.pieces)
    begin = pieces.index(first)
    assert PassageText(example, lower).span_text(begin, pieces.index(last, begin)) == answer


def test_text_falls_back_to_whole_words():
    decomposed = passage(unicodedata.normalize("NFD", "Zoë's grain"), lower=True)    # one character more than its token
    assert PassageText(decomposed, True).span_text(0, 0) == unicodedata.normalize("NFD", "Zoë's")
    unknown = EvaluationExample("q", "?", ("by", "\u2603-men."), ("by", "[UNK]", "-", "men", "."), (0, 1, 1, 1, 1), 1,
                                (Window(FIRST_UNIQUE_ID, 0, 5),), ())
    assert PassageText(unknown, False).span_text(0, 1) == "by \u2603-men."
    assert PassageText(unknown, False).span_text(2, 3) == "-men"


def test_an_entity_is_preferred():
    entries = [NBestEntry(text, 0.3, 0.0, 0.0) for text in ("the", "old Rome!", "Egypt")]
    assert pick_entity(entries, ["Ancient rome", "egypt"]) == "old Rome!"
    assert pick_entity(entries, ["The"]) == pick_entity(entries, []) == "the"    # an article is no word to share


def decoded(example, start_logits, end_logits, **options):
    logits = Logits(np.array([FIRST_UNIQUE_ID]), np.array([start_logits], "float32"), np.array([end_logits], "float32"))
    (answer,) = decode([example], logits, DecodingOptions(**options))
    return answer


def test_no_candidate():
    example = passage("Rome fell")                                          # 4 pieces from position 4 on
    backwards = decoded(example, [0] * 7 + [9, 0], [0] * 4 + [9, 0, 0, 0, 0], n_best_size=1)
    assert backwards == Decoded("q", "empty", (NBestEntry("empty", 1.0, 0.0, 0.0),))
    nothing = decoded(example, [1] + [0] * 6 + [9, 0], [2] + [0] * 3 + [9, 0, 0, 0, 0], n_best_size=1,
                      version_2_with_negative=True)
    assert nothing == Decoded("q", "", (NBestEntry("", 1.0, 1.0, 2.0),), 3.0)


def test_padding_competes_unless_it_is_ignored():
    start = [0] * 4 + [1, 0, 0, 0, 0] + [9, 9]    # two positions of padding
    padded = decoded(passage("Rome fell"), start, start, n_best_size=2)
    assert padded.prediction == "empty"
    assert decoded(passage("Rome fell"), start, start, n_best_size=2, ignore_padding=True).prediction == "Ro"


def test_a_passage_without_word_pieces():
    empty = EvaluationExample("q", "?", ("\u200b",), (), (), 2, (), ())
    (answer,) = decode([empty], rows(0))
    assert answer == Decoded("q", "empty", (NBestEntry("empty", 1.0, 0.0, 0.0),))
    (answer,) = decode([empty], rows(0), DecodingOptions(version_2_with_negative=True))
    assert (answer.prediction, answer.null_odds) == ("", 0.0)


def test_no_answer_against_the_threshold():
    start, end = [1.0] + [0] * 3 + [2.0, 0, 0, 0, 0], [1.0] + [0] * 4 + [0.5, 0, 0, 0]
    for threshold, answer in ((0.0, "Rome"), (-0.5, "Rome"), (-0.6, "")):   # null 2.0 against 2.5
        result = decoded(passage("Rome fell"), start, end, version_2_with_negative=True,
                         null_score_diff_threshold=threshold)
        assert (result.prediction, result.null_odds) == (answer, -0.5)
        assert [entry.text for entry in result.nbest[:5]] == ["Rome", "Ro", "Rome fe", "Rome fell", ""]


# --- Files ----------------------------------------------------------------------------------------------------------

def test_files(tmp_path):
    answers = [Decoded("one", "Ro\"me\u2028", (NBestEntry("Ro\"me\u2028", 0.75, 1.5, 0.5), NBestEntry("", 0.25, 1, 0)),
                       -2.0),
               Decoded("two", "", (NBestEntry("", 1.0, 0.0, 0.0),), 1.0)]
    assert write_predictions(tmp_path, iter(answers)) == {"one": "Ro\"me\u2028", "two": ""}
    assert json.loads((tmp_path / "null_odds.json").read_bytes()) == {"one": -2.0, "two": 1.0}
    assert json.loads((tmp_path / "nbest_predictions.json").read_bytes())["one"] == [
        {"text": "Ro\"me\u2028", "probability": 0.75, "start_logit": 1.5, "end_logit": 0.5},
        {"text": "", "probability": 0.25, "start_logit": 1, "end_logit": 0}]

    write_predictions(tmp_path, [])                 # a run without null odds leaves none of an earlier run behind
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nbest_predictions.json", "predictions.json"]
    assert json.loads((tmp_path / "nbest_predictions.json").read_bytes()) == {}


def test_nothing_is_written_when_an_answer_fails(tmp_path):
    one = Decoded("one", "Rome", (NBestEntry("Rome", 1.0, 0.0, 0.0),))
    write_predictions(tmp_path, [one])
    before = (tmp_path / "nbest_predictions.json").read_bytes()
    with pytest.raises(InputError, match="question one occurs twice"):
        write_predictions(tmp_path, [one, one])
    assert (tmp_path / "nbest_predictions.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_answer_and_score(tmp_path):
    example = with_windows((FIRST_UNIQUE_ID, 0, 4), answers=("rome",), entities=("Fell",))
    start, end = np.zeros((2, 1, 9), "float32")
    start[0, 4] = end[0, 5] = 3.0
    start[0, 6] = end[0, 7] = 2.0
    logits = Logits(np.array([FIRST_UNIQUE_ID]), start, end)
    side_table = tmp_path / "dev.examples.jsonl"
    side_table.write_text(example.to_json() + "\n", encoding="utf-8")
    for dataset, text, figure in (("squad", "Rome", 100.0), ("record", "Rome fell", 0.0)):
        options = DecodingOptions.for_features({"dataset": dataset, "lower_case": False,
                                                "version_2_with_negative": False}, n_best_size=3)
        result = answer_and_score(tmp_path / "dev.mindrecord", logits, tmp_path / dataset, options)
        assert result["exact_match"] == figure
        assert json.loads((tmp_path / dataset / "predictions.json").read_bytes()) == {"q": text}
        assert json.loads((tmp_path / dataset / "eval_result.json").read_bytes()) == result

    side_table.write_text(with_windows((FIRST_UNIQUE_ID, 0, 4)).to_json() + "\n", encoding="utf-8")
    assert answer_and_score(tmp_path / "dev.mindrecord", logits, tmp_path / "squad", DecodingOptions()) == {}
    assert sorted(path.name for path in (tmp_path / "squad").iterdir()) == ["nbest_predictions.json",
                                                                            "predictions.json"]


def test_score_of_squad_2():
    answerable = EvaluationExample("one", "?", (), (), (), 0, (), ("Rome",))
    impossible = EvaluationExample("two", "?", (), (), (), 0, (), (), is_impossible=True)
    predictions = {"one": "Rome", "two": ""}
    assert score([answerable, impossible], predictions, True) == {"exact_match": 100.0, "f1": 100.0}
    with pytest.raises(InputError, match="version_2_with_negative"):
        score([answerable, impossible], predictions)


def test_logits_file(tmp_path):
    values = np.random.RandomState(0).randn(2, 3, 5).astype("float32")
    Logits(np.array([[7], [9], [8]], "int32"), *values).save(tmp_path / "logits.npz")
    with np.load(tmp_path / "logits.npz") as arrays:
        assert {name: (arrays[name].shape, str(arrays[name].dtype)) for name in arrays} == {
            "unique_id": ((3,), "int64"), "start_logits": ((3, 5), "float32"), "end_logits": ((3, 5), "float32")}
    loaded = Logits.load(tmp_path / "logits.npz")
    assert list(loaded) == [7, 9, 8]
    np.testing.assert_array_equal(loaded[8], values[:, 2])


@pytest.mark.parametrize(("content", "message"), [
    (None, "no such file"), (b"", "not a file of logits"), (b"PK\x03\x04 cut", "not a file of logits"),
    ({"unique_id": np.arange(2)}, "not a file of logits"),
    ({"unique_id": np.arange(2), "start_logits": np.zeros((2, 4)), "end_logits": np.zeros((3, 4))}, "end logits are"),
    ({"unique_id": np.array([{}, {}]), "start_logits": np.zeros((2, 4)), "end_logits": np.zeros((2, 4))},
     "not a file of logits"),
])
def test_broken_logits_file(tmp_path, content, message):
    path = tmp_path / "logits.npz"
    if isinstance(content, dict):
        np.savez(path, **content)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        Logits.load(path)
    assert str(path) in str(error.value)


# --- Broken input ---------------------------------------------------------------------------------------------------

FLOATS = np.zeros((2, 9), "float32")


@pytest.mark.parametrize(("ids", "start", "end", "message"), [
    (np.array([1, 1]), FLOATS, FLOATS, "unique id 1 occurs twice"),
    (np.array([1, 2, 3]), FLOATS, FLOATS, r"start logits are float32 \[2, 9\]"),
    (np.array([1, 2]), FLOATS, FLOATS[:1], r"end logits are float32 \[1, 9\]"),
    (np.array([1, 2]), FLOATS.astype(int), FLOATS, "start logits are int64"),
    (np.array([1, 2]), FLOATS[0], FLOATS, "start logits"),
    (np.array([1.0, 2.0]), FLOATS, FLOATS, "unique ids are float64"),
])
def test_arrays_that_do_not_fit(ids, start, end, message):
    with pytest.raises(InputError, match=message):
        Logits(ids, start, end)


def rows(count, length=9, first=FIRST_UNIQUE_ID, value=0.0):
    return Logits(np.arange(first, first + count), np.full((count, length), value, "float32"),
                  np.zeros((count, length), "float32"))


def with_windows(*windows, **changes):
    example = passage("Rome fell")
    values = {name: getattr(example, name) for name in EvaluationExample.__dataclass_fields__}
    return EvaluationExample(**{**values, "windows": tuple(Window(*window) for window in windows), **changes})


@pytest.mark.parametrize(("examples", "logits", "message"), [
    ([passage("Rome fell")], rows(0), "unique id 1000000000 .question q. are missing"),
    ([passage("Rome fell")], rows(2), "2 features, but the questions have 1 .unique id 1000000001"),
    ([passage("Rome fell")], rows(1, length=8), "needs 9 positions; use the max_seq_len"),
    ([passage("Rome fell")], rows(1, value=np.nan), "not all finite"),
    ([passage("Rome fell")], rows(1, value=np.inf), "not all finite"),
    ([passage("Rome fell")] * 2, rows(1), "unique id 1000000000 .question q. occurs twice"),
    ([passage("Rome fell")], {FIRST_UNIQUE_ID: (np.zeros(9, "float32"), np.zeros(10, "float32"))}, "shapes"),
    ([passage("Rome fell")], {FIRST_UNIQUE_ID: (np.zeros((1, 9), "float32"),) * 2}, "shapes"),
    ([with_windows((FIRST_UNIQUE_ID, 2, 3))], rows(1), "outside its passage"),
    ([with_windows((FIRST_UNIQUE_ID, -1, 3))], rows(1), "outside its passage"),
    ([with_windows((FIRST_UNIQUE_ID, 0, 4), piece_to_word=(0, 0, 1, 2))], rows(1), "outside its passage"),
    ([with_windows((FIRST_UNIQUE_ID, 0, 4), piece_to_word=(0, 0, 1))], rows(1), "outside its passage"),
])
def test_logits_and_side_table_that_do_not_fit(examples, logits, message):
    with pytest.raises(InputError, match=message):
        list(decode(examples, logits))


@pytest.mark.parametrize(("option", "value"), [("n_best_size", 0), ("max_answer_length", -1),
                                               ("null_score_diff_threshold", math.nan),
                                               ("null_score_diff_threshold", math.inf)])
def test_bad_options(option, value):
    with pytest.raises(InputError, match=f"--{option}"):
        DecodingOptions(**{option: value})


def test_questions_are_answered_one_at_a_time():
    asked = []

    def examples():
        for number in range(3):
            asked.append(number)
            yield with_windows((FIRST_UNIQUE_ID + number, 0, 4))

    answers = decode(examples(), rows(3))
    next(answers)
    assert asked == [0]
