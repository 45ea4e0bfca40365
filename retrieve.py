# SPDX-License-Identifier: Apache-2.0
"""Make everything that data_convert.py needs beside the data sets: entities, tokens, WordNet and NELL concepts.

Example:
    python retrieve.py --data_url ./data --dataset squad --step all
"""
from __future__ import annotations

if __name__ == "__main__":      # before the imports, which may fail
    import runpy
    from pathlib import Path
    runpy.run_path(f"{Path(__file__).resolve().parent}/utils/start.py", {"SCRIPT": __file__})

from collections.abc import Sequence

from src.checks import need_data_folder
from src.config import KNOWLEDGE_BASES, DataFolder
from src.knowledge.steps import STEPS, Options, Retrieval
from src.settings import RetrievalSettings, knowledge_bases
from utils.util import set_up_logging


def main(argv: Sequence[str] | None = None) -> None:
    """Run the steps that were asked for."""
    settings = RetrievalSettings.parse(argv)
    set_up_logging()
    need_data_folder(settings)
    folder = DataFolder(settings.data_url, settings.shard)
    own = tuple(base for base in knowledge_bases(settings.kb_config or folder.kb_config())
                if base.name not in {official.name for official in KNOWLEDGE_BASES})
    retrieval = Retrieval(folder, Options(
        own=own, vocab_path=settings.vocab_path, uncased_vocab_path=settings.uncased_vocab_path,
        nell_beliefs=settings.nell_beliefs, wordnet_path=settings.wordnet_path, ner=settings.ner,
        corenlp_url=settings.corenlp_url, ner_processes=settings.ner_processes, force=settings.force,
        form=settings.format))
    for task in folder.tasks(settings.dataset):
        for step in STEPS if settings.step == "all" else (settings.step,):
            retrieval.run(step, task)
