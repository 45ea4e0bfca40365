# SPDX-License-Identifier: Apache-2.0
"""Reading tasks that only knowledge can solve: ordinary data folders for retrieve.py and data_convert.py.

A passage lists four things of four kinds, a question asks for the one of a kind ("Which of these is a kind of tree?").
WordNet's probe takes kinds and words from WordNet itself, without words whose ending tells their kind; NELL's invents
the names, so that their categories are only in its belief file. Names of the dev split never occur in training.
"""
from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.config import NELL, SQUAD, WORDNET, DataFolder, KnowledgeBase
from src.knowledge.wordnet import SynsetRetriever
from src.knowledge.wordnet_db import WordNet
from utils.util import InputError, write_json, write_text

CHOICES = 4                        # things of a passage
TEMPLATES = 3                      # sentences of a probe, chosen by its seed
LEVELS = 2                         # below a kind from which its words are taken: what its vectors tell surely
FEWEST_WORDS, MOST_WORDS = 50, 300     # of a kind that is usable
ENDING, MOST_ALIKE = 3, 5              # letters, and words of a kind that may end in the same ones
TRAINING_WORDS, DEV_WORDS = 70, 27     # most of a kind
NAMES_OF_A_CATEGORY = 60           # that are invented, dev included

PASSAGES = ("The page describes {0}, {1}, {2} and {3}.", "There were four of them: {0}, {1}, {2} and {3}.",
            "In the book one reads of {0}, {1}, {2} and {3}.", "First came {0}, then {1}, later {2} and {3}.",
            "My notes mention {0}, {1}, {2} and also {3}.", "They had written about {0} and {1}, {2} and {3}.",
            "A list of words: {0}, {1}, {2}, {3}.", "The talk was about {0}, {1}, {2} and {3}.")
QUESTIONS = ("Which of these is a kind of {0}?", "What is the {0} here?", "Which one is {1} {0}?",
             "Name the one that is {1} {0}.", "Which of the four is some kind of {0}?", "Where is {1} {0} mentioned?",
             "Which word stands for {1} {0}?", "Find the {0} among them.")

ONSETS = ("b", "br", "d", "dr", "f", "g", "gl", "h", "k", "kl", "l", "m", "n", "p", "pl", "r", "s", "st", "t", "tr",
          "v", "z")
VOWELS = ("a", "e", "i", "o", "u", "ai", "ei", "ou")
ENDINGS = ("", "l", "m", "n", "r", "s", "x", "ck", "th", "sk")


@dataclass(frozen=True)
class ProbeSizes:
    """How large a probe is."""

    kinds: int = 16
    training_questions: int = 4000
    dev_questions: int = 1000


@dataclass(frozen=True)
class Kind:
    """What a question may ask for, and the words or names that are of this kind."""

    name: str                      # as a question says it
    training: tuple[str, ...]
    dev: tuple[str, ...]


@dataclass(frozen=True)
class Probe:
    """A probe before it is written."""

    base: KnowledgeBase            # that knows the words
    kinds: tuple[Kind, ...]
    concepts: Mapping[str, tuple[str, ...]]    # of every word or name
    sentences: tuple[tuple[str, str], ...]     # passage and question


# --- WordNet -------------------------------------------------------------------------------------------------------

def wordnet_probe(wordnet: WordNet, concepts: Sequence[str], kinds: int, seed: int) -> Probe:
    """Choose kinds of WordNet and words of them, all of whose concepts are of that kind.

    Args:
        wordnet: the database.
        concepts: names of those that have a vector.
        kinds: how many.
        seed: of the choice.

    Raises:
        InputError: there are fewer kinds than that.
    """
    generator = random.Random(seed)
    candidates = _usable_kinds(wordnet, concepts)
    generator.shuffle(candidates)
    chosen: list[Kind] = []
    taken: set[str] = set()        # concepts of the kinds chosen
    for name, below, words in candidates:
        if len(chosen) < kinds and not taken & below and name not in {kind.name for kind in chosen}:
            taken |= below
            chosen.append(_split_words(name, words, generator))
    if len(chosen) < kinds:
        raise InputError(f"--kinds {kinds}: WordNet's vectors give {len(chosen)} kinds with this seed that share no "
                         "word; ask for fewer")
    concepts_of = {word: tuple(sorted(found)) for _, _, words in candidates for word, found in words.items()}
    return Probe(WORDNET, tuple(chosen), concepts_of, _choose_sentences(generator))


