# SPDX-License-Identifier: Apache-2.0
"""Words, word pieces, windows, labels, concepts, and the two data sets' readers."""
from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

import src.reader.dataset_json as dataset_json
from src.config import KNOWLEDGE_BASES, NELL, SQUAD, WORDNET, DataFolder, KnowledgeBase, WindowConfig, feature_columns
from src.knowledge.formats import read_records
from src.knowledge.lookup import EntityLookup, WordLookup, uncased_places
from src.reader.batching_twomemory import (
    NO_PIECES,
    TEXT_NOT_FOUND,
    FeatureBuilder,
    Passage,
    answer_pieces,
    max_context_windows,
    window_spans,
)
from src.reader.examples import Answer, Example
from src.reader.record_twomemory import read_examples as read_record
from src.reader.squad_twomemory import read_examples as read_squad
from src.reader.storage import FeatureBatch, FeatureExpander, PieceConcepts, expand_concepts, pack_feature
from src.reader.tokenization import Analysis, BertTokenizer, basic_tokens, load_vocabulary, split_words, strip_accents
from testing import small_data
from testing.real_data import SHARED, needs_shared
from utils.util import InputError

unhurried = settings(deadline=None)     # a busy machine is no fault


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> BertTokenizer:
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(small_data.VOCABULARY), encoding="utf-8")
    return BertTokenizer(path, lower_case=False)


# --- words, tokens, word pieces --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "lower_case", "expected"), [
    ("Don't stop, naïve Café!", False, ["Don", "'", "t", "stop", ",", "naïve", "Café", "!"]),
    ("Don't stop, naïve Café!", True, ["don", "'", "t", "stop", ",", "naive", "cafe", "!"]),
    ("$3.50 a^b `c` ~d", False, ["$", "3", ".", "50", "a", "^", "b", "`", "c", "`", "~", "d"]),
    ("東京は big", False, ["東", "京", "は", "big"]),                   # CJK characters alone, kana not
    ("a\u200bb\x07c \ufffd\x00d", False, ["abc", "d"]),                # format and control characters vanish
    ("a\u3000b\u202fc\xa0d", False, ["a", "b", "c", "d"]),             # Unicode spaces separate
    ("ΟΔΥΣΣΕΥΣ", True, ["οδυσσευς"]),                                  # a final sigma, as Python lower-cases
    ("İstanbul", True, ["istanbul"]),
    ("5 ≠ 6", True, ["5", "=", "6"]),                                  # what is left without the stroke
    ("x\ue000y \ue000 \u0378z", False, ["xy", "z"]),                    # so do private use and what is unassigned
    ("«né» — “q”", False, ["«", "né", "»", "—", "“", "q", "”"]),
    ("", True, []),
])
def test_basic_tokens(text: str, lower_case: bool, expected: list[str]) -> None:
    assert basic_tokens(text, lower_case) == expected


@unhurried
@given(st.text(st.characters(max_codepoint=0x4FF, blacklist_categories=("Cn", "Co", "Cs")), max_size=40), st.booleans())
def test_basic_tokens_agree_with_the_library(text: str, lower_case: bool) -> None:
    """The library's own BERT normaliser and splitter, where its Unicode tables are not in question."""
    text = text.replace("Σ", "s")      # it lower-cases a final sigma differently
    normal = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=lower_case,
                                        lowercase=lower_case).normalize_str(text)
    expected = [token for token, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(normal)]
    assert basic_tokens(text, lower_case) == expected


@pytest.fixture(scope="module")
def syllables(tmp_path_factory: pytest.TempPathFactory) -> BertTokenizer:
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join([*small_data.SPECIAL, "a", "r", "##r", "Par", "##is", "st", "##st", "s", "##a", "-", ".",
                               "in", "##i", "t", "##n", "e", "##e", "一"]), encoding="utf-8")
    return BertTokenizer(path, lower_case=False)


