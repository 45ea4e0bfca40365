# SPDX-License-Identifier: Apache-2.0
"""Encoders made elsewhere, written by the tests themselves, converted."""
import dataclasses
import importlib.util
import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from src import bert_ms_format
from src.config import BertConfig
from src.weights.names import name_rules
from src.weights.persistables import read_persistable
from testing import reference
from utils.util import InputError

ROOT = Path(__file__).parents[1]
CONFIG = BertConfig(vocab_size=23, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12,
                    max_position_embeddings=10)

# Written down a second time on purpose: ours, HuggingFace's, Paddle's, and whether Paddle has it transposed.
EMBEDDINGS = [
    ("bert.bert_embedding_lookup.embedding_table", "embeddings.word_embeddings.weight", "word_embedding", False),
    ("bert.bert_embedding_postprocessor.embedding_table", "embeddings.token_type_embeddings.weight",
     "sent_embedding", False),
    ("bert.bert_embedding_postprocessor.full_position_embeddings", "embeddings.position_embeddings.weight",
     "pos_embedding", False),
    ("bert.bert_embedding_postprocessor.layernorm.gamma", "embeddings.LayerNorm.weight",
     "pre_encoder_layer_norm_scale", False),
    ("bert.bert_embedding_postprocessor.layernorm.beta", "embeddings.LayerNorm.bias",
     "pre_encoder_layer_norm_bias", False),
]
LAYER = [
    ("attention.attention.query_layer.weight", "attention.self.query.weight", "multi_head_att_query_fc.w_0", True),
    ("attention.attention.query_layer.bias", "attention.self.query.bias", "multi_head_att_query_fc.b_0", False),
    ("attention.attention.key_layer.weight", "attention.self.key.weight", "multi_head_att_key_fc.w_0", True),
    ("attention.attention.key_layer.bias", "attention.self.key.bias", "multi_head_att_key_fc.b_0", False),
    ("attention.attention.value_layer.weight", "attention.self.value.weight", "multi_head_att_value_fc.w_0", True),
    ("attention.attention.value_layer.bias", "attention.self.value.bias", "multi_head_att_value_fc.b_0", False),
    ("attention.output.dense.weight", "attention.output.dense.weight", "multi_head_att_output_fc.w_0", True),
    ("attention.output.dense.bias", "attention.output.dense.bias", "multi_head_att_output_fc.b_0", False),
    ("attention.output.layernorm.gamma", "attention.output.LayerNorm.weight", "post_att_layer_norm_scale", False),
    ("attention.output.layernorm.beta", "attention.output.LayerNorm.bias", "post_att_layer_norm_bias", False),
    ("intermediate.weight", "intermediate.dense.weight", "ffn_fc_0.w_0", True),
    ("intermediate.bias", "intermediate.dense.bias", "ffn_fc_0.b_0", False),
    ("output.dense.weight", "output.dense.weight", "ffn_fc_1.w_0", True),
    ("output.dense.bias", "output.dense.bias", "ffn_fc_1.b_0", False),
    ("output.layernorm.gamma", "output.LayerNorm.weight", "post_ffn_layer_norm_scale", False),
    ("output.layernorm.beta", "output.LayerNorm.bias", "post_ffn_layer_norm_bias", False),
]
NAMES = EMBEDDINGS + [(f"bert.bert_encoder.layers.{i}.{ours}", f"encoder.layer.{i}.{theirs}",
                       f"encoder_layer_{i}_{paddle}", transposed)
                      for i in range(CONFIG.num_hidden_layers) for ours, theirs, paddle, transposed in LAYER]


# -------------------------------------------------------------------------------------------------------- fixtures
def make_parameters(seed=3):
    random = np.random.default_rng(seed)
    return {name: random.standard_normal(shape).astype(np.float32)
            for name, shape in reference.encoder_shapes(CONFIG).items()}


def write_companions(folder, config=CONFIG, name="config.json", **settings_):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps({**dataclasses.asdict(config), "model_type": "bert", **settings_}))
    (folder / "vocab.txt").write_text("".join(f"piece{i}\n" for i in range(config.vocab_size)))


