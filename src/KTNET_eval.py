# SPDX-License-Identifier: Apache-2.0
"""KT-NET for evaluation and export: the bare network, which also takes the feature's unique id."""
from __future__ import annotations

import mindspore as ms
from mindspore import Tensor

from src.KTNET import KTNET


class KTNETEval(KTNET):
    """KT-NET's logits; takes every column of a dev feature, ``unique_id`` included, in the feature table's order."""

    def construct(self, *columns: Tensor) -> Tensor:
        """Score every position as start and as end.

        Args:
            columns: the network's inputs in the order of ``src.config.input_columns``, then unique_id int32 [B, 1].

        Returns:
            float32 [2, B, S]: start logits, end logits.
        """
        logits = self.score(self.first_step, *columns[:-1])                                # [2, B, S]
        # An unused input is dropped on export; adding 0 * unique_id keeps it.
        return logits + 0.0 * columns[-1].astype(ms.float32).reshape((1, -1, 1))
