# SPDX-License-Identifier: Apache-2.0
"""The quickstart's sample is consistent, its knowledge can be retrieved, and its environment is made only once."""
from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import retrieve
from examples.quickstart import show_answers, toy_wordnet
from src.config import KNOWLEDGE_BASES, NELL, RECORD, SPLITS, SQUAD, WORDNET, DataFolder
from src.knowledge.concepts import read_concept_vectors
from src.knowledge.formats import read_mapping, read_records
from src.knowledge.wordnet_db import WordNet
from src.reader.record_twomemory import read_examples as read_record
from src.reader.squad_twomemory import read_examples as read_squad
from src.settings import DataSettings

REPOSITORY = Path(__file__).parents[1]
SAMPLE = REPOSITORY / "examples" / "quickstart"
FOLDER = DataFolder(SAMPLE)
WORDS_OF_A_FEATURE = 90        # the quickstart's features have 128 word pieces, special ones included


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    """A copy of the sample with the toy dictionary in WordNet's layout, as scripts/quickstart.sh makes it."""
    root = tmp_path_factory.mktemp("quickstart")
    for name in ("SQuAD", "ReCoRD", "KB_embeddings", "raw"):
        shutil.copytree(SAMPLE / name, root / name)
    toy_wordnet.main([str(SAMPLE / "toy_wordnet.json"), str(root / "nltk" / "corpora" / "wordnet")])
    return DataFolder(root)


def test_toy_knowledge_is_called_toy() -> None:
    """By the folder's own list of knowledge bases, which is the usual one but for the names that people see."""
    named = DataSettings(data_url=SAMPLE, vocab_path=Path(), kb_config=None).bases()
    assert [base.label for base in named] == ["toy WordNet", "toy NELL"]
    assert [dataclasses.replace(base, label="") for base in named] == [
        dataclasses.replace(base, label="") for base in KNOWLEDGE_BASES]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("task, read", [(SQUAD, read_squad), (RECORD, read_record)])
def test_answers_stand_in_their_passages(split: str, task: Any, read: Any) -> None:
    examples = list(read(FOLDER.dataset_json(task, split), split))
    assert len(examples) >= (8 if split == "dev" else 20)
    assert len({example.id for example in examples}) == len(examples)
    for example in examples:
        assert example.answers
        for answer in example.answers:
            assert example.passage[answer.start:answer.start + len(answer.text)] == answer.text
            assert task is SQUAD or answer.text in {mention.text for mention in example.entities}
        assert len((example.passage + " " + example.question).split()) <= WORDS_OF_A_FEATURE


def test_train_and_dev_share_no_question() -> None:
    for task, read in ((SQUAD, read_squad), (RECORD, read_record)):
        asked = [{(example.passage, example.question) for example in read(FOLDER.dataset_json(task, split), split)}
                 for split in SPLITS]
        assert not asked[0] & asked[1]


@pytest.mark.parametrize("split", SPLITS)
def test_tagged_file_is_the_data_set_with_its_entities(split: str) -> None:
    plain = FOLDER.dataset_json(SQUAD, split)
    tagged = json.loads((SAMPLE / "raw" / (plain.stem + ".tagged.json")).read_text(encoding="utf-8"))
    for article in tagged["data"]:
        for paragraph in article["paragraphs"]:
            texts = [(paragraph["context"], paragraph.pop("context_entities"))]
            texts += [(question["question"], question.pop("question_entities")) for question in paragraph["qas"]]
            for text, entities in texts:
                assert all(text[entity["start"]:entity["end"] + 1] == entity["text"] for entity in entities)
            assert texts[0][1], "a context without a single entity"
    assert tagged == json.loads(plain.read_text(encoding="utf-8"))


def test_every_concept_has_a_vector_and_is_found(data: DataFolder) -> None:
    wordnet = WordNet(data.root / "nltk" / "corpora" / "wordnet")
    names, vectors = read_concept_vectors(data.vectors(WORDNET))
    assert all(wordnet.locate(name) for name in names) and abs(vectors).max() < 2
    source = json.loads((SAMPLE / "toy_wordnet.json").read_text(encoding="utf-8"))
    in_dictionary = {wordnet.name(part, offset) for part, synsets in source["synsets"].items() for synset in synsets
                     for word in synset.partition(" | ")[0].split() for offset in wordnet.offsets(word, part)}
    assert in_dictionary == set(names)
    rows = (SAMPLE / "raw" / "NELL.toy.esv.csv").read_text(encoding="utf-8").splitlines()[1:]
    categories, nell_vectors = read_concept_vectors(data.vectors(NELL))
    assert {row.split("\t")[2] for row in rows} == set(categories)
    assert vectors.shape[1] == nell_vectors.shape[1] and abs(nell_vectors).max() < 2


