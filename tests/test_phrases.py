# SPDX-License-Identifier: Apache-2.0
"""Knowledge bases by phrase: the longest match in a text."""
from __future__ import annotations

import dataclasses
import json
import random

import pytest

from src.config import NELL, KnowledgeBase, load_knowledge_bases
from src.knowledge.concepts import prune_vectors, read_concept_names, read_concept_vectors
from src.knowledge.lookup import PhraseLookup
from src.knowledge.own import ConceptMap
from src.knowledge.phrases import PhraseFinder
from src.reader.tokenization import BertTokenizer, split_words
from testing.small_data import VOCABULARY
from utils.util import InputError

BASE = KnowledgeBase("med", "medicine", "med.txt", "{dataset}.data", "phrase", max_concepts=2)
BASE_FORMS = {"attacks": "attack", "hearts": "heart", "cities": "city"}


def base_form(word: str) -> str:
    """What WordNet would say."""
    return BASE_FORMS.get(word, word)


@pytest.mark.parametrize(("phrases", "text", "found"), [
    (["heart", "heart attack", "attack"], "a heart attack at heart", [(1, 3, "heart attack"), (4, 5, "heart")]),
    (["new york city", "york"], "new york", [(1, 2, "york")]),                    # the long one is not there
    (["a b", "b c d"], "a b c d", [(0, 2, "a b")]),                               # the left one goes first
    (["a b", "a b c d"], "a b c a b", [(0, 2, "a b"), (3, 5, "a b")]),            # not beyond the text's end
    (["heart attack"], "heart attacks", []),
])
def test_longest_matches(phrases, text, found):
    assert list(PhraseFinder(dict.fromkeys(phrases)).find(text.split())) == found


@pytest.mark.parametrize(("phrases", "text", "found"), [
    (["heart attack"], "heart attacks", [(0, 2, "heart attack")]),
    (["cities"], "a city", [(1, 2, "cities")]),                                   # the map's words may be inflected too
    (["heart", "hearts"], "hearts", [(0, 1, "hearts")]),                          # the word itself goes first
    (["heart", "heart attack"], "hearts attack", [(0, 2, "heart attack")]),       # but the longest before it
])
def test_longest_matches_of_base_forms(phrases, text, found):
    assert list(PhraseFinder(dict.fromkeys(phrases), base_form).find(text.split())) == found


def test_what_was_retrieved_finds_the_same_again(tmp_path):
    """Conversion sees only the phrases that retrieval found in some text, as the texts have them."""
    draw, words = random.Random(5), ["heart", "attack", "attacks", "hearts", "new"]
    phrases = {" ".join(draw.choices(words, k=draw.randint(1, 4))) for _ in range(25)}
    (tmp_path / "map.json").write_text("{" + ", ".join(f'"{phrase}": ["c"]' for phrase in phrases) + "}")
    own = ConceptMap(tmp_path / "map.json", ["c"], base_form)
    texts = [draw.choices(words, k=30) for _ in range(40)]
    found = {}
    for text in texts:
        found |= own.retrieve_phrases(text)
    whole, again = PhraseFinder(dict.fromkeys(phrases), base_form), PhraseFinder(found)
    for text in texts:
        assert [match[:2] for match in whole.find(text)] == [match[:2] for match in again.find(text)]
    assert set(found) - phrases, "no inflected phrase was found"


@pytest.fixture
def analyse(tmp_path):
    """Text -> its pieces, cased."""
    (tmp_path / "vocab.txt").write_text("\n".join([*VOCABULARY, "é"]) + "\n", encoding="utf-8")
    tokenizer = BertTokenizer(tmp_path / "vocab.txt", lower_case=False)
    return lambda text: tokenizer.analyse(split_words(text)[0])


def test_every_piece_of_a_phrase_has_its_concepts(analyse, tmp_path):
    lookup = PhraseLookup(BASE, {"paris lies": ["b", "a", "c"], "lies": ["c"], "é": ["a"]}, {"a": 1, "b": 2, "c": 3},
                          tmp_path, tmp_path)
    text = analyse("The Par\u00eds lies, é Paris Lies lies")
    found = lookup.find(text, "document")
    by_piece = list(zip(text.pieces, found.counts.tolist(), strict=True))
    assert by_piece[-3:] == [("Paris", 2), ("[UNK]", 2), ("lies", 1)]
    assert found.ids.tolist() == [2, 1, 2, 1, 2, 1, 2, 1, 3] and sum(found.counts) == 9     # at most two
    assert lookup.cut == {"words": 4, "concepts": 4}


def test_concepts_that_a_pruned_table_lacks_are_ignored_and_counted(analyse, tmp_path):
    pruned = dataclasses.replace(BASE, pruned="{dataset}.txt")
    mapping = {"paris": ["gone", "a"], "the paris": ["gone"]}
    with pytest.raises(InputError, match="phrase 'paris'.*'gone'"):
        PhraseLookup(BASE, mapping, {"a": 1}, tmp_path, tmp_path)
    lookup = PhraseLookup(pruned, mapping, {"a": 1}, tmp_path, tmp_path)
    assert lookup.find(analyse("Paris or The Paris"), "document").ids.tolist() == [1]      # "the paris" is not "paris"
    assert lookup.cut["unknown"] == 2


def test_a_pruned_file_has_the_wanted_lines_in_their_order(tmp_path):
    source, target = tmp_path / "all.txt", tmp_path / "used" / "some.txt"
    target.parent.mkdir()
    source.write_text("4 2\nd 1 2\nb 3 4\na 5 6.25\nc 7 8\n")
    assert prune_vectors(source, {"a", "d", "unheard"}, target) == (2, 4)
    names, vectors = read_concept_vectors(target)
    assert names == ["d", "a"] and vectors.tolist() == [[1, 2], [5, 6.25]]
    assert prune_vectors(source, set(), target) == (1, 4) and read_concept_names(target) == ["d"]


@pytest.mark.parametrize(("change", "message"), [
    ({"key": "phrases"}, '"word" or "phrase" or "entity"'),
    ({"key": "word", "lemmas": True}, "lemmas are for the key"),
    ({"lemmas": 1}, "true or false"),
    ({"pruned": "{split}.txt"}, "only {dataset}"),
    ({"name": "nell", "pruned": "{dataset}.txt"}, "never pruned"),
    ({"prunned": "x"}, "may have lemmas and pruned"),
])
def test_entries_that_are_refused(tmp_path, change, message):
    entry = {key: value for key, value in dataclasses.asdict(BASE).items() if key not in ("lemmas", "pruned")}
    (tmp_path / "kb.json").write_text(json.dumps([entry]))
    assert load_knowledge_bases(tmp_path / "kb.json") == (BASE,)
    (tmp_path / "kb.json").write_text(json.dumps([{**entry, **change}]))
    with pytest.raises(InputError, match=message):
        load_knowledge_bases(tmp_path / "kb.json")
    assert not NELL.pruned
