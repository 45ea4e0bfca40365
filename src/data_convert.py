# SPDX-License-Identifier: Apache-2.0
"""Data sets to features: converts what is absent, verifies what is there.

``conversion.py`` says what one conversion reads and whether it is up to date, ``feature_stream.py`` builds the
features, ``feature_files.py`` writes and publishes their files.
"""
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from src.config import DataFolder, Shard
from src.conversion import Conversion
from src.feature_files import publish, set_aside_foreign, temporary_folder, write_files
from src.feature_stream import Part, Summary, stream_features
from src.reader.batching_twomemory import warn_without_overlap
from src.reader.storage import STORAGE_FORMAT, ConvertedFiles, check_features, feature_paths, open_converted
from src.settings import AS_CONVERTED, EvaluationSettings, NetworkRunSettings, TrainingSettings
from utils.util import LOGGER, InputError, describe, text_digest

S = TypeVar("S", TrainingSettings, EvaluationSettings)
N = TypeVar("N", bound=NetworkRunSettings)
SETTING_OF_FLAG = {"do_lower_case": "lower_case"}      # where the manifest's name differs from the flag's


def convert_all(conversions: Sequence[Conversion], num_workers: int | None = None, force: bool = False
                ) -> list[dict[str, Any]]:
    """Convert several splits, one after the other; those that are done already are left alone.

    Args:
        conversions: what to convert.
        num_workers: 1 builds the features in the process that writes them, more in another; by default one per core.
        force: convert again what is done already.

    Returns:
        The manifests.

    Raises:
        InputError: an input is missing or broken, or an output cannot be written; nothing half-written stays.
    """
    for conversion in conversions:
        conversion.check_inputs()
    manifests = [None if force else conversion.finished() for conversion in conversions]
    todo = []
    for conversion, manifest in zip(conversions, manifests, strict=True):
        if manifest is None:
            todo.append(conversion)
        else:
            LOGGER.info("%s: converted already, %d features (--force converts again)", conversion.target,
                        manifest["rows"])
    streams = stream_features(todo, num_workers or os.cpu_count() or 1)
    with contextlib.closing(streams):
        made = iter([_convert(conversion, streams) for conversion in todo])
    return [next(made) if manifest is None else manifest for manifest in manifests]


def convert(conversion: Conversion, num_workers: int | None = None, force: bool = False) -> dict[str, Any]:
    """Convert one split; returns its manifest. As :func:`convert_all`."""
    return convert_all([conversion], num_workers, force)[0]


def prepare_features(settings: S, split: str) -> tuple[S, dict[str, Any]]:
    """Convert a split's features if they are absent; otherwise verify them against flags and files.

    Several files, as shards have them, must be there.

    Returns:
        The settings with the flags that were left out as the features were converted (from here on they count as
        given), and the features' manifest.

    Raises:
        InputError: the features were converted otherwise than a flag says, or cannot be made.
    """
    targets = feature_paths(settings.mindrecord(split))
    if len(targets) == 1 and not ConvertedFiles(targets[0]).manifest.is_file() and not targets[0].is_file():
        LOGGER.info("%s is not there: converting", targets[0])
        convert(planned_conversion(settings, split, targets[0]))
    manifests = []
    for target in targets:
        settings, manifest = _verified(settings, split, target)
        manifests.append(manifest)
    return settings, joined(targets, manifests)


