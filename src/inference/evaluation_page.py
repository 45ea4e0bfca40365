# SPDX-License-Identifier: Apache-2.0
"""A page about a whole evaluation: its questions, answers and scores, and what the network read for each."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from src.config import WORDNET, DataFolder, KnowledgeBase
from src.data_convert import as_converted, check_vocabulary
from src.inference.compare import alternative, memories_off
from src.inference.evaluate import decoding_options
from src.inference.reader import open_network
from src.inference.sources import filled_settings, knowledge_files, make_tokenizer, with_dataset
from src.inference.windows import gather_logits
from src.knowledge.concepts import read_concept_names
from src.knowledge.wordnet_db import WordNet, find_wordnet
from src.reader.decoding import PREDICTIONS
from src.reader.examples import EvaluationExample, read_side_table
from src.reader.metrics import read_predictions
from src.reader.storage import check_features, open_converted
from src.settings import PredictionSettings
from src.viewer.cases import Alternative, WindowResult, make_case
from src.viewer.looked import describe_looked, where_it_looked
from src.viewer.page import Gloss, write_page
from src.weights.build import check_concepts
from utils.util import LOGGER, InputError


def write_evaluation_page(settings: PredictionSettings) -> None:
    """Run the network with its attention over evaluated features and write the page.

    Args:
        settings: of predict.py with --evaluation and --html.

    Raises:
        InputError: files that are missing or do not belong together.
    """
    given = settings.question
    settings = with_dataset(settings)
    page, task, html = settings.page, settings.question.task, given.html
    assert page.evaluation is not None and html is not None
    data_file = page.predict_mindrecord_file
    manifest = open_converted(data_file)
    check_features(data_file, manifest)
    settings = filled_settings(as_converted(settings, manifest["settings"], data_file))
    check_vocabulary(settings.data.vocab_path, data_file, manifest)
    folder, bases, vectors = knowledge_files(settings)
    names = {base.name: read_concept_names(vectors[base.name]) for base in bases}
    for base in bases:
        check_concepts(base.name, names[base.name], vectors[base.name], manifest)
    predictions = read_predictions(page.evaluation / PREDICTIONS)
    runner, _ = open_network(settings, manifest)
    examples = list(islice(read_side_table(data_file), page.page_questions))
    check_answered(examples, predictions, page.evaluation)
    examples = [example for example in examples if example.windows]
    wanted = {window.unique_id: None for example in examples for window in example.windows}
    results = dict(runner.run_file(data_file, wanted))
    tokenizer = make_tokenizer(settings)
    options = decoding_options(settings.decoding, manifest["settings"])
    compared: dict[str, list[Alternative]] = {example.id: [] for example in examples}
    for label, names_off in memories_off(bases) if given.compare else []:
        without = dict(runner.run_file(data_file, wanted, names_off))
        for example in examples:
            compared[example.id].append(alternative(label, example, of_windows(example, without), options))
    cases = [make_case(example, of_windows(example, results), tokenizer, options, prediction=predictions[example.id],
                       has_gold=True, compared=compared[example.id]) for example in examples]
    others = sum(case.prediction != case.decoded.prediction for case in cases)
    if others:
        LOGGER.warning("%s: %d of %d answers are not this checkpoint's; was it another that was evaluated?",
                       page.evaluation / PREDICTIONS, others, len(cases))
    looked = where_it_looked([case for case in cases if case.score is not None], bases, names)
    write_page(html, cases, bases, names, title=f"KT-NET on {task.folder}: {page.evaluation.name}",
               gloss=open_glosses(settings.knowledge.wordnet_path, folder, bases), looked=looked)
    if looked:
        LOGGER.info("where the memories looked, by right and wrong answers:\n%s",
                    "\n".join(describe_looked(looked, bases)))
    LOGGER.info("%s: %d questions, %.1f MB; open it in a browser", html, len(cases), html.stat().st_size / 1e6)
    if settings.decoding.save_logits:
        gather_logits(results).save(settings.decoding.save_logits)


def of_windows(example: EvaluationExample, results: Mapping[int, WindowResult]) -> list[WindowResult]:
    """The results of a question's windows, in their order."""
    return [results[window.unique_id] for window in example.windows]


def open_glosses(wordnet: Path | None, folder: DataFolder, bases: Sequence[KnowledgeBase]) -> Gloss | None:
    """WordNet's glosses if the network reads WordNet and its files are there; a page can do without them."""
    if WORDNET.name not in [base.name for base in bases]:
        return None
    try:
        return WordNet(wordnet or find_wordnet(folder.root)).gloss
    except InputError as error:
        LOGGER.warning("the page explains no synsets: %s", error)
        return None


def check_answered(examples: list[EvaluationExample], predictions: dict[str, str], evaluation: Path) -> None:
    """Refuse answers to other questions.

    Raises:
        InputError: a question has no answer.
    """
    missing = [example.id for example in examples if example.id not in predictions]
    if missing:
        raise InputError(f"{evaluation / PREDICTIONS}: no answer to question {missing[0]} of the features; give "
                         "the folder of their evaluation, or --predict_mindrecord_file")
