# SPDX-License-Identifier: Apache-2.0
"""The cells of an exported ONNX file: the same function, from operators that exporter and runtimes support.

MindSpore's exporter has no Erf, and runtimes do not recognise its pattern for layer normalisation: MindSpore Lite 2.0.0
even computes it wrongly. The cells below are written so that onnxruntime and MindSpore Lite fuse each into one fast
operator.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from mindspore import Tensor, nn, ops

from src.bert import AddBias, Gelu, LayerNorm

STAND_IN = "Tanh"        # what Erf is exported as; the network itself has none


class ExportedGelu(nn.Cell):
    """x / 2 (1 + erf(x / sqrt 2)) with tanh as a stand-in for erf until :func:`restore_erf`.

    onnxruntime fuses this order of terms into one operator. MindSpore Lite 2.0.0 would replace other orders by its own
    GELU, whose error of 4e-6 is enough to move a trained network's logits by more than 1e-4.
    """

    def __init__(self, gelu: Gelu) -> None:
        super().__init__()
        self.root = math.sqrt(2.0)

    def construct(self, inputs: Tensor) -> Tensor:
        """Any float shape."""
        return inputs * 0.5 * (1.0 + ops.tanh(inputs / self.root))


class ExportedLayerNorm(nn.Cell):
    """Layer normalisation over the last dimension, written out."""

    def __init__(self, norm: LayerNorm) -> None:
        super().__init__(auto_prefix=False)
        self.gamma, self.beta, self.epsilon = norm.gamma, norm.beta, norm.epsilon
        self.mean = ops.ReduceMean(keep_dims=True)

    def construct(self, inputs: Tensor) -> Tensor:
        """Any float shape [..., H]."""
        centred = inputs - self.mean(inputs, -1)
        deviation = ops.sqrt(self.mean(ops.pow(centred, 2.0), -1) + self.epsilon)
        return centred / deviation * self.gamma + self.beta


class ExportedAddBias(nn.Cell):
    """A sum; after a product the exporter fuses both into one operator."""

    def __init__(self, add_bias: AddBias) -> None:
        super().__init__()

    def construct(self, rows: Tensor, bias: Tensor) -> Tensor:
        """Take float32 [rows, W] and [W]; give float32 [rows, W]."""
        return rows + bias


EXPORTED: dict[type[nn.Cell], Callable[..., nn.Cell]] = {
    Gelu: ExportedGelu, LayerNorm: ExportedLayerNorm, AddBias: ExportedAddBias}


def prepare_for_onnx(network: nn.Cell) -> int:
    """Replace the cells of a network in place; parameters and their names are kept.

    Returns:
        How many of the new cells contain a stand-in for Erf.
    """
    names = {parameter: parameter.name for parameter in network.get_parameters()}
    count = _replace(network)
    for parameter, name in names.items():
        parameter.name = name
    return count


def _replace(cell: nn.Cell) -> int:
    count = 0
    for name, child in list(cell.name_cells().items()):
        if type(child) in EXPORTED:
            setattr(cell, name, EXPORTED[type(child)](child))
            count += type(child) is Gelu
        else:
            count += _replace(child)
    return count


def restore_erf(path: Path | str, stand_ins: int) -> None:
    """Replace the stand-ins in an exported ONNX file by Erf, and check the file.

    Args:
        path: the file; it is rewritten.
        stand_ins: how many there are.
    """
    import onnx  # only needed here

    model = onnx.load(str(path))
    nodes = [node for node in model.graph.node if node.op_type == STAND_IN]
    assert len(nodes) == stand_ins, f"{len(nodes)} {STAND_IN} in {path}, not {stand_ins}"
    for node in nodes:
        node.op_type = "Erf"
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