def test_retrieval_finds_the_toy_knowledge(data: DataFolder) -> None:
    characters = sorted({character for path in data.root.rglob("*.json") for character in path.read_text("utf-8")
                         if not character.isspace()})
    vocabulary = data.root / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *characters,
                                     *("##" + character for character in characters)]) + "\n", encoding="utf-8")
    retrieve.main(["--data_url", str(data.root), "--vocab_path", str(vocabulary),
                   "--uncased_vocab_path", str(vocabulary)])
    for task, least in ((SQUAD, 190), (RECORD, 100)):
        synsets = read_mapping(data.retrieved(WORDNET, task, "train"))
        assert len(synsets) >= least        # words with a concept, of about 390 and 320
        assert synsets["found"] == ["__found_VB_1", "__find_VB_1"]      # an irregular form and a verb of its own
        for split in SPLITS:
            questions = list(read_records(data.retrieved(NELL, task, split)))
            known = [entity for question in questions for entity in question["document_entities"]
                     if entity["retrieved_concepts"]]
            assert len(known) > 0.9 * sum(len(question["document_entities"]) for question in questions)
    assert read_mapping(data.retrieved(WORDNET, SQUAD, "train"))["mice"] == ["__mouse_NN_1"]


def test_answers_are_shown_beside_gold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    predictions = tmp_path / "predictions.json"
    predictions.write_text(json.dumps({"sample-dev-001": "the Henrik Dale", "sample-dev-002": "1955"}), "utf-8")
    show_answers.main([str(FOLDER.dataset_json(SQUAD, "dev")), str(predictions), "--limit", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("* Who built") and "the Henrik Dale" in lines[1]
    assert lines[2].startswith("  When was") and "1692" in lines[2] and "1955" in lines[2]
    assert "13 more" in lines[3]


# --- scripts/environment.sh -------------------------------------------------------------------------------------------

PYTHON = """#!/usr/bin/env bash
case "$*" in
    *"version_info[:2]"*) echo VERSION ;;
    *"sys.exit(not"*) exit 0 ;;
    *ensurepip*) exit VENV ;;
    --version) echo "Python VERSION" ;;
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python"; echo venv >>"$NOTES" ;;
    "-m pip install --quiet --upgrade pip") ;;
    "-m pip "*)
        echo "$*" >>"$NOTES"
        if [[ -n ${HANG:-} ]]; then sleep "$HANG"; echo done >>"$NOTES"; fi
        exit "${PIP:-0}" ;;
esac
"""


def make_python(path: Path, version: str, venv: int = 0) -> None:
    path.write_text(PYTHON.replace("VERSION", version).replace("VENV", str(venv)), encoding="utf-8")
    path.chmod(0o755)


def environment(tmp_path: Path, command: str, **values: str) -> subprocess.CompletedProcess[str]:
    """Run a command of environment.sh where only the Pythons in tmp_path/bin are to be found."""
    return subprocess.run(["bash", "-c", f"set -euo pipefail; source '{REPOSITORY}/scripts/environment.sh'; {command}"],
                          cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
                          env={"PATH": str(tmp_path / "bin"), "NOTES": str(tmp_path / "notes"),
                               "HOME": os.environ.get("HOME", "/"), **values})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    for tool in ("bash", "grep", "basename", "cksum", "cp", "mkdir", "touch", "flock", "rm", "sleep"):
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    for name in ("requirements.txt", "requirements-encoder.txt", "a.lock"):
        (tmp_path / name).write_text(f"# {name}\n", encoding="utf-8")
    return tmp_path


def test_a_python_that_will_do_is_found(folder: Path) -> None:
    none = environment(folder, "find_new_python")
    assert none.returncode == 2 and "3.11 or 3.12" in none.stderr
    make_python(folder / "bin" / "python3", "3.13")
    make_python(folder / "bin" / "python3.12", "3.12", venv=1)
    lacking = environment(folder, "find_new_python")
    assert lacking.returncode == 2 and "python3.12-venv" in lacking.stderr and "python3 (3.13)" in lacking.stderr
    make_python(folder / "bin" / "python3", "3.12")
    assert environment(folder, 'find_new_python; echo "$NEW_PYTHON"').stdout == "python3\n"
    make_python(folder / "bin" / "python3.11", "3.11")
    assert environment(folder, 'find_new_python; echo "$NEW_PYTHON"').stdout == "python3.11\n"


def test_requirements_are_installed_once(folder: Path) -> None:
    make_python(folder / "bin" / "python3.11", "3.11")
    command = 'make_environment "$PWD" requirements.txt requirements-encoder.txt a.lock'
    failing = environment(folder, command, PIP="1")
    assert failing.returncode == 2 and "pip could not install" in failing.stderr
    notes = folder / "notes"
    notes.unlink()
    for _ in range(2):
        assert environment(folder, command).returncode == 0
    calls = notes.read_text(encoding="utf-8").splitlines()
    assert [call.split()[-1] for call in calls] == ["requirements.txt", "requirements-encoder.txt", "a.lock"]
    assert ["--no-deps" in call for call in calls] == [False, True, False]
    assert ["--require-hashes" in call for call in calls] == [False, True, True]
    (folder / "requirements.txt").write_text("# another\n", encoding="utf-8")
    assert environment(folder, command).returncode == 0
    assert notes.read_text(encoding="utf-8").count("\n") == 4


def test_two_installations_take_turns(folder: Path) -> None:
    make_python(folder / "bin" / "python3.11", "3.11")
    command = 'make_environment "$PWD" requirements.txt'
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda _: environment(folder, command, HANG="1"), range(2)))
    assert [done.returncode for done in both] == [0, 0]
    assert any("waiting for another installation" in done.stdout for done in both)
    lines = (folder / "notes").read_text(encoding="utf-8").splitlines()
    assert [line.split()[-1] for line in lines] == ["venv", "requirements.txt", "done"]      # the second finds it done


