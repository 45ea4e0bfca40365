# SPDX-License-Identifier: Apache-2.0
"""Triples, filtered ranks and the training of concept vectors."""
from __future__ import annotations

import json

import numpy as np
import pytest

import train_kb_embedding
from src.knowledge.concepts import read_concept_vectors
from src.knowledge.triples import number_triples, rank_test_set, read_triples
from src.settings import EmbeddingRecipe
from src.training import vectors
from src.training.vectors import DistMultLoss, batches
from testing.toy_wordnet import make_wordnet
from utils.util import InputError, run_main

FAMILY = [(f"child{number}", "parent", f"parent{number // 4}") for number in range(40)]


@pytest.mark.parametrize(("text", "words"), [
    ("a b\n", "line 1 has 2 words"), ("a r b\na r b c\n", "line 2 has 4 words"), ("", "empty")])
def test_faults_of_triples(tmp_path, text, words):
    path = tmp_path / "train.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=f"train.txt.*{words}"):
        read_triples(path)
    with pytest.raises(InputError, match="no such file"):
        read_triples(tmp_path / "test.txt")


def test_names_with_blanks_and_assertions_of_conceptnet(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("\ufeffheart attack\taffects\theart\na r b\n"
                    "/a/[/r/IsA/,/c/en/dog/,/c/en/pet/]\t/r/IsA\t/c/en/dog\t/c/en/pet\t{}\n", encoding="utf-8")
    assert read_triples(path) == [("heart_attack", "affects", "heart"), ("a", "r", "b"),
                                  ("/c/en/dog", "/r/IsA", "/c/en/pet")]
    path.write_text("a\t\tb\n")
    with pytest.raises(InputError, match="line 1"):
        read_triples(path)


def test_numbers_follow_first_use():
    graph = number_triples([("b", "r", "a")], [("a", "s", "c")], [("d", "r", "a")])
    assert graph.entities == ("b", "a", "c", "d") and graph.relations == ("r", "s")
    assert graph.known.tolist() == [[0, 0, 1], [1, 1, 2], [3, 0, 1]]
    assert graph.with_reciprocals(graph.test).tolist() == [[1, 1, 2], [2, 3, 1]]


def test_ranks_are_filtered_and_ties_share():
    graph = number_triples([("a", "r", "b"), ("a", "r", "c")], [("a", "r", "d")])
    entities = np.array([[1.0], [9.0], [8.0], [2.0]], np.float32)      # a, b, c, d
    relations = np.array([[1.0], [1.0]], np.float32)
    # Tail: b and c are true as well, so d is first. Head: of b 9, c 8, d 2 and a 1 nothing else is true: a is last.
    ranking = rank_test_set(graph, entities, relations)
    assert ranking.mrr_tail == 1.0 and ranking.mrr_head == pytest.approx(1 / 4)
    assert ranking.mrr == pytest.approx(5 / 8) and ranking.hits_at_10 == 1.0
    same = rank_test_set(graph, np.ones((4, 1), np.float32), relations)
    assert same.mrr_tail == pytest.approx(1 / (1 + 1 / 2))      # a and d tie
    many = number_triples([("a", "r", "b")] + [(f"e{number}", "s", "b") for number in range(30)], [("a", "s", "b")])
    worst = np.ones((len(many.entities), 1), np.float32)
    worst[1] = -1
    assert rank_test_set(many, worst, np.ones((4, 1), np.float32)).hits_at_10 == 0.5      # the tail is last of 32


def test_batches_depend_on_seed_and_epoch_alone():
    config = EmbeddingRecipe(batch_size=16, negatives=5)
    questions = np.arange(120, dtype=np.int32).reshape(40, 3)

    def epoch(number: int, **changes) -> list[list[int]]:
        parts = batches(questions, 40, EmbeddingRecipe(**{**vars(config), **changes}), number)
        return [[column.asnumpy().tolist() for column in part] for part in parts]

    first = epoch(0)
    assert first == epoch(0) != epoch(1) and first != epoch(0, random_seed=1)
    assert [len(part[0]) for part in first] == [16, 16, 16] and {len(part[3]) for part in first} == {5}
    assert sorted(sum((part[0] for part in first), []))[0] == 0 and {sum(part[0]) for part in first} != {0}
    assert set(sum((part[0] for part in first), [])) == set(questions[:, 0].tolist())


def test_the_loss_is_the_softmax_over_rivals_that_are_not_the_answer():
    config = EmbeddingRecipe(width=4, batch_size=3, negatives=2, regularization=0.5)
    network = DistMultLoss(6, 2, config)
    entities, relations = network.entities.asnumpy(), network.relations.asnumpy()
    heads, kinds, tails, negatives = (np.array(values, np.int32) for values in (
        [0, 1, 2], [0, 1, 0], [3, 4, 3], [3, 5]))      # tail 3 comes twice, and is drawn as a rival as well
    import mindspore as ms
    loss = float(network(*(ms.Tensor(values) for values in (heads, kinds, tails, negatives))).asnumpy())
    candidates = np.concatenate([tails, negatives])
    expected = 0.0
    for row in range(3):
        scores = (entities[heads[row]] * relations[kinds[row]]) @ entities[candidates].T
        keep = [place for place in range(5) if place == row or candidates[place] != tails[row]]
        expected += np.log(np.exp(scores[keep]).sum()) - scores[row]
        expected += 0.5 * sum((np.abs(vector) ** 3).sum() for vector in (
            entities[heads[row]], relations[kinds[row]], entities[tails[row]]))
    assert loss == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_training_learns_and_writes(tmp_path):
    """Brothers and sisters: a test child's parent can only be known from the reciprocal "child" it was trained on."""
    (tmp_path / "kin").mkdir()
    turned = [(tail, "child", head) for head, _, tail in FAMILY]
    train = FAMILY[:32] + turned
    (tmp_path / "kin" / "train.txt").write_text("".join("\t".join(triple) + "\n" for triple in train))
    (tmp_path / "kin" / "test.txt").write_text("".join("\t".join(triple) + "\n" for triple in FAMILY[32:]))
    output = tmp_path / "KB_embeddings" / "kin_concept2vec.txt"
    train_kb_embedding.main(["--triples", str(tmp_path / "kin"), "--output", str(output), "--width", "16",
                             "--epoch", "60", "--batch_size", "24", "--negatives", "16"])
    names, table = read_concept_vectors(output)
    assert table.shape == (50, 16) and names[:2] == ["child0", "parent0"]
    metrics = json.loads(output.with_suffix(".metrics.json").read_text())
    assert metrics["mrr_tail"] > 0.9 and metrics["hits_at_10"] == 1.0
    assert metrics["mrr"] == pytest.approx((metrics["mrr_tail"] + metrics["mrr_head"]) / 2)


@pytest.mark.parametrize("loss", [float("nan"), 1.0])
def test_a_training_that_diverges_is_no_success(monkeypatch, loss):
    """Ranks of vectors that are no numbers would all be 1."""
    class Step:
        def __init__(self, network, _):
            network.entities.set_data(vectors.ms.Tensor(np.full(network.entities.shape, np.nan, np.float32)))

        def set_train(self):
            pass

        def __call__(self, *_):
            return vectors.ms.Tensor(loss)

    monkeypatch.setattr(vectors.nn, "TrainOneStepCell", Step)
    with pytest.raises(InputError, match="diverged.*lower --learning_rate"):
        vectors.train_vectors(number_triples(FAMILY), EmbeddingRecipe(width=2, epoch=1, batch_size=40, negatives=1))


@pytest.mark.slow
def test_either_held_back_file_can_judge(tmp_path):
    for name in ("train", "test", "valid"):
        (tmp_path / f"{name}.txt").write_text(f"a r {name}\n")
    for judge, other in (("test", "valid"), ("valid", "test")):
        graph = train_kb_embedding.read_graph(tmp_path, tmp_path, judge)
        assert graph.entities == ("a", "train", judge, other)
        assert graph.test.tolist() == [[0, 0, 2]] and graph.known.tolist() == [[0, 0, 1], [0, 0, 2], [0, 0, 3]]
    (tmp_path / "valid.txt").unlink()
    assert len(train_kb_embedding.read_graph(tmp_path, tmp_path, "valid").test) == 0


def test_wordnets_own_relations_are_triples(tmp_path):
    make_wordnet(tmp_path / "nltk" / "corpora" / "wordnet")
    graph = train_kb_embedding.read_graph(None, tmp_path)
    assert graph.relations == ("_hypernym", "_similar_to") and "__river_NN_1" in graph.entities and len(graph.test) == 0


def test_a_missing_folder_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        run_main(train_kb_embedding.main, ["--triples", str(tmp_path / "no"), "--output", str(tmp_path / "v.txt")])
    assert stop.value.code == 2 and "train.txt: no such file" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_noticed_before_training(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for output, words in ((tmp_path, "a folder; name a file in it"), (tmp_path / "file" / "v.txt", "file")):
        with pytest.raises(SystemExit) as stop:
            run_main(train_kb_embedding.main, ["--triples", str(tmp_path / "no"), "--output", str(output)])
        error = capsys.readouterr().err.strip()
        assert stop.value.code == 2 and str(tmp_path) in error and words in error and "\n" not in error
        assert "train.txt" not in error      # it was looked at first
