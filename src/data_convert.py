"""Examples to MindRecord: reads a data set with its knowledge, writes its features whole or not at all."""
from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from src.config import DataFolder, KnowledgeBase, TaskConfig, WindowConfig
from src.knowledge.concepts import concept_ids
from src.knowledge.formats import read_mapping, read_records
from src.reader import record_twomemory, squad_twomemory
from src.reader.batching_twomemory import FeatureBuilder, TokenMismatchError
from src.reader.concept_lookup import EntityLookup, Lookup, WordLookup
from src.reader.examples import EvaluationExample, Example
from src.reader.storage import ConvertedFiles, stored_columns, stored_schema
from src.reader.tokenization import BertTokenizer
from utils.util import LOGGER, InputError, file_digest, write_json

READ_EXAMPLES: Mapping[str, Callable[..., Iterator[Example]]] = {
    "squad": squad_twomemory.read_examples, "record": record_twomemory.read_examples}
ROWS_AT_ONCE = 512           # features given to the writer at a time
HEADER_BYTES = 1 << 20       # of a MindRecord file (sparse)
PAGE_BYTES = 1 << 20


@dataclass(frozen=True)
class Conversion:
    """One split of one data set and how it is to be converted."""

    task: TaskConfig
    split: str
    data: DataFolder
    json_path: Path
    target: Path                          # the MindRecord file
    vocab_path: Path
    lower_case: bool
    windows: WindowConfig
    bases: tuple[KnowledgeBase, ...]
    version_2: bool = False

    @property
    def tokens_path(self) -> Path:
        """Token file of this split."""
        return self.data.tokens(self.task, self.split, self.lower_case)

    def settings(self) -> dict[str, Any]:
        """What shapes the features beside the input files."""
        return {"dataset": self.task.name, "split": self.split, "lower_case": self.lower_case,
                "max_seq_len": self.windows.max_seq_len, "doc_stride": self.windows.doc_stride,
                "max_query_length": self.windows.max_query_length, "version_2_with_negative": self.version_2}


def question_stream(conversion: Conversion) -> Iterator[tuple[Example, Mapping[str, Any], list[Any]]]:
    """Every question with its token record and, for each knowledge base, its retrieved record (or None)."""
    examples = READ_EXAMPLES[conversion.task.name](conversion.json_path, conversion.split, conversion.version_2)
    tokens = RecordFinder(conversion.tokens_path, conversion.json_path)
    finders = [RecordFinder(path, conversion.json_path) if base.key == "entity" else None
               for base, path in retrieved_paths(conversion)]
    seen: set[str] = set()
    for example in examples:
        if example.id in seen:
            raise InputError(f"{conversion.json_path}: question id {example.id} stands there twice; ids must differ")
        seen.add(example.id)
        yield example, tokens.find(example.id), [finder.find(example.id) if finder else None for finder in finders]


class RecordFinder:
    """Finds records by question id in a streamed file, which normally has the data set's order."""

    def __init__(self, path: Path, json_path: Path) -> None:
        self._path, self._json_path = path, json_path
        self._records = read_records(path)
        self._waiting: dict[str, Mapping[str, Any]] = {}

    def find(self, identity: str) -> Mapping[str, Any]:
        """The record of a question.

        Raises:
            InputError: the file has none.
        """
        if identity in self._waiting:
            return self._waiting.pop(identity)
        for record in self._records:
            found = record.get("id")
            if found == identity:
                return record
            self._waiting[str(found)] = record
        raise InputError(f"{self._path}: question {identity} of {self._json_path} is not in it; it was made from "
                         "another data set: make it again with retrieve.py")


def retrieved_paths(conversion: Conversion) -> list[tuple[KnowledgeBase, Path]]:
    """Each knowledge base with its retrieval file."""
    return [(base, conversion.data.retrieved(base, conversion.task, conversion.split)) for base in conversion.bases]


def check_inputs(conversion: Conversion) -> None:
    """Say which input is missing and what makes it.

    Raises:
        InputError: a file is missing.
    """
    def need(path: Path, mend: str) -> None:
        if not path.is_file():
            raise InputError(f"{path}: no such file; {mend}")

    url = conversion.data.root
    need(conversion.json_path, "put the data set there (the README lists the downloads)")
    need(conversion.vocab_path, "give the encoder's vocab.txt with --vocab_path")
    need(conversion.tokens_path, f"run: python retrieve.py --data_url {url} --step tokens")
    for base, path in retrieved_paths(conversion):
        step = {"wn": "wordnet"}.get(base.name, base.name)
        need(path, f"run: python retrieve.py --data_url {url} --step {step}")
        need(conversion.data.vectors(base), f"put the concept vectors of {base.label} there (see the README)")


