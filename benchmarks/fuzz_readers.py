# SPDX-License-Identifier: Apache-2.0
"""Throw broken and hostile files at every reader of text and JSON.

    python -m benchmarks.fuzz_readers --count 100000 --seed 1

A reader must return its result or raise a one-line InputError; anything else ends the run, with the offending input
written to ``--keep``. The peak memory is printed at the end.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hashlib
import json
import os
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from src.config import SQUAD, BertConfig, DataFolder, KTNetConfig, load_knowledge_bases
from src.export.bin_files import file_size, read_manifest
from src.knowledge.concepts import concept_digest, concept_ids, read_concept_vectors
from src.knowledge.entities import SpacyTagger, TagCache
from src.knowledge.formats import read_mapping, read_records, retrieved_item_problem
from src.knowledge.nell import BeliefFile, build_belief_file
from src.knowledge.own import ConceptMap, check_paths
from src.knowledge.triples import read_triples
from src.knowledge.wordnet_db import WordNet
from src.reader import record_twomemory, squad_twomemory
from src.reader.decoding import decode
from src.reader.examples import read_side_table
from src.reader.metrics import evaluate, read_gold_answers, read_predictions
from src.reader.squad_v1_official_evaluate import questions_below
from src.reader.storage import open_converted
from src.reader.tokenization import load_vocabulary
from src.settings import TrainingSettings
from src.training.log import read_metrics
from src.weights.folder import CONFIG, SUMS, VOCABULARY, WEIGHTS, ModelFolder, read_folder, verify
from utils.util import InputError, describe, read_json, read_text, write_json

RAW = "@raw@"  # in a seed's JSON: a place for text that json.dumps would not write
HOSTILE = [
    "Infinity",
    "-Infinity",
    "NaN",
    "1e999",
    "9" * 5000,
    "-" + "9" * 30,
    "1e308",
    "1.5",
    "0",
    "-1",
    "null",
    "true",
    '""',
    '"\\ud800"',
    '"\\udc00x"',
    '"\\u0000"',
    '"{spLit}"',
    '"{d!taset}"',
    '"{0}"',
    '"}"',
    '"../../x"',
    "[]",
    "{}",
    "[[]]",
    '{"__proto__": 1}',
    "[" * 100_000 + "]" * 100_000,
    "[" * 5_000,
    '"' + "x" * 10_000 + '"',
    '"\\u202f"',
]
BYTES = [
    b"\xef\xbb\xbf",
    b"\xff",
    b"\x00",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\r",
    b"\n",
    b"{",
    b"[",
    b'"',
    b"\\",
    b"9" * 300,
    b" ",
    b"\t",
    b"-",
    b"\xe2\x80\xa8",
    b"[UNK]",
]


def seeds() -> dict[str, Any]:
    """Name of a reader -> a well-formed file: values for JSON, a text for anything else."""
    passage = "Paris lies on the Seine."
    answer = {"text": "Seine", "answer_start": 18}
    sizes = {
        "vocab_size": 48,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "layer_norm_eps": 1e-12,
    }
    memory = {"name": "wn", "rows": 16, "width": 16, "max_concepts": 49}
    entry = {
        "id": "d1",
        "question": "Where?",
        "words": passage.split(),
        "pieces": passage.split(),
        "piece_to_word": [0, 1, 2, 3, 4],
        "query_length": 2,
        "answers": ["Seine"],
        "entities": ["Paris"],
        "windows": [{"unique_id": 1000000000, "doc_start": 0, "length": 5}],
        "is_impossible": False,
    }
    settings = {
        "dataset": "squad",
        "split": "dev",
        "lower_case": False,
        "max_seq_len": 16,
        "doc_stride": 4,
        "max_query_length": 8,
        "version_2_with_negative": False,
    }
    base = {
        "name": "wn",
        "label": "WordNet",
        "max_concepts": 49,
        "concepts": 9,
        "concepts_sha256": "0",
        "vectors_md5": "0",
    }
    return {
        "squad": {
            "version": "1.1",
            "data": [
                {
                    "title": "x",
                    "paragraphs": [
                        {
                            "context": passage,
                            "qas": [
                                {"id": "a", "question": "Where?", "answers": [answer]},
                                {"id": "b", "question": "What?", "answers": [answer]},
                            ],
                        }
                    ],
                }
            ],
        },
        "record": {
            "data": [
                {
                    "id": "r",
                    "source": "us",
                    "passage": {"text": passage, "entities": [{"start": 0, "end": 4}, {"start": 18, "end": 22}]},
                    "qas": [
                        {"id": "r1", "query": "@placeholder lies", "answers": [{"start": 0, "end": 4, "text": "Paris"}]}
                    ],
                }
            ]
        },
        "bert_config": sizes,
        "checkpoint": {
            "network": {"bert": sizes, "memories": [memory, {**memory, "name": "nell"}], "max_seq_len": 64},
            "options": {"do_lower_case": True},
        },
        "kb_config": [
            {
                "name": "wn",
                "label": "WordNet",
                "vectors": "a/b",
                "retrieved": "x/{dataset}/{split}",
                "key": "word",
                "max_concepts": 9,
            }
        ],
        "manifest": {
            "format": 1,
            "rows": 2,
            "settings": settings,
            "vocab_md5": "0",
            "knowledge_bases": [base, base],
            "files": {"dev.mindrecord": 3},
            "counts": {},
            "inputs": {},
        },
        "bin_manifest": {
            "dataset": "squad",
            "source": "x",
            "count": 1,
            "unique_ids": [1000000000],
            "inputs": [{"folder": "00_data", "name": "input_mask", "shape": [4], "dtype": "float32", "bytes": 16}],
        },
        "examples": entry,
        "predictions": {"a": "Seine", "b": "the Seine"},
        "records": {
            "id": "q1",
            "query_entities": [],
            "document_entities": [
                {
                    "entity_string": "lima",
                    "token_start": 2,
                    "token_end": 2,
                    "retrieved_concepts": ["concept:city"],
                    "retrieved_entities": [],
                }
            ],
        },
        "words": {"dog": ["__dog_NN_1"], "\u00e9t\u00e9": []},
        "own_map": {"River": ["wet"], "New York": ["wet", "dry"]},
        "rank_table": {
            "server_list": [{"device": [{"device_id": "0", "rank_id": "0"}, {"device_id": "1", "rank_id": "1"}]}]
        },
        "vocabulary": "[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n##ine\n",
        "vectors": "".join(f"__bank_NN_{number} 0.{number} 1.5 -2e-3\n" for number in range(1, 9)),
        "triples": "a\tlikes\tb\nb\tlikes\tc\n",
        "beliefs": "Entity\tRelation\tValue\tIteration\tProbability\tSource\n"
        "concept:city:lima\tgeneralizations\tconcept:city\t75\t0.96\tx\n"
        "concept:person:n1895\tgeneralizations\tconcept:person\t75\t1.0\tx\n",
        "passage": "Ida Roth opened it.\n",
        "tag_cache": ["0123456789abcdef", [0, 4], [8, 12]],
        "metrics": {"step": 1, "epoch": 1, "loss": 2.5, "learning_rate": 1e-4, "overflow": False},
        "flags": {"epoch": 2, "learning_rate": 0.1, "data_url": "data", "freeze": True, "lr_schedule": "constant"},
        "flags_yaml": "epoch: 2\nlearning_rate: 4e-5\ndata_url: \"data\"\nfreeze: no\n",
        "rows": {
            "id": "a",
            "title": "x",
            "context": passage,
            "question": "Where?",
            "answers": {"text": ["Seine"], "answer_start": [18]},
        },
        "rows_record": {
            "passage": passage,
            "query": "@placeholder lies",
            "entities": ["Paris", "Seine"],
            "answers": ["Paris"],
            "idx": {"passage": 1, "query": 2},
        },
        "model_folder": {
            "format": 1,
            "network": {"bert": sizes, "memories": [memory], "max_seq_len": 64, "dataset": "squad"},
            "options": {"do_lower_case": True, "doc_stride": 32},
            "knowledge": [{"name": "wn", "label": "WordNet", "vectors": "concepts/wn.txt", "retrieved": "",
                           "key": "word", "max_concepts": 49}],
        },
        "sums": "".join(f"{hashlib.sha256(b'x').hexdigest()}  {name}\n" for name in (CONFIG, WEIGHTS, VOCABULARY)),
        "belief_file": "lima\tconcept:city:lima\tconcept:city\nrome\tconcept:city:rome\tconcept:city\n",
        "wordnet_index": "  1 WordNet's licence\ndog n 1 1 @ 1 1 00000026\n",
        "wordnet_exceptions": "dogges dog\nmice mouse\n",
        "wordnet_data": "  1 WordNet 3.0 Copyright\n00000026 05 n 01 dog 0 001 @ 00000026 n 0000 | an animal\n",
    }


def read_squad(path: Path) -> None:
    """Train and dev questions, and the metric's gold answers."""
    for split, version_2 in (("train", False), ("dev", True)):
        list(squad_twomemory.read_examples(path, split, version_2))
    gold = list(read_gold_answers(path, questions_below))
    evaluate(gold, {question.id: "Seine" for question in gold})


