# SPDX-License-Identifier: Apache-2.0
"""Time and peak memory of a large knowledge base by phrase, all of it made up.

    python -m benchmarks.phrases 1000000 --passages 1000 --width 100

Retrieval links the passages and prunes the vectors; then a process loads the map as predict.py does, and links the same
passages one by one. Every stage is a process of its own.
"""
from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from pathlib import Path

from benchmarks.retrieve import run_measured
from src.config import SQUAD, DataFolder, KnowledgeBase

BASE = {"name": "made", "label": "made up", "key": "phrase", "max_concepts": 4,
        "vectors": "KB_embeddings/made_concept2vec.txt", "retrieved": "retrieve_made/{dataset}.data",
        "pruned": "retrieve_made/{dataset}_concept2vec.txt"}
WORDS = 200_000
LINK = """
import json, resource, sys, time
from src.config import SQUAD, DataFolder, load_knowledge_bases
from src.knowledge.live import LiveKnowledge
from src.reader.passages import read_passages
from src.reader.tokenization import BertTokenizer, split_words
folder, bases = DataFolder(__import__("pathlib").Path(sys.argv[1])), load_knowledge_bases(sys.argv[2])
start, cpu = time.perf_counter(), time.process_time()
live = LiveKnowledge(folder, bases, ner="none", vectors={bases[0].name: folder.table(bases[0], SQUAD)})
loaded, loaded_cpu = time.perf_counter(), time.process_time()
tokenizer = BertTokenizer(folder.root / "vocab.txt", True)
passages = list(read_passages(folder.dataset_json(SQUAD, "train"), "squad"))
linked, linked_cpu = time.perf_counter(), time.process_time()
found = sum(len(live.lookups[0].find(tokenizer.analyse(split_words(passage.text)[0]), "document").ids)
            for passage in passages)
print(f"loaded in {loaded - start:.1f} s ({loaded_cpu - cpu:.1f} s of CPU); {len(passages)} passages linked in "
      f"{time.perf_counter() - linked:.1f} s ({time.process_time() - linked_cpu:.1f} s), {found} concepts of "
      f"word pieces; peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
"""


def write_inputs(folder: DataFolder, phrases: int, passages: int, width: int) -> None:
    """A vocabulary, vectors, a map and passages of 140 words in which every tenth place has a phrase of the map."""
    rng = random.Random(0)
    words = [f"{rng.choice('bcdfgklmnprst')}{rng.choice('aeiou')}{number:x}" for number in range(WORDS)]
    found: dict[str, None] = {}
    while len(found) < phrases:
        found.setdefault(" ".join(rng.choices(words, k=rng.choice((1, 2, 2, 3, 4)))))
    names = list(found)
    base = KnowledgeBase(**BASE)
    for path in (folder.vectors(base), folder.dataset_json(SQUAD, "train")):
        path.parent.mkdir(parents=True)
    rows = [" ".join(f"{rng.uniform(-1, 1):.5f}" for _ in range(width)) for _ in range(1000)]
    with open(folder.vectors(base), "w", encoding="utf-8") as vectors:
        vectors.writelines(f"C{number} {rows[number % 1000]}\n" for number in range(len(names)))
    with open(folder.vectors(base).with_name("made_map.json"), "w", encoding="utf-8") as target:
        json.dump({name: [f"C{number}"] for number, name in enumerate(names)}, target)
    texts = [" ".join(rng.choice(names) if place % 10 == 0 else rng.choice(words) for place in range(140))
             for _ in range(passages)]
    paragraphs = [{"context": text, "qas": [{"id": str(number), "question": text.partition(" ")[0],
                                             "answers": [{"text": text[:4], "answer_start": 0}]}]}
                  for number, text in enumerate(texts)]
    folder.dataset_json(SQUAD, "train").write_text(json.dumps({"version": "1.1", "data": [
        {"title": "made up", "paragraphs": paragraphs}]}), encoding="utf-8")
    (folder.root / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n", encoding="ascii")
    (folder.root / "kb.json").write_text(json.dumps([BASE]), encoding="utf-8")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phrases", type=int)
    parser.add_argument("--passages", type=int, default=1000)
    parser.add_argument("--width", type=int, default=100)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, config = DataFolder(Path(scratch)), str(Path(scratch) / "kb.json")
        writer = os.fork()      # or its memory would count as that of the processes started later
        if not writer:
            write_inputs(folder, args.phrases, args.passages, args.width)
            os._exit(0)
        if os.waitpid(writer, 0)[1]:
            sys.exit("the inputs could not be written")
        base = KnowledgeBase(**BASE)
        before = sum(os.times()[2:4])
        seconds, megabytes = run_measured(sys.executable, "retrieve.py", "--data_url", scratch, "--dataset", "squad",
                                          "--step", "own", "--kb_config", config)
        table, whole = folder.table(base, SQUAD), folder.vectors(base)
        with open(table, "rb") as lines:
            concepts = sum(1 for _ in lines)
        print(f"retrieval and pruning: {seconds:.1f} s ({sum(os.times()[2:4]) - before:.1f} s of CPU), peak "
              f"{megabytes / 1000:.2f} GB; {concepts} concepts are left, {table.stat().st_size / 1e6:.1f} MB of "
              f"{whole.stat().st_size / 1e6:.0f} MB of vectors", flush=True)
        run_measured(sys.executable, "-c", LINK, scratch, config)


if __name__ == "__main__":
    main()
