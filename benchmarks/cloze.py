# SPDX-License-Identifier: Apache-2.0
r"""A cloze set in ReCoRD's layout from tagged SQuAD articles, and KT-NET on it, with and without memories.

    python -m benchmarks.cloze --output FOLDER --data_url DATA [--encoder ENCODER [--networks both none] \
        [--seeds 45] [-- FLAGS of run_KTNET_record.py]]

A passage is two paragraphs. A sentence with an entity that the rest of it names as well is taken out; the entity
becomes @placeholder, and all mentions in the rest are answers. DATA holds SQuAD's tagged files (in raw, or as
retrieve.py writes them) and KB_embeddings. Each split is made from its own articles, so that a network trained on DATA
may be the start (-- --init_checkpoint FILE). Passages of the training split overlap by a paragraph. Prints the set's
size and the baseline "most frequent entity"; with --encoder, trains and evaluates the networks, each in a folder of its
own below FOLDER. Finished runs are not repeated, interrupted ones go on.
"""
from __future__ import annotations

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import data_convert
import retrieve
from benchmarks.ablation import MEMORIES, run
from benchmarks.paired import difference_interval, gold_answers, markdown_table, question_scores
from src.config import KNOWLEDGE_BASES, RECORD, SPLITS, SQUAD, DataFolder
from src.knowledge.steps import find_tagged_json
from src.reader.metrics import score_answer
from utils.args import OneLineParser, non_negative_int, positive_int
from utils.util import InputError, read_json, run_main, set_up_logging, write_json

SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")
SHORTEST_SENTENCE = 20       # characters
PARAGRAPHS = 2               # of an article that make a passage
STEPS = {"train": 1, "dev": 2}      # paragraphs between the beginnings of two passages