def huggingface_tensors(parameters, prefix="", old_norms=False):
    tensors = {}
    for ours, theirs, _, _ in NAMES:
        if old_norms and "LayerNorm" in theirs:
            theirs = theirs.replace(".weight", ".gamma").replace(".bias", ".beta")
        tensors[prefix + theirs] = parameters[ours]
    return tensors


def write_huggingface(folder, tensors):
    write_companions(folder)
    save_file(tensors, folder / "model.safetensors")
    return folder


def varint(value):
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def persistable(values, data_type=5):
    """Bytes of one parameter in the layout of Paddle 1.x."""
    description = b"\x08" + varint(data_type) + b"".join(b"\x10" + varint(size) for size in values.shape)
    return struct.pack("<IQIi", 0, 0, 0, len(description)) + description + values.tobytes()


def write_paddle(folder, parameters):
    write_companions(folder, name="bert_config.json")
    (folder / "params").mkdir()
    for ours, _, paddle, transposed in NAMES:
        values = np.ascontiguousarray(parameters[ours].T if transposed else parameters[ours])
        (folder / "params" / paddle).write_bytes(persistable(values))
    return folder


@pytest.fixture
def no_paddle(monkeypatch):
    monkeypatch.setitem(sys.modules, "paddle", None)    # import paddle raises ImportError


def read(folder, config=CONFIG, reader="builtin"):
    return bert_ms_format.read_parameters(bert_ms_format.open_source(folder, reader), config)


