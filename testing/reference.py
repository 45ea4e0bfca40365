# SPDX-License-Identifier: Apache-2.0
"""KT-NET a second time, in PyTorch, for comparison: the equations of SPEC section 4 written down as they stand.

Nothing here is shared with the MindSpore network but the sizes in ``src.config``, and nothing is rearranged for
speed: concatenations are built, A is multiplied with A u, every score is computed. What the two agree on they
therefore agree on for two independent reasons. Letters as in ``src/config.py``; N is the number of heads.

Parameters travel as a dict of name -> NumPy array under the names of the checkpoint. ``parameter_shapes`` and
``random_parameters`` need no PyTorch.
"""
from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from src.config import BertConfig, KTNetConfig, MemoryConfig

try:
    import torch
except ImportError:     # the tables of names and shapes are useful without it; logits() then says what is missing
    torch = None

ATTENTION_MASK = -10000.0
MATCH_MASK = -1e6

TINY = KTNetConfig(
    bert=BertConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
                    max_position_embeddings=40, type_vocab_size=2),
    memories=(MemoryConfig(name="wn", rows=64, width=16, max_concepts=7),
              MemoryConfig(name="nell", rows=32, width=24, max_concepts=5)),
    max_seq_len=40)


# ---------------------------------------------------------------------------------------------- names and shapes
def encoder_shapes(bert: BertConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the encoder's parameters."""
    hidden, inner = bert.hidden_size, bert.intermediate_size
    post = "bert.bert_embedding_postprocessor"
    shapes: dict[str, tuple[int, ...]] = {
        "bert.bert_embedding_lookup.embedding_table": (bert.vocab_size, hidden),
        f"{post}.embedding_table": (bert.type_vocab_size, hidden),
        f"{post}.full_position_embeddings": (bert.max_position_embeddings, hidden),
        f"{post}.layernorm.gamma": (hidden,),
        f"{post}.layernorm.beta": (hidden,),
    }
    for number in range(bert.num_hidden_layers):
        layer = f"bert.bert_encoder.layers.{number}"
        for dense, width_in, width_out in (("attention.attention.query_layer", hidden, hidden),
                                           ("attention.attention.key_layer", hidden, hidden),
                                           ("attention.attention.value_layer", hidden, hidden),
                                           ("attention.output.dense", hidden, hidden),
                                           ("intermediate", hidden, inner),
                                           ("output.dense", inner, hidden)):
            shapes[f"{layer}.{dense}.weight"] = (width_out, width_in)
            shapes[f"{layer}.{dense}.bias"] = (width_out,)
        for norm in ("attention.output.layernorm", "output.layernorm"):
            shapes[f"{layer}.{norm}.gamma"] = (hidden,)
            shapes[f"{layer}.{norm}.beta"] = (hidden,)
    return shapes


def parameter_shapes(config: KTNetConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every parameter of the network that ``config`` describes."""
    fused = config.bert.hidden_size + sum(memory.width for memory in config.memories)
    shapes = encoder_shapes(config.bert)
    for memory in config.memories:
        shapes[f"embedding_{memory.name}.embedding_table"] = (memory.rows, memory.width)
        shapes[f"MemoryLayer_{memory.name}.dense_1.weight"] = (memory.width, config.bert.hidden_size)
        shapes[f"MemoryLayer_{memory.name}.sentinel"] = (memory.width,)
    for weight in ("weight_1", "weight_2", "weight_mul"):
        shapes[f"TriLinearTwoTimeSelfAttentionLayer.{weight}"] = (fused,)
    shapes["TriLinearTwoTimeSelfAttentionLayer.bias"] = (1,)
    shapes["dense1.weight"] = (2, 6 * fused)
    shapes["dense1.bias"] = (2,)
    return shapes


def random_parameters(config: KTNetConfig, seed: int) -> dict[str, np.ndarray]:
    """A float32 array for every parameter, none of them at a value (0 or 1) that could hide a missing term.

    Weights have the scale that keeps activations near 1, so that a wrong equation moves the logits far more than
    rounding does. Row 0 of a concept table is the padding concept and stays zero.
    """
    random = np.random.default_rng(seed)
    parameters = {}
    for name, shape in parameter_shapes(config).items():
        last = name.rsplit(".", 1)[-1]
        if last == "gamma":
            values = 1.0 + 0.2 * random.standard_normal(shape)
        elif last in ("beta", "bias"):
            values = 0.2 * random.standard_normal(shape)
        elif last == "embedding_table" and name.startswith("embedding_"):
            values = 0.5 * random.standard_normal(shape)
            values[0] = 0.0
        elif last in ("embedding_table", "full_position_embeddings", "sentinel"):
            values = 0.5 * random.standard_normal(shape)
        else:
            values = random.standard_normal(shape) / math.sqrt(shape[-1])
        parameters[name] = values.astype(np.float32)
    return parameters


# -------------------------------------------------------------------------------------------------- the equations
def layer_norm(values: torch.Tensor, parameters: Mapping[str, torch.Tensor], name: str, epsilon: float) -> torch.Tensor:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta over the last axis."""
    mean = values.mean(-1, keepdim=True)
    variance = ((values - mean) ** 2).mean(-1, keepdim=True)
    normal = (values - mean) / torch.sqrt(variance + epsilon)
    return normal * parameters[f"{name}.gamma"] + parameters[f"{name}.beta"]


def dense(values: torch.Tensor, parameters: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    """x W^T + b with W [out, in]."""
    return values @ parameters[f"{name}.weight"].T + parameters[f"{name}.bias"]


def activation(values: torch.Tensor, name: str) -> torch.Tensor:
    """``gelu`` is the erf form, ``gelu_new`` the tanh form."""
    if name == "gelu":
        return values * 0.5 * (1.0 + torch.erf(values / math.sqrt(2.0)))
    if name == "gelu_new":
        inner = math.sqrt(2.0 / math.pi) * (values + 0.044715 * values ** 3)
        return 0.5 * values * (1.0 + torch.tanh(inner))
    if name == "relu":
        return torch.clamp(values, min=0.0)
    raise ValueError(f"hidden_act {name!r}")


def self_attention(hidden: torch.Tensor, input_mask: torch.Tensor, parameters: Mapping[str, torch.Tensor],
                   name: str, bert: BertConfig) -> torch.Tensor:
    """Multi-head attention over [B, S, H], before its output projection."""
    batch, length, width = hidden.shape

    def heads(which: str) -> torch.Tensor:
        projected = dense(hidden, parameters, f"{name}.{which}_layer")
        return projected.reshape(batch, length, bert.num_attention_heads, -1).permute(0, 2, 1, 3)   # [B, N, S, H/N]

    query, key, value = heads("query"), heads("key"), heads("value")
    scores = query @ key.transpose(-1, -2) / math.sqrt(width // bert.num_attention_heads)           # [B, N, S, S]
    scores = scores + (1.0 - input_mask)[:, None, None, :] * ATTENTION_MASK
    context = torch.softmax(scores, -1) @ value                                                     # [B, N, S, H/N]
    return context.permute(0, 2, 1, 3).reshape(batch, length, width)


def encoder(parameters: Mapping[str, torch.Tensor], bert: BertConfig, input_mask: torch.Tensor, src_ids: torch.Tensor,
            pos_ids: torch.Tensor, sent_ids: torch.Tensor) -> torch.Tensor:
    """SPEC 4, 1: BERT with the normalisation after each residual sum; returns [B, S, H]."""
    post = "bert.bert_embedding_postprocessor"
    hidden = (parameters["bert.bert_embedding_lookup.embedding_table"][src_ids]
              + parameters[f"{post}.embedding_table"][sent_ids]
              + parameters[f"{post}.full_position_embeddings"][pos_ids])
    hidden = layer_norm(hidden, parameters, f"{post}.layernorm", bert.layer_norm_eps)
    for number in range(bert.num_hidden_layers):
        layer = f"bert.bert_encoder.layers.{number}"
        context = self_attention(hidden, input_mask, parameters, f"{layer}.attention.attention", bert)
        attended = layer_norm(hidden + dense(context, parameters, f"{layer}.attention.output.dense"),
                              parameters, f"{layer}.attention.output.layernorm", bert.layer_norm_eps)
        inner = activation(dense(attended, parameters, f"{layer}.intermediate"), bert.hidden_act)
        hidden = layer_norm(attended + dense(inner, parameters, f"{layer}.output.dense"),
                            parameters, f"{layer}.output.layernorm", bert.layer_norm_eps)
    return hidden


def memory_output(parameters: Mapping[str, torch.Tensor], memory: MemoryConfig, hidden: torch.Tensor,
                  concept_ids: torch.Tensor) -> torch.Tensor:
    """SPEC 4, 2: what every token reads from one knowledge base.

    Args:
        parameters: name -> tensor.
        memory: sizes and name of the knowledge base.
        hidden: [B, S, H].
        concept_ids: [B, S, K], padded with 0.

    Returns:
        [B, S, D].
    """
    table = parameters[f"embedding_{memory.name}.embedding_table"]
    sentinel = parameters[f"MemoryLayer_{memory.name}.sentinel"]
    concepts = table[concept_ids]                                                                   # [B, S, K, D]
    first = sentinel.expand(*concepts.shape[:2], 1, sentinel.shape[0])
    rows = torch.cat([first, concepts], dim=2)                                                      # [B, S, K + 1, D]
    projected = hidden @ parameters[f"MemoryLayer_{memory.name}.dense_1.weight"].T                  # [B, S, D]
    scores = (rows * projected[:, :, None, :]).sum(-1)                                              # [B, S, K + 1]
    count = (concept_ids != 0).sum(-1)                                                              # [B, S]
    beyond = torch.arange(rows.shape[2]) > count[:, :, None]
    attention = torch.softmax(scores + beyond * MATCH_MASK, -1)
    read = (attention[..., None] * rows).sum(2)
    return torch.where((count > 0)[..., None], read, torch.zeros_like(read))


def self_matching(parameters: Mapping[str, torch.Tensor], fused: torch.Tensor,
                  input_mask: torch.Tensor) -> torch.Tensor:
    """SPEC 4, 3: [B, S, U] -> [B, S, 6U]."""
    name = "TriLinearTwoTimeSelfAttentionLayer"
    first = (fused @ parameters[f"{name}.weight_1"])[:, :, None]                                    # [B, S, 1]
    second = (fused @ parameters[f"{name}.weight_2"])[:, None, :]                                   # [B, 1, S]
    product = (fused * parameters[f"{name}.weight_mul"]) @ fused.transpose(1, 2)                    # [B, S, S]
    scores = first + second + product + parameters[f"{name}.bias"]
    scores = scores + (1.0 - input_mask)[:, None, :] * MATCH_MASK
    attention = torch.softmax(scores, -1)
    once = attention @ fused
    twice = (attention @ attention) @ fused
    return torch.cat([fused, once, fused * once, fused - once, twice, fused - twice], dim=-1)


def output_layer(parameters: Mapping[str, torch.Tensor], matched: torch.Tensor) -> torch.Tensor:
    """SPEC 4, 4: [B, S, 6U] -> [2, B, S], starts first."""
    return dense(matched, parameters, "dense1").permute(2, 0, 1)


def position_loss(logits: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Mean over the batch of -log softmax(logits)[position]; logits [B, S], positions [B]."""
    chosen = torch.log_softmax(logits, -1)[torch.arange(len(positions)), positions]
    return -chosen.mean()


# ---------------------------------------------------------------------------------------------------- NumPy's doors
def to_torch(parameters: Mapping[str, np.ndarray], dtype: str) -> dict[str, torch.Tensor]:
    """Parameters as tensors of ``dtype`` ("float32" or "float64")."""
    if torch is None:
        raise RuntimeError("the reference network needs PyTorch: pip install torch")
    return {name: torch.tensor(np.asarray(value), dtype=getattr(torch, dtype)) for name, value in parameters.items()}


def hidden_states(parameters: Mapping[str, np.ndarray], bert: BertConfig, columns: Mapping[str, np.ndarray],
                  dtype: str = "float64") -> np.ndarray:
    """The encoder's output [B, S, H] for the feature columns input_mask, src_ids, pos_ids and sent_ids."""
    return _encode(to_torch(parameters, dtype), bert, columns, dtype).numpy()


def _encode(tensors: Mapping[str, torch.Tensor], bert: BertConfig, columns: Mapping[str, np.ndarray],
            dtype: str) -> torch.Tensor:
    mask = torch.tensor(np.asarray(columns["input_mask"]), dtype=getattr(torch, dtype))
    ids = [torch.tensor(np.asarray(columns[name]), dtype=torch.int64) for name in ("src_ids", "pos_ids", "sent_ids")]
    return encoder(tensors, bert, mask, *ids)


def logits(parameters: Mapping[str, np.ndarray], config: KTNetConfig, columns: Mapping[str, np.ndarray],
           dtype: str = "float64") -> np.ndarray:
    """The network's logits without dropout.

    Args:
        parameters: name -> array, as ``parameter_shapes`` lists them; further names are ignored.
        config: sizes.
        columns: the input columns of the feature table, with the batch in front; concept ids [B, S, K, 1] or [B, S, K].
        dtype: precision of the computation, "float32" or "float64".

    Returns:
        [2, B, S] in ``dtype``: start logits, end logits.
    """
    return _logits(to_torch(parameters, dtype), config, columns, dtype).numpy()


def _logits(tensors: Mapping[str, torch.Tensor], config: KTNetConfig, columns: Mapping[str, np.ndarray],
            dtype: str) -> torch.Tensor:
    hidden = _encode(tensors, config.bert, columns, dtype)
    parts = [hidden]
    for memory in config.memories:
        ids = np.asarray(columns[memory.column]).reshape(*hidden.shape[:2], -1)
        parts.append(memory_output(tensors, memory, hidden, torch.tensor(ids, dtype=torch.int64)))
    mask = torch.tensor(np.asarray(columns["input_mask"]), dtype=hidden.dtype)
    return output_layer(tensors, self_matching(tensors, torch.cat(parts, dim=-1), mask))


def loss_and_gradients(parameters: Mapping[str, np.ndarray], config: KTNetConfig, columns: Mapping[str, np.ndarray],
                       dtype: str = "float64") -> tuple[float, dict[str, np.ndarray]]:
    """The training loss without dropout and its gradient with respect to every parameter.

    ``columns`` also holds start_positions and end_positions, [B, 1].
    """
    tensors = {name: value.requires_grad_() for name, value in to_torch(parameters, dtype).items()}
    both = _logits(tensors, config, columns, dtype)
    starts, ends = (torch.tensor(np.asarray(columns[name]).reshape(-1), dtype=torch.int64)
                    for name in ("start_positions", "end_positions"))
    loss = (position_loss(both[0], starts) + position_loss(both[1], ends)) / 2.0
    loss.backward()
    return loss.item(), {name: tensor.grad.numpy() for name, tensor in tensors.items() if tensor.grad is not None}


def random_columns(config: KTNetConfig, batch: int, seed: int) -> dict[str, np.ndarray]:
    """Features of every column, dtype and kind that occurs: padding, two segments, tokens with 0..K concepts."""
    random = np.random.default_rng(seed)
    length = config.max_seq_len
    columns: dict[str, np.ndarray] = {
        "input_mask": np.zeros((batch, length), np.float32),
        "src_ids": np.zeros((batch, length), np.int32),
        "pos_ids": np.tile(np.arange(length, dtype=np.int32), (batch, 1)),
        "sent_ids": np.zeros((batch, length), np.int32),
        "start_positions": np.zeros((batch, 1), np.int32),
        "end_positions": np.zeros((batch, 1), np.int32),
    }
    for memory in config.memories:
        columns[memory.column] = np.zeros((batch, length, memory.max_concepts, 1), np.int32)
    for row in range(batch):
        used = length if row == 0 else int(random.integers(length // 2, length))
        query = int(random.integers(2, used // 2))
        columns["input_mask"][row, :used] = 1.0
        columns["src_ids"][row, :used] = random.integers(1, config.bert.vocab_size, used)
        columns["sent_ids"][row, query:used] = 1
        start, end = sorted(random.integers(query, used, 2))
        columns["start_positions"][row, 0], columns["end_positions"][row, 0] = start, end
        for memory in config.memories:
            for token in range(1, used):
                count = int(random.choice([0, 1, 2, memory.max_concepts // 2, memory.max_concepts]))
                columns[memory.column][row, token, :count, 0] = random.integers(1, memory.rows, count)
    return columns
