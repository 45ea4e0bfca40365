# SPDX-License-Identifier: Apache-2.0
"""What one conversion reads and writes, and whether it has been done already. Imports no MindSpore."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from src.config import DataFolder, KnowledgeBase, TaskConfig, WindowConfig
from src.reader.storage import open_converted
from utils.uptodate import file_stamp, is_unchanged
from utils.util import LOGGER, InputError, file_digest, text_digest

LEAST_BYTES = 1_000_000        # the smallest official file has 5 MB
STEPS = {"wn": "wordnet", "nell": "nell"}     # knowledge base -> step of retrieve.py; others are user-defined


@dataclass(frozen=True)
class Conversion:
    """One split of one data set and how it is to be converted."""

    task: TaskConfig
    split: str                            # train, dev
    data: DataFolder
    json_path: Path                       # the data set: a file, or a folder of shards
    target: Path                          # the MindRecord file
    vocab_path: Path
    lower_case: bool
    windows: WindowConfig
    bases: tuple[KnowledgeBase, ...]
    version_2: bool = False

    @property
    def tokens_path(self) -> Path:
        """Token file: optional, checked if it is there."""
        return self.data.tokens(self.task, self.split, self.lower_case)

    def retrieved_path(self, base: KnowledgeBase) -> Path:
        """What retrieval found in ``base``."""
        return self.data.first_of(lambda folder: folder.retrieved(base, self.task, self.split))

    def retrieval_fix(self, base: KnowledgeBase) -> str:
        """The command that makes the retrieval file of ``base``."""
        return (f"make it with: python retrieve.py --data_url {self.data.root} "
                f"--step {STEPS.get(base.name, 'own --kb_config FILE')} --dataset {self.task.name}")

    def vectors_fix(self, base: KnowledgeBase) -> str:
        """What to do when the concept vectors of ``base`` are missing."""
        return self.retrieval_fix(base) if base.pruned else f"put the concept vectors of {base.label} there"

    def input_files(self) -> dict[str, tuple[Path, str]]:
        """Every file that shapes the features, by its role, with what to do when it is missing."""
        files = {"examples": (self.json_path, "put the data set there; docs/data.md says where to get it"),
                 "vocabulary": (self.vocab_path, "give the encoder's vocab.txt with --vocab_path")}
        for base in self.bases:
            files[f"{base.name} vectors"] = (self.data.table(base, self.task), self.vectors_fix(base))
            files[f"{base.name} retrieved"] = (self.retrieved_path(base), self.retrieval_fix(base))
        return files

    def check_inputs(self) -> dict[str, dict[str, int]]:
        """Size, time and inode of every input file.

        Raises:
            InputError: one is missing, with what makes it.
        """
        for path, fix in self.input_files().values():
            if not path.is_file() and not (path == self.json_path and path.is_dir()):
                raise InputError(f"{path}: no such file; {fix}")
        return {role: file_stamp(path) for role, (path, _) in self.input_files().items()}

    def settings(self) -> dict[str, Any]:
        """What shapes the features beside the input files."""
        shard = {"shard": str(self.data.shard)} if self.data.shard else {}
        return {"dataset": self.task.name, "split": self.split, "lower_case": self.lower_case,
                **asdict(self.windows), "version_2_with_negative": self.version_2, **shard}

    def digests(self) -> dict[str, str]:
        """MD5 of every input file, by its role."""
        return {role: text_digest(path) if role == "vocabulary" else file_digest(path)
                for role, (path, _) in self.input_files().items()}

    def warn_unofficial(self, digest: str) -> None:
        """Say so when a data set has the official name but is not the official file; ``digest`` is its MD5.

        One of less than LEAST_BYTES is no download that went wrong, but a small data set of the user's own.
        """
        official = self.task.official_md5.get(self.split, digest)
        if (self.json_path.name == self.task.json_files[self.split] and digest != official
                and self.json_path.stat().st_size >= LEAST_BYTES):
            LOGGER.warning("%s: not the official file (its MD5 is %s, the official one's %s)", self.json_path, digest,
                           official)

    def knowledge(self) -> list[dict[str, Any]]:
        """The knowledge bases, as the manifest names them."""
        return [{"name": base.name, "label": base.label, "max_concepts": base.max_concepts} for base in self.bases]

    def finished(self) -> dict[str, Any] | None:
        """The manifest of an earlier conversion that is whole and had the same settings and inputs, if there is one."""
        try:
            manifest = open_converted(self.target)
        except InputError:
            return None
        known = [{key: base[key] for key in ("name", "label", "max_concepts")} for base in manifest["knowledge_bases"]]
        if (manifest["settings"], known) != (self.settings(), self.knowledge()):
            return None
        return None if self.changed_inputs(manifest, self.input_files()) else manifest

    def changed_inputs(self, manifest: Mapping[str, Any], roles: Any) -> list[Path]:
        """The input files of these roles that are not those that the features of ``manifest`` were made from."""
        recorded = manifest["inputs"]
        files = self.input_files()
        return [files[role][0] for role in roles
                if role not in recorded or not is_unchanged(files[role][0], recorded[role])]