def make_lookups(conversion: Conversion, ids: Sequence[Mapping[str, int]]) -> list[Lookup]:
    """One look-up for each knowledge base."""
    lookups: list[Lookup] = []
    for (base, path), names in zip(retrieved_paths(conversion), ids, strict=True):
        vectors = conversion.data.vectors(base)
        lookups.append(WordLookup(base, read_mapping(path), names, path, vectors) if base.key == "word"
                       else EntityLookup(base, names, path, vectors))
    return lookups


def build_features(conversion: Conversion, builder: FeatureBuilder
                   ) -> Iterator[tuple[list[list[np.ndarray]], EvaluationExample | None]]:
    """Features of every question, in reading order."""
    for example, tokens, records in question_stream(conversion):
        try:
            yield builder.build(example, tokens, records)
        except TokenMismatchError as error:
            raise InputError(f"{conversion.tokens_path}: {error}; make it again: "
                             f"python retrieve.py --data_url {conversion.data.root} --step tokens") from None


def convert(conversion: Conversion, force: bool = False) -> dict[str, Any]:
    """Convert one split; returns the manifest.

    Raises:
        InputError: an input is missing or broken, or the output cannot be written.
    """
    check_inputs(conversion)
    files = ConvertedFiles(conversion.target)
    ids = [concept_ids(conversion.data.vectors(base)) for base in conversion.bases]
    builder = FeatureBuilder(BertTokenizer(conversion.vocab_path, conversion.lower_case), conversion.windows,
                             make_lookups(conversion, ids), conversion.split)
    with temporary_folder(conversion.target) as folder:
        written = ConvertedFiles(folder / conversion.target.name)
        rows = write_files(written, conversion, build_features(conversion, builder))
        manifest = {"rows": rows, "settings": conversion.settings(),
                    "vocab_md5": file_digest(conversion.vocab_path),
                    "knowledge_bases": [
                        {"name": base.name, "label": base.label, "concepts": len(names),
                         "max_concepts": base.max_concepts,
                         "vectors_md5": file_digest(conversion.data.vectors(base))}
                        for base, names in zip(conversion.bases, ids, strict=True)],
                    "counts": {"questions": builder.tally.questions, "features": builder.tally.features,
                               "skipped": dict(builder.tally.skipped),
                               "dropped_windows": builder.tally.dropped_windows}}
        publish(written, files, manifest)
    LOGGER.info("%s: %d features of %d questions", conversion.target, rows, builder.tally.questions)
    return manifest


def write_files(written: ConvertedFiles, conversion: Conversion,
                features: Iterable[tuple[list[list[np.ndarray]], EvaluationExample | None]]) -> int:
    """Write data, lengths and side table into the temporary folder; returns the number of features."""
    from mindspore.mindrecord import FileWriter

    names = stored_columns(conversion.bases, conversion.split)
    writer = FileWriter(str(written.mindrecord), 1)
    writer.set_header_size(HEADER_BYTES)
    writer.set_page_size(PAGE_BYTES)
    writer.add_schema(stored_schema(conversion.bases, conversion.split), "KT-NET features")
    lengths: list[int] = []
    rows: list[dict[str, np.ndarray]] = []
    with contextlib.ExitStack() as stack:
        table = None
        if conversion.split == "dev":
            table = stack.enter_context(open(written.examples, "w", encoding="utf-8"))
        for stored, entry in tqdm(features, desc=str(conversion.target.name), unit=" questions", disable=None):
            for arrays in stored:
                lengths.append(len(arrays[0]))
                rows.append(dict(zip(names, arrays, strict=True)))
            if len(rows) >= ROWS_AT_ONCE:
                writer.write_raw_data(rows)
                rows = []
            if table is not None and entry is not None:
                table.write(entry.to_json() + "\n")
    if rows:
        writer.write_raw_data(rows)
    if not lengths:
        raise InputError(f"{conversion.json_path}: no question of it gives a feature; is this the right file?")
    writer.commit()
    np.save(written.lengths, np.array(lengths, np.int32))
    return len(lengths)


@contextlib.contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside ``target`` which only this process uses; what a killed run left in it is removed."""
    folder = target.parent / f".{target.name}.part"
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{target}: another process is converting into it; wait for it to end") from None
        for leftover in folder.iterdir():
            leftover.unlink()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def publish(written: ConvertedFiles, files: ConvertedFiles, manifest: dict[str, Any]) -> None:
    """Move the files in place so that no moment shows a whole-looking mixture of old and new."""
    names = [path.name for path in (written.mindrecord, written.index, written.lengths, written.examples)
             if path.exists()]
    manifest = {**manifest, "files": {name: (written.mindrecord.parent / name).stat().st_size for name in names}}
    files.manifest.unlink(missing_ok=True)
    files.index.unlink(missing_ok=True)
    for name in sorted(names, key=lambda name: name == files.index.name):      # the index last
        os.chmod(written.mindrecord.parent / name, 0o644)
        os.replace(written.mindrecord.parent / name, files.mindrecord.parent / name)
    write_json(files.manifest, manifest)
