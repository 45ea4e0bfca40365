# SPDX-License-Identifier: Apache-2.0
"""Checks everything that a launcher's run will need before it is started, in seconds instead of in its log.

The launchers call it, by its path, so that relative paths stay relative to the caller's folder:

* ``train TASK --devices N -- FLAGS`` checks a training; prints its checkpoint folder and the files of
  another training that are in its way,
* ``eval TASK --devices N -- FLAGS`` checks an evaluation,
* ``features TASK -- FLAGS`` converts what a distributed training will read, before its processes all try to,
* ``rank_table FILE --node_rank N --nodes N`` prints rank and device of every process of one host.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__" and not __package__:
    # Started by its path, Python looks for modules in src: look in the repository's root instead.
    _HERE = Path(__file__).resolve().parent
    sys.path[:] = [str(_HERE.parent), *(entry for entry in sys.path if Path(entry or ".").resolve() != _HERE)]

# Only what needs nothing installed: a missing package is to be told in one line.
from src.checks import check_evaluation, check_training  # noqa: E402
from src.config import TASKS  # noqa: E402
from src.settings import EvaluationSettings, TrainingSettings  # noqa: E402
from src.training.lock import check_unlocked  # noqa: E402
from utils.device import VISIBLE, choose_target, count_devices  # noqa: E402
from utils.util import InputError, read_json, run_main, set_up_logging  # noqa: E402


def check_mindspore() -> None:
    """Import MindSpore and what the project needs beside it.

    Raises:
        SystemExit: an import fails; the message names the interpreter.
    """
    try:
        import mindspore
        import tokenizers
        import tqdm  # noqa: F401 - only whether they are there
    except Exception as error:      # a broken installation can raise anything
        reason = " ".join(str(error).split())[:300]
        print(f"error: {sys.executable}: {type(error).__name__}: {reason}; install requirements.txt there "
              "(bash scripts/quickstart.sh makes .venv with it) or give another interpreter with PYTHON=",
              file=sys.stderr)
        sys.exit(2)
    del mindspore, tokenizers


def check_devices(target: str, wanted: int) -> None:
    """Refuse a run that wants more devices than there are; on CPU processes share the cores.

    Raises:
        InputError: too few devices.
    """
    if target != "CPU" and (found := count_devices(target)) < wanted:
        raise InputError(f"--device_target {target}: {wanted} wanted, {found} found on this host (the environment "
                         f"variable {VISIBLE[target]} counts as well); give fewer devices, or DEVICE_TARGET=CPU to "
                         "run on the processor")


def read_rank_table(path: Path, node_rank: int, nodes: int) -> list[tuple[int, int]]:
    """Read which ranks run on which devices of one host.

    Args:
        path: rank table in the JSON of Huawei's HCCL tools.
        node_rank: the host's number in it.
        nodes: hosts that the run has.

    Returns:
        Rank and device of every process of the host.

    Raises:
        InputError: the file is missing, is no rank table, or its ranks are not 0, 1, 2, ...
    """
    table = read_json(path)
    try:
        servers = [[(int(device["rank_id"]), int(device["device_id"])) for device in server["device"]]
                   for server in table["server_list"]]
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"{path}: no rank table ({type(error).__name__}: {error}): server_list[].device[] must have "
                         "rank_id and device_id; make it with hccl_tools.py") from None
    ranks = sorted(rank for server in servers for rank, _ in server)
    if not ranks or ranks != list(range(len(ranks))):
        raise InputError(f"{path}: its ranks are {ranks}; they must be 0, 1, 2, ... without gaps")
    if len(servers) != nodes or len({len(server) for server in servers}) != 1:
        raise InputError(f"{path}: {len(servers)} hosts with {[len(server) for server in servers]} devices; NNODES says"
                         f" {nodes}, and all must have as many devices")
    return sorted(servers[node_rank])


def show_training(settings: TrainingSettings) -> None:
    """Print the checkpoint folder and what a new training would write over.

    Raises:
        InputError: another training is using the folder.
    """
    job = settings.job
    if job.do_train:
        print(job.save_finetune_checkpoint_path.absolute())
        check_unlocked(job.save_finetune_checkpoint_path, settings.task.name)
        for path in [] if job.resume else earlier_training(settings):
            print(path)


def earlier_training(settings: TrainingSettings) -> list[Path]:
    """The files of earlier trainings on this data set where a new one would put its own.

    Raises:
        InputError: the new one starts from one of them.
    """
    from src.reader.decoding import NBEST, NULL_ODDS, PREDICTIONS, RESULT
    from src.training.log import LogFiles

    task, job = settings.task, settings.job
    checkpoints, results = job.save_finetune_checkpoint_path.absolute(), settings.run.checkpoints.absolute()
    written = list(LogFiles(results, task.name).all())
    if job.do_predict:
        written += [results / name for name in (PREDICTIONS, NBEST, NULL_ODDS, RESULT)]
    found = [path for pattern in (f"KTNET_{task.name}-*", f"training_state_{task.name}.*")
             for path in sorted(checkpoints.glob(pattern))]
    found += [path for path in written if path.exists()]
    if job.init_checkpoint is not None and job.init_checkpoint.absolute() in found:
        raise InputError(f"--init_checkpoint {job.init_checkpoint}: it lies in {checkpoints}, where the new training "
                         "would put its own; give another folder by --save_finetune_checkpoint_path")
    return found


def make_features(settings: TrainingSettings) -> None:
    """Convert what a training will read, where it is missing."""
    from src.data_convert import prepare_features

    set_up_logging()
    prepare_features(settings, "train")
    if settings.job.do_predict or settings.job.do_val:
        prepare_features(settings, "dev")


def check_run(kind: str, task_name: str, devices: int, flags: Sequence[str]) -> None:
    """Check a training or an evaluation, or make its features."""
    cls = EvaluationSettings if kind == "eval" else TrainingSettings
    settings = cls.parse(flags, TASKS[task_name])
    if not settings.data.data_url.is_dir():
        raise InputError(f"{settings.data.data_url}: no such folder; DATAPATH is the data folder (see the README)")
    target = settings.device.device_target
    check_devices(choose_target(target) if target == "auto" else target, devices)
    if isinstance(settings, EvaluationSettings):
        check_evaluation(settings)
    elif kind == "train":
        check_training(settings)
        show_training(settings)
    else:
        make_features(settings)


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, check."""
    parser = argparse.ArgumentParser(prog="check_launch.py", description=__doc__.split("\n")[0])
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in ("train", "eval", "features"):
        run = kinds.add_parser(kind)
        run.add_argument("task", choices=("squad", "record"))
        run.add_argument("--devices", type=int, default=1, help="that the run takes on this host")
        run.add_argument("flags", nargs=argparse.REMAINDER, help="-- and the flags of the script")
    table = kinds.add_parser("rank_table")
    table.add_argument("file", type=Path)
    table.add_argument("--node_rank", type=int, default=0)
    table.add_argument("--nodes", type=int, default=1)
    given = list(sys.argv[1:] if argv is None else argv)
    split = given.index("--") if "--" in given else len(given)
    options = parser.parse_args(given[:split])
    if options.kind == "rank_table":
        for rank, device in read_rank_table(options.file, options.node_rank, options.nodes):
            print(rank, device)
        return
    check_mindspore()
    check_run(options.kind, options.task, options.devices, given[split + 1:])


if __name__ == "__main__":
    run_main(main)
