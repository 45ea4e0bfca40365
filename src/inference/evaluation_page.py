"""A page about a whole evaluation: its questions, answers and scores, and what the network read for each."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import islice

from src.config import KNOWLEDGE_BASES, TASKS, WORDNET, DataFolder, KnowledgeBase, load_knowledge_bases
from src.inference.evaluate import decoding_options
from src.inference.predict import dataset_of, fill_settings, make_tokenizer, open_network
from src.inference.windows import gather_logits
from src.knowledge.concepts import read_concept_names
from src.knowledge.wordnet_db import WordNet, find_wordnet
from src.reader.decoding import PREDICTIONS
from src.reader.examples import EvaluationExample, read_side_table
from src.reader.metrics import read_predictions
from src.reader.storage import open_converted
from src.viewer.cases import make_case
from src.viewer.page import Gloss, write_page
from utils.util import LOGGER, InputError


def write_evaluation_page(args: argparse.Namespace) -> None:
    """Run the network with its attention over evaluated features and write the page.

    Args:
        args: flags of predict.py with --evaluation and --html.

    Raises:
        InputError: flags that do not go together, or files that are missing or do not belong together.
    """
    if args.html is None or args.passage is not None or args.passage_file is not None or args.question:
        raise InputError("--evaluation: needs --html FILE, and takes no passage and no question")
    args.dataset = args.dataset or dataset_of(args.load_checkpoint_path)
    data_file = args.predict_mindrecord_file or DataFolder(args.data_url).mindrecord(TASKS[args.dataset], "dev")
    manifest = open_converted(data_file)
    settings = manifest["settings"]
    args.max_seq_len, args.do_lower_case = settings["max_seq_len"], settings["lower_case"]
    args.version_2_with_negative = settings["version_2_with_negative"]
    fill_settings(args)
    predictions = read_predictions(args.evaluation / PREDICTIONS)
    runner, config = open_network(args, manifest)
    examples = list(islice(read_side_table(data_file), args.page_questions))
    check_answered(examples, predictions, args)
    wanted = {window.unique_id: None for example in examples for window in example.windows}
    results = dict(runner.run_file(data_file, wanted))
    tokenizer, options = make_tokenizer(args), decoding_options(args, settings)
    cases = [make_case(example, [results[window.unique_id] for window in example.windows], tokenizer, options,
                       prediction=predictions[example.id], has_gold=True)
             for example in examples if example.windows]
    others = sum(case.prediction != case.decoded.prediction for case in cases)
    if others:
        LOGGER.warning("%s: %d of %d answers are not this checkpoint's; was it another that was evaluated?",
                       args.evaluation / PREDICTIONS, others, len(cases))
    known = {base.name: base for base in (load_knowledge_bases(args.kb_config) if args.kb_config else KNOWLEDGE_BASES)}
    bases = [known[memory.name] for memory in config.memories]
    given = {"wn": args.wn_concept_embedding_path, "nell": args.nell_concept_embedding_path}
    names = {base.name: read_concept_names(given.get(base.name) or DataFolder(args.data_url).vectors(base))
             for base in bases}
    write_page(args.html, cases, bases, names, title=f"KT-NET on {TASKS[args.dataset].folder}: {args.evaluation.name}",
               gloss=open_glosses(args, bases))
    LOGGER.info("%s: %d questions, %.1f MB; open it in a browser", args.html, len(cases),
                args.html.stat().st_size / 1e6)
    if args.save_logits:
        gather_logits(results).save(args.save_logits)


def open_glosses(args: argparse.Namespace, bases: Sequence[KnowledgeBase]) -> Gloss | None:
    """WordNet's glosses if the network reads WordNet and its files are there; a page can do without them."""
    if WORDNET.name not in [base.name for base in bases]:
        return None
    try:
        return WordNet(args.wordnet_path or find_wordnet(args.data_url)).gloss
    except InputError as error:
        LOGGER.warning("the page explains no synsets: %s", error)
        return None


def check_answered(examples: list[EvaluationExample], predictions: dict[str, str], args: argparse.Namespace) -> None:
    """Refuse answers to other questions.

    Raises:
        InputError: a question has no answer.
    """
    missing = [example.id for example in examples if example.id not in predictions]
    if missing:
        raise InputError(f"{args.evaluation / PREDICTIONS}: no answer to question {missing[0]} of the features; give "
                         "the folder of their evaluation, or --predict_mindrecord_file")
