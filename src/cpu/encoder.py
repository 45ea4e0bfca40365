# SPDX-License-Identifier: Apache-2.0
"""The encoder's layer as it is computed on CPU: the same parameters and the same mathematics as
:class:`src.bert.EncoderLayer`, with one kernel for attention and for everything that lies between two matrix products.
"""
from __future__ import annotations

import mindspore as ms
from mindspore import Tensor

from src.bert import EncoderLayer, Gelu, ResidualOutput, SelfAttention
from src.config import BertConfig
from src.cpu.ops import AddNorm, BiasGelu, FusedAttention
from src.dropout import DropoutFactory


class FusedEncoderLayer(EncoderLayer):
    """Self-attention, then the feed-forward network, in float32."""

    def __init__(self, config: BertConfig, dropouts: DropoutFactory, compute_type: ms.Type) -> None:
        super().__init__(config, dropouts, compute_type)
        self.fused_attention = FusedAttention(config.num_attention_heads, self.attention.attention.scale)
        self.add_norm = AddNorm(config.layer_norm_eps)
        self.bias_gelu = BiasGelu()
        self.has_gelu = isinstance(self.activation, Gelu)

    def spread(self, mask: Tensor) -> Tensor:
        """The mask as it is: [B, S]."""
        return mask

    def construct(self, hidden: Tensor, mask: Tensor, step: Tensor) -> Tensor:
        """Take float32 [B*S, H] and what is added to the keys' scores, float32 [B, S]; give float32 [B*S, H]."""
        context = self.attend(self.attention.attention, hidden, mask, step)                # [B*S, H]
        attended = self.end_half(self.attention.output, context, hidden, step)             # [B*S, H]
        if self.has_gelu:
            expanded = self.bias_gelu(self.intermediate.product(attended), self.intermediate.bias)
        else:
            expanded = self.activation(self.intermediate(attended))                        # [B*S, I]
        return self.end_half(self.output, expanded, attended, step)                        # [B*S, H]

    def attend(self, attention: SelfAttention, hidden: Tensor, mask: Tensor, step: Tensor) -> Tensor:
        """As :class:`src.bert.SelfAttention`."""
        query, key, value = attention.query_layer, attention.key_layer, attention.value_layer
        pool, picked = attention.dropout.mask(mask.shape[0] * attention.heads * mask.shape[1], mask.shape[1], step)
        return self.fused_attention(query.product(hidden), key.product(hidden), value.product(hidden), query.bias,
                                    key.bias, value.bias, mask, pool, picked)              # [B*S, H]

    def end_half(self, output: ResidualOutput, inputs: Tensor, residual: Tensor, step: Tensor) -> Tensor:
        """As :class:`src.bert.ResidualOutput`."""
        pool, picked = output.dropout.mask(residual.shape[0], residual.shape[1], step)
        return self.add_norm(output.dense.product(inputs), output.dense.bias, residual, output.layernorm.gamma,
                             output.layernorm.beta, pool, picked)
