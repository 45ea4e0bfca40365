# SPDX-License-Identifier: Apache-2.0
"""SQuAD and ReCoRD as rows of JSON lines and Parquet: the same questions, features and figures as from their JSON."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from src.config import RECORD, SPLITS, SQUAD, DataFolder
from src.data_convert import convert
from src.knowledge.steps import Options, Retrieval
from src.reader.batching_twomemory import TEXT_NOT_FOUND
from src.reader.dataset_json import stream_items
from src.reader.metrics import evaluate, list_questions, read_gold_answers
from src.reader.passages import read_passages
from src.reader.record_twomemory import read_examples as read_record
from src.reader.squad_twomemory import read_examples as read_squad
from src.reader.squad_v1_official_evaluate import questions_below
from src.reader.storage import ConvertedFiles
from testing import small_data
from utils.util import LOGGER, InputError, write_text

Rows = list[dict[str, Any]]


def squad_rows(values: dict[str, Any]) -> Rows:
    """As the hub has them."""
    rows = []
    for article in values["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                answers = question["answers"]
                rows.append({"id": question["id"], "title": article["title"], "context": paragraph["context"],
                             "question": question["question"],
                             "answers": {"text": [answer["text"] for answer in answers],
                                         "answer_start": [answer["answer_start"] for answer in answers]}})
    return rows


def record_rows(values: dict[str, Any], with_spans: bool = True) -> Rows:
    """As the hub has them: unique texts of entities and answers; the spans' ends are exclusive."""
    rows = []
    for number, item in enumerate(values["data"]):
        text = item["passage"]["text"]
        spans = [(entity["start"], entity["end"] + 1) for entity in item["passage"]["entities"]
                 if entity["start"] <= entity["end"]]
        for place, query in enumerate(item["qas"]):
            row = {"passage": text, "query": query["query"], "idx": {"passage": number, "query": place},
                   "entities": list(dict.fromkeys(text[start:end] for start, end in spans)),
                   "answers": list(dict.fromkeys(answer["text"] for answer in query["answers"]))}
            if with_spans:
                row["entity_spans"] = {"text": [text[start:end] for start, end in spans],
                                       "start": [start for start, _ in spans], "end": [end for _, end in spans]}
            rows.append(row)
    return rows


def superglue_lines(values: dict[str, Any]) -> Rows:
    """As SuperGLUE has them: no ids but ``idx``."""
    return [{"source": item["source"], "passage": item["passage"], "idx": number,
             "qas": [{"query": query["query"], "answers": query["answers"], "idx": place}
                     for place, query in enumerate(item["qas"])]} for number, item in enumerate(values["data"])]


def write_rows(path: Path, rows: Rows, layout: str) -> Path:
    """Rows as JSON lines, Parquet, or a folder of two shards."""
    if layout == "parquet":
        pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs requirements-parquet.txt")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif layout == "shards":
        path.mkdir()
        write_rows(path / "validation-00000-of-00002.jsonl", rows[:1], "lines")
        if rows[1:]:
            write_rows(path / "validation-00001-of-00002.jsonl", rows[1:], "lines")
    else:
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    return small_data.make_data(tmp_path / "data")


@pytest.mark.parametrize("layout", ["lines", "parquet", "shards"])
@pytest.mark.parametrize("dataset", ["squad", "record"])
@pytest.mark.parametrize("split", ["train", "dev"])
def test_the_same_features_and_figures(data: DataFolder, dataset: str, split: str, layout: str, tmp_path: Path) -> None:
    """Side table, lengths and MindRecord file are the same bytes; ReCoRD's ids come from idx."""
    values = getattr(small_data, dataset)()[split]
    if dataset == "record":
        for number, item in enumerate(values["data"]):
            item["qas"][0]["id"] = f"{number}-0"
        data.dataset_json(RECORD, split).write_text(json.dumps(values))
        small_data.make_entities(data, dataset, split)
    rows = (squad_rows if dataset == "squad" else record_rows)(values)
    path = write_rows(tmp_path / "given", rows, layout)
    original = small_data.conversion(data, dataset, split)
    (data.root / "rows").mkdir()
    given = small_data.conversion(data, dataset, split, json_path=path,
                                  target=data.root / "rows" / original.target.name)
    convert(original, num_workers=1)
    convert(given, num_workers=1)
    for one, other in zip(ConvertedFiles(original.target).parts()[1:3], ConvertedFiles(given.target).parts()[1:3],
                          strict=True):
        assert split == "train" and not one.exists() or one.read_bytes() == other.read_bytes()
    assert features(original.target, split) == features(given.target, split)
    below = questions_below if dataset == "squad" else list_questions
    gold = [read_gold_answers(source, below) for source in (original.json_path, path)]
    predictions = dict.fromkeys((question.id for question in gold[0]), "the Seine and Lima")
    assert gold[0] == gold[1] and evaluate(gold[0], predictions) == evaluate(gold[1], predictions)


