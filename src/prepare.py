"""Converted features for a run: converted if absent, otherwise checked against the flags."""
from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping, TypeVar

from src.data_convert import Conversion, bring_up_to_date, convert
from src.reader.storage import ConvertedFiles, open_converted
from src.settings import AS_CONVERTED, EvaluationSettings, NetworkRunSettings, TrainingSettings
from utils.util import LOGGER, InputError, file_digest

S = TypeVar("S", TrainingSettings, EvaluationSettings)
N = TypeVar("N", bound=NetworkRunSettings)
SETTING_OF_FLAG = {"do_lower_case": "lower_case"}      # where the manifest's name differs from the flag's


def prepare_features(settings: S, split: str) -> tuple[S, dict[str, Any]]:
    """Make sure that a split is converted as the flags say.

    Returns:
        The settings with the flags that were left out as the features were converted (from here on they count as
        given), and the features' manifest.

    Raises:
        InputError: the features were converted otherwise than a flag says, or cannot be made.
    """
    target = settings.mindrecord(split)
    if not ConvertedFiles(target).manifest.is_file() and not target.is_file():
        LOGGER.info("%s is not there: converting", target)
        convert(planned_conversion(settings, split))
    manifest = open_converted(target)
    settings = as_converted(settings, manifest["settings"], target)
    vocabulary = settings.data.vocab_path
    if vocabulary.is_file() and file_digest(vocabulary) != manifest["vocab_md5"]:
        raise InputError(f"--vocab_path {vocabulary}: {target} was converted with another vocabulary; give that one or "
                         "run data_convert.py again")
    return settings, bring_up_to_date(planned_conversion(settings, split), manifest)


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


def planned_conversion(settings: TrainingSettings | EvaluationSettings, split: str) -> Conversion:
    """The conversion that makes a split's features as the flags say."""
    data, features = settings.data, settings.features
    return Conversion(
        task=settings.task, split=split, data=data.folder, target=settings.mindrecord(split),
        json_path=settings.json_path(split), vocab_path=data.vocab_path, lower_case=features.do_lower_case,
        version_2=features.version_2_with_negative, windows=features.windows, bases=data.bases())
