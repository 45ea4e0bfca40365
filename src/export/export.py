# SPDX-License-Identifier: Apache-2.0
"""A checkpoint to one file for inference elsewhere: MindIR, ONNX or AIR."""
from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn

from src.config import KNOWLEDGE_BASES, BertConfig, FeatureColumn, KTNetConfig, MemoryConfig, feature_columns
from src.cpu.encoder import FusedEncoderLayer
from src.export.ops import prepare_for_onnx, restore_erf
from src.KTNET_eval import KTNETEval
from src.settings import ExportFileSettings, ExportSettings
from src.weights.build import as_older_port, check_lengths
from src.weights.checkpoint import Checkpoint, load_weights, open_checkpoint
from src.weights.sizes import check_meaning, save_config
from utils.util import LOGGER, InputError, atomic_path, usual_mode

ENDINGS = {"MINDIR": ".mindir", "ONNX": ".onnx", "AIR": ".air"}
OUTPUT_NAME = "logits"
# A MindIR of more than 1 GB is written as NAME_graph.mindir and a folder NAME_variables.
GRAPH_SUFFIX, VARIABLES_SUFFIX = "_graph.mindir", "_variables"


def sizes_of(checkpoint: Checkpoint, bert_config_path: Path) -> KTNetConfig:
    """The sizes saved beside a checkpoint; for one of the older port the encoder's file and the tables' own sizes.

    Raises:
        InputError: its sizes cannot be found out.
    """
    if checkpoint.config is not None:
        return checkpoint.config
    if not bert_config_path.is_file():
        raise InputError(f"{checkpoint.path}: no sizes are saved beside it; give its encoder's --bert_config_path "
                         f"({bert_config_path} is no file)")
    bert = BertConfig.from_json_file(bert_config_path)
    if checkpoint.is_older_port:
        bert = as_older_port(bert, checkpoint.path)
    tables = {base: checkpoint.values.get(f"embedding_{base.name}.embedding_table") for base in KNOWLEDGE_BASES}
    return KTNetConfig(bert, tuple(MemoryConfig(base.name, table.shape[0], table.shape[1], base.max_concepts)
                                   for base, table in tables.items() if table is not None))


def build_for_export(settings: ExportSettings) -> tuple[KTNETEval, KTNetConfig, tuple[FeatureColumn, ...]]:
    """The network of --load_checkpoint_path with its weights, its sizes, and the columns that it takes.

    Raises:
        InputError: no checkpoint, one that is invalid or was trained on another data set, or a --max_seq_len that
            its encoder has no positions for.
    """
    checkpoint, file = open_checkpoint(settings.checkpoint.load_checkpoint_path), settings.file
    config = sizes_of(checkpoint, file.bert_config_path)
    if file.dataset is not None:
        check_meaning(config, {"settings": {"dataset": file.dataset}, "knowledge_bases": []}, checkpoint.path)
    max_seq_len = file.max_seq_len or config.max_seq_len
    check_lengths(config.bert, max_seq_len, checkpoint.path)
    compute_type = ms.float32 if settings.device.is_cpu else ms.float16
    network = KTNETEval(config, is_training=False, compute_type=compute_type, use_kernels=False)
    report = load_weights(network, checkpoint, use_average=settings.checkpoint.use_ema)
    if not report.is_exact:
        LOGGER.info("%s: %s", checkpoint.path, report)
    network.set_train(False)
    return network, config, feature_columns(config.memories, "dev", max_seq_len)


