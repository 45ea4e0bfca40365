# SPDX-License-Identifier: Apache-2.0
"""Train concept vectors (DistMult) from a knowledge graph's triples and write a vectors file.

Example:
    python train_kb_embedding.py --triples ./data/WN18 --output ./data/KB_embeddings/wn_concept2vec.txt
"""
from __future__ import annotations

if __name__ == "__main__":      # before the imports, which may fail
    import runpy
    from pathlib import Path
    runpy.run_path(f"{Path(__file__).resolve().parent}/utils/start.py", {"SCRIPT": __file__})

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from src.knowledge.concepts import write_concept_vectors
from src.knowledge.triples import Graph, number_triples, rank_test_set, read_triples
from src.knowledge.wordnet_db import WordNet, find_wordnet
from src.settings import EmbeddingSettings
from utils.util import LOGGER, InputError, set_up_logging, write_json

HELD_BACK = ("test", "valid")      # files of triples that are not learned


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
    settings = EmbeddingSettings.parse(argv)
    set_up_logging()
    check_output(settings.output)
    graph = read_graph(settings.triples, settings.data_url, settings.judge_by)
    from src.training.vectors import train_vectors  # MindSpore takes seconds to import: not for --help and wrong flags
    from utils.device import set_up_device
    set_up_device(settings.device.device_target, settings.device.device_id)
    LOGGER.info("%d entities, %d relations, %d triples to learn, %d to judge by", len(graph.entities),
                len(graph.relations), len(graph.train), len(graph.test))
    start = time.monotonic()
    entities, relations = train_vectors(graph, settings.recipe)
    LOGGER.info("trained in %.0f s", time.monotonic() - start)
    write_concept_vectors(settings.output, graph.entities, entities)
    LOGGER.info("%s: written", settings.output)
    if len(graph.test):
        ranking = rank_test_set(graph, entities, relations)
        LOGGER.info("%s", ranking)
        write_json(settings.output.with_suffix(".metrics.json"), vars(ranking))
