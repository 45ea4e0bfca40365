# SPDX-License-Identifier: Apache-2.0
"""Convert SQuAD and ReCoRD, with what the knowledge bases say about them, into MindRecord files."""
from __future__ import annotations

if __name__ == "__main__":      # before the imports, which may fail
    import runpy
    from pathlib import Path
    runpy.run_path(f"{Path(__file__).resolve().parent}/utils/start.py", {"SCRIPT": __file__})

from collections.abc import Sequence

from src.checks import need_data_folder
from src.config import SPLITS, DataFolder, TaskConfig
from src.conversion import Conversion
from src.data_convert import convert_all
from src.settings import ConversionSettings
from utils.util import set_up_logging


def main(argv: Sequence[str] | None = None) -> None:
    """Convert the splits that the flags name."""
    settings = ConversionSettings.parse(argv)
    set_up_logging()
    need_data_folder(settings)
    chosen = settings.conversion
    conversions = [choose_conversion(task, split, settings) for task in settings.data.folder.tasks(chosen.dataset)
                   for split in SPLITS if chosen.split in (split, "all")]
    convert_all(conversions, chosen.num_workers, chosen.force)


def choose_conversion(task: TaskConfig, split: str, settings: ConversionSettings) -> Conversion:
    """One split, under the data folder's own file names."""
    data, features = settings.data, settings.features
    folder = DataFolder(data.data_url, settings.conversion.shard)
    return Conversion(
        task=task, split=split, data=folder, json_path=folder.dataset_json(task, split),
        target=folder.mindrecord(task, split), vocab_path=data.vocab_path, lower_case=features.do_lower_case,
        windows=features.windows, bases=data.bases(),
        # Converting "all", the flag is for SQuAD; asked for ReCoRD alone, its reader refuses it.
        version_2=features.version_2_with_negative and (task.has_unanswerable
                                                        or settings.conversion.dataset == task.name))
