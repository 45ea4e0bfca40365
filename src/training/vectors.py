# SPDX-License-Identifier: Apache-2.0
"""DistMult vectors of a knowledge graph's entities: score(h, r, t) = sum(h * r * t), trained in MindSpore.

Each relation has a reciprocal, so every question is for a tail. The true tail competes in a softmax with the tails of
the other questions of its batch and with entities drawn at random. A score is the same from head and tail, so a chain
a -> b -> c asks of the vectors that b, which both a and c score high, be ranked differently from either side; the
softmax over each question's own candidates, with vectors of their own for the reciprocals, lets it be.
"""
from __future__ import annotations

from collections.abc import Iterator

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.knowledge.triples import Graph
from src.settings import EmbeddingRecipe
from utils.progress import Progress
from utils.util import LOGGER, InputError

START_OF_SQUARES = 1e-10       # Adagrad's sums start here: the first steps are of full size
INITIAL_SCALE = 0.1


class DistMultLoss(nn.Cell):
    """Cross-entropy of the true tails, summed over a batch.

    Args:
        entities: E.
        relations: R, reciprocals included.
        recipe: sizes and weights.
    """

    def __init__(self, entities: int, relations: int, recipe: EmbeddingRecipe) -> None:
        super().__init__(auto_prefix=False)
        rng = np.random.default_rng(recipe.random_seed)
        shapes = {"entities": (entities, recipe.width), "relations": (relations, recipe.width)}
        start = {name: rng.normal(0, INITIAL_SCALE, shape).astype(np.float32) for name, shape in shapes.items()}
        self.entities = Parameter(Tensor(start["entities"]), name="entities")
        self.relations = Parameter(Tensor(start["relations"]), name="relations")
        self.regularization = recipe.regularization
        self.cross_entropy = ops.SparseSoftmaxCrossEntropyWithLogits()
        size = recipe.batch_size
        self.labels = Tensor(np.arange(size, dtype=np.int32))
        own = np.zeros((size, size + recipe.negatives), np.float32)
        np.fill_diagonal(own, 1)
        self.others = Tensor(1 - own)      # 0 where a candidate is the question's own tail
        self.size = float(size)

    def construct(self, heads: Tensor, relations: Tensor, tails: Tensor, negatives: Tensor) -> Tensor:
        """The loss of a batch; every argument is int32, [B] but for the N negatives."""
        head = ops.gather(self.entities, heads, 0)                                  # [B, D]
        relation = ops.gather(self.relations, relations, 0)                         # [B, D]
        candidates = ops.concat((tails, negatives))                                 # [B+N]
        candidate = ops.gather(self.entities, candidates, 0)                        # [B+N, D]
        scores = ops.matmul(head * relation, candidate.T)                           # [B, B+N]
        same = ops.equal(candidates.expand_dims(0), tails.expand_dims(1))
        scores = scores - 1e9 * same.astype(ms.float32) * self.others               # a tail is no rival of itself
        loss = self.cross_entropy(scores, self.labels) * self.size
        if self.regularization > 0:
            tail = candidate[:self.labels.shape[0]]
            cubes = (ops.abs(head) ** 3).sum() + (ops.abs(relation) ** 3).sum() + (ops.abs(tail) ** 3).sum()
            loss = loss + self.regularization * cubes
        return loss


def batches(questions: np.ndarray, entities: int, recipe: EmbeddingRecipe, epoch: int) -> Iterator[tuple[Tensor, ...]]:
    """The batches of an epoch, a function of seed and epoch; the last one is filled up from the epoch's start."""
    rng = np.random.default_rng((recipe.random_seed, epoch))
    order = rng.permutation(len(questions))
    whole = -(-len(order) // recipe.batch_size) * recipe.batch_size
    order = np.resize(order, whole)
    for start in range(0, whole, recipe.batch_size):
        part = questions[order[start:start + recipe.batch_size]]
        negatives = rng.integers(0, entities, recipe.negatives, dtype=np.int32)
        yield (*(Tensor(np.ascontiguousarray(part[:, column])) for column in range(3)), Tensor(negatives))


def train_vectors(graph: Graph, recipe: EmbeddingRecipe) -> tuple[np.ndarray, np.ndarray]:
    """Train on a graph's training triples.

    Returns:
        Vectors of the E entities, float32 [E, D], and of the R relations and their reciprocals, float32 [2R, D].

    Raises:
        InputError: the training has diverged.
    """
    questions = graph.with_reciprocals(graph.train)
    network = DistMultLoss(len(graph.entities), 2 * len(graph.relations), recipe)
    optimizer = nn.Adagrad(network.trainable_params(), accum=START_OF_SQUARES, learning_rate=recipe.learning_rate)
    step = nn.TrainOneStepCell(network, optimizer)
    step.set_train()
    steps = -(-len(questions) // recipe.batch_size)
    with Progress("training", recipe.epoch * steps, "steps") as progress:
        for epoch in range(recipe.epoch):
            total = 0.0
            for batch in batches(questions, len(graph.entities), recipe, epoch):
                total += float(step(*batch).asnumpy())
                progress.update()
            if not np.isfinite(total):
                raise InputError(f"epoch {epoch + 1}: the loss is {total}: the training has diverged; lower "
                                 "--learning_rate or --regularization")
            LOGGER.info("epoch %d of %d: loss %.4f", epoch + 1, recipe.epoch, total / (steps * recipe.batch_size))
    vectors = network.entities.asnumpy(), network.relations.asnumpy()
    if not all(np.isfinite(values).all() for values in vectors):
        raise InputError("the training has diverged in its last epoch; lower --learning_rate or --regularization")
    return vectors
