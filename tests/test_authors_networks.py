# SPDX-License-Identifier: Apache-2.0
"""KT-NETs as the authors left them, written here with random weights, converted: the logits are the reference's."""
from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

ms = pytest.importorskip("mindspore")
from src import bert_ms_format  # noqa: E402
from src.config import KNOWLEDGE_BASES, NELL, WORDNET, BertConfig, DataFolder, KTNetConfig, MemoryConfig  # noqa: E402
from src.knowledge.concepts import concept_digest, write_concept_vectors  # noqa: E402
from src.KTNET import KTNET  # noqa: E402
from src.weights.checkpoint import load_weights, open_checkpoint  # noqa: E402
from testing import reference  # noqa: E402
from tests.test_bert_ms_format import EMBEDDINGS, LAYER, listing, persistable  # noqa: E402
from utils.util import InputError, text_digest  # noqa: E402

WIDTH = 10                          # of the vectors: no multiple of 16, as the authors' 100
CONCEPTS = {"wn": 21, "nell": 12}   # with row 0 no multiples of 16 either
BERT = BertConfig(vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
                  max_position_embeddings=384)
MATCH = "TriLinearTwoTimeSelfAttentionLayer"


def authors_config(bases):
    """Sizes of their network: no padding."""
    return KTNetConfig(BERT, tuple(MemoryConfig(base.name, CONCEPTS[base.name] + 1, WIDTH, base.max_concepts)
                                   for base in bases))


def vectors_of(parameters, base):
    return parameters[f"embedding_{base.name}.embedding_table"][1:]


def write_authors(folder, bases, parameters):
    """Their names, written down a second time from the specification."""
    folder.mkdir(parents=True)
    files = {theirs: (parameters[ours], transposed) for ours, _, theirs, transposed in EMBEDDINGS}
    for number in range(BERT.num_hidden_layers):
        files |= {f"encoder_layer_{number}_{theirs}": (parameters[f"bert.bert_encoder.layers.{number}.{ours}"], turned)
                  for ours, _, theirs, turned in LAYER}
    for base in bases:
        prefix = f"{base.name}_" if len(bases) > 1 else ""
        files[f"{prefix}memory_layer_projection.w_0"] = parameters[f"MemoryLayer_{base.name}.dense_1.weight"], True
        files[f"{prefix}memory_layer_sentinel"] = parameters[f"MemoryLayer_{base.name}.sentinel"], False
        files[f"{prefix}concept_emb_mat"] = parameters[f"embedding_{base.name}.embedding_table"], False
    files |= {"self_matching_layer_weight1": (parameters[f"{MATCH}.weight_1"], False),
              "self_matching_layer_weight2": (parameters[f"{MATCH}.weight_2"], False),
              "self_matching_layer_weightmul": (parameters[f"{MATCH}.weight_mul"], False),
              "self_matching_layer_bias": (parameters[f"{MATCH}.bias"], False),
              "cls_squad_out_w": (parameters["dense1.weight"], True),
              "cls_squad_out_b": (parameters["dense1.bias"], False)}
    for name, (values, transposed) in files.items():
        data = persistable(np.ascontiguousarray(values.T if transposed else values))
        (folder / name).write_bytes(data)
        (folder / f"{name}_moment1_0").write_bytes(data)
        (folder / f"{name}_beta1_pow_acc_0").write_bytes(persistable(np.ones(1, np.float32)))
    (folder / "scheduled_learning_rate").write_bytes(persistable(np.ones(1, np.float32)))
    return folder


def make_folder(root, bases, kind):
    """A data folder with the vectors and the encoder's files, and the authors' folder beside it."""
    parameters = reference.random_parameters(authors_config(bases), 11)
    every = reference.random_parameters(authors_config(KNOWLEDGE_BASES), 12)
    data = DataFolder(root / "data")
    names = {}
    for base in KNOWLEDGE_BASES:
        names[base.name] = [f"{base.name}{number}" for number in range(CONCEPTS[base.name])]
        write_concept_vectors(data.vectors(base), names[base.name],
                              vectors_of(parameters if base in bases else every, base))
    data.bert().mkdir()
    (data.bert() / "bert_config.json").write_text(json.dumps(dataclasses.asdict(BERT)))
    (data.bert() / "vocab.txt").write_bytes(b"".join(b"piece%d\r\n" % i for i in range(BERT.vocab_size)))
    return data, write_authors(root / f"KTNET_fine-tuned-model_{kind}", bases, parameters), parameters, names