def _usable_kinds(wordnet: WordNet, concepts: Sequence[str]) -> list[tuple[str, set[str], dict[str, set[str]]]]:
    """Name, concepts and words (with their concepts) of every noun with neither too few nor too many words below it."""
    below = defaultdict(list)
    for head, relation, tail in wordnet.triples():
        if relation == "_hypernym":
            below[tail].append(head)
    retriever = SynsetRetriever(wordnet, concepts)
    concepts_of = {noun: set(retriever.concepts(noun)) for noun in wordnet.nouns() if _is_plain(noun)}
    words_of = defaultdict(set)
    for noun, found in concepts_of.items():
        for concept in found:
            words_of[concept].add(noun)
    in_sentences = {word for sentence in PASSAGES + QUESTIONS for word in _words(sentence)}
    kinds = []
    for concept in concepts:
        name = _lemma(concept)
        if concept.rsplit("_", 2)[1] != "NN" or not _is_plain(name) or not below[concept]:
            continue
        closure = _below(concept, below)
        near = _below(concept, below, LEVELS) - {concept}
        words = {word for inner in near for word in words_of[inner] if concepts_of[word] <= closure - {concept}}
        words = _without_common_endings(words - {name} - in_sentences)
        if FEWEST_WORDS <= len(words) <= MOST_WORDS:
            kinds.append((name, closure, {word: concepts_of[word] for word in sorted(words)}))
    return kinds


def _without_common_endings(words: Collection[str]) -> set[str]:
    """The words without those that end alike: their ending tells their kind, as -ship tells an occupation."""
    alike = Counter(word[-ENDING:] for word in words)
    return {word for word in words if alike[word[-ENDING:]] <= MOST_ALIKE}


def _is_plain(word: str) -> bool:
    """Whether BERT's tokenizer leaves a word in one part."""
    return word.isascii() and word.isalpha() and len(word) > 2


def _lemma(concept: str) -> str:
    """The word of a concept's name: tree of __tree_NN_1."""
    return concept[2:].rsplit("_", 2)[0]


def _words(sentence: str) -> Iterable[str]:
    return "".join(letter if letter.isalpha() else " " for letter in sentence.lower()).split()


def _below(concept: str, below: Mapping[str, Sequence[str]], levels: int = 1000) -> set[str]:
    """A concept and everything below it, as far as so many levels."""
    found, newest = {concept}, {concept}
    for _ in range(levels):
        newest = {lower for upper in newest for lower in below[upper]} - found
        if not newest:
            break
        found |= newest
    return found


