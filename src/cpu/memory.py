# SPDX-License-Identifier: Apache-2.0
"""The memory layer as it is computed on CPU: the same parameters and the same mathematics as
:class:`src.layers.MemoryLayer`, in one kernel.
"""
from __future__ import annotations

import mindspore as ms
from mindspore import Tensor

from src.cpu.ops import ReadMemory
from src.layers import MemoryLayer


class FusedMemoryLayer(MemoryLayer):
    """Attention of every word piece over its own concepts and a sentinel, in float32."""

    def __init__(self, hidden_size: int, width: int, std: float, compute_type: ms.Type = ms.float32) -> None:
        super().__init__(hidden_size, width, std, compute_type)
        self.read = ReadMemory()

    def construct(self, hidden: Tensor, concept_ids: Tensor, table: Tensor) -> Tensor:
        """As :class:`src.layers.MemoryLayer`."""
        return self.read(self.dense_1.product(hidden), self.sentinel, concept_ids, table)