def features(target: Path, split: str) -> list[Any]:
    from tests.test_convert import read_dense

    return [{name: column.tolist() for name, column in feature.items()} for feature in read_dense(target, split)]


def test_retrieval_reads_rows(data: DataFolder) -> None:
    """The same passages, mentions and questions."""
    for task, rows in ((SQUAD, squad_rows(small_data.squad()["dev"])),
                       (RECORD, record_rows(small_data.record()["dev"]))):
        expected = list(read_passages(data.dataset_json(task, "dev"), task.name))
        write_rows(data.dataset_json(task, "dev"), rows, "lines")
        found = list(read_passages(data.dataset_json(task, "dev"), task.name))
        assert [passage.text for passage in found] == [passage.text for passage in expected]
        assert [passage.entities for passage in found] == [passage.entities for passage in expected]
        assert [[question.text for question in passage.questions] for passage in found] \
            == [[question.text for question in passage.questions] for passage in expected]


def test_superglues_lines_and_ids(tmp_path: Path) -> None:
    values = small_data.record()["dev"]
    path = write_rows(tmp_path / "val.jsonl", superglue_lines(values), "lines")
    write_text(tmp_path / "own.json", json.dumps(values))
    found, own = (list(read_record(source, "dev")) for source in (path, tmp_path / "own.json"))
    assert [(example.question, example.passage, example.answers, example.entities) for example in found] \
        == [(example.question, example.passage, example.answers, example.entities) for example in own]
    assert [example.id for example in found] == ["0-0"]


def test_what_is_missing_is_made_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = squad_rows(small_data.squad()["train"])
    for row in rows:
        del row["id"], row["answers"]["answer_start"]
    rows[0]["answers"]["text"] = ["Rhine"]
    path = write_rows(tmp_path / "rows", rows, "lines")
    LOGGER.propagate = True
    with caplog.at_level("INFO", "ktnet"):
        found = list(read_squad(path, "train"))
    assert [example.id for example in found] == ["0", "1", "2"]
    assert [example.answers[0].start for example in found] == [-1, 25, 35]
    assert [found[number].passage[found[number].answers[0].start:][:8] for number in (1, 2)] == ["The rive", "in a tow"]
    assert "3 questions without an id are called by their rows' numbers" in caplog.text
    assert "2 texts without an offset are taken where they first occur" in caplog.text
    assert "1 texts without an offset are not in their passages" in caplog.text


def test_an_answer_that_is_not_in_the_passage_is_skipped(data: DataFolder, tmp_path: Path) -> None:
    rows = squad_rows(small_data.squad()["train"])
    rows[0]["answers"] = {"text": ["a river that is nowhere in this passage, and longer than it is long" * 2]}
    path = write_rows(tmp_path / "rows", rows, "lines")
    counts = convert(small_data.conversion(data, json_path=path), num_workers=1)["counts"]
    assert counts["skipped"] == {TEXT_NOT_FOUND: 1} and counts["features"] == 2


def test_record_without_spans(tmp_path: Path) -> None:
    """Entities and answers are taken where they first occur, in the order of the passage."""
    rows = record_rows(small_data.record()["dev"], with_spans=False)
    rows[0]["entities"].reverse()
    example, = read_record(write_rows(tmp_path / "rows", rows, "lines"), "dev")
    assert [entity.text for entity in example.entities] == ["Peru", "Lima"]
    assert [answer.text for answer in example.answers] == ["Peru", "Lima"]
    assert all(example.passage[answer.start:answer.start + 4] == answer.text for answer in example.answers)


