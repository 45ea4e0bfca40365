# SPDX-License-Identifier: Apache-2.0
r"""Does a trained network read its memories? Two reading tasks that only knowledge can solve.

    python -m benchmarks.knowledge {wordnet,nell} --output FOLDER --data_url DATA --encoder ENCODER \
        [--wordnet_path FOLDER] [--seed 1] [--kinds 16] [--networks both none ...] [--stages two one] \
        [--seeds 45 46 47] [-- FLAGS]

A passage lists four things of four kinds, the question asks for one kind. WordNet's probe takes kinds and words from
WordNet; NELL's invents names whose categories stand in a belief file alone. Dev words never occur in training. DATA
holds KB_embeddings, ENCODER an uncased vocab.txt, bert_config.json and roberta.ckpt. --seed chooses kinds, words and
sentences: another seed is another probe. FLAGS go to run_KTNET_squad.py after those that this benchmark sets.

Below FOLDER: the data folder and a training for each network. Finished runs are not repeated, interrupted ones go on.
Prints one JSON line for each network, then for each difference to the network without memories, and a table. The bound
is a linear classifier on the concepts' vectors; guessing gives 25.
"""
from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import data_convert
import retrieve
from benchmarks.ablation import MEMORIES, run
from benchmarks.paired import difference_interval, gold_answers, markdown_table, question_scores, spread
from benchmarks.probe_data import CHOICES, Probe, ProbeSizes, nell_probe, wordnet_probe, write_probe
from src.config import NELL, SQUAD, WORDNET, DataFolder
from src.knowledge.concepts import read_concept_names, read_concept_vectors
from src.knowledge.wordnet_db import WordNet, find_wordnet
from utils.args import OneLineParser, non_negative_int, positive_int
from utils.util import read_json, run_main, set_up_logging

WINDOWS = ("--max_seq_len", "48", "--doc_stride", "16", "--max_query_length", "16")
TRAINING = ("--batch_size", "16", "--ema_decay", "0.99", "--buckets", "1", "--keep_checkpoint_max", "1")
STAGES: Mapping[str, tuple[str, ...]] = {
    "two": ("--stages", "two", "--first_epoch", "12", "--first_learning_rate", "2e-3", "--epoch", "1",
            "--learning_rate", "1e-4"),
    "one": ("--stages", "one", "--epoch", "2", "--learning_rate", "2e-4")}