def export(network: nn.Cell, columns: Sequence[FeatureColumn], batch_size: int, stem: Path,
           file_format: str) -> Path:
    """Write a network as one file, atomically.

    Args:
        network: :class:`src.KTNET_eval.KTNETEval` with its weights and layers of the framework's own operators; for
            ONNX its cells are changed.
        columns: what it takes, without the batch; the file's inputs get their names.
        batch_size: B of the file's inputs.
        stem: path of the file without its ending.
        file_format: MINDIR, ONNX or AIR.

    Returns:
        The file; of a MindIR beyond 1 GB the graph, whose weights are in a folder beside it.

    Raises:
        InputError: MindSpore cannot export it.
    """
    assert not any(isinstance(cell, FusedEncoderLayer) for _, cell in network.cells_and_names())
    inputs = [Tensor(np.zeros((batch_size, *column.shape), column.dtype)) for column in columns]
    names = [column.name for column in columns]
    stem.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{stem.name}.", dir=stem.parent) as folder:
        target = stem.name + ENDINGS[file_format]
        try:
            with working_in(folder):     # MindSpore refuses paths with spaces and other characters
                if file_format == "ONNX":
                    stand_ins = prepare_for_onnx(network)
                    ms.onnx.export(network, *inputs, file_name=target, input_names=names, output_names=[OUTPUT_NAME])
                    restore_erf(target, stand_ins)
                else:
                    rename = {"custom_func": lambda model: name_inputs(model, names)}
                    ms.export(network, *inputs, file_name=target, file_format=file_format,
                              **(rename if file_format == "MINDIR" else {}))
        except (RuntimeError, ValueError, TypeError) as error:
            reason = str(error).strip().split("\n")[0]
            raise InputError(f"--file_format {file_format}: MindSpore {ms.__version__} cannot export this network "
                             f"({reason})") from None
        return move_into_place(Path(folder), stem.parent, stem.name)


@contextlib.contextmanager
def working_in(folder: Path | str) -> Iterator[None]:
    """Make ``folder`` the working folder for a while."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def name_inputs(model: Any, names: Sequence[str]) -> None:
    """Call the inputs of a MindIR by the columns' names.

    The network takes as many columns as there are knowledge bases, so its arguments have no names of their own:
    MindSpore calls them SCOPE:columns0, SCOPE:columns1 and so on.
    """
    graph = model.graph
    renamed = {value.name: value.name.rpartition(":")[0] + ":" + name
               for value, name in zip(graph.input, names, strict=True)}
    for value in graph.input:
        value.name = renamed[value.name]
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)


def move_into_place(folder: Path, target: Path, name: str) -> Path:
    """Move what was exported to ``target``; the file that names all others comes last.

    Returns:
        That file.
    """
    # MindSpore leaves files that not even their owner may write.
    for variables in folder.glob(f"*{VARIABLES_SUFFIX}"):
        for part in variables.iterdir():
            part.chmod(usual_mode())
        variables.chmod(usual_mode(0o777))
        place = target / variables.name
        if place.exists():
            (target / (name + GRAPH_SUFFIX)).unlink(missing_ok=True)    # it names weights that go now
            shutil.rmtree(place)
        os.replace(variables, place)
    written = next(path for path in folder.iterdir() if path.is_file())
    with atomic_path(target / written.name) as temporary:
        shutil.move(written, temporary)
    return target / written.name


def file_name(file: ExportFileSettings, config: KTNetConfig) -> str:
    """The name of the file, without its ending.

    Raises:
        InputError: it is not given, and neither the flags nor the checkpoint say what the network was trained on.
    """
    dataset = file.dataset or config.dataset
    if file.file_name is None and not dataset:
        raise InputError("--dataset: the checkpoint does not say what it was trained on; give squad or record")
    return file.file_name or f"KTNET_{dataset}"


def export_checkpoint(settings: ExportSettings) -> Path:
    """What export.py does.

    Returns:
        The written file.

    Raises:
        InputError: see :func:`build_for_export` and :func:`export`.
    """
    file, device = settings.file, settings.device.device_target
    if file.file_format == "AIR" and device != "Ascend":
        raise InputError(f"--file_format AIR: is written on Ascend alone, not on {device}; give MINDIR or ONNX")
    if file.file_format == "FOLDER":
        from src.export.folder import export_folder
        return export_folder(settings)
    network, config, columns = build_for_export(settings)
    written = export(network, columns, file.batch_size, file.file_path / file_name(file, config),
                     file.file_format)
    save_config(written, config, {})
    LOGGER.info("%s: %s, batch %d, %d word pieces", written, file.file_format, file.batch_size, columns[0].shape[0])
    return written
