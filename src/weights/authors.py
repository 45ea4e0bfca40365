# SPDX-License-Identifier: Apache-2.0
"""The KT-NETs that the authors trained with PaddlePaddle: folders of persistables, turned into our parameters.

The authors' concept tables are as wide as the vectors (100); ours are padded to a multiple of 16. So every parameter
as wide as u = [h ; memory_1 ; ...] gets zeros after each memory's part, and the answer layer, six times as wide, gets
them in each of its six blocks. The logits stay the same.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from src.config import KNOWLEDGE_BASES, BertConfig, KnowledgeBase, KTNetConfig, MemoryConfig
from src.knowledge.concepts import round_up
from src.weights.sources import PaddleFolder, check_finite
from utils.util import InputError

MATCH = "TriLinearTwoTimeSelfAttentionLayer"
# Ours -> theirs: the parameters as wide as u, and those that are taken as they are.
WIDE = {f"{MATCH}.weight_1": "self_matching_layer_weight1", f"{MATCH}.weight_2": "self_matching_layer_weight2",
        f"{MATCH}.weight_mul": "self_matching_layer_weightmul"}
PLAIN = {f"{MATCH}.bias": "self_matching_layer_bias", "dense1.bias": "cls_squad_out_b"}
ANSWER = "cls_squad_out_w"      # [6U, 2], ours is transposed
BLOCKS = 6                      # of the answer layer: o = [u, v, u*v, u-v, v', u-v']


class AuthorsHead:
    """The layers above the encoder in a folder of the authors.

    Args:
        source: the folder.
        concepts: knowledge base -> number of its concepts, to tell which one a single memory reads.
        multiple: rows and columns of the tables are padded to a multiple of this.

    Raises:
        InputError: a parameter is missing, or it cannot be told what a single memory reads.
    """

    def __init__(self, source: PaddleFolder, concepts: Mapping[str, int], multiple: int) -> None:
        self._source, self._multiple = source, multiple
        if "concept_emb_mat" in source.names:       # one memory: its parameters do not name the knowledge base
            self._prefixes = {self._single(concepts): ""}
        else:
            self._prefixes = {base: f"{base.name}_" for base in KNOWLEDGE_BASES}

    def _single(self, concepts: Mapping[str, int]) -> KnowledgeBase:
        rows = self._shape("concept_emb_mat", 2)[0]
        fitting = [base for base in KNOWLEDGE_BASES if concepts.get(base.name) == rows - 1]
        if len(fitting) != 1:
            known = ", ".join(f"{base.label} {concepts[base.name]}" for base in KNOWLEDGE_BASES
                              if base.name in concepts) or "none"
            raise InputError(f"{self._source.place('concept_emb_mat')}: {rows - 1} concepts, the vectors below "
                             f"--data_url have other numbers ({known}); put the authors' vectors there "
                             "(scripts/get_data.sh), so that it is known which memory this is")
        return fitting[0]

    @property
    def bases(self) -> tuple[KnowledgeBase, ...]:
        """The knowledge bases that the network reads, in the order of its memories."""
        return tuple(self._prefixes)

    def _table_name(self, base: KnowledgeBase) -> str:
        return f"{self._prefixes[base]}concept_emb_mat"

    def _shape(self, name: str, rank: int) -> tuple[int, ...]:
        if name not in self._source.names:
            raise InputError(f"{self._source.place(name)}: missing; a trained KT-NET of the authors has it: unpack the "
                             "archive again")
        shape = self._source.shape(name)
        if len(shape) != rank:
            raise InputError(f"{self._source.place(name)}: shape {list(shape)}, wanted are {rank} dimensions")
        return shape

    def config(self, bert: BertConfig, max_seq_len: int) -> KTNetConfig:
        """The sizes of our network."""
        memories = []
        for base in self.bases:
            rows, width = (round_up(size, self._multiple) for size in self._shape(self._table_name(base), 2))
            memories.append(MemoryConfig(base.name, rows, width, base.max_concepts))
        return KTNetConfig(bert, tuple(memories), max_seq_len)

    def parameters(self, config: KTNetConfig) -> dict[str, np.ndarray]:
        """All of them under our names, in our orientation and padded, float32.

        Raises:
            InputError: one is missing or has another shape than the others ask for.
        """
        widths = [self._shape(self._table_name(base), 2)[1] for base in self.bases]
        parts = [config.bert.hidden_size, *widths]                                  # of u, theirs
        padded = [config.bert.hidden_size, *(memory.width for memory in config.memories)]
        expected = self._expected(parts)
        for name, shape in expected.items():
            if self._shape(name, len(shape)) != shape:
                raise InputError(f"{self._source.place(name)}: shape {list(self._source.shape(name))}, the other "
                                 f"parameters ask for {list(shape)}; the folder mixes two networks")
        read_any = self._source.reader(list(expected))

        def read(name: str) -> np.ndarray:
            return check_finite(read_any(name), self._source.place(name))

        values = {ours: read(theirs) for ours, theirs in PLAIN.items()}
        values |= {ours: insert_zeros(read(theirs), parts, padded) for ours, theirs in WIDE.items()}
        values["dense1.weight"] = insert_zeros(read(ANSWER), parts * BLOCKS, padded * BLOCKS).T
        for (base, prefix), memory in zip(self._prefixes.items(), config.memories, strict=True):
            table = read(self._table_name(base))
            sizes = [(0, memory.rows - table.shape[0]), (0, memory.width - table.shape[1])]
            values[f"embedding_{base.name}.embedding_table"] = np.pad(table, sizes)
            layer = f"MemoryLayer_{base.name}"
            values[f"{layer}.dense_1.weight"] = np.pad(read(f"{prefix}memory_layer_projection.w_0").T,
                                                       [sizes[1], (0, 0)])
            values[f"{layer}.sentinel"] = np.pad(read(f"{prefix}memory_layer_sentinel"), [sizes[1]])
        return {name: np.ascontiguousarray(array) for name, array in values.items()}

    def _expected(self, parts: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """Their names -> shapes, given the widths of u's parts."""
        fused = sum(parts)
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(WIDE.values(), (fused,))
        shapes |= {"self_matching_layer_bias": (1,), "cls_squad_out_b": (2,), ANSWER: (BLOCKS * fused, 2)}
        for (base, prefix), width in zip(self._prefixes.items(), parts[1:], strict=True):
            shapes[self._table_name(base)] = self._shape(self._table_name(base), 2)
            shapes[f"{prefix}memory_layer_projection.w_0"] = (parts[0], width)
            shapes[f"{prefix}memory_layer_sentinel"] = (width,)
        return shapes


def insert_zeros(values: np.ndarray, parts: Sequence[int], padded: Sequence[int]) -> np.ndarray:
    """Cut the rows into parts and put zeros after each: float32 [sum(parts), ...] -> [sum(padded), ...]."""
    pieces = np.split(values, np.cumsum(parts)[:-1])
    rest = [(0, 0)] * (values.ndim - 1)
    return np.concatenate([np.pad(piece, [(0, width - len(piece)), *rest])
                           for piece, width in zip(pieces, padded, strict=True)])
