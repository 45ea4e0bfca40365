"""The encoder's layer as it is computed on CPU: the same parameters and the same mathematics as
:class:`src.bert.EncoderLayer`, with one kernel for everything that lies between two matrix products.
"""
from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, ops

from src.bert import EncoderLayer, Gelu, ResidualOutput, SelfAttention
from src.config import BertConfig
from src.cpu import kernels as cpu_kernels
from src.cpu.ops import AddNorm, BiasGelu, MaskedSoftmax, SplitHeads
from src.dropout import DropoutFactory


class FusedEncoderLayer(EncoderLayer):
    """Self-attention, then the feed-forward network, in float32."""

    def __init__(self, config: BertConfig, dropouts: DropoutFactory, compute_type: ms.Type) -> None:
        super().__init__(config, dropouts, compute_type)
        self.split_heads = SplitHeads(config.num_attention_heads, config.head_size)
        self.softmax = MaskedSoftmax(self.attention.attention.scale)
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
        query = self.split_heads(attention.query_layer.product(hidden), attention.query_layer.bias, mask)
        key = self.split_heads(attention.key_layer.product(hidden), attention.key_layer.bias, mask)
        value = self.split_heads(attention.value_layer.product(hidden), attention.value_layer.bias, mask)
        scores = attention.product_transposed(query, key)                                  # [B, N, S, S]
        rows = scores.shape[0] * scores.shape[1] * scores.shape[2]
        pool, picked = attention.dropout.mask(rows, scores.shape[3], step)
        weights = self.softmax(scores, mask, pool, picked)                                 # [B, N, S, S]
        context = attention.product(weights, value)                                        # [B, N, S, A]
        return ops.transpose(context, (0, 2, 1, 3)).reshape(hidden.shape)                  # [B*S, H]

    def end_half(self, output: ResidualOutput, inputs: Tensor, residual: Tensor, step: Tensor) -> Tensor:
        """As :class:`src.bert.ResidualOutput`."""
        pool, picked = output.dropout.mask(residual.shape[0], residual.shape[1], step)
        return self.add_norm(output.dense.product(inputs), output.dense.bias, residual, output.layernorm.gamma,
                             output.layernorm.beta, pool, picked)


def fastest_layer_class(compute_type: ms.Type) -> type[EncoderLayer]:
    """The layer that is fastest on the device for which the network is being built."""
    return FusedEncoderLayer if compute_type == ms.float32 and cpu_kernels.available() else EncoderLayer