def main(argv: Sequence[str] | None = None) -> None:
    argv = list(sys.argv[1:] if argv is None else argv)
    own, flags = (argv[:argv.index("--")], argv[argv.index("--") + 1:]) if "--" in argv else (argv, [])
    args = parse(own)
    set_up_logging()
    folder = DataFolder(args.output / "data")
    probe = make_probe(args)
    if not folder.mindrecord(SQUAD, "dev").is_file():
        make_data(args, folder, probe)
    if not args.only_table:
        for seed in args.seeds:                 # a seed of every line before the next seed
            for name in names_of(args):
                run(args.output / name / str(seed), seed, [*training_flags(args, folder, name), *flags])
    report(args, folder, probe)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = OneLineParser(prog="python -m benchmarks.knowledge", description=__doc__,
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("probe", choices=("wordnet", "nell"))
    parser.add_argument("--output", type=Path, required=True, help="folder of the data and the runs")
    parser.add_argument("--data_url", type=Path, required=True, help="data folder with KB_embeddings")
    parser.add_argument("--encoder", type=Path, required=True, help="folder of an uncased encoder")
    parser.add_argument("--wordnet_path", type=Path, help="WordNet 3.0 [as retrieve.py finds it]")
    parser.add_argument("--seed", type=non_negative_int, default=1, help="of kinds, words and sentences [1]")
    parser.add_argument("--kinds", type=positive_int, default=ProbeSizes.kinds, help="[16]")
    parser.add_argument("--networks", choices=MEMORIES, nargs="+", default=list(MEMORIES), help="[all four]")
    parser.add_argument("--stages", choices=STAGES, nargs="+", default=list(STAGES), help="[two one]")
    parser.add_argument("--seeds", type=non_negative_int, nargs="+", default=[45, 46, 47], help="[45 46 47]")
    parser.add_argument("--only_table", action="store_true", help="train nothing; show what is there")
    return parser.parse_args(argv)


def make_probe(args: argparse.Namespace) -> Probe:
    """The probe that the flags choose."""
    vectors = DataFolder(args.data_url)
    wordnet = WordNet(args.wordnet_path or find_wordnet(args.data_url))
    if args.probe == "wordnet":
        return wordnet_probe(wordnet, read_concept_names(vectors.vectors(WORDNET)), args.kinds, args.seed)
    return nell_probe(wordnet, read_concept_names(vectors.vectors(NELL)), args.kinds, args.seed)


def make_data(args: argparse.Namespace, folder: DataFolder, probe: Probe) -> None:
    """Write the probe and convert it like any data set."""
    write_probe(folder.root, DataFolder(args.data_url), probe, ProbeSizes(args.kinds), args.seed)
    wordnet = args.wordnet_path or find_wordnet(args.data_url)
    vocabulary = str(args.encoder / "vocab.txt")
    for step in ("wordnet", "nell", "tokens"):
        retrieve.main(["--data_url", str(folder.root), "--dataset", "squad", "--step", step, "--wordnet_path",
                       str(wordnet), "--uncased_vocab_path", vocabulary])
    data_convert.main(["--data_url", str(folder.root), "--dataset", "squad", "--vocab_path", vocabulary,
                       "--do_lower_case", "True", *WINDOWS])


def names_of(args: argparse.Namespace) -> list[str]:
    """The networks, each a folder of its own."""
    return [f"{network}_{stages}" for stages in args.stages for network in args.networks]


def training_flags(args: argparse.Namespace, folder: DataFolder, name: str) -> list[str]:
    """Flags of run_KTNET_squad.py."""
    network, stages = name.split("_")
    encoder = {"vocab_path": "vocab.txt", "bert_config_path": "bert_config.json",
               "load_pretrain_checkpoint_path": "roberta.ckpt"}
    paths = [part for flag, file in encoder.items() for part in (f"--{flag}", str(args.encoder / file))]
    return ["--data_url", str(folder.root), *paths, *TRAINING, *STAGES[stages], *MEMORIES[network]]


def linear_bound(folder: DataFolder, probe: Probe) -> float:
    """How many questions a linear classifier on the mean vector of a word's concepts answers, in percent."""
    names, vectors = read_concept_vectors(folder.vectors(probe.base))
    number = {name: row for row, name in enumerate(names)}
    vectors = vectors / vectors.std()

    def mean_vector(word: str) -> np.ndarray:
        return np.mean([vectors[number[concept]] for concept in probe.concepts[word]], axis=0)

    inputs = np.array([mean_vector(word) for kind in probe.kinds for word in kind.training])           # [N, D]
    labels = np.repeat(np.arange(len(probe.kinds)), [len(kind.training) for kind in probe.kinds])
    weight = fit_linear(inputs, np.eye(len(probe.kinds))[labels])
    kind_of = {word: place for place, kind in enumerate(probe.kinds) for word in kind.dev}
    right = []
    for paragraph in read_json(folder.dataset_json(SQUAD, "dev"))["data"][0]["paragraphs"]:
        answer = paragraph["qas"][0]["answers"][0]["text"]
        things = [word for word in words_of(paragraph["context"]) if word in kind_of]
        scores = np.array([mean_vector(word) for word in things]) @ weight[:-1] + weight[-1]
        right.append(things[int(scores[:, kind_of[answer]].argmax())] == answer)
    return 100 * statistics.mean(right)


def words_of(text: str) -> list[str]:
    """The words of a passage, without punctuation."""
    return "".join(letter if letter.isalpha() else " " for letter in text).split()


def fit_linear(inputs: np.ndarray, wanted: np.ndarray, steps: int = 600, rate: float = 1.0,
               decay: float = 1e-3) -> np.ndarray:
    """Softmax regression by gradient descent: weights [D + 1, kinds], the bias in the last row."""
    extended = np.hstack([inputs, np.ones((len(inputs), 1))])
    weight = np.zeros((extended.shape[1], wanted.shape[1]))
    for _ in range(steps):
        scores = extended @ weight
        odds = np.exp(scores - scores.max(1, keepdims=True))
        weight -= rate * (extended.T @ (odds / odds.sum(1, keepdims=True) - wanted) / len(inputs) + decay * weight)
    return weight


def report(args: argparse.Namespace, folder: DataFolder, probe: Probe) -> None:
    """Print what is finished: a JSON line for each network and each difference, then a table."""
    gold = gold_answers(folder.dataset_json(SQUAD, "dev"))
    scores: dict[str, dict[str, np.ndarray]] = {}
    for name in (f"{network}_{stages}" for stages in STAGES for network in MEMORIES):
        finished = sorted(args.output.glob(f"{name}/*/eval_result.json"))
        if finished:
            scores[name] = {path.parent.name: question_scores(path.parent / "predictions.json", gold)
                            for path in finished}
    for line in lines_of(scores):
        print(json.dumps({"benchmark": "knowledge", "probe": args.probe, "seed": args.seed, **line}))
    bound = linear_bound(folder, probe)
    rows = [[*name.split("_"), ", ".join(runs), spread([run[:, 0].mean() for run in runs.values()]),
             spread([run[:, 1].mean() for run in runs.values()])] for name, runs in scores.items()]
    rows += [["linear classifier on the vectors", "", "", f"{bound:.2f}", ""],
             ["guess", "", "", f"{100 / CHOICES:.2f}", ""]]
    print(markdown_table(["memories", "stages", "seeds", "exact match", "F1"], rows))


def lines_of(scores: Mapping[str, Mapping[str, np.ndarray]]) -> list[dict[str, Any]]:
    """One entry for each network, then its difference to none in the same stages, and each at its best stages."""
    lines: list[dict[str, Any]] = []
    best: dict[str, str] = {}                 # memories -> stages with the highest exact match
    for name, runs in scores.items():
        memories, stages = name.split("_")
        lines.append({"memories": memories, "stages": stages, "seeds": list(runs),
                      "exact_match": [round(float(run[:, 0].mean()), 2) for run in runs.values()],
                      "f1": [round(float(run[:, 1].mean()), 2) for run in runs.values()]})
        if memories not in best or exact_match(runs) > exact_match(scores[f"{memories}_{best[memories]}"]):
            best[memories] = stages
    pairs = [(memories, stages, stages) for memories, stages in (name.split("_") for name in scores)]
    if "none" in best:
        pairs += [(memories, stages, best["none"]) for memories, stages in best.items()]
    for memories, stages, of_none in dict.fromkeys(pairs):
        runs, none = scores[f"{memories}_{stages}"], scores.get(f"none_{of_none}", {})
        common = [seed for seed in runs if seed in none]
        if memories != "none" and common:
            interval = difference_interval([runs[seed][:, 0] for seed in common],
                                           [none[seed][:, 0] for seed in common])
            lines.append({"compared": f"{memories} in {stages} minus none in {of_none}", "seeds": common, **interval})
    return lines


def exact_match(runs: Mapping[str, np.ndarray]) -> float:
    """Mean over seeds and questions."""
    return float(np.mean([run[:, 0].mean() for run in runs.values()]))


if __name__ == "__main__":
    run_main(main)