@unhurried
@given(st.text(st.sampled_from("aeinrst Paris-.,'é\u00a0\u4e00"), max_size=60))
def test_word_pieces_agree_with_the_library(syllables: BertTokenizer, text: str) -> None:
    library = Tokenizer(models.WordPiece(syllables.vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    library.normalizer = normalizers.BertNormalizer(strip_accents=False, lowercase=False)
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    expected = library.encode(text)
    ours = syllables.analyse(split_words(text)[0])
    assert (ours.pieces, ours.piece_ids, ours.piece_to_token) == (expected.tokens, expected.ids, expected.word_ids)
    assert ours.tokens == basic_tokens(text, lower_case=False)


def test_word_pieces(tokenizer: BertTokenizer) -> None:
    assert tokenizer.tokenize("Where is Paris?") == ["Where", "is", "Paris", "?"]
    assert tokenizer.tokenize("Seine's Parine-Parisis") == ["Se", "##ine", "'", "s", "Par", "##ine", "-", "Paris",
                                                           "##is"]
    assert tokenizer.tokenize("Sein") == ["[UNK]"]
    assert tokenizer.tokenize("[SEP]") == ["[UNK]", "[UNK]", "[UNK]"]      # a text cannot write special pieces
    assert tokenizer.tokenize("\u200b \x07") == []


def test_long_tokens_become_unknown(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n##a\n")
    tokenizer = BertTokenizer(path, lower_case=True)
    assert tokenizer.tokenize("A" * 100) == ["a"] + ["##a"] * 99
    assert tokenizer.tokenize("A" * 101) == ["[UNK]"]


def test_analysis_owners(tokenizer: BertTokenizer) -> None:
    analysis = tokenizer.analyse(["Paris,", "Seine's", "\u200b", "the"])
    assert analysis.tokens == ["Paris", ",", "Seine", "'", "s", "the"]
    assert analysis.pieces == ["Paris", ",", "Se", "##ine", "'", "s", "the"]
    assert analysis.piece_to_token == [0, 1, 2, 2, 3, 4, 5]
    assert analysis.piece_to_word == [0, 0, 1, 1, 1, 1, 3]
    assert analysis.piece_ids == [small_data.VOCABULARY.index(piece) for piece in analysis.pieces]


def test_remembered_words_stay_bounded(tokenizer: BertTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("src.reader.tokenization.CACHED_WORDS", 10)
    words = [f"word{number}" for number in range(50)]
    first = tokenizer.analyse(words)
    assert len(tokenizer._words) <= 10
    assert tokenizer.analyse(words) == first


@unhurried
@given(st.text(st.sampled_from("ab \t\r\n\u202f\u00a0\u3000"), max_size=30))
def test_split_words(text: str) -> None:
    words, starts = split_words(text)
    assert words == [word for word in re.split("[ \t\r\n\u202f]", text) if word]
    for word, start in zip(words, starts, strict=True):
        assert text[start:start + len(word)] == word


def test_strip_accents() -> None:
    assert strip_accents("Ångström naïve") == "Angstrom naive"


@pytest.mark.parametrize(("lines", "problem"), [
    (["[PAD]", "[UNK]", "[CLS]", "a"], r"\[SEP\] missing"),
    (["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "a"], "line 6.*line 5"),
    (["a", "[PAD]", "[UNK]", "[CLS]", "[SEP]"], "first piece"),
])
def test_bad_vocabularies(tmp_path: Path, lines: list[str], problem: str) -> None:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=problem):
        load_vocabulary(path)


def test_vocabulary_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_bytes(b"[PAD]\n\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        load_vocabulary(tmp_path / "vocab.txt")
    with pytest.raises(InputError, match="no such file"):
        load_vocabulary(tmp_path / "other.txt")


# --- windows and labels ----------------------------------------------------------------------------------------------


@unhurried
@given(st.integers(0, 400), st.integers(1, 120), st.integers(1, 150))
def test_windows_cover_the_passage(pieces: int, room: int, stride: int) -> None:
    spans = window_spans(pieces, room, stride)
    covered = {place for start, length in spans for place in range(start, start + length)}
    assert covered == set(range(pieces))
    assert all(1 <= length <= room for _, length in spans)
    assert all(later - earlier == min(stride, room) for (earlier, _), (later, _) in zip(spans, spans[1:], strict=False))
    assert all(start + length < pieces for start, length in spans[:-1])


@unhurried
@given(st.integers(1, 120), st.integers(1, 40), st.integers(1, 50))
def test_max_context(pieces: int, room: int, stride: int) -> None:
    spans = window_spans(pieces, room, stride)
    winners = max_context_windows(spans, pieces)
    for place in range(pieces):
        scores = [min(place - start, start + length - 1 - place) + 0.01 * length if start <= place < start + length
                  else -1.0 for start, length in spans]
        assert winners[place] == scores.index(max(scores))


def make_passage(text: str, tokenizer: BertTokenizer) -> Passage:
    words, starts = split_words(text)
    analysis = tokenizer.analyse(words)
    return Passage(text, words, starts, analysis, np.array(analysis.piece_ids, np.int32))


def test_answers_narrow_to_their_pieces(tokenizer: BertTokenizer) -> None:
    text = "The mayor of Lima (1895-1943)."
    passage = make_passage(text, tokenizer)
    pieces = passage.analysis.pieces

    def found(answer: str, start: int | None = None) -> list[str] | str:
        span = answer_pieces(Answer(answer, text.index(answer) if start is None else start), passage, tokenizer)
        return span if isinstance(span, str) else pieces[span[0]:span[1] + 1]

    assert found("1895") == ["1895"]
    assert found("1895-1943") == ["1895", "-", "1943"]
    assert found("mayor of Lima") == ["mayor", "of", "Lima"]
    assert found("Lima", text.index("mayor")) == TEXT_NOT_FOUND
    # Part of a word that is no run of its pieces: the whole word stands for it.
    assert found("ima") == ["Lima"]
    assert found("mayor  of", text.index("mayor")) == ["mayor", "of"]      # white space does not count


def test_answer_without_pieces(tokenizer: BertTokenizer) -> None:
    passage = make_passage("the \u200b river", tokenizer)
    assert answer_pieces(Answer("\u200b", 4), passage, tokenizer) == NO_PIECES
    # Inside a word that has pieces, the word stands for it.
    assert answer_pieces(Answer("\u200b", 3), make_passage("The\u200b river", tokenizer), tokenizer) == (0, 0)


class NoConcepts:
    """A knowledge base that knows nothing."""

    per_question = False

    def find(self, text: Analysis, side: str, record: object) -> PieceConcepts:
        return PieceConcepts(np.zeros(len(text.pieces), np.int32), np.zeros(0, np.int32))


def build(tokenizer: BertTokenizer, example: Example, split: str, **sizes: int):
    builder = FeatureBuilder(tokenizer, WindowConfig(**sizes), [NoConcepts()], split)
    features, entry = builder.build(example, [None])
    return [FeatureExpander([WORDNET], split, 16)(*feature) for feature in features], entry, builder.tally


def test_training_windows_hold_the_answer(tokenizer: BertTokenizer) -> None:
    passage = "Paris lies on the Seine . The river ' s banks are long ."       # 15 pieces
    example = Example("q", "Where is Paris ?", passage, (Answer("river", passage.index("river")),))
    features, entry, tally = build(tokenizer, example, "train", max_seq_len=13, doc_stride=3, max_query_length=2)
    # Room for 8 pieces; windows at 0 (to 7), 3 (to 10), 6 (to 13), 9 (to 14); "river" is piece 8 (0-based).
    spans = window_spans(15, 8, 3)
    assert spans == [(0, 8), (3, 8), (6, 8), (9, 6)]
    assert [int(feature[-2][0]) for feature in features] == [8 - start + 4 for start in (3, 6)]
    assert all(small_data.VOCABULARY[feature[1][int(feature[-2][0])]] == "river" for feature in features)
    assert tally.dropped_windows == 2 and entry is None
    mask, source, positions, segments = features[0][:4]
    assert mask.tolist() == [1.0] * 13 + [0.0] * 3
    assert [small_data.VOCABULARY[piece] for piece in source[:5]] == ["[CLS]", "Where", "is", "[SEP]", "the"]
    assert segments.tolist() == [0] * 4 + [1] * 9 + [0] * 3 and positions.tolist() == list(range(16))


def test_evaluation_windows(tokenizer: BertTokenizer) -> None:
    passage = "Paris lies on the Seine . The river ' s banks are long ."
    builder = FeatureBuilder(tokenizer, WindowConfig(13, 3, 2), [NoConcepts()], "dev")
    for number in range(2):
        example = Example(f"q{number}", "Where is Paris ?", passage, (Answer("Seine", 18),))
        features, entry = builder.build(example, [None])
        assert entry is not None
        first = 1000000000 + 4 * number
        assert [window.unique_id for window in entry.windows] == list(range(first, first + 4))
        assert [(window.doc_start, window.length) for window in entry.windows] == window_spans(15, 8, 3)
        assert len(features) == 4 and entry.query_length == 2 and entry.answers == ("Seine",)
        assert entry.pieces == tuple(tokenizer.tokenize(passage)) and entry.words == tuple(passage.split())


def test_impossible_questions_point_at_cls(tokenizer: BertTokenizer) -> None:
    example = Example("q", "Where is Lima?", "Paris lies on the Seine.", (), is_impossible=True)
    features, _, _ = build(tokenizer, example, "train", max_seq_len=16, doc_stride=8, max_query_length=8)
    assert [(int(feature[-2][0]), int(feature[-1][0])) for feature in features] == [(0, 0)]


def test_no_room_for_the_passage(tokenizer: BertTokenizer) -> None:
    example = Example("q7", "Where is Paris?", "Paris lies", (), is_impossible=True)
    with pytest.raises(InputError, match="--max_seq_len 7: question q7 has 4 word pieces.*at least 8"):
        build(tokenizer, example, "train", max_seq_len=7, doc_stride=8, max_query_length=8)


# --- concepts and the stored form ------------------------------------------------------------------------------------


def test_word_lookup_ignores_case_and_accents(tokenizer: BertTokenizer) -> None:
    base = KnowledgeBase("wn", "WordNet", "v", "r", "word", max_concepts=2)
    lookup = WordLookup(base, {"seine": ["b", "a", "c"], "the": ["c"]}, {"a": 1, "b": 2, "c": 3}, Path("r"), Path("v"))
    counts, ids = lookup.find(tokenizer.analyse(["The", "Seine,", "Séine"]), "document")
    # Pieces: The | Se ##ine , | [UNK] (the word behind it is known); lists are cut to two, in the file's order.
    assert counts.tolist() == [1, 2, 2, 0, 2] and ids.tolist() == [3, 2, 1, 2, 1, 2, 1]


def test_entity_lookup_unites_what_covers_a_word(tokenizer: BertTokenizer) -> None:
    base = KnowledgeBase("nell", "NELL", "v", "r", "entity", max_concepts=3)
    lookup = EntityLookup(base, {"a": 1, "b": 2, "c": 3, "d": 4}, Path("r"), Path("v"))
    text = tokenizer.analyse(["The", "Seine", "river"])     # The | Se ##ine | river
    record = {"id": "q", "query_entities": [], "document_entities": [
        small_data.entity("the seine", 0, 1, "b", "a"), small_data.entity("seine river", 1, 2, "a", "c", "d")]}
    counts, ids = lookup.find(text, "document", record)
    assert counts.tolist() == [2, 3, 3, 3]
    assert ids.tolist() == [2, 1] + [2, 1, 3] * 2 + [1, 3, 4]
    assert lookup.find(text, "query", record).counts.tolist() == [0, 0, 0, 0]


def test_uncased_places() -> None:
    assert list(uncased_places(["Don", "'", "t"])) == [0, 1, 2]
    # The uncased text has no word for a lone accent, and two for a sign that comes apart.
    assert list(uncased_places(["é", "\u0301", "a≠b"])) == [0, 2, 2, 2]


def features_strategy():
    def make(sizes: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
        counts = np.array([count for count, _ in sizes], np.int32)
        ids = np.arange(1, counts.sum() + 1, dtype=np.int32)
        return counts, ids

    return st.lists(st.tuples(st.integers(0, 5), st.just(0)), min_size=1, max_size=12).map(make)


@unhurried
@given(features_strategy(), st.integers(1, 6))
def test_expand_concepts(stored: tuple[np.ndarray, np.ndarray], width: int) -> None:
    counts, ids = stored
    expected = np.zeros((14, width, 1), np.int32)
    taken = 0
    for row, count in enumerate(counts):
        for place in range(min(count, width)):
            expected[row, place, 0] = ids[taken + place]
        taken += count
    result = expand_concepts(counts, ids, 14, width)
    assert result.dtype == np.int32 and np.array_equal(result, expected)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_expanded_columns_follow_the_feature_table(split: str) -> None:
    labels = [4, 6] if split == "train" else [1000000007]
    counts = np.array([0, 2, 0, 1, 0], np.int32)
    none = PieceConcepts(np.zeros(5, np.int32), np.zeros(0, np.int32))
    packed = pack_feature(np.array([2, 7, 3, 9, 3], np.int32), 3,
                          [PieceConcepts(counts, np.array([11, 12, 13], np.int32)), none], labels)
    assert all(array.dtype == np.int32 and len(array) for array in packed)
    for bases in (KNOWLEDGE_BASES, [NELL], [WORDNET], []):
        expander = FeatureExpander(bases, split, 8)
        by_name = dict(zip(["text", "wn_concepts", "nell_concepts"], packed, strict=True))
        dense = expander(*(by_name[name] for name in expander.stored_names))
        table = feature_columns(bases, split, 8)
        assert expander.column_names == tuple(column.name for column in table)
        assert [(array.shape, array.dtype.name) for array in dense] == [(item.shape, item.dtype) for item in table]
        columns = dict(zip(expander.column_names, dense, strict=True))
        assert columns["src_ids"].tolist() == [2, 7, 3, 9, 3, 0, 0, 0]
        assert columns["sent_ids"].tolist() == [0, 0, 0, 1, 1, 0, 0, 0]
        assert columns["pos_ids"].tolist() == list(range(8))
        assert [int(array[0]) for array in dense[len(dense) - len(labels):]] == labels
        if WORDNET in bases:
            assert columns["wn_concept_ids"][1, :3, 0].tolist() == [11, 12, 0]
            assert columns["wn_concept_ids"].sum() == 36
    with pytest.raises(InputError, match="--max_seq_len 4.*5 word pieces"):
        FeatureExpander([], split, 4)(packed[0])


@unhurried
@given(st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=6), min_size=1, max_size=5))
def test_batches_come_apart_again(texts: list[list[int]]) -> None:
    features = [[np.array(text, np.int32), np.array(text[::-1] * 2, np.int32)] for text in texts]
    batch = FeatureBatch.pack(features)
    rows = batch.rows(["text", "wn_concepts"])
    assert [row["text"].tolist() for row in rows] == texts
    assert [row["wn_concepts"].tolist() for row in rows] == [text[::-1] * 2 for text in texts]
    assert batch.lengths("dev").tolist() == [len(text) - 2 for text in texts]
    assert FeatureBatch.pack([]).rows(["text"]) == []


# --- readers ---------------------------------------------------------------------------------------------------------


def json_values():
    texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=30)
    numbers = st.integers(-10**12, 10**12) | st.floats(allow_nan=False, allow_infinity=False)
    scalars = st.none() | st.booleans() | numbers | texts
    return st.recursive(scalars, lambda inner: st.lists(inner, max_size=4)
                        | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3), max_leaves=10)


@pytest.fixture(scope="module")
def json_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("json") / "data.json"


@unhurried
@given(items=st.lists(json_values(), max_size=6), other=json_values(), chunk=st.sampled_from([17, 40, 1000]),
       indent=st.sampled_from([None, 1]), escape=st.booleans(), cut=st.integers(0, 400))
def test_streamed_json_is_json(json_file: Path, items: list, other: object, chunk: int, indent: int | None,
                               escape: bool, cut: int) -> None:
    """The streaming reader gives what json.loads gives, whatever the block size, and refuses what it refuses."""
    text = json.dumps({"version": other, "data": items, "x": other}, indent=indent, ensure_ascii=escape)
    before, dataset_json.CHUNK = dataset_json.CHUNK, chunk
    try:
        json_file.write_text(text, encoding="utf-8")
        assert [item for _, item in dataset_json.stream_items(json_file)] == items
        json_file.write_text(text[:cut % len(text)], encoding="utf-8")
        with pytest.raises(InputError):
            list(dataset_json.stream_items(json_file))
    finally:
        dataset_json.CHUNK = before


def test_syntax_errors_name_line_and_column(json_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = '{"data": [' + ", ".join(['{"a": "bcd"}'] * 9) + ', {"a" 5}]}'
    json_file.write_text(text)
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(text)
    for chunk in (17, 1000):
        monkeypatch.setattr(dataset_json, "CHUNK", chunk)
        with pytest.raises(InputError, match=f"line 1, column {expected.value.colno}:"):
            list(dataset_json.stream_items(json_file))


def write(path: Path, values: object) -> Path:
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


def test_read_squad(tmp_path: Path) -> None:
    path = write(tmp_path / "dev.json", small_data.squad()["dev"])
    examples = list(read_squad(path, "dev"))
    assert [example.id for example in examples] == ["d1", "d2"]
    first = examples[0]
    assert first.question == "What runs through Paris?" and first.passage == small_data.CONTEXT
    assert first.answers == (Answer("the Seine", 14), Answer("Seine", 18)) and not first.is_impossible


def test_read_squad_2(tmp_path: Path) -> None:
    values = small_data.squad()["train"]
    values["data"][0]["paragraphs"][0]["qas"][0] |= {"is_impossible": True, "answers": [], "plausible_answers": []}
    path = write(tmp_path / "train.json", values)
    examples = list(read_squad(path, "train", version_2=True))
    assert [example.is_impossible for example in examples] == [True, False, False]
    assert examples[0].answers == ()
    with pytest.raises(InputError, match="t1 has 0 answers.*--version_2_with_negative True"):
        list(read_squad(path, "train"))


def test_read_record(tmp_path: Path) -> None:
    path = write(tmp_path / "record.json", small_data.record()["dev"])
    dev, = read_record(path, "dev")
    assert [entity.text for entity in dev.entities] == ["Peru", "Lima"]
    assert [answer.text for answer in dev.answers] == ["Peru", "Lima"]
    assert "\xa0" not in dev.passage and "@highlight" in dev.passage and dev.question == "The storm hit @placeholder"
    train, = read_record(path, "train")
    assert [answer.text for answer in train.answers] == ["Peru"]
    with pytest.raises(InputError, match="version_2_with_negative"):
        list(read_record(path, "dev", version_2=True))


# --- the token file --------------------------------------------------------------------------------------------------


@needs_shared
@pytest.mark.parametrize("dataset", ["squad", "record"])
def test_tokens_equal_the_authors_preprocessing(dataset: str) -> None:
    data = DataFolder(SHARED)
    tokenizer = BertTokenizer(data.bert() / "vocab.txt", lower_case=False)
    example = small_data.conversion(data, dataset, "dev")
    reader = read_squad if dataset == "squad" else read_record
    questions = 0
    for question, record in zip(reader(example.json_path, "dev"), read_records(example.tokens_path), strict=True):
        for side, text in (("query", question.question), ("document", question.passage)):
            analysis = tokenizer.analyse(split_words(text)[0])
            assert analysis.tokens == record[f"{side}_tokens"] and analysis.pieces == record[f"{side}_subtokens"]
            assert analysis.piece_to_token == record[f"{side}_sub_to_ori_index"]
        questions += 1
    assert questions == (1339 if example.task is SQUAD else 8)