def read_record(path: Path) -> None:
    """Train and dev queries."""
    for split in ("train", "dev"):
        list(record_twomemory.read_examples(path, split))


def read_checkpoint_sizes(path: Path) -> None:
    """What lies beside a checkpoint."""
    values = read_json(path)
    write_json(path, KTNetConfig.from_dict(values.get("network") if isinstance(values, dict) else None, path).to_dict())


def read_bases(path: Path) -> None:
    """Your own knowledge bases, with the files that they name."""
    bases = load_knowledge_bases(path)
    check_paths(bases)
    for base in bases:
        str(DataFolder(path.parent).retrieved(base, SQUAD, "dev")), DataFolder(path.parent).vectors(base).is_file()


def read_features(path: Path) -> None:
    """The manifest of converted features."""
    mindrecord = path.with_name("dev.mindrecord")
    mindrecord.write_bytes(b"abc")
    path.replace(path.with_name("dev.manifest.json"))
    open_converted(mindrecord)


def read_inputs(path: Path) -> None:
    """The manifest of a folder of inputs."""
    manifest = read_manifest(path.parent, path.name)
    write_json(path, manifest.to_dict())
    sum(map(file_size, manifest.columns))


def read_examples(path: Path) -> None:
    """A side table; the questions are decoded as far as they go without logits."""
    path.replace(path.with_name("dev.examples.jsonl"))
    for example in read_side_table(path.with_name("dev.mindrecord")):
        example.to_json().encode()
    with contextlib.suppress(InputError):
        list(decode(read_side_table(path.with_name("dev.mindrecord")), {}))


