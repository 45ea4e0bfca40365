"""The network that also returns the attention of its memories, for the viewer."""
from __future__ import annotations

from mindspore import Tensor

from src.KTNET import KTNET


class KTNETAttention(KTNET):
    """KT-NET that also returns the attention of every memory; a separate class, so that the others stay as fast."""

    def construct(self, input_mask: Tensor, src_ids: Tensor, pos_ids: Tensor, sent_ids: Tensor,
                  *concept_ids: Tensor) -> tuple[Tensor, ...]:
        """Score every position, and return what every word piece read from the knowledge bases.

        Args:
            input_mask: as for :class:`src.KTNET.KTNET`, like the others.
            src_ids: int32 [B, S].
            pos_ids: int32 [B, S].
            sent_ids: int32 [B, S].
            concept_ids: int32 [B, S, K, 1] for each knowledge base.

        Returns:
            The logits float32 [2, B, S], then for each knowledge base the attention float32 [B, S, 1 + K]: the
            sentinel's weight, then those of the concepts. The row of a word piece without concepts is meaningless.
        """
        hidden = self.bert(input_mask, src_ids, pos_ids, sent_ids, self.first_step)        # [B*S, H]
        results = (self.score_hidden(hidden, input_mask, *concept_ids),)                   # [2, B, S]
        for number, ids in enumerate(concept_ids):
            flat = ids.reshape((-1, ids.shape[2]))                                         # [B*S, K]
            weights = self.memories[number].attend(hidden, flat, self.embeddings[number](flat))
            results = results + (weights.reshape((-1, ids.shape[1], weights.shape[2])),)   # [B, S, 1 + K]
        return results