def assert_equal(found, wanted):
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def listing(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# ---------------------------------------------------------------------------------------------------- what goes well
def test_names_and_shapes_are_the_specification_s():
    assert {rule.target: rule.shape(CONFIG) for rule in name_rules(CONFIG)} == reference.encoder_shapes(CONFIG)


@pytest.mark.parametrize("prefix", ["", "bert."])
@pytest.mark.parametrize("old_norms", [False, True])
def test_huggingface_names(tmp_path, prefix, old_norms):
    parameters = make_parameters()
    tensors = huggingface_tensors(parameters, prefix, old_norms)
    tensors[prefix + "embeddings.position_ids"] = np.arange(10)[None]
    tensors[prefix + "pooler.dense.weight"] = np.zeros((8, 8), np.float32)
    tensors["cls.predictions.bias"] = np.zeros(23, np.float32)
    assert_equal(read(write_huggingface(tmp_path / "source", tensors)), parameters)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_precisions(tmp_path, dtype):
    tensors = {name: values.astype(dtype) for name, values in huggingface_tensors(make_parameters()).items()}
    found = read(write_huggingface(tmp_path, tensors))
    for ours, theirs, _, _ in NAMES:
        assert found[ours].dtype == np.float32
        np.testing.assert_array_equal(found[ours], tensors[theirs].astype(np.float32))


def test_bfloat16(tmp_path):
    """The upper half of a float32; the file is written by hand, because NumPy knows no such type."""
    write_companions(tmp_path)
    header, data, wanted = {}, b"", {}
    for ours, theirs, _, _ in NAMES:
        values = make_parameters()[ours]
        bits = (values.view(np.uint32) >> 16).astype(np.uint16)
        wanted[ours] = (bits.astype(np.uint32) << 16).view(np.float32)
        header[theirs] = {"dtype": "BF16", "shape": list(values.shape),
                          "data_offsets": [len(data), len(data) + bits.nbytes]}
        data += bits.tobytes()
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    assert_equal(read(tmp_path), wanted)


def test_paddle_without_paddle(tmp_path, no_paddle):
    parameters = make_parameters()
    folder = write_paddle(tmp_path / "source", parameters)
    (folder / "params" / "README").write_text("no parameter")
    (folder / "params" / "encoder_layer_0_ffn_fc_0.b_0_moment1_0").write_text("no parameter either")
    (folder / "params" / "encoder_layer_0_ffn_fc_0.b_0_beta1_pow_acc_0").write_text("nor this")
    assert_equal(read(folder), parameters)


def test_paddle_s_own_folder_may_be_given(tmp_path, no_paddle):
    parameters = make_parameters()
    assert_equal(read(write_paddle(tmp_path / "source", parameters) / "params"), parameters)


def test_the_reader_is_never_switched_silently(tmp_path, no_paddle):
    folder = write_paddle(tmp_path / "source", make_parameters())
    with pytest.raises(InputError, match="--reader paddle: PaddlePaddle is not installed; install requirements-paddle"):
        read(folder, reader="paddle")


def test_builtin_takes_no_paddle(tmp_path, monkeypatch):
    """Even where it is installed."""
    monkeypatch.setitem(sys.modules, "paddle", object())
    assert_equal(read(write_paddle(tmp_path / "source", make_parameters())), make_parameters())


def test_paddle_with_paddle(tmp_path):
    if importlib.util.find_spec("paddle") is None:
        pytest.skip("paddlepaddle is not installed: its own reading of a persistables folder is NOT tested")
    import paddle
    parameters = make_parameters()
    folder = write_paddle(tmp_path / "source", parameters)
    (folder / "params" / "README").write_text("no parameter")
    assert_equal(read(folder, reader="paddle"), parameters)
    assert_equal(read(folder, reader="builtin"), parameters)
    # and what Paddle writes today in the old layout is byte for byte what this file's own writer makes
    for ours, _, name, transposed in NAMES:
        values = np.ascontiguousarray(parameters[ours].T if transposed else parameters[ours])
        paddle.save(paddle.to_tensor(values), str(tmp_path / "written" / name), use_binary_format=True)
        assert (tmp_path / "written" / name).read_bytes() == (folder / "params" / name).read_bytes()


NEWER_MINDSPORE = {"bert_embedding_postprocessor.embedding_table":
                   "bert_embedding_postprocessor.token_type_embedding.embedding_table",
                   "bert_embedding_postprocessor.full_position_embeddings":
                   "bert_embedding_postprocessor.full_position_embedding.embedding_table"}


@pytest.mark.parametrize("newer", [False, True])
def test_checkpoints_of_mindspore_s_bert(tmp_path, newer):
    """Names with one more "bert."; computed as that framework did, whatever its configuration says."""
    pytest.importorskip("mindspore")
    from src.weights.checkpoint import read_checkpoint, write_checkpoint

    parameters, source = make_parameters(), tmp_path / "source"
    write_companions(source, name="bert_config.json")
    renamed = {name.removeprefix("bert."): values for name, values in parameters.items()}
    if newer:
        renamed = {NEWER_MINDSPORE.get(name, name): values for name, values in renamed.items()}
    write_checkpoint(source / "bert_base.ckpt", {
        **{f"bert.bert.{name}": values for name, values in renamed.items()},
        "bert.bert.dense.weight": np.zeros((8, 8), np.float32), "bert.cls1.output_bias": np.zeros(23, np.float32),
        "moments.bert.bert.bert_encoder.layers.0.intermediate.bias": np.zeros(12, np.float32)})
    output = tmp_path / "output" / "roberta.ckpt"
    bert_ms_format.main(["--source", str(source / "bert_base.ckpt" if newer else source), "--output", str(output)])
    assert_equal({name: value.asnumpy() for name, value in read_checkpoint(output).items()}, parameters)
    assert BertConfig.from_json_file(output.with_name("bert_config.json")) == \
        dataclasses.replace(CONFIG, hidden_act="gelu_new", layer_norm_eps=1e-7)


def test_a_checkpoint_of_ours_needs_no_conversion(tmp_path):
    pytest.importorskip("mindspore")
    from src.weights.checkpoint import write_checkpoint

    write_companions(tmp_path / "source", name="bert_config.json")
    write_checkpoint(tmp_path / "source" / "own.ckpt", make_parameters())
    assert "needs no conversion" in refused(tmp_path / "source" / "own.ckpt", tmp_path / "out" / "roberta.ckpt")


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("write", [write_paddle, lambda folder, values: write_huggingface(
    folder, huggingface_tensors(values))])
def test_broken_weights_are_found(tmp_path, write, value):
    parameters = make_parameters()
    parameters["bert.bert_encoder.layers.1.output.dense.weight"][3, 2] = value
    message = refused(write(tmp_path / "source", parameters))
    assert "holds NaN or infinite values" in message and ("encoder.layer.1.output.dense.weight" in message
                                                          or "encoder_layer_1_ffn_fc_1.w_0" in message)


@pytest.mark.parametrize("data_type, dtype", [(4, np.float16), (6, np.float64)])
def test_persistables_of_other_precision(tmp_path, data_type, dtype):
    values = np.random.default_rng(0).standard_normal((300, 5)).astype(dtype)
    (tmp_path / "x").write_bytes(persistable(values, data_type))
    found = read_persistable(tmp_path / "x")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values.astype(np.float32))