def convert(data, folder, *more):
    bert_ms_format.main(["--data_url", str(data.root), "--source", str(folder), *more])


@pytest.mark.slow
@pytest.mark.parametrize(("bases", "kind"), [(KNOWLEDGE_BASES, "squad_both"), ((WORDNET,), "record_wordnet"),
                                             ((NELL,), "squad_nell")])
def test_logits_are_the_reference_s(tmp_path, bases, kind):
    data, folder, parameters, names = make_folder(tmp_path, bases, kind)
    convert(data, folder)
    dataset = kind.partition("_")[0]
    checkpoint = open_checkpoint(data.root / f"KTNET_{dataset}_authors.ckpt")
    config = checkpoint.config
    assert config == KTNetConfig(BERT, tuple(
        MemoryConfig(base.name, 32 if base is WORDNET else 16, 16, base.max_concepts,
                     concept_digest(names[base.name])) for base in bases), 384, dataset,
        text_digest(data.bert() / "vocab.txt"))
    network = KTNET(config)
    assert not load_weights(network, checkpoint).ignored
    if reference.torch is None:
        pytest.skip("PyTorch is not installed: the logits are NOT compared")
    theirs = dataclasses.replace(authors_config(bases), max_seq_len=24)
    columns = reference.random_columns(theirs, 2, 3)
    inputs = [columns[name] for name in ("input_mask", "src_ids", "pos_ids", "sent_ids",
                                         *(memory.column for memory in theirs.memories))]
    ms.set_context(mode=ms.GRAPH_MODE)
    found = network.set_train(False)(*map(ms.Tensor, inputs)).asnumpy()
    expected = reference.logits(parameters, theirs, columns)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("authors"), KNOWLEDGE_BASES, "squad_both")


def other_file(path, change):
    """The file changed, and back afterwards."""
    class Changed:
        def __enter__(self):
            self.before = path.read_bytes()
            change(path)

        def __exit__(self, *_):
            path.write_bytes(self.before)
    return Changed()


@pytest.mark.parametrize(("name", "change", "message"), [
    ("self_matching_layer_weight2", lambda path: path.unlink(), "self_matching_layer_weight2: missing"),
    ("nell_memory_layer_sentinel", lambda path: path.write_bytes(persistable(np.zeros(11, np.float32))),
     r"nell_memory_layer_sentinel: shape \[11\], the other parameters ask for \[10\]"),
    ("cls_squad_out_b", lambda path: path.write_bytes(persistable(np.full(2, np.nan, np.float32))),
     "cls_squad_out_b: holds NaN or infinite values"),
    ("wn_concept_emb_mat", lambda path: path.write_bytes(persistable(np.ones((22, 10), np.float32))),
     "wn_concept2vec.txt: not the vectors of the network's table")])
def test_folders_that_cannot_be_used(both, name, change, message):
    data, folder, _, _ = both
    before = listing(data.root)
    with other_file(folder / name, change), pytest.raises(InputError, match=message):
        convert(data, folder)
    assert listing(data.root) == before


def test_a_single_memory_of_unknown_vectors(tmp_path):
    data, folder, _, _ = make_folder(tmp_path, (WORDNET,), "squad_wordnet")
    write_concept_vectors(data.vectors(WORDNET), ["one"], np.ones((1, WIDTH), np.float32))
    with pytest.raises(InputError, match="concept_emb_mat: 21 concepts, the vectors below --data_url have other"):
        convert(data, folder)


def test_the_data_set_must_be_known(both, tmp_path):
    data, folder, _, _ = both
    other = tmp_path / "unpacked"
    folder_copy = other / "step_1000"
    folder_copy.mkdir(parents=True)
    for path in folder.iterdir():
        (folder_copy / path.name).symlink_to(path)
    with pytest.raises(InputError, match="--dataset: .* does not name the data set"):
        convert(data, folder_copy)
    convert(data, folder_copy, "--dataset", "record", "--output", str(tmp_path / "own.ckpt"))
    assert open_checkpoint(tmp_path / "own.ckpt").config.dataset == "record"
    other.rename(tmp_path / "KTNET_fine-tuned-model_squad_both")           # a folder in the archive's own
    convert(data, tmp_path / "KTNET_fine-tuned-model_squad_both", "--output", str(tmp_path / "own.ckpt"))
    assert open_checkpoint(tmp_path / "own.ckpt").config.dataset == "squad"