def main(argv: Sequence[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    own, flags = (argv[:argv.index("--")], argv[argv.index("--") + 1:]) if "--" in argv else (argv, [])
    parser = OneLineParser(prog="python -m benchmarks.cloze", description=__doc__,
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the data and the runs")
    parser.add_argument("--data_url", type=Path, required=True, help="data folder with tagged SQuAD and KB_embeddings")
    parser.add_argument("--encoder", type=Path, help="folder of an uncased encoder; without it nothing is trained")
    parser.add_argument("--wordnet_path", type=Path, help="WordNet 3.0 [as retrieve.py finds it]")
    parser.add_argument("--nell_beliefs", type=Path, help="NELL's belief export [as retrieve.py finds it in DATA]")
    parser.add_argument("--train", type=positive_int, default=5000, help="most questions of the training split [5000]")
    parser.add_argument("--dev", type=positive_int, default=1000, help="most questions of the dev split [1000]")
    parser.add_argument("--networks", choices=MEMORIES, nargs="+", default=["both", "none"], help="[both none]")
    parser.add_argument("--seeds", type=non_negative_int, nargs="+", default=[45], help="[45]")
    args = parser.parse_args(own)
    set_up_logging()
    folder = DataFolder(args.output / "data")
    if not folder.dataset_json(RECORD, "dev").is_file():
        write_data(args, folder)
    print(json.dumps({"benchmark": "cloze", **sizes(folder), **baseline(folder)}))
    if args.encoder:
        convert(args, folder)
        for seed in args.seeds:
            for name in args.networks:
                run(args.output / f"{name}_{seed}", seed, [*training_flags(args, folder), *flags, *MEMORIES[name]],
                    "run_KTNET_record.py")
        report(args, folder)


# --- the data ------------------------------------------------------------------------------------------------------

def write_data(args: argparse.Namespace, folder: DataFolder) -> None:
    """Write both splits and link the vectors."""
    source = DataFolder(args.data_url)
    for base in KNOWLEDGE_BASES:
        folder.vectors(base).parent.mkdir(parents=True, exist_ok=True)
        folder.vectors(base).symlink_to(source.vectors(base).resolve())
    for split, most in (("train", args.train), ("dev", args.dev)):
        articles = read_json(find_tagged_json(source, SQUAD, split))["data"]
        items = evenly([item for article in articles for item in cloze_items(article, STEPS[split])], most)
        write_json(folder.dataset_json(RECORD, split), {"version": "cloze", "data": items})


def evenly(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many items, from all over the list."""
    return [items[place] for place in np.linspace(0, len(items) - 1, min(most, len(items))).astype(int)]


def cloze_items(article: Mapping[str, Any], step: int = PARAGRAPHS) -> Iterator[dict[str, Any]]:
    """Every passage without one of its sentences, for each entity of the sentence that the rest names too."""
    for number, (text, mentions) in enumerate(passages(article, step)):
        for begin, end in sentences(text):
            rest = text[:begin] + text[end:]
            kept = [(start - (end - begin) * (start >= end), last - (end - begin) * (start >= end))
                    for start, last in mentions if last < begin or start >= end]
            asked = {text[start:last + 1]: (start, last) for start, last in reversed(mentions)
                     if begin <= start and last < end}
            for name, (start, last) in reversed(asked.items()):
                answers = [(match.start(), match.end() - 1)
                           for match in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", rest)]
                if not answers or name in text[begin:start] + text[last + 1:end]:
                    continue
                identity = f"{article['title']}-{number}-{start}"
                query = f"{text[begin:start]}@placeholder{text[last + 1:end]}".strip()
                entities = [{"start": first, "end": final} for first, final in sorted({*kept, *answers})]
                yield {"id": identity, "source": article["title"], "passage": {"text": rest, "entities": entities},
                       "qas": [{"id": f"{identity}-0", "query": query, "answers": [
                           {"start": first, "end": final, "text": name} for first, final in answers]}]}


def passages(article: Mapping[str, Any], step: int) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Text and mentions (first and last character) of two paragraphs, which are as long as ReCoRD's passages.

    One passage begins every ``step`` paragraphs.
    """
    paragraphs = article["paragraphs"]
    for first in range(0, len(paragraphs), step):
        text, mentions = "", set()
        for paragraph in paragraphs[first:first + PARAGRAPHS]:
            mentions |= {(len(text) + entity["start"], len(text) + entity["end"])
                         for entity in paragraph["context_entities"]}
            text += paragraph["context"].replace("\xa0", " ") + "\n"
        yield text, sorted(mentions)


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Start and end of every sentence that is long enough, the blank behind it included."""
    starts = [0, *(match.end() for match in SENTENCE_END.finditer(text)), len(text)]
    for begin, end in zip(starts, starts[1:], strict=False):
        if end - begin >= SHORTEST_SENTENCE and end - begin < len(text):
            yield begin, end


def sizes(folder: DataFolder) -> dict[str, Any]:
    """Questions and articles of both splits."""
    data = {split: read_json(folder.dataset_json(RECORD, split))["data"] for split in SPLITS}
    if {item["source"] for item in data["train"]} & {item["source"] for item in data["dev"]}:
        raise InputError(f"{folder.root}: an article is in both splits; remove the folder and make it again")
    return {"questions": {split: len(items) for split, items in data.items()},
            "articles": {split: len({item["source"] for item in items}) for split, items in data.items()}}


def baseline(folder: DataFolder) -> dict[str, float]:
    """What the entity that a passage names most often is worth, in percent."""
    gold = gold_answers(folder.dataset_json(RECORD, "dev"))
    scores = []
    for item in read_json(folder.dataset_json(RECORD, "dev"))["data"]:
        text = item["passage"]["text"]
        counts = Counter(text[entity["start"]:entity["end"] + 1] for entity in item["passage"]["entities"])
        scores.append(score_answer(counts.most_common(1)[0][0], gold[item["qas"][0]["id"]]))
    exact, overlap = 100 * np.mean(scores, axis=0)
    return {"most_frequent_exact_match": round(float(exact), 2), "most_frequent_f1": round(float(overlap), 2)}


# --- the networks --------------------------------------------------------------------------------------------------

def convert(args: argparse.Namespace, folder: DataFolder) -> None:
    """Retrieve and convert like any data set."""
    vocabulary = str(args.encoder / "vocab.txt")
    beliefs = args.nell_beliefs or next(iter(sorted((args.data_url / "raw").glob("NELL.*.esv.csv*"))), None)
    extra = [part for flag, path in (("--wordnet_path", args.wordnet_path), ("--nell_beliefs", beliefs)) if path
             for part in (flag, str(path))]
    for step in ("wordnet", "nell", "tokens"):
        retrieve.main(["--data_url", str(folder.root), "--dataset", "record", "--step", step,
                       "--uncased_vocab_path", vocabulary, *extra])
    data_convert.main(["--data_url", str(folder.root), "--dataset", "record", "--vocab_path", vocabulary,
                       "--do_lower_case", "True"])


def training_flags(args: argparse.Namespace, folder: DataFolder) -> list[str]:
    """Flags of run_KTNET_record.py."""
    encoder = {"vocab_path": "vocab.txt", "bert_config_path": "bert_config.json",
               "load_pretrain_checkpoint_path": "roberta.ckpt"}
    paths = [part for flag, file in encoder.items() for part in (f"--{flag}", str(args.encoder / file))]
    return ["--data_url", str(folder.root), *paths, "--stages", "two", "--ema_decay", "0.999"]


def report(args: argparse.Namespace, folder: DataFolder) -> None:
    """Print a table of the finished runs, and their difference to none."""
    gold = gold_answers(folder.dataset_json(RECORD, "dev"))
    finished = sorted(path.parent for name in MEMORIES for path in args.output.glob(f"{name}_*/eval_result.json"))
    scores = {folder.name: question_scores(folder / "predictions.json", gold) for folder in finished}
    print(markdown_table(["network and seed", "exact match", "F1"],
                         [[name, *(f"{value:.2f}" for value in run_scores.mean(0))]
                          for name, run_scores in scores.items()]))
    for name, run_scores in scores.items():
        other = scores.get(f"none_{name.rpartition('_')[2]}")
        if other is not None and not name.startswith("none"):
            print(json.dumps({"benchmark": "cloze", "compared": f"{name} minus none",
                              **difference_interval([run_scores[:, 0]], [other[:, 0]])}))


if __name__ == "__main__":
    run_main(main)