def run_script(*arguments, by_path=True):
    start = ["src/bert_ms_format.py"] if by_path else ["-m", "src.bert_ms_format"]
    return subprocess.run([sys.executable, *start, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True,
                          timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("by_path", [True, False])
def test_the_script_leaves_a_whole_encoder_folder(tmp_path, by_path):
    mindspore = pytest.importorskip("mindspore")
    parameters = make_parameters()
    source = write_huggingface(tmp_path / "source", huggingface_tensors(parameters))
    result = run_script("--source", source, "--data_url", tmp_path / "data", by_path=by_path)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "data" / "cased_L-24_H-1024_A-16"
    assert listing(folder) == ["bert_config.json", "roberta.ckpt", "vocab.txt"]
    loaded = mindspore.load_checkpoint(str(folder / "roberta.ckpt"))
    assert_equal({name: value.asnumpy() for name, value in loaded.items()}, parameters)
    assert BertConfig.from_json_file(folder / "bert_config.json") == CONFIG
    assert (folder / "vocab.txt").read_bytes() == (source / "vocab.txt").read_bytes()


def test_the_data_folder_s_own_archive_is_the_default(tmp_path, no_paddle, monkeypatch):
    written = {}
    pytest.importorskip("mindspore")
    monkeypatch.setattr("src.weights.checkpoint.write_checkpoint", lambda path, values: written.update({path: values}))
    folder = write_paddle(tmp_path / "cased_L-24_H-1024_A-16", make_parameters())
    bert_ms_format.main(["--data_url", str(tmp_path)])
    assert_equal(written.pop(folder / "roberta.ckpt"), make_parameters())
    assert not written and listing(folder) == ["bert_config.json", "params", "vocab.txt"]


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    mindspore = pytest.importorskip("mindspore")
    from src.weights.checkpoint import write_checkpoint

    def half_write(entries, path, **_):
        Path(path).with_suffix(".tmp").write_bytes(b"half")      # MindSpore writes there first
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mindspore, "save_checkpoint", half_write)
    with pytest.raises(InputError, match="roberta.ckpt: cannot be written .No space left on device"):
        write_checkpoint(tmp_path / "roberta.ckpt", {"x": np.zeros(3, np.float32)})
    assert listing(tmp_path) == []


@pytest.mark.slow
def test_what_a_killed_write_left_is_swept(tmp_path):
    """Also what a write in progress has there stays."""
    pytest.importorskip("mindspore")
    from src.weights.checkpoint import _workplace, write_checkpoint

    killed = "import os, sys, mindspore as ms\n" \
        "from src.weights.checkpoint import write_checkpoint\n" \
        "ms.save_checkpoint = lambda entries, path, **_: (open(path[:-5] + '.tmp', 'w').close(), os._exit(9))\n" \
        "write_checkpoint(sys.argv[1], {})"
    path = tmp_path / "roberta.ckpt"
    assert subprocess.run([sys.executable, "-c", killed, path], cwd=ROOT, check=False).returncode == 9
    assert len(listing(tmp_path)) == 2                           # MindSpore's folder, and our own temporary file
    with _workplace(tmp_path / "other.ckpt") as living:
        write_checkpoint(path, {"x": np.zeros(3, np.float32)})
        assert sorted(listing(tmp_path)) == sorted(["roberta.ckpt", living.name])


def test_a_flipped_bit_is_found(tmp_path):
    pytest.importorskip("mindspore")
    from src.weights.checkpoint import read_checkpoint, write_checkpoint

    path = tmp_path / "x.ckpt"
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    write_checkpoint(path, {"x": values})
    np.testing.assert_array_equal(read_checkpoint(path)["x"].asnumpy(), values)
    whole = path.read_bytes()
    for place in (10, 2000, len(whole) - 17, len(whole) - 1):   # the name, a number, the mark of the CRC, the CRC
        broken = bytearray(whole)
        broken[place] ^= 4
        path.write_bytes(broken)
        with pytest.raises(InputError, match="x.ckpt: not a complete MindSpore checkpoint"):
            read_checkpoint(path)


# ------------------------------------------------------------------------------------------------- what goes wrong
def refused(folder, output=None):
    """The one line that a conversion is refused with; nothing is written."""
    output = output or folder.parent / "output" / "roberta.ckpt"
    before = listing(output.parent)
    with pytest.raises(InputError) as caught:
        bert_ms_format.convert_encoder(bert_ms_format.open_source(folder), output)
    assert listing(output.parent) == before
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_missing_tensor_is_named(tmp_path):
    tensors = huggingface_tensors(make_parameters())
    del tensors["encoder.layer.1.output.LayerNorm.bias"]
    message = refused(write_huggingface(tmp_path / "source", tensors))
    assert "model.safetensors" in message and "encoder.layer.1.output.LayerNorm.bias: missing;" in message


def test_missing_layers_are_counted(tmp_path, no_paddle):
    folder = write_paddle(tmp_path / "source", make_parameters())
    for path in (folder / "params").glob("encoder_layer_1_*"):
        path.unlink()
    message = refused(folder)
    assert "encoder_layer_1_multi_head_att_query_fc.w_0: missing (and 15 more)" in message


def test_wrong_shape_is_named(tmp_path):
    tensors = huggingface_tensors(make_parameters(), prefix="bert.")
    tensors["bert.encoder.layer.0.intermediate.dense.weight"] = np.zeros((13, 8), np.float32)
    message = refused(write_huggingface(tmp_path / "source", tensors))
    assert "bert.encoder.layer.0.intermediate.dense.weight: shape [13, 8]" in message
    assert "[12, 8] (intermediate_size, hidden_size)" in message


def test_paddle_s_orientation_is_checked(tmp_path, no_paddle):
    folder = write_paddle(tmp_path / "source", make_parameters())
    (folder / "params" / "encoder_layer_0_ffn_fc_0.w_0").write_bytes(persistable(np.zeros((12, 8), np.float32)))
    message = refused(folder)
    assert "encoder_layer_0_ffn_fc_0.w_0: shape [12, 8]" in message
    assert "[8, 12] (hidden_size, intermediate_size)" in message


@pytest.mark.parametrize("write, names", [
    (lambda folder, values: write_huggingface(folder, huggingface_tensors(values)), "encoder.layer.1."),
    (write_paddle, "encoder_layer_1_")])
def test_more_layers_than_the_configuration(tmp_path, no_paddle, write, names):
    folder = write(tmp_path / "source", make_parameters())
    for path in folder.glob("*config.json"):
        path.write_text(json.dumps({**dataclasses.asdict(CONFIG), "num_hidden_layers": 1}))
    message = refused(folder)
    assert names in message and "1 layers" in message


def test_integers_are_no_weights(tmp_path):
    tensors = huggingface_tensors(make_parameters())
    tensors["encoder.layer.0.output.dense.weight"] = tensors["encoder.layer.0.output.dense.weight"].astype(np.int8)
    assert "output.dense.weight: stored as I8" in refused(write_huggingface(tmp_path / "source", tensors))


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_truncated_safetensors(tmp_path, kept):
    folder = write_huggingface(tmp_path / "source", huggingface_tensors(make_parameters()))
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    assert "model.safetensors: not a complete safetensors file" in refused(folder)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0", lambda data: b""])
def test_damaged_persistable(tmp_path, no_paddle, change):
    folder = write_paddle(tmp_path / "source", make_parameters())
    path = folder / "params" / "encoder_layer_1_ffn_fc_1.w_0"
    path.write_bytes(change(path.read_bytes()))
    message = refused(folder)
    assert str(path) in message and "unpack the archive again" in message


WHOLE = persistable(np.arange(200, dtype=np.float32).reshape(2, 100))


@settings(max_examples=200, deadline=None)
@given(cut=st.integers(0, len(WHOLE) - 1), noise=st.binary(max_size=40), at=st.integers(0, 40))
def test_any_damage_to_a_persistable_is_one_clear_line(tmp_path_factory, cut, noise, at):
    path = tmp_path_factory.mktemp("p") / "weight"
    path.write_bytes(WHOLE[:cut])
    with pytest.raises(InputError, match="weight"):
        read_persistable(path)
    path.write_bytes(WHOLE[:at] + noise + WHOLE[at + len(noise):])
    try:
        values = read_persistable(path)
    except InputError as error:
        assert str(path) in str(error)
    else:
        assert values.dtype == np.float32


@pytest.mark.parametrize("file, words", [
    ("pytorch_model.bin", "save the model again as model.safetensors"),
    ("tf_model.h5", "from_tf=True"),
    ("bert_model.ckpt.index", "TensorFlow"),
    ("model.safetensors.index.json", "split over several files"),
    ("something.else", "wanted is a HuggingFace folder")])
def test_other_sources_hear_what_is_wanted(tmp_path, file, words):
    write_companions(tmp_path / "source")
    (tmp_path / "source" / file).write_bytes(b"x")
    assert words in refused(tmp_path / "source")


def test_an_archive_or_nothing_at_all(tmp_path):
    (tmp_path / "bert.tar.gz").write_bytes(b"x")
    assert "unpack it" in refused(tmp_path / "bert.tar.gz", tmp_path / "out" / "roberta.ckpt")
    assert "no such folder; wanted is" in refused(tmp_path / "nothing", tmp_path / "out" / "roberta.ckpt")


@pytest.mark.parametrize("missing", ["config.json", "vocab.txt"])
def test_companions_are_wanted(tmp_path, missing):
    folder = write_huggingface(tmp_path / "source", huggingface_tensors(make_parameters()))
    (folder / missing).unlink()
    assert f"{missing}: no such file" in refused(folder)


@pytest.mark.parametrize("setting", [{"model_type": "roberta"}, {"position_embedding_type": "relative_key"}])
def test_relatives_of_bert_are_refused(tmp_path, setting):
    folder = write_huggingface(tmp_path / "source", huggingface_tensors(make_parameters()))
    write_companions(folder, **setting)
    (key, value), = setting.items()
    assert f"{key} is '{value}'" in refused(folder)


def test_a_vocabulary_larger_than_the_encoder_s(tmp_path):
    folder = write_huggingface(tmp_path / "source", huggingface_tensors(make_parameters()))
    with open(folder / "vocab.txt", "a") as vocab:
        vocab.write("one more\n")
    assert "24 word pieces, but vocab_size" in refused(folder)


def test_another_encoder_s_folder_is_left_alone(tmp_path):
    folder = write_huggingface(tmp_path / "source", huggingface_tensors(make_parameters()))
    output = tmp_path / "output"
    write_companions(output, dataclasses.replace(CONFIG, hidden_act="gelu_new"), name="bert_config.json")
    assert "hidden_act is gelu_new, not gelu" in refused(folder, output / "roberta.ckpt")
    write_companions(output, dataclasses.replace(CONFIG, hidden_dropout_prob=0.3), name="bert_config.json")
    source = bert_ms_format.open_source(folder)
    assert bert_ms_format.check_companions(source, CONFIG, output) == {}    # dropout is no other encoder
    (output / "vocab.txt").write_text("another\nvocabulary\n")
    assert "another vocabulary" in refused(folder, output / "roberta.ckpt")


@pytest.mark.parametrize("output", ["encoder", "encoder.bin"])
def test_output_must_be_a_checkpoint(tmp_path, output):
    folder = write_huggingface(tmp_path / "source", huggingface_tensors(make_parameters()))
    assert "ends in .ckpt" in refused(folder, tmp_path / "out" / output)


@pytest.mark.slow
def test_the_script_s_refusal(tmp_path):
    result = run_script("--source", tmp_path / "nothing", "--data_url", tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    result = run_script("--sauce", tmp_path)
    assert result.returncode == 2 and "--sauce" in result.stderr and "Traceback" not in result.stderr