def read_rank_table(path: Path) -> None:
    """A rank table of two ranks."""
    from utils.rank_table import read_rank_table

    read_rank_table(path, 0, 1)


def read_vectors(path: Path) -> None:
    """Names and numbers."""
    concept_digest(concept_ids(path))
    read_concept_vectors(path)


def read_retrieved(path: Path) -> None:
    """Records of retrieved entities."""
    for item in read_records(path):
        retrieved_item_problem(item).encode()


def read_tags(path: Path) -> None:
    """The entities of texts tagged earlier."""
    list(TagCache(path).tag([], SpacyTagger))


def read_flags(path: Path, ending: str) -> None:
    """A file for --config, and the folder that it names."""
    target = path.replace(path.with_suffix(ending))
    settings = TrainingSettings.of(TrainingSettings.from_file(target, SQUAD), SQUAD)
    settings.data.data_url.is_dir(), json.dumps(settings.plain()).encode()
    with contextlib.suppress(FileNotFoundError):
        os.stat(settings.data.data_url)


def read_sums(path: Path) -> None:
    """The digests of a model folder's files."""
    path.replace(path.with_name(SUMS))
    for name in (CONFIG, WEIGHTS, VOCABULARY):
        path.with_name(name).write_bytes(b"x")
    verify(ModelFolder(path.parent, KTNetConfig(BertConfig(48, 32, 2, 4, 64)), {}, ()))


def read_beliefs(path: Path) -> None:
    """The file in which entities are found by bisection."""
    with BeliefFile(path) as beliefs:
        for key in ("lima", "rome", "a", "zz"):
            str(beliefs.find(key)).encode()


def read_wordnet(path: Path, changed: str) -> None:
    """WordNet's files, of which one is the input."""
    files = {"data.noun": seeds()["wordnet_data"], "index.noun": seeds()["wordnet_index"]}
    for part in ("noun", "verb", "adj", "adv"):
        for name in (f"data.{part}", f"index.{part}", f"{part}.exc"):
            path.with_name(name).write_bytes(path.read_bytes() if name == changed else files.get(name, "").encode())
    wordnet = WordNet(path.parent)
    for part, offset in wordnet.synsets("dogs"):
        wordnet.gloss(wordnet.name(part, offset))
    list(wordnet.triples()), wordnet.lemmas("dogs")


