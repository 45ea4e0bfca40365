# SPDX-License-Identifier: Apache-2.0
"""BERT encoder, post-layer-norm (Devlin et al., 2019), for any size.

Shapes: B batch, S sequence, H hidden width, N attention heads, A = H / N head width, I feed-forward width.
"""
from __future__ import annotations

import math

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops
from mindspore.common.initializer import Initializer, TruncatedNormal, Zero, initializer

from src.config import BertConfig
from src.dropout import DropoutFactory

MASKED_ATTENTION = -10000.0


def normal(std: float) -> Initializer:
    """Truncated normal initial values, or zeros where ``std`` is 0: for weights that are loaded next."""
    return TruncatedNormal(std) if std else Zero()


class AddBias(nn.Cell):
    """x + b for every row, on any device. On CPU the kernel for this is 15 times faster than a broadcast sum, and a sum
    over the rows ten times faster than the kernel's own gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bias_add = ops.BiasAdd()

    def construct(self, rows: Tensor, bias: Tensor) -> Tensor:
        """Take float32 [T, W] and [W]; give float32 [T, W]."""
        return self.bias_add(rows, bias)

    def bprop(self, rows: Tensor, bias: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient by rows and bias."""
        return dout, ops.reduce_sum(dout, 0)


class Linear(nn.Cell):
    """y = x W^T + b with the product computed in ``compute_type`` and the result in float32.

    Args:
        inputs: width of x.
        outputs: width of y.
        std: standard deviation of the initial weights.
        has_bias: whether there is a b; it starts at zero.
        compute_type: float32, or float16 on devices where that is faster.
    """

    def __init__(self, inputs: int, outputs: int, std: float, has_bias: bool = True,
                 compute_type: ms.Type = ms.float32) -> None:
        super().__init__()
        self.weight = Parameter(initializer(normal(std), [outputs, inputs], ms.float32))
        self.has_bias = has_bias
        if has_bias:
            self.bias = Parameter(initializer("zeros", [outputs], ms.float32))
            self.add_bias = AddBias()
        self.compute_type = compute_type
        self.matmul = ops.MatMul(transpose_b=True)

    def product(self, inputs: Tensor) -> Tensor:
        """Without the bias: map [rows, inputs] to float32 [rows, outputs]."""
        return self.matmul(inputs.astype(self.compute_type), self.weight.astype(self.compute_type)).astype(ms.float32)

    def construct(self, inputs: Tensor) -> Tensor:
        """Map [rows, inputs] to float32 [rows, outputs]."""
        product = self.product(inputs)
        return self.add_bias(product, self.bias) if self.has_bias else product


class Gelu(nn.Cell):
    """Gaussian error linear unit: x * Phi(x), exact (Hendrycks and Gimpel, 2016)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0 / math.sqrt(2.0)     # here, not in construct: graph mode of older releases makes it an integer

    def construct(self, inputs: Tensor) -> Tensor:
        """Any float shape."""
        return inputs * 0.5 * (1.0 + ops.erf(inputs * self.scale))


class GeluTanh(nn.Cell):
    """The tanh approximation of the Gaussian error linear unit (``gelu_new``).

    0.5 (1 + tanh z) is written as sigmoid(2 z), the same function: the CPU kernel of tanh has errors of up to 1e-4.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scale = 2.0 * math.sqrt(2.0 / math.pi)

    def construct(self, inputs: Tensor) -> Tensor:
        """Any float shape."""
        cubic = inputs + 0.044715 * inputs * inputs * inputs
        return inputs * ops.sigmoid(cubic * self.scale)


class LayerNorm(nn.Cell):
    """Layer normalisation over a row (Ba et al., 2016): (x - mean) / sqrt(variance + epsilon) * gamma + beta.

    Args:
        width: W.
        epsilon: added to the variance.
    """

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.gamma = Parameter(initializer("ones", [width], ms.float32))
        self.beta = Parameter(initializer("zeros", [width], ms.float32))
        self.epsilon = epsilon
        self.norm = ops.LayerNorm(1, 1, epsilon)

    def construct(self, rows: Tensor) -> Tensor:
        """Take and give float32 [T, W]."""
        return self.norm(rows, self.gamma, self.beta)[0]


ACTIVATIONS = {"gelu": Gelu, "gelu_new": GeluTanh, "relu": nn.ReLU}