def _split_words(name: str, words: Mapping[str, set[str]], generator: random.Random) -> Kind:
    """Divide the words of a kind between the splits: a concept of a dev word is no training word's."""
    shuffled = generator.sample(sorted(words), len(words))
    dev = shuffled[:min(len(words) // 3, DEV_WORDS)]
    of_dev = {concept for word in dev for concept in words[word]}
    training = [word for word in shuffled[len(dev):] if not words[word] & of_dev]
    return Kind(name, tuple(training[:TRAINING_WORDS]), tuple(dev))


def _choose_sentences(generator: random.Random) -> tuple[tuple[str, str], ...]:
    return tuple(zip(generator.sample(PASSAGES, TEMPLATES), generator.sample(QUESTIONS, TEMPLATES), strict=True))


# --- NELL ----------------------------------------------------------------------------------------------------------

def nell_probe(wordnet: WordNet, categories: Sequence[str], kinds: int, seed: int) -> Probe:
    """Invent names for categories of NELL.

    Args:
        wordnet: no name may be a word of it.
        categories: names of those that have a vector, as ``concept:city``.
        kinds: how many.
        seed: of the choice.

    Raises:
        InputError: fewer categories than that are words of WordNet.
    """
    generator = random.Random(seed)
    words = [category for category in categories if wordnet.synsets(category.rpartition(":")[2])]
    if len(words) < kinds:
        raise InputError(f"--kinds {kinds}: only {len(words)} categories are single words; ask for fewer")
    names = _invent(kinds * NAMES_OF_A_CATEGORY, wordnet, generator)
    chosen, told = [], {}
    for number, category in enumerate(generator.sample(words, kinds)):
        own = names[number * NAMES_OF_A_CATEGORY:(number + 1) * NAMES_OF_A_CATEGORY]
        kind = _split_words(category.rpartition(":")[2], {name: {name} for name in own}, generator)
        chosen.append(kind)
        told.update(dict.fromkeys(own, (category,)))
    return Probe(NELL, tuple(chosen), told, _choose_sentences(generator))


def _invent(count: int, wordnet: WordNet, generator: random.Random) -> list[str]:
    """Different names of two or three syllables that WordNet does not know."""
    names: dict[str, None] = {}
    while len(names) < count:
        syllables = [generator.choice(ONSETS) + generator.choice(VOWELS) for _ in range(generator.choice((2, 3)))]
        name = "".join(syllables) + generator.choice(ENDINGS)
        if not wordnet.synsets(name):
            names[name.capitalize()] = None
    return list(names)


# --- the data folder -----------------------------------------------------------------------------------------------

def write_probe(folder: Path, vectors: DataFolder, probe: Probe, sizes: ProbeSizes, seed: int) -> None:
    """Write the data sets, their tagged entities and the belief file; the vectors are linked.

    Args:
        folder: the data folder to make.
        vectors: a data folder with the concept vectors.
        probe: what to write.
        sizes: of the splits.
        seed: of the questions.
    """
    generator = random.Random(f"questions {seed}")
    data = DataFolder(folder)
    for base in (WORDNET, NELL):
        data.vectors(base).parent.mkdir(parents=True, exist_ok=True)
        if not data.vectors(base).exists():
            data.vectors(base).symlink_to(vectors.vectors(base).resolve())
    for split, count in (("train", sizes.training_questions), ("dev", sizes.dev_questions)):
        paragraphs = [_paragraph(f"{split}-{number}", split, probe, generator) for number in range(count)]
        plain = [{"context": item["context"], "qas": [{key: value for key, value in question.items()
                                                       if key != "question_entities"} for question in item["qas"]]}
                 for item in paragraphs]
        _write_squad(data.dataset_json(SQUAD, split), plain)
        _write_squad(folder / "raw" / data.tagged_json(SQUAD, split).name, paragraphs)
    header = "Entity\tRelation\tValue\tIteration of Promotion\tProbability\tSource\n"
    known = probe.concepts if probe.base is NELL else {"nowhere": ("concept:city",)}
    beliefs = (f"{category}:{name.lower()}\tgeneralizations\t{category}\t75\t1.0\tinvented\n"
               for name, categories in sorted(known.items()) for category in categories)
    write_text(folder / "raw" / "NELL.probe.esv.csv", header + "".join(beliefs))
    write_json(folder / "kinds.json", {kind.name: {"training": kind.training, "dev": kind.dev} for kind in probe.kinds})


def _write_squad(path: Path, paragraphs: Collection[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps({"version": "1.1", "data": [{"title": "probe", "paragraphs": list(paragraphs)}]}))


def _paragraph(identity: str, split: str, probe: Probe, generator: random.Random) -> dict[str, Any]:
    """A passage and its question, with the names that the belief file knows as entities."""
    kinds = generator.sample(probe.kinds, CHOICES)
    things = [generator.choice(kind.training if split == "train" else kind.dev) for kind in kinds]
    asked = generator.randrange(CHOICES)
    passage, question = generator.choice(probe.sentences)
    context, starts = _fill(passage, things)
    entities = [{"text": thing, "start": start, "end": start + len(thing) - 1}
                for thing, start in zip(things, starts, strict=True) if probe.base is NELL]
    return {"context": context, "context_entities": entities,
            "qas": [{"id": identity, "question": _ask(question, kinds[asked].name), "question_entities": [],
                     "answers": [{"text": things[asked], "answer_start": starts[asked]}]}]}


def _ask(template: str, kind: str) -> str:
    return template.format(kind, "an" if kind[0] in "aeiou" else "a")


def _fill(template: str, things: Sequence[str]) -> tuple[str, list[int]]:
    """The sentence with the things in their places, and where each of them begins."""
    text, starts = "", []
    for number, thing in enumerate(things):
        before, _, template = template.partition(f"{{{number}}}")
        text += before
        starts.append(len(text))
        text += thing
    return text + template, starts