@pytest.mark.parametrize("layout", ["lines", "parquet"])
def test_squad_2(tmp_path: Path, layout: str) -> None:
    """An empty list of answers means unanswerable; all questions are scored by the rules of SQuAD 2.0."""
    values = small_data.squad()["dev"]
    for place, question in enumerate(question for _, article in enumerate(values["data"])
                                     for question in [q for p in article["paragraphs"] for q in p["qas"]]):
        question["is_impossible"] = place == 0
    own = tmp_path / "own.json"
    values["data"][0]["paragraphs"][0]["qas"][0]["answers"] = []
    values["data"][0]["paragraphs"][1]["qas"][0]["answers"] = [{"text": "the", "answer_start": 52}]
    values["data"][0]["paragraphs"][1]["context"] += " the"
    values["data"][0]["paragraphs"][1]["qas"][0]["answers"][0]["answer_start"] = \
        values["data"][0]["paragraphs"][1]["context"].index("the")
    write_text(own, json.dumps(values))
    path = write_rows(tmp_path / "rows", squad_rows(values), layout)
    assert list(read_squad(path, "dev", True)) == list(read_squad(own, "dev", True))
    assert [example.is_impossible for example in read_squad(path, "dev", True)] == [True, False]
    gold = read_gold_answers(path, questions_below)
    assert gold == read_gold_answers(own, questions_below) and all(question.may_be_none for question in gold)


@pytest.mark.parametrize("dataset", ["squad", "record"])
def test_rows_without_answers_can_be_predicted_on(tmp_path: Path, dataset: str) -> None:
    values = getattr(small_data, dataset)()["dev"]
    rows = (squad_rows if dataset == "squad" else record_rows)(values)
    read = read_squad if dataset == "squad" else read_record
    for empty in (None, {"text": [], "answer_start": []} if dataset == "squad" else []):
        for row in rows:
            row["answers"] = empty
        path = write_rows(tmp_path / "rows", rows, "lines")
        assert all(example.answers == () and not example.is_impossible for example in read(path, "dev"))


@pytest.mark.parametrize(("content", "message"), [
    ('{"id": "a"}\n', "row 0: no row of SQuAD"),
    ('{"context": "Paris", "question": "?", "id": 5}\n', "row 0.id: is 5; it must be a text"),
    ('{"context": "Paris", "question": "?"}\n{"context": "Paris"', "line 2, column 20: not JSON"),
    ('{"context": "Paris", "question": "?"}\n{"context": "Paris", "question": "?"} x', "line 2, column 39: not JSON"),
    ('{"context": "Paris", "question": "?", "answers": {"text": ["a"], "answer_start": [1, 2]}}',
     "1 texts and 2 offsets"),
    ('{"context": "Paris", "question": "?", "answers": 5}', r"must be {text, answer_start} or a list"),
    ('{"passage": "Paris", "query": "?", "entities": [1]}', "name: is 1; it must be a text"),
    ("PAR1 and nothing more", "Parquet that cannot be read"),
])
def test_rows_that_are_none(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    if content.startswith("PAR1"):
        pytest.importorskip("pyarrow", reason="Parquet needs requirements-parquet.txt")
    with pytest.raises(InputError, match=message) as error:
        list(stream_items(path))
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file in it"):
        list(stream_items(tmp_path))
    for name in ("train-0.jsonl", "validation-0.jsonl"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match="holds shards of train and validation"):
        list(stream_items(tmp_path))


def test_the_data_folder_finds_published_files(tmp_path: Path) -> None:
    data = DataFolder(tmp_path)
    (tmp_path / "SQuAD").mkdir()
    assert data.dataset_json(SQUAD, "dev") == tmp_path / "SQuAD" / "dev-v1.1.json"
    for name in ("validation-00000-of-00001.parquet", "validation.jsonl", "dev-v1.1.json"):
        (tmp_path / "SQuAD" / name).write_text("")
        assert data.dataset_json(SQUAD, "dev").name == name
    (tmp_path / "SQuAD" / "train").mkdir()
    assert data.dataset_json(SQUAD, "train").name == "train"


def test_retrieval_reads_a_folder_of_shards(data: DataFolder) -> None:
    rows = record_rows(small_data.record()["dev"])
    for split in SPLITS:
        data.dataset_json(RECORD, split).unlink()
    write_rows(data.root / "ReCoRD" / "validation", rows, "shards")
    Retrieval(data, Options(vocab_path=data.bert() / "vocab.txt")).run("tokens", RECORD)
    assert data.tokens(RECORD, "dev", lower_case=False).is_file()
