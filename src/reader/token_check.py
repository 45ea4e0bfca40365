"""Does a token file belong to the texts and to the vocabulary in use? Every word piece of it is compared."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

from src.reader.examples import Example
from src.reader.tokenization import Analysis, BertTokenizer, split_words
from utils.util import InputError


class TokenChecker:
    """Compares the records of one token file with what the tokenizer makes of the texts."""

    def __init__(self, tokenizer: BertTokenizer, path: Path, fix: str) -> None:
        """Prepare; ``path`` and ``fix`` are for the errors."""
        self._tokenizer, self._path, self._fix = tokenizer, path, fix
        self._passage = ""
        self._document = tokenizer.analyse(())

    def check(self, example: Example, record: Mapping[str, Any]) -> None:
        """Compare one record.

        Raises:
            InputError: a word piece or a word index differs; names the question and the place.
        """
        if example.passage != self._passage:
            self._passage = example.passage
            self._document = self._analyse(example.passage)
        query = self._analyse(example.question)
        if _agrees(record, "document", self._document) and _agrees(record, "query", query):
            return
        for side, analysis in (("document", self._document), ("query", query)):
            if not _agrees(record, side, analysis):
                raise InputError(f"{self._path}: question {example.id}: {self._difference(record, side, analysis)}; "
                                 f"{self._fix}")

    def _analyse(self, text: str) -> Analysis:
        return self._tokenizer.analyse(split_words(text)[0])

    def _difference(self, record: Mapping[str, Any], side: str, analysis: Analysis) -> str:
        """The first difference, in words."""
        for key, ours in ((f"{side}_subtokens", analysis.pieces),
                          (f"{side}_sub_to_ori_index", analysis.piece_to_token)):
            theirs = record.get(key)
            if not isinstance(theirs, list):
                return f"{key} is no list"
            for place, (there, here) in enumerate(zip(theirs, ours, strict=False)):
                if there != here:
                    return (f"{key}[{place}] is {str(there)[:40]!r}, {self._tokenizer.vocab_path} makes it "
                            f"{str(here)[:40]!r}: the file was made with another vocabulary or from another text")
            if len(theirs) != len(ours):
                return (f"{key} has {len(theirs)} entries, the text has {len(ours)} word pieces: the file was made "
                        "from another text")
        return f"{side}_tokens are not the words of the text"


def _agrees(record: Mapping[str, Any], side: str, analysis: Analysis) -> bool:
    return bool(record.get(f"{side}_subtokens") == analysis.pieces
                and record.get(f"{side}_sub_to_ori_index") == analysis.piece_to_token)
