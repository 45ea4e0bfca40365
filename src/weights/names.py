# SPDX-License-Identifier: Apache-2.0
"""Names of the encoder's parameters here, in HuggingFace's files, in Paddle's and in MindSpore's BERT: one table.

A row gives the three stems and what kind of thing stands there; the kind adds the endings:

    table   an embedding table                  here and HuggingFace: [rows, width]      Paddle: the same
    norm    gamma and beta of a layer norm      [width]                                  the same
    dense   weight and bias of a linear layer   [out, in] and [out]                      w_0 is [in, out]

MindSpore's BERT has our names below one more "bert."; only two embedding tables are called differently in newer ones.

Sizes are fields of :class:`src.config.BertConfig`; ``{i}`` is the number of a layer, from 0.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from src.config import BertConfig, KTNetConfig

Convention = Literal["huggingface", "paddle", "mindspore"]
OUR_PREFIX = "bert."
# What MindSpore's own BERT, and with it the older port, computed whatever its configuration said.
MINDSPORE_DEFAULTS: dict[str, Any] = {"hidden_act": "gelu_new", "layer_norm_eps": 1e-7}


@dataclass(frozen=True)
class NameRule:
    """One parameter: its name here, its accepted names elsewhere, its shape."""

    target: str                     # in our checkpoints
    huggingface: tuple[str, ...]    # any one of these, without the prefix "bert."
    paddle: tuple[str, ...]         # file in the folder of persistables
    sizes: tuple[str, ...]          # fields of BertConfig, the shape here
    paddle_transposed: bool = False
    mindspore: tuple[str, ...] = ()  # beside ours, without the prefix "bert.bert."

    def names(self, convention: Convention) -> tuple[str, ...]:
        """Accepted names in a source of that kind, the usual one first."""
        if convention == "mindspore":
            return self.target.removeprefix(OUR_PREFIX), *self.mindspore
        return self.huggingface if convention == "huggingface" else self.paddle

    def transposed(self, convention: Convention) -> bool:
        """Whether a source of that kind has rows for our columns."""
        return convention == "paddle" and self.paddle_transposed

    def shape(self, config: BertConfig) -> tuple[int, ...]:
        """Shape of the parameter here."""
        return tuple(getattr(config, size) for size in self.sizes)

    def in_layer(self, number: int) -> NameRule:
        """The rule for one layer."""
        def fill(names: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(name.format(i=number) for name in names)

        return replace(self, target=self.target.format(i=number), huggingface=fill(self.huggingface),
                       paddle=fill(self.paddle))


def _table(target: str, huggingface: str, paddle: str, rows: str, *mindspore: str) -> tuple[NameRule, ...]:
    return (NameRule(target, (f"{huggingface}.weight",), (paddle,), (rows, "hidden_size"), mindspore=mindspore),)


def _norm(target: str, huggingface: str, paddle: str) -> tuple[NameRule, ...]:
    # Files converted from TensorFlow keep its names gamma and beta; newer ones have PyTorch's weight and bias.
    return tuple(NameRule(f"{target}.{ours}", (f"{huggingface}.{theirs}", f"{huggingface}.{ours}"),
                          (f"{paddle}_{ending}",), ("hidden_size",))
                 for ours, theirs, ending in (("gamma", "weight", "scale"), ("beta", "bias", "bias")))


def _dense(target: str, huggingface: str, paddle: str, width_out: str, width_in: str) -> tuple[NameRule, ...]:
    return (NameRule(f"{target}.weight", (f"{huggingface}.weight",), (f"{paddle}.w_0",), (width_out, width_in),
                     paddle_transposed=True),
            NameRule(f"{target}.bias", (f"{huggingface}.bias",), (f"{paddle}.b_0",), (width_out,)))


_H, _I = "hidden_size", "intermediate_size"
_POST = "bert.bert_embedding_postprocessor"
_LAYER, _HF, _PD = "bert.bert_encoder.layers.{i}", "encoder.layer.{i}", "encoder_layer_{i}"

# one row a part of the network: name here, HuggingFace's, Paddle's, sizes, other names in MindSpore's BERT
EMBEDDING_RULES: tuple[NameRule, ...] = (
    *_table("bert.bert_embedding_lookup.embedding_table",
            "embeddings.word_embeddings", "word_embedding", "vocab_size"),
    *_table(f"{_POST}.embedding_table",
            "embeddings.token_type_embeddings", "sent_embedding", "type_vocab_size",
            "bert_embedding_postprocessor.token_type_embedding.embedding_table"),
    *_table(f"{_POST}.full_position_embeddings",
            "embeddings.position_embeddings", "pos_embedding", "max_position_embeddings",
            "bert_embedding_postprocessor.full_position_embedding.embedding_table"),
    *_norm(f"{_POST}.layernorm",
           "embeddings.LayerNorm", "pre_encoder_layer_norm"),
)
LAYER_RULES: tuple[NameRule, ...] = (
    *_dense(f"{_LAYER}.attention.attention.query_layer",
            f"{_HF}.attention.self.query", f"{_PD}_multi_head_att_query_fc", _H, _H),
    *_dense(f"{_LAYER}.attention.attention.key_layer",
            f"{_HF}.attention.self.key", f"{_PD}_multi_head_att_key_fc", _H, _H),
    *_dense(f"{_LAYER}.attention.attention.value_layer",
            f"{_HF}.attention.self.value", f"{_PD}_multi_head_att_value_fc", _H, _H),
    *_dense(f"{_LAYER}.attention.output.dense",
            f"{_HF}.attention.output.dense", f"{_PD}_multi_head_att_output_fc", _H, _H),
    *_norm(f"{_LAYER}.attention.output.layernorm",
           f"{_HF}.attention.output.LayerNorm", f"{_PD}_post_att_layer_norm"),
    *_dense(f"{_LAYER}.intermediate",
            f"{_HF}.intermediate.dense", f"{_PD}_ffn_fc_0", _I, _H),
    *_dense(f"{_LAYER}.output.dense",
            f"{_HF}.output.dense", f"{_PD}_ffn_fc_1", _H, _I),
    *_norm(f"{_LAYER}.output.layernorm",
           f"{_HF}.output.LayerNorm", f"{_PD}_post_ffn_layer_norm"),
)


def name_rules(config: BertConfig) -> Iterator[NameRule]:
    """Every parameter of an encoder of these sizes, embeddings first."""
    yield from EMBEDDING_RULES
    for number in range(config.num_hidden_layers):
        for rule in LAYER_RULES:
            yield rule.in_layer(number)


def head_shapes(config: KTNetConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the layers above the encoder: memories, self-matching, the answer layer."""
    shapes: dict[str, tuple[int, ...]] = {}
    for memory in config.memories:
        shapes[f"embedding_{memory.name}.embedding_table"] = (memory.rows, memory.width)
        shapes[f"MemoryLayer_{memory.name}.dense_1.weight"] = (memory.width, config.bert.hidden_size)
        shapes[f"MemoryLayer_{memory.name}.sentinel"] = (memory.width,)
    for weight in ("weight_1", "weight_2", "weight_mul"):
        shapes[f"TriLinearTwoTimeSelfAttentionLayer.{weight}"] = (config.fused_width,)
    return {**shapes, "TriLinearTwoTimeSelfAttentionLayer.bias": (1,), "dense1.weight": (2, config.match_width),
            "dense1.bias": (2,)}


def network_shapes(config: KTNetConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every parameter of a KT-NET of these sizes."""
    return {**{rule.target: rule.shape(config.bert) for rule in name_rules(config.bert)}, **head_shapes(config)}