def joined(targets: Sequence[Path], manifests: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The manifest of several files of features together.

    Raises:
        InputError: the concepts' ids of one mean others than those of another, or two hold the same passages.
    """
    def concepts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
        return [(base["name"], base.get("concepts_sha256", "")) for base in manifest["knowledge_bases"]]

    for target, manifest in zip(targets, manifests, strict=True):
        if concepts(manifest) != concepts(manifests[0]):
            raise InputError(f"{target}: was converted with other concepts than {targets[0]}; convert all parts with "
                             "the same knowledge bases")
    refuse_overlap(targets, manifests)
    shards = {manifest["settings"]["shard"] for manifest in manifests if "shard" in manifest["settings"]}
    count = max((Shard.read(str(shard)).count for shard in shards), default=0)
    if len(shards) < count:
        LOGGER.warning("%d of %d parts of the data set are given", len(shards), count)
    return {**manifests[0], "rows": sum(manifest["rows"] for manifest in manifests)}


def refuse_overlap(targets: Sequence[Path], manifests: Sequence[Mapping[str, Any]]) -> None:
    """Refuse files made from one data set of which some passages are in two: they would count twice."""
    for number, manifest in enumerate(manifests):
        for target, other in zip(targets[:number], manifests[:number], strict=True):
            mine, theirs = (Shard.read(str(one["settings"].get("shard", "1/1"))) for one in (manifest, other))
            source = manifest["inputs"].get("examples")
            if source is None or source["md5"] != other["inputs"].get("examples", {}).get("md5"):
                continue
            if mine.count != theirs.count or mine == theirs:
                raise InputError(f"{targets[number]}: holds passages that are in {target} too (part {mine} and part "
                                 f"{theirs} of one data set); give each part once")


def _verified(settings: S, split: str, target: Path) -> tuple[S, dict[str, Any]]:
    """As :func:`prepare_features`, for one file that is there."""
    manifest = open_converted(target)
    settings = as_converted(settings, manifest["settings"], target)
    check_vocabulary(settings.data.vocab_path, target, manifest)
    return settings, bring_up_to_date(planned_conversion(settings, split, target, manifest), manifest)


def check_vocabulary(vocabulary: Path, target: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse another vocabulary than the one that features were converted with; one that is not there is not missed.

    Raises:
        InputError: it is another.
    """
    if vocabulary.is_file() and text_digest(vocabulary) != manifest["vocab_md5"]:
        raise InputError(f"--vocab_path {vocabulary}: {target} was converted with another vocabulary; give that one or "
                         "run data_convert.py again")


def convert_only(settings: TrainingSettings) -> None:
    """Convert what a training will read, where it is missing; a distributed run does so once, before its processes.

    Raises:
        InputError: the features cannot be made.
    """
    settings, _ = prepare_features(settings, "train")
    if settings.job.do_predict or settings.job.do_val:
        prepare_features(settings, "dev")


def as_converted(settings: N, converted: Mapping[str, Any], target: Path) -> N:
    """The settings with the features' own values for the flags that were left out.

    Args:
        settings: of a run.
        converted: settings of the conversion's manifest.
        target: the features, for errors.

    Raises:
        InputError: a flag that was given differs.
    """
    values = {flag: converted[SETTING_OF_FLAG.get(flag, flag)] for flag in AS_CONVERTED}
    wanted = settings.flags()
    for flag, value in values.items():
        if flag in settings.given and wanted[flag] != value:
            raise InputError(f"--{flag} {wanted[flag]}: {target} was converted with {value}; leave the flag out or run "
                             "data_convert.py again with it")
    return settings.with_flags(**values).giving(values)


def planned_conversion(settings: TrainingSettings | EvaluationSettings, split: str, target: Path,
                       manifest: Mapping[str, Any] | None = None) -> Conversion:
    """The conversion that makes a split's features as the flags say; ``manifest`` says whether they are a shard's."""
    data, features = settings.data, settings.features
    shard = manifest["settings"].get("shard") if manifest else None
    return Conversion(
        task=settings.task, split=split, data=DataFolder(data.data_url, Shard.read(str(shard)) if shard else None),
        target=target,
        json_path=settings.json_path(split), vocab_path=data.vocab_path, lower_case=features.do_lower_case,
        version_2=features.version_2_with_negative, windows=features.windows, bases=data.bases())


def bring_up_to_date(conversion: Conversion, manifest: dict[str, Any]) -> dict[str, Any]:
    """Check converted features against the data set and what was retrieved for it, and convert again what is stale.

    Only features at their usual path are converted again; those that the user named are refused. A data set that is
    neither named nor there is not missed: features may travel alone.

    Args:
        conversion: as the features were made.
        manifest: of the features.

    Returns:
        The manifest of the features that are there now.

    Raises:
        InputError: a data set that was named is not there, the features are of another data set or were made from
            another file and have been named, or a file of theirs has changed.
    """
    task, split, target = conversion.task, conversion.split, conversion.target
    made = manifest["settings"]
    if (made["dataset"], made["split"]) != (task.name, split):
        raise InputError(f"{target}: holds {made['dataset']} {made['split']} features, not {task.name} {split}; give "
                         "another file")
    if conversion.json_path != conversion.data.dataset_json(task, split) and not conversion.json_path.exists():
        raise InputError(f"{conversion.json_path}: no such file; give the data set, or leave the flag out")
    stale = conversion.changed_inputs(manifest, [
        role for role, (path, _) in conversion.input_files().items()
        if role.endswith(("examples", "retrieved")) and role in manifest["inputs"] and path.exists()])
    if not stale:
        check_features(target, manifest)
        return manifest
    if target != conversion.data.mindrecord(task, split):
        raise InputError(f"{stale[0]}: {target} was made from another file; give that one, or convert again")
    if [base["name"] for base in manifest["knowledge_bases"]] != [base.name for base in conversion.bases]:
        raise InputError(f"{stale[0]}: {target} was made from another file, with other knowledge bases; run "
                         "data_convert.py again with --kb_config")
    LOGGER.warning("%s: %s was made from another file: converting again", stale[0], target)
    return convert(conversion)


def _convert(conversion: Conversion, streams: Iterator[Iterator[Part | Summary]]) -> dict[str, Any]:
    stamps = conversion.check_inputs()
    with temporary_folder(conversion.target) as (folder, was_publishing):
        written = ConvertedFiles(folder / conversion.target.name)
        try:
            summary = write_files(written, conversion, next(streams))
            if conversion.check_inputs() != stamps:
                raise InputError(f"{conversion.json_path} or another input changed while it was being converted; "
                                 "convert again")
            if not was_publishing:
                set_aside_foreign(ConvertedFiles(conversion.target))
            manifest = publish(written, ConvertedFiles(conversion.target),
                               describe_conversion(conversion, summary, stamps))
        except OSError as error:
            if error.filename is not None and any(Path(error.filename).is_relative_to(path)
                                                  for path, _ in conversion.input_files().values()):
                raise InputError(f"{describe(error)}; make it readable") from None
            raise InputError(f"{conversion.target}: cannot be written ({error.strerror or error}); free some space or "
                             "choose another folder") from None
    conversion.warn_unofficial(summary.digests["examples"])
    report(conversion, summary)
    return manifest


def report(conversion: Conversion, summary: Summary) -> None:
    """Log what became of the questions, and what did not fit."""
    tally = summary.tally
    LOGGER.info("%s: %d features of %d questions; skipped questions: %s; windows without the whole answer: %d",
                conversion.target, tally.features, tally.questions,
                ", ".join(f"{number} ({reason})" for reason, number in tally.skipped.items()) or "none",
                tally.dropped_windows)
    for base, cut in zip(conversion.bases, summary.cut, strict=True):
        if cut["words"]:
            LOGGER.warning("%s: %d words have more than %d concepts of %s: %d concepts are ignored (--kb_config with a "
                           "greater max_concepts keeps them)", conversion.target, cut["words"], base.max_concepts,
                           base.label, cut["concepts"])
        if cut["unknown"]:
            LOGGER.warning("%s: %d concepts of %s that were found are not in %s and are ignored", conversion.target,
                           cut["unknown"], base.label, conversion.data.table(base, conversion.task))
    warn_without_overlap(tally, conversion.windows)


def describe_conversion(conversion: Conversion, summary: Summary, stamps: Mapping[str, Mapping[str, int]]
                        ) -> dict[str, Any]:
    """The manifest, but for sizes and digests of the written files."""
    inputs = {role: {**stamp, "md5": summary.digests[role]} for role, stamp in stamps.items()}
    bases = [{**base, "concepts": concepts.count, "concepts_sha256": concepts.digest,
              "vectors_md5": inputs[f"{base['name']} vectors"]["md5"]}
             for base, concepts in zip(conversion.knowledge(), summary.concepts, strict=True)]
    tally = summary.tally
    return {"format": STORAGE_FORMAT, "rows": tally.features, "settings": conversion.settings(),
            "vocab_md5": inputs["vocabulary"]["md5"], "knowledge_bases": bases,
            "counts": {"questions": tally.questions, "features": tally.features, "skipped": dict(tally.skipped),
                       "dropped_windows": tally.dropped_windows, "questions_without_overlap": tally.without_overlap,
                       "cut_concepts": {base.name: {"words": cut["words"], "concepts": cut["concepts"]}
                                        for base, cut in zip(conversion.bases, summary.cut, strict=True)}},
            "inputs": inputs}
