"""Make everything that data_convert.py needs beside the data sets: entities, tokens, WordNet and NELL concepts.

Example:
    python retrieve.py --data_url ./data --dataset squad --step all
"""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from src.config import KNOWLEDGE_BASES, TASKS, DataFolder, load_knowledge_bases
from src.knowledge.entities import CORENLP_URL
from src.knowledge.steps import STEPS, Options, Retrieval
from utils.args import OneLineParser
from utils.util import run_main, set_up_logging


def build_parser() -> OneLineParser:
    """The command line."""
    parser = OneLineParser(description="Retrieve knowledge for the data sets of a data folder.")
    parser.add_argument("--data_url", type=Path, default=Path("./data"), help="data folder")
    parser.add_argument("--dataset", choices=(*TASKS, "all"), default="all", help="which data set")
    parser.add_argument("--step", choices=(*STEPS, "all"), default="all", help="which step")
    parser.add_argument("--force", action="store_true", help="make again what is there already")
    parser.add_argument("--ner", choices=("spacy", "corenlp"), default="spacy", help="finder of SQuAD's named entities")
    parser.add_argument("--corenlp_url", default=CORENLP_URL, help="address of the CoreNLP server")
    parser.add_argument("--vocab_path", type=Path, help="cased vocabulary [cased_L-24_H-1024_A-16/vocab.txt]")
    parser.add_argument("--uncased_vocab_path", type=Path,
                        help="uncased vocabulary [uncased_L-24_H-1024_A-16/vocab.txt, if it is there]")
    parser.add_argument("--nell_beliefs", type=Path, help="NELL's belief export, .csv or .csv.gz "
                                                          "[NELL.*.esv.csv* in the data folder or its folder raw]")
    parser.add_argument("--kb_config", type=Path, help="JSON list of knowledge bases; the step own serves those "
                                                       "that are not WordNet or NELL (see docs/knowledge.md)")
    parser.add_argument("--wordnet_path", type=Path, help="folder of WordNet 3.0's files, or NLTK's wordnet.zip "
                                                          "[nltk/corpora/wordnet, else NLTK's own]")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Run the steps that were asked for."""
    args = build_parser().parse_args(argv)
    set_up_logging()
    bases = load_knowledge_bases(args.kb_config) if args.kb_config else ()
    official = {base.name for base in KNOWLEDGE_BASES}
    folder = DataFolder(args.data_url)
    retrieval = Retrieval(folder, Options(
        own=tuple(base for base in bases if base.name not in official), vocab_path=args.vocab_path,
        uncased_vocab_path=args.uncased_vocab_path, nell_beliefs=args.nell_beliefs, wordnet_path=args.wordnet_path,
        ner=args.ner, corenlp_url=args.corenlp_url, force=args.force))
    for task in folder.tasks(args.dataset):
        for step in STEPS if args.step == "all" else (args.step,):
            retrieval.run(step, task)


if __name__ == "__main__":
    run_main(main)
