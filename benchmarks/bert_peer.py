# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks compare with: HuggingFace's BertForQuestionAnswering on PyTorch, with the encoder's sizes."""
from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence

import numpy as np

from src.config import BertConfig

Columns = Mapping[str, np.ndarray]      # a batch under the names of the feature table
# Names of the feature table -> HuggingFace's.
INPUTS = {"input_mask": "attention_mask", "src_ids": "input_ids", "pos_ids": "position_ids",
          "sent_ids": "token_type_ids"}
LABELS = ("start_positions", "end_positions")


class BertPeer:
    """Plain BERT for question answering with random weights, on CPU.

    Its training step is that of HuggingFace's Trainer: gradient, clipping to norm 1, AdamW.

    Args:
        config: sizes of the encoder.
        threads: of PyTorch.
        is_training: whether dropout is on.
        compute_type: float32, or bfloat16 by PyTorch's autocast.
    """

    def __init__(self, config: BertConfig, threads: int, is_training: bool, compute_type: str = "float32") -> None:
        os.environ.pop("OMP_WAIT_POLICY", None)     # src sets it for MindSpore; PyTorch runs as by itself
        import torch
        import transformers

        torch.set_num_threads(threads)
        self.autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=compute_type == "bfloat16")
        self.torch = torch
        self.network = transformers.BertForQuestionAnswering(transformers.BertConfig(**dataclasses.asdict(config)))
        self.network.train(is_training)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-5, weight_decay=0.01)

    def inputs(self, columns: Columns) -> dict:
        """A batch as HuggingFace's arguments."""
        return {theirs: self.torch.as_tensor(columns[ours]).long() for ours, theirs in INPUTS.items()}

    def train(self, batches: Sequence[Columns]) -> float:
        """Train on batches; seconds."""
        start = time.perf_counter()
        for columns in batches:
            labels = {name: self.torch.as_tensor(columns[name]).long().reshape(-1) for name in LABELS}
            with self.autocast:
                loss = self.network(**self.inputs(columns), **labels).loss
            loss.backward()
            self.torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
            loss.item()
        return time.perf_counter() - start

    def logits(self, columns: Columns) -> np.ndarray:
        """Start and end logits: float32 [2, B, S]."""
        with self.torch.inference_mode(), self.autocast:
            scores = self.network(**self.inputs(columns))
            return np.stack([scores.start_logits.float().numpy(), scores.end_logits.float().numpy()])