class EmbeddingLookup(nn.Cell):
    """Rows of a table; a frozen table gets no gradient."""

    def __init__(self, table: Tensor, requires_grad: bool = True) -> None:
        super().__init__()
        self.embedding_table = Parameter(table, requires_grad=requires_grad)

    def construct(self, ids: Tensor) -> Tensor:
        """Map int32 [...] to float32 [..., width]."""
        return ops.gather(self.embedding_table, ids, 0)


class EmbeddingPostprocessor(nn.Cell):
    """Add segment and position embeddings to those of the word pieces, then layer norm and dropout."""

    def __init__(self, config: BertConfig, dropouts: DropoutFactory) -> None:
        super().__init__()
        start = normal(config.initializer_range)
        self.embedding_table = Parameter(initializer(start, [config.type_vocab_size, config.hidden_size]))
        self.full_position_embeddings = Parameter(
            initializer(start, [config.max_position_embeddings, config.hidden_size]))
        self.layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.dropout = dropouts(config.hidden_dropout_prob)

    def construct(self, pieces: Tensor, pos_ids: Tensor, sent_ids: Tensor, step: Tensor) -> Tensor:
        """Take float32 [B*S, H] and int32 [B*S] twice; give float32 [B*S, H]."""
        embedded = pieces + ops.gather(self.embedding_table, sent_ids, 0)
        embedded = embedded + ops.gather(self.full_position_embeddings, pos_ids, 0)
        return self.dropout(self.layernorm(embedded), step)


class SelfAttention(nn.Cell):
    """Scaled dot-product attention with N heads (Vaswani et al., 2017, equation 1)."""

    def __init__(self, config: BertConfig, dropouts: DropoutFactory, compute_type: ms.Type) -> None:
        super().__init__()
        width, std = config.hidden_size, config.initializer_range
        self.query_layer = Linear(width, width, std, compute_type=compute_type)
        self.key_layer = Linear(width, width, std, compute_type=compute_type)
        self.value_layer = Linear(width, width, std, compute_type=compute_type)
        self.heads, self.head_size, self.width = config.num_attention_heads, config.head_size, width
        self.scale = 1.0 / math.sqrt(config.head_size)
        self.compute_type = compute_type
        self.dropout = dropouts(config.attention_probs_dropout_prob)
        self.product = ops.BatchMatMul()
        self.product_transposed = ops.BatchMatMul(transpose_b=True)

    def split_heads(self, rows: Tensor, length: int) -> Tensor:
        """[B*S, H] -> [B, N, S, A]."""
        heads = rows.reshape((-1, length, self.heads, self.head_size))
        return ops.transpose(heads, (0, 2, 1, 3)).astype(self.compute_type)

    def construct(self, hidden: Tensor, attention_mask: Tensor, step: Tensor) -> Tensor:
        """Take float32 [B*S, H] and the additive mask [B, N, S, S]; give float32 [B*S, H]."""
        length = attention_mask.shape[2]
        query = self.split_heads(self.query_layer(hidden) * self.scale, length)            # [B, N, S, A]
        key = self.split_heads(self.key_layer(hidden), length)                             # [B, N, S, A]
        value = self.split_heads(self.value_layer(hidden), length)                         # [B, N, S, A]
        scores = self.product_transposed(query, key).astype(ms.float32) + attention_mask   # [B, N, S, S]
        weights = self.dropout(ops.softmax(scores, -1), step).astype(self.compute_type)    # [B, N, S, S]
        context = self.product(weights, value).astype(ms.float32)                          # [B, N, S, A]
        return ops.transpose(context, (0, 2, 1, 3)).reshape((-1, self.width))              # [B*S, H]


class ResidualOutput(nn.Cell):
    """Projection, dropout, residual connection, layer norm: the end of both halves of a layer."""

    def __init__(self, inputs: int, config: BertConfig, dropouts: DropoutFactory, compute_type: ms.Type) -> None:
        super().__init__()
        self.dense = Linear(inputs, config.hidden_size, config.initializer_range, compute_type=compute_type)
        self.dropout = dropouts(config.hidden_dropout_prob)
        self.layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def construct(self, inputs: Tensor, residual: Tensor, step: Tensor) -> Tensor:
        """Take float32 [B*S, inputs] and [B*S, H]; give float32 [B*S, H]."""
        return self.layernorm(residual + self.dropout(self.dense(inputs), step))


