"""Train concept vectors (DistMult) from a knowledge graph's triples and write a vectors file.

Example:
    python train_kb_embedding.py --triples ./data/WN18 --output ./data/KB_embeddings/wn_concept2vec.txt
"""
from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from src.config import EmbeddingConfig
from src.knowledge.concepts import write_concept_vectors
from src.knowledge.triples import Graph, number_triples, rank_test_set, read_triples
from src.knowledge.wordnet_db import WordNet, find_wordnet
from utils.args import OneLineParser, add_device_flags, non_negative_float, non_negative_int, positive_int
from utils.util import LOGGER, InputError, run_main, set_up_logging, write_json

HELD_BACK = ("test", "valid")      # files of triples that are not learned

def build_parser() -> OneLineParser:
    """The command line."""
    defaults = EmbeddingConfig()
    parser = OneLineParser(description="Train concept vectors from the triples of a knowledge graph.")
    add_device_flags(parser)
    parser.set_defaults(device_target="CPU")
    parser.add_argument("--data_url", type=Path, default=Path("./data"), help="data folder, for WordNet")
    parser.add_argument("--triples", type=Path, help="folder with train.txt, test.txt and valid.txt (the last two need "
                                                     "not be there) [WordNet's own relations, none held back]")
    parser.add_argument("--judge_by", choices=HELD_BACK, default=HELD_BACK[0],
                        help="held-back triples to rank in the end; choose hyper-parameters by those of valid.txt")
    parser.add_argument("--output", type=Path, required=True, help="vectors file to write")
    parser.add_argument("--width", type=positive_int, default=defaults.width, help="numbers in a vector")
    parser.add_argument("--epoch", type=positive_int, default=defaults.epochs, help="passes over the triples")
    parser.add_argument("--batch_size", type=positive_int, default=defaults.batch_size, help="questions in a step")
    parser.add_argument("--negatives", type=positive_int, default=defaults.negatives, help="random entities in a step")
    parser.add_argument("--learning_rate", type=non_negative_float, default=defaults.learning_rate, help="of Adagrad")
    parser.add_argument("--regularization", type=non_negative_float, default=defaults.regularization, help="N3 weight")
    parser.add_argument("--random_seed", type=non_negative_int, default=defaults.seed, help="seed")
    return parser


def read_graph(triples: Path | None, data_url: Path, judge_by: str = HELD_BACK[0]) -> Graph:
    """The graph to learn: files of triples, or WordNet's relations.

    Args:
        triples: folder of the files, or None for WordNet.
        data_url: data folder, for WordNet.
        judge_by: which of the held-back files to judge by; the others' triples only count as true.
    """
    if triples is None:
        return number_triples(WordNet(find_wordnet(data_url)).triples())
    train = read_triples(triples / "train.txt")
    files = {name: triples / f"{name}.txt" for name in HELD_BACK}
    held_back = {name: read_triples(path) if path.is_file() else [] for name, path in files.items()}
    return number_triples(train, held_back.pop(judge_by), *held_back.values())


def check_output(path: Path) -> None:
    """Find out before the training, not after it, whether the vectors can be written.

    Raises:
        InputError: the path is a folder.
        OSError: its folder cannot be made or written to.
    """
    if path.is_dir():
        raise InputError(f"--output {path}: a folder; name a file in it, as {path / 'my_concept2vec.txt'}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent):
        pass


def main(argv: Sequence[str] | None = None) -> None:
    """Train, judge, write."""
    args = build_parser().parse_args(argv)
    set_up_logging()
    check_output(args.output)
    graph = read_graph(args.triples, args.data_url, args.judge_by)
    from src.training.vectors import train_vectors  # MindSpore takes seconds to import: not for --help and wrong flags
    from utils.device import set_up_device
    set_up_device(args)
    LOGGER.info("%d entities, %d relations, %d triples to learn, %d to judge by", len(graph.entities),
                len(graph.relations), len(graph.train), len(graph.test))
    start = time.monotonic()
    entities, relations = train_vectors(graph, EmbeddingConfig(
        width=args.width, epochs=args.epoch, batch_size=args.batch_size, negatives=args.negatives,
        learning_rate=args.learning_rate, regularization=args.regularization, seed=args.random_seed))
    LOGGER.info("trained in %.0f s", time.monotonic() - start)
    write_concept_vectors(args.output, graph.entities, entities)
    LOGGER.info("%s: written", args.output)
    if len(graph.test):
        ranking = rank_test_set(graph, entities, relations)
        LOGGER.info("%s", ranking)
        write_json(args.output.with_suffix(".metrics.json"), vars(ranking))


if __name__ == "__main__":
    run_main(main)