@pytest.mark.parametrize("script, place", [("quickstart.sh", ".quickstart.lock"),
                                           ("run_infer_310.sh", "preprocess_result/.lock")])
def test_two_at_once(tmp_path: Path, script: str, place: str) -> None:
    shutil.copytree(REPOSITORY / "scripts", tmp_path / "copy" / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    root = tmp_path / "copy"
    lock = root / ("quickstart_output" if "quickstart" in place else "") / place
    lock.parent.mkdir(parents=True)
    (root / "features").touch()
    arguments = [] if script == "quickstart.sh" else ["features", "features", "n", "squad", "scripts"]
    with open(lock, "w", encoding="utf-8") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        second = subprocess.run(["bash", f"scripts/{script}", *arguments], cwd=root, capture_output=True, text=True,
                                check=False, env={**os.environ, "PYTHON": sys.executable})
    assert second.returncode == 2 and f"another {script} is at work there" in second.stderr
    assert second.stderr.count("\n") == 1 and not second.stdout


def test_a_killed_installation_is_made_anew(folder: Path) -> None:
    make_python(folder / "bin" / "python3.11", "3.11")
    command = 'make_environment "$PWD" requirements.txt'
    assert environment(folder, f"{command} & sleep 1; kill -KILL $!", HANG="2").returncode == 0
    assert (folder / ".venv" / ".unfinished-requirements.txt").exists()
    assert environment(folder, command).returncode == 0
    lines = (folder / "notes").read_text(encoding="utf-8").splitlines()
    assert [line.split()[-1] for line in lines if line != "done"] == ["venv", "requirements.txt", "requirements.txt"]
    assert ["--ignore-installed" in line for line in lines if "pip" in line] == [False, True]
    assert not (folder / ".venv" / ".unfinished-requirements.txt").exists()


def test_windows_overlap() -> None:
    """Else an answer on a border is cut."""
    text = (Path(__file__).parents[1] / "scripts" / "quickstart.sh").read_text("utf-8")
    sizes = re.findall(r"length=(\d+) stride=(\d+)", text)
    assert len(sizes) == 2 and all(2 * int(stride) <= int(length) for length, stride in sizes)