class Attention(nn.Cell):
    """First half of a layer."""

    def __init__(self, config: BertConfig, dropouts: DropoutFactory, compute_type: ms.Type) -> None:
        super().__init__()
        self.attention = SelfAttention(config, dropouts, compute_type)
        self.output = ResidualOutput(config.hidden_size, config, dropouts, compute_type)

    def construct(self, hidden: Tensor, attention_mask: Tensor, step: Tensor) -> Tensor:
        """Take float32 [B*S, H] and the additive mask [B, N, S, S]; give float32 [B*S, H]."""
        return self.output(self.attention(hidden, attention_mask, step), hidden, step)


class EncoderLayer(nn.Cell):
    """Self-attention, then the feed-forward network."""

    def __init__(self, config: BertConfig, dropouts: DropoutFactory, compute_type: ms.Type) -> None:
        super().__init__()
        self.attention = Attention(config, dropouts, compute_type)
        self.intermediate = Linear(config.hidden_size, config.intermediate_size, config.initializer_range,
                                   compute_type=compute_type)
        self.activation = ACTIVATIONS[config.hidden_act]()
        self.output = ResidualOutput(config.intermediate_size, config, dropouts, compute_type)
        self.heads = config.num_attention_heads

    def spread(self, mask: Tensor) -> Tensor:
        """What is added to the keys' scores, float32 [B, S], as :meth:`construct` wants it: [B, N, S, S]."""
        length = mask.shape[1]
        return ops.tile(mask.reshape((-1, 1, 1, length)), (1, self.heads, length, 1))

    def construct(self, hidden: Tensor, attention_mask: Tensor, step: Tensor) -> Tensor:
        """Take float32 [B*S, H] and the additive mask [B, N, S, S]; give float32 [B*S, H]."""
        attended = self.attention(hidden, attention_mask, step)                            # [B*S, H]
        expanded = self.activation(self.intermediate(attended))                            # [B*S, I]
        return self.output(expanded, attended, step)                                       # [B*S, H]


class Encoder(nn.Cell):
    """The stack of layers."""

    def __init__(self, config: BertConfig, dropouts: DropoutFactory, compute_type: ms.Type,
                 layer_class: type[EncoderLayer]) -> None:
        super().__init__()
        self.layers = nn.CellList([layer_class(config, dropouts, compute_type)
                                   for _ in range(config.num_hidden_layers)])

    def construct(self, hidden: Tensor, mask: Tensor, step: Tensor) -> Tensor:
        """Take float32 [B*S, H] and what is added to the keys' scores, float32 [B, S]; give float32 [B*S, H]."""
        attention_mask = self.layers[0].spread(mask)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask, step)
        return hidden


class BertModel(nn.Cell):
    """BERT without its pooler.

    Args:
        config: the encoder's sizes.
        dropouts: makes the dropout layers; None for inference.
        compute_type: type of the matrix products.
        embedding_class: class of what follows the embedding of the word pieces.
        layer_class: class of the encoder layers.
        lookup_class: class of the embedding of the word pieces.
    """

    def __init__(self, config: BertConfig, dropouts: DropoutFactory | None = None,
                 compute_type: ms.Type = ms.float32,
                 embedding_class: type[EmbeddingPostprocessor] = EmbeddingPostprocessor,
                 layer_class: type[EncoderLayer] = EncoderLayer,
                 lookup_class: type[EmbeddingLookup] = EmbeddingLookup) -> None:
        super().__init__()
        dropouts = dropouts or DropoutFactory(is_training=False)
        table = initializer(normal(config.initializer_range), [config.vocab_size, config.hidden_size])
        self.bert_embedding_lookup = lookup_class(table)
        self.bert_embedding_postprocessor = embedding_class(config, dropouts)
        self.bert_encoder = Encoder(config, dropouts, compute_type, layer_class)

    def construct(self, input_mask: Tensor, src_ids: Tensor, pos_ids: Tensor, sent_ids: Tensor,
                  step: Tensor) -> Tensor:
        """Encode a batch.

        Args:
            input_mask: float32 [B, S], 1 for word pieces and 0 for padding.
            src_ids: int32 [B, S], word pieces.
            pos_ids: int32 [B, S], positions.
            sent_ids: int32 [B, S], segments.
            step: int32 scalar, picks the dropout masks.

        Returns:
            float32 [B*S, H], the last layer's output.
        """
        pieces = self.bert_embedding_lookup(src_ids.reshape((-1,)))                        # [B*S, H]
        embedded = self.bert_embedding_postprocessor(pieces, pos_ids.reshape((-1,)), sent_ids.reshape((-1,)), step)
        return self.bert_encoder(embedded, (1.0 - input_mask) * MASKED_ATTENTION, step)    # [B*S, H]
