# SPDX-License-Identifier: Apache-2.0
"""Features, answers and figures of the quickstart's sample, to be compared with those in tests/golden.

The files there were made by the code of November 2026 that gave the features, answers and figures of the independent
converter on real SQuAD and ReCoRD (see tests/test_convert.py and tests/test_decoding.py, which need those data sets).

    python -m tests.golden_sample FOLDER      writes them anew, where a change is meant
"""
from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

import retrieve
from examples.quickstart import toy_wordnet
from src.config import KNOWLEDGE_BASES, SPLITS, TASKS, DataFolder, TaskConfig, WindowConfig
from src.data_convert import convert
from src.reader.decoding import DecodingOptions, answer_and_score
from src.reader.examples import read_side_table
from testing import small_data

SAMPLE = Path(__file__).parents[1] / "examples" / "quickstart"
GOLDEN = Path(__file__).parent / "golden"
WINDOWS = WindowConfig(max_seq_len=96, doc_stride=32, max_query_length=24)
FREQUENT = 4       # a word that occurs as often is one word piece


def make_sample(root: Path) -> DataFolder:
    """The quickstart's data sets with what is retrieved for them, and a vocabulary of frequent words and letters."""
    data = DataFolder(root)
    for name in ("SQuAD", "ReCoRD", "KB_embeddings", "raw"):
        shutil.copytree(SAMPLE / name, root / name)
    toy_wordnet.main([str(SAMPLE / "toy_wordnet.json"), str(root / "nltk" / "corpora" / "wordnet")])
    text = "".join(data.dataset_json(task, split).read_text(encoding="utf-8")
                   for task in TASKS.values() for split in SPLITS)
    words = sorted(word for word, count in Counter(re.findall(r"[A-Za-z]+", text)).items() if count >= FREQUENT)
    letters = sorted(set(re.findall(r"[!-~]", text)))
    pieces = dict.fromkeys([*small_data.SPECIAL, *words, *letters, *(f"##{letter}" for letter in letters)])
    data.bert().mkdir()
    (data.bert() / "vocab.txt").write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    for step in ("wordnet", "nell"):
        retrieve.main(["--data_url", str(root), "--step", step])
    return data


def convert_sample(data: DataFolder, task: TaskConfig, split: str) -> dict[str, np.ndarray]:
    """Convert one split; returns its features without padding, concepts as numbers of each piece and ids in a row."""
    from tests.test_convert import read_dense

    conversion = small_data.conversion(data, task.name, split, windows=WINDOWS)
    convert(conversion)
    columns: dict[str, list[np.ndarray]] = {}
    for feature in read_dense(conversion.target, split, length=WINDOWS.max_seq_len):
        length = int(feature["input_mask"].sum())
        columns.setdefault("lengths", []).append(np.array([length]))
        for name in ("src_ids", "sent_ids"):
            columns.setdefault(name, []).append(feature[name][:length])
            assert not feature[name][length:].any()
        for base in KNOWLEDGE_BASES:
            ids = feature[base.column][:, :, 0]
            columns.setdefault(f"{base.name}_counts", []).append((ids[:length] > 0).sum(axis=1))
            columns.setdefault(f"{base.name}_ids", []).append(ids[ids > 0])
        for name in ("start_positions", "end_positions") if split == "train" else ("unique_id",):
            columns.setdefault(name, []).append(feature[name])
    return {name: np.concatenate(parts).astype(np.int32) for name, parts in columns.items()}


def answer_sample(data: DataFolder, task: TaskConfig, folder: Path) -> dict[str, Any]:
    """Predictions, the best three texts of each question, and the figures, for logits of a fixed seed."""
    target = data.mindrecord(task, "dev")
    ids = [window.unique_id for example in read_side_table(target) for window in example.windows]
    logits = np.random.RandomState(2019).randn(len(ids), 2, WINDOWS.max_seq_len).astype(np.float32)
    options = DecodingOptions(pick_entity=task.name == "record", n_best_size=5)
    pairs = {identity: (start, end) for identity, (start, end) in zip(ids, logits, strict=True)}
    result = answer_and_score(target, pairs, folder, options)
    nbest = json.loads((folder / "nbest_predictions.json").read_text(encoding="utf-8"))
    return {"predictions": json.loads((folder / "predictions.json").read_text(encoding="utf-8")), "result": result,
            "nbest": {question: [[entry["text"], round(entry["probability"], 6)] for entry in entries[:3]]
                      for question, entries in nbest.items()}}


def main() -> None:
    """Write the golden files."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as root:
        data = make_sample(Path(root) / "data")
        answers = {}
        for task in TASKS.values():
            for split in SPLITS:
                np.savez_compressed(folder / f"{task.name}_{split}.npz", **convert_sample(data, task, split))
            answers[task.name] = answer_sample(data, task, Path(root) / task.name)
    (folder / "answers.json").write_text(json.dumps(answers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
