# SPDX-License-Identifier: Apache-2.0
"""The encoder's embedding and layer as they are computed on CPU: the same parameters and the same mathematics as in
:mod:`src.bert`, with one kernel for attention and for everything that lies between two matrix products.
"""
from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor

from src.bert import EmbeddingLookup, EmbeddingPostprocessor, EncoderLayer, Gelu, ResidualOutput, SelfAttention
from src.config import BertConfig
from src.cpu.inference import FeedForward, ProductAddNorm
from src.cpu.kernels import multiply_tiles
from src.cpu.ops import AddNorm, BiasGelu, Drop, FusedAttention, Lookup
from src.cpu.product import JoinedProductAndResidual, ProductAndResidual
from src.dropout import DropoutFactory, NoDropout, no_mask


class FusedEmbeddingLookup(EmbeddingLookup):
    """Rows of a table, float32."""

    def __init__(self, table: Tensor) -> None:
        super().__init__(table)
        self.lookup = Lookup()

    def construct(self, ids: Tensor) -> Tensor:
        """Map int32 [T] to float32 [T, width]."""
        return self.lookup(self.embedding_table, ids)


class FusedEmbeddingPostprocessor(EmbeddingPostprocessor):
    """Sum of three embeddings, layer norm and dropout, in float32."""

    def __init__(self, config: BertConfig, dropouts: DropoutFactory) -> None:
        super().__init__(config, dropouts)
        self.add_norm = AddNorm(config.layer_norm_eps)
        self.lookup = Lookup()
        self.drop = None if isinstance(self.dropout, NoDropout) else Drop()
        self.no_bias = Tensor([0.0] * config.hidden_size, ms.float32)

    def construct(self, pieces: Tensor, pos_ids: Tensor, sent_ids: Tensor, step: Tensor) -> Tensor:
        """As :class:`src.bert.EmbeddingPostprocessor`."""
        others = self.lookup(self.embedding_table, sent_ids)
        others = others + self.lookup(self.full_position_embeddings, pos_ids)
        width = pieces.shape[1]
        normed = self.add_norm(pieces, self.no_bias, others, self.layernorm.gamma, self.layernorm.beta,
                               *no_mask(width))          # the dropout comes after the norm here
        return normed if self.drop is None else self.drop(normed, *self.dropout.mask(width, step))


class FusedEncoderLayer(EncoderLayer):
    """Self-attention, then the feed-forward network, in float32."""

    def __init__(self, config: BertConfig, dropouts: DropoutFactory, compute_type: ms.Type) -> None:
        super().__init__(config, dropouts, compute_type)
        self.attention_product, self.intermediate_product = JoinedProductAndResidual(), ProductAndResidual()
        self.fused_attention = FusedAttention(config.num_attention_heads, self.attention.attention.scale)
        self.add_norm = AddNorm(config.layer_norm_eps)
        self.bias_gelu = BiasGelu()
        self.has_gelu = isinstance(self.activation, Gelu)

    def spread(self, mask: Tensor) -> Tensor:
        """The mask as it is: [B, S]."""
        return mask

    def construct(self, hidden: Tensor, mask: Tensor, step: Tensor) -> Tensor:
        """Take float32 [B*S, H] and what is added to the keys' scores, float32 [B, S]; give float32 [B*S, H]."""
        context, hidden = self.attend(self.attention.attention, hidden, mask, step)        # [B*S, H] both
        attended = self.end_half(self.attention.output, context, hidden, step)             # [B*S, H]
        product, attended = self.intermediate_product(attended, self.intermediate.weight)  # [B*S, I], [B*S, H]
        if self.has_gelu:
            expanded = self.bias_gelu(product, self.intermediate.bias)
        else:
            expanded = self.activation(self.intermediate.add_bias(product, self.intermediate.bias))    # [B*S, I]
        return self.end_half(self.output, expanded, attended, step)                        # [B*S, H]

    def attend(self, attention: SelfAttention, hidden: Tensor, mask: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """As :class:`src.bert.SelfAttention`, where q, k and v are one product; and ``hidden`` again."""
        query, key, value = attention.query_layer, attention.key_layer, attention.value_layer
        products, hidden = self.attention_product(hidden, query.weight, key.weight, value.weight)      # [B*S, 3*H]
        context = self.fused_attention(products, query.bias, key.bias, value.bias, mask,
                                       *attention.dropout.mask(mask.shape[1], step))
        return context, hidden                                                             # [B*S, H] both

    def end_half(self, output: ResidualOutput, inputs: Tensor, residual: Tensor, step: Tensor) -> Tensor:
        """As :class:`src.bert.ResidualOutput`."""
        return self.add_norm(output.dense.product(inputs), output.dense.bias, residual, output.layernorm.gamma,
                             output.layernorm.beta, *output.dropout.mask(residual.shape[1], step))


class InferenceEncoderLayer(FusedEncoderLayer):
    """The same for GELU on a processor with a matrix unit, where the layer is not trained: each half ends with one
    kernel. There is no dropout. Its gradient is right, but slow.
    """

    def __init__(self, config: BertConfig, dropouts: DropoutFactory, compute_type: ms.Type) -> None:
        super().__init__(config, dropouts, compute_type)
        self.product_add_norm, self.feed_forward = (ProductAddNorm(config.layer_norm_eps),
                                                    FeedForward(config.layer_norm_eps))

    def construct(self, hidden: Tensor, mask: Tensor, step: Tensor) -> Tensor:
        """As :class:`FusedEncoderLayer`."""
        context, hidden = self.attend(self.attention.attention, hidden, mask, step)        # [B*S, H] both
        dense, norm = self.attention.output.dense, self.attention.output.layernorm
        attended = self.product_add_norm(context, dense.weight, dense.bias, hidden, norm.gamma, norm.beta)  # [B*S, H]
        first, dense, norm = self.intermediate, self.output.dense, self.output.layernorm
        return self.feed_forward(attended, first.weight, first.bias, dense.weight, dense.bias, norm.gamma, norm.beta)


def encoder_classes(config: BertConfig, is_training: bool) -> dict[str, Any]:
    """The classes that :class:`src.bert.BertModel` is built from on CPU."""
    fuses_halves = not is_training and config.hidden_act == "gelu" and multiply_tiles()
    return {"embedding_class": FusedEmbeddingPostprocessor, "lookup_class": FusedEmbeddingLookup,
            "layer_class": InferenceEncoderLayer if fuses_halves else FusedEncoderLayer}