READERS: dict[str, Callable[[Path], Any]] = {
    "squad": read_squad,
    "record": read_record,
    "bert_config": BertConfig.from_json_file,
    "checkpoint": read_checkpoint_sizes,
    "kb_config": read_bases,
    "manifest": read_features,
    "bin_manifest": read_inputs,
    "examples": read_examples,
    "predictions": read_predictions,
    "records": read_retrieved,
    "words": read_mapping,
    "own_map": lambda path: ConceptMap(path, ["wet", "dry"]),
    "rank_table": read_rank_table,
    "vocabulary": load_vocabulary,
    "vectors": read_vectors,
    "triples": read_triples,
    "beliefs": lambda path: build_belief_file(path, path.with_name("promoted.tsv")),
    "passage": read_text,
    "tag_cache": read_tags,
    "metrics": read_metrics,
    "flags": lambda path: read_flags(path, ".json"),
    "flags_yaml": lambda path: read_flags(path, ".yaml"),
    "rows": read_squad,
    "rows_record": read_record,
    "model_folder": lambda path: read_folder(path.replace(path.with_name(CONFIG)).parent),
    "sums": read_sums,
    "belief_file": read_beliefs,
    "wordnet_index": lambda path: read_wordnet(path, "index.noun"),
    "wordnet_exceptions": lambda path: read_wordnet(path, "noun.exc"),
    "wordnet_data": lambda path: read_wordnet(path, "data.noun"),
}


def places(values: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths to all values below ``values``."""
    members = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return [path, *(place for key, value in members for place in places(value, (*path, key)))]


def mutate_values(rng: random.Random, values: Any) -> str:
    """JSON with hostile values, and with fields that are missing, renamed or doubled."""
    values = {RAW: copy.deepcopy(values)}
    raw = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        *path, last = rng.choice(places(values)[1:])
        holder = values
        for key in path:
            holder = holder[key]
        kind = rng.random()
        if kind < 0.7:
            holder[last] = RAW + str(len(raw))
            raw.append(rng.choice(HOSTILE))
        elif kind < 0.85 and path:
            del holder[last]
        elif isinstance(holder, dict):
            holder[rng.choice(("id", "x", "\u00e9", "name", "text"))] = holder[last]
        else:
            holder.insert(rng.randrange(len(holder) + 1), holder[last])
    text = json.dumps(values[RAW])
    for number, piece in enumerate(raw):
        text = text.replace(f'"{RAW}{number}"', piece)
    return text


def mutate_bytes(rng: random.Random, data: bytes) -> bytes:
    """A few bytes changed, inserted, removed or repeated, or a cut."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(changed) + 1)
        kind = rng.randrange(6)
        if kind == 0 and place < len(changed):
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[place:place] = rng.choice(BYTES)
        elif kind == 2:
            del changed[place : place + rng.randrange(1, 9)]
        elif kind == 3:
            changed[place:place] = changed[place : place + rng.randrange(1, 60)]
        elif kind == 4:
            changed[:0] = rng.choice(BYTES)
        elif rng.random() < 0.3:
            del changed[place:]
    return bytes(changed)


def make_input(rng: random.Random, seed: Any) -> bytes:
    """One broken file."""
    if isinstance(seed, str):
        return mutate_bytes(rng, seed.encode())
    if rng.random() < 0.7:
        return mutate_values(rng, seed).encode()
    return mutate_bytes(rng, json.dumps(seed).encode())


def try_reader(name: str, data: bytes, folder: Path) -> str:
    """Give one input to a reader; returns how it ended.

    Raises:
        AssertionError: the refusal is not one line, or does not name a file.
    """
    path = folder / "input.json"
    path.write_bytes(data)
    try:
        READERS[name](path)
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 2_000, f"a poor message: {str(error)[:3000]!r}"
        str(error).encode()
        return "refused"
    except OSError as error:  # run_main makes one line of these as well
        assert error.filename and "\n" not in describe(error), f"a poor message: {error}"
        return "refused"
    return "read"


def main() -> None:
    """Run the fuzzer and print how the inputs ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-input"), help="where an input that broke a reader goes")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    known = seeds()
    outcomes: Counter[str] = Counter()
    broken: dict[tuple[str, str], int] = {}
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        for _ in range(args.count):
            name = rng.choice(list(READERS))
            data = make_input(rng, known[name])
            try:
                outcomes[f"{name}: {try_reader(name, data, Path(folder))}"] += 1
            except Exception as error:  # noqa: BLE001 - any other error is what is looked for
                place = traceback.extract_tb(error.__traceback__)[-1]
                key = name, f"{type(error).__name__} in {Path(place.filename).name}: {place.name}"
                if key not in broken:
                    args.keep.mkdir(parents=True, exist_ok=True)
                    (args.keep / f"{name}-{type(error).__name__}-{len(broken)}").write_bytes(data)
                    print(f"{name}: {key[1]}: {str(error)[:200]!r}", file=sys.stderr)
                broken[key] = broken.get(key, 0) + 1
    for outcome, number in sorted(outcomes.items()):
        print(f"{number:8d}  {outcome}")
    print(
        f"{args.count} inputs in {time.perf_counter() - start:.0f} s, {sum(broken.values())} tracebacks, peak memory "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"
    )
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
