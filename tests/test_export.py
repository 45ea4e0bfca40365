# SPDX-License-Identifier: Apache-2.0
"""Exported files against the PyTorch reference and against MindSpore itself; what must be refused; what must stay."""
import dataclasses
import json
import stat
from pathlib import Path

import numpy as np
import pytest

ms = pytest.importorskip("mindspore")
onnx = pytest.importorskip("onnx", reason="onnx is not installed: the ONNX export is NOT tested")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: the ONNX export is NOT tested")

import export  # noqa: E402
import src.export.export  # noqa: E402
from src.config import feature_columns  # noqa: E402
from src.KTNET_eval import KTNETEval  # noqa: E402
from src.weights.checkpoint import load_weights, open_checkpoint, write_checkpoint  # noqa: E402
from src.weights.sizes import config_path, load_config  # noqa: E402
from testing import reference  # noqa: E402
from testing.reference import TINY, random_columns  # noqa: E402
from testing.small_checkpoint import make_checkpoint, with_activation  # noqa: E402
from utils.util import InputError  # noqa: E402

TOLERANCE = 1e-5     # against float64; found: 2e-6
NAMES = ["input_mask", "src_ids", "pos_ids", "sent_ids", "wn_concept_ids", "nell_concept_ids", "unique_id"]

needs_torch = pytest.mark.skipif(reference.torch is None,
                                 reason="PyTorch is not installed: exports are NOT compared with the reference")


def features(config, batch, seed=3):
    """Inputs by name, as the exported file takes them."""
    columns = random_columns(config, batch, seed)
    columns["unique_id"] = np.arange(1000000000, 1000000000 + batch, dtype=np.int32).reshape(-1, 1)
    return {column.name: columns[column.name] for column in feature_columns(config.memories, "dev",
                                                                            config.max_seq_len)}


def run_export(checkpoint, folder, file_format, *more):
    export.main(["--dataset", "squad", "--load_checkpoint_path", str(checkpoint), "--file_path", str(folder),
                 "--file_format", file_format, "--device_target", "CPU", *more])
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix != ".json")


def run_onnx(path, inputs):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, inputs)
    return logits


def operators(path):
    return [node.op_type for node in onnx.load(str(path)).graph.node]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A checkpoint, its averaged weights and its exported files."""
    folder = tmp_path_factory.mktemp("a folder with blanks")
    checkpoint = folder / "KTNET_squad-1_1.ckpt"
    weights = make_checkpoint(checkpoint, TINY)
    mindir, = run_export(checkpoint, folder / "mindir", "MINDIR")
    onnx_file, = run_export(checkpoint, folder / "onnx", "ONNX")
    return checkpoint, weights, mindir, onnx_file


@needs_torch
def test_onnx_computes_the_equations(tiny):
    _, weights, _, onnx_file = tiny
    inputs = features(TINY, 1)
    logits = run_onnx(onnx_file, inputs)
    assert logits.shape == (2, 1, TINY.max_seq_len) and logits.dtype == np.float32
    np.testing.assert_allclose(logits, reference.logits(weights, TINY, inputs), rtol=0, atol=TOLERANCE)


def test_gelu_and_layer_norm_are_exact_and_recognised(tiny, tmp_path):
    """Erf is in the file, not a stand-in, and onnxruntime makes one operator of each GELU and layer normalisation."""
    onnx_file = tiny[3]
    assert operators(onnx_file).count("Erf") == TINY.bert.num_hidden_layers
    assert "Tanh" not in operators(onnx_file)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(onnx_file), options, providers=["CPUExecutionProvider"])
    found = operators(tmp_path / "optimised.onnx")
    assert sum(name in ("Gelu", "BiasGelu") for name in found) == TINY.bert.num_hidden_layers
    assert sum(name.endswith("LayerNormalization") for name in found) == 1 + 2 * TINY.bert.num_hidden_layers


def test_mindir_loads_back_in_mindspore(tiny):
    """The file, the network and onnxruntime give the same logits."""
    checkpoint, _, mindir, onnx_file = tiny
    assert b"cpu_kernels" not in mindir.read_bytes() + onnx_file.read_bytes()      # kernels of this machine
    inputs = features(TINY, 1)
    tensors = [ms.Tensor(value) for value in inputs.values()]
    loaded = ms.nn.GraphCell(ms.load(str(mindir)))(*tensors).asnumpy()
    network = KTNETEval(TINY).set_train(False)
    load_weights(network, open_checkpoint(checkpoint), use_average=True)
    np.testing.assert_allclose(loaded, network(*tensors).asnumpy(), rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(loaded, run_onnx(onnx_file, inputs), rtol=0, atol=TOLERANCE)


def test_inputs_have_the_columns_names_shapes_and_types(tiny):
    from mindspore.train.mind_ir_pb2 import ModelProto

    _, _, mindir, onnx_file = tiny
    columns = feature_columns(TINY.memories, "dev", TINY.max_seq_len)
    assert [column.name for column in columns] == NAMES
    session = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    types = {"float32": "tensor(float)", "int32": "tensor(int32)"}
    assert [(value.name, tuple(value.shape), value.type) for value in session.get_inputs()] == [
        (column.name, (1, *column.shape), types[column.dtype]) for column in columns]
    assert [(value.name, value.shape) for value in session.get_outputs()] == [("logits", [2, 1, TINY.max_seq_len])]
    model = ModelProto()
    model.ParseFromString(mindir.read_bytes())
    assert [value.name.rpartition(":")[2] for value in model.graph.input] == NAMES
    assert [tuple(value.tensor[0].dims) for value in model.graph.input] == [(1, *column.shape) for column in columns]


def test_files_can_be_replaced_and_nothing_else_is_left(tiny):
    for path in tiny[2:]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        assert sorted(entry.name for entry in path.parent.iterdir()) == [path.name, f"{path.name}.json"]
        assert load_config(path) == load_config(tiny[0])
        assert path.stem == "KTNET_squad"


@needs_torch
def test_batch_length_name_and_raw_weights_from_flags(tiny, tmp_path):
    """Over a link to a private file: the link stays, and the file is as private as before."""
    checkpoint, real = tiny[0], tmp_path / "real"
    real.touch(mode=0o600)
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx" / "other.onnx").symlink_to(real)
    written, = run_export(checkpoint, tmp_path / "onnx", "ONNX", "--batch_size", "2", "--max_seq_len", "24",
                          "--file_name", "other", "--use_ema", "False")
    assert written.name == "other.onnx" and written.is_symlink() and stat.S_IMODE(real.stat().st_mode) == 0o600
    shorter = dataclasses.replace(TINY, max_seq_len=24)
    inputs = features(shorter, 2)
    raw = {name: value.asnumpy() for name, value in ms.load_checkpoint(str(checkpoint)).items()}
    np.testing.assert_allclose(run_onnx(written, inputs), reference.logits(raw, shorter, inputs), rtol=0,
                               atol=TOLERANCE)


@needs_torch
@pytest.mark.parametrize("variant", ["gelu_new", "relu", "without NELL"])
def test_other_networks(tmp_path, variant):
    config = dataclasses.replace(TINY, memories=TINY.memories[:1]) if variant == "without NELL" else \
        with_activation(TINY, variant)
    weights = make_checkpoint(tmp_path / "KTNET_squad-1_1.ckpt", config)
    written, = run_export(tmp_path / "KTNET_squad-1_1.ckpt", tmp_path / "onnx", "ONNX")
    inputs = features(config, 1)
    assert len(inputs) == (6 if variant == "without NELL" else 7)
    np.testing.assert_allclose(run_onnx(written, inputs), reference.logits(weights, config, inputs), rtol=0,
                               atol=TOLERANCE)
    assert operators(written).count("Erf") == (TINY.bert.num_hidden_layers if variant == "without NELL" else 0)


def test_a_checkpoint_of_the_older_port(tiny, tmp_path):
    """It has no sizes beside it: tables tell theirs, the encoder's come from its file."""
    checkpoint = tmp_path / "KTNET_squad-1_1.ckpt"
    raw = {name: value.asnumpy() for name, value in ms.load_checkpoint(str(tiny[0])).items() if "ema." not in name}
    raw["TriLinearTwoTimeSelfAttentionLayer.create_parameter_bias"] = \
        raw.pop("TriLinearTwoTimeSelfAttentionLayer.bias")
    for weight in ("weight_1", "weight_2", "weight_mul"):
        del raw[f"TriLinearTwoTimeSelfAttentionLayer.{weight}"]
    raw["MemoryLayer_wn.concept_ordinal"] = np.zeros(3, np.float32)
    write_checkpoint(checkpoint, raw)
    encoder = tmp_path / "bert_config.json"
    with pytest.raises(InputError, match="no sizes are saved beside it; give its encoder's --bert_config_path"):
        run_export(checkpoint, tmp_path / "onnx", "ONNX", "--bert_config_path", str(encoder))
    encoder.write_text(json.dumps(dataclasses.asdict(TINY.bert)), encoding="utf-8")
    written, = run_export(checkpoint, tmp_path / "onnx", "ONNX", "--bert_config_path", str(encoder), "--max_seq_len",
                          "16")
    shapes = {value.name: [size.dim_value for size in value.type.tensor_type.shape.dim]
              for value in onnx.load(str(written)).graph.input}
    assert shapes["wn_concept_ids"] == [1, 16, 49, 1] and shapes["nell_concept_ids"] == [1, 16, 27, 1]


def test_a_mindir_beyond_one_file(tiny, tmp_path, monkeypatch):
    """MindSpore splits what is larger than 1 GB; here every file is."""
    monkeypatch.setattr(ms.train.serialization, "TOTAL_SAVE", 0)
    for _ in range(2):                         # the second export replaces the first
        graph, = run_export(tiny[0], tmp_path, "MINDIR")
        assert graph.name == "KTNET_squad_graph.mindir"
        variables = tmp_path / "KTNET_squad_variables"
        assert sorted(tmp_path.iterdir()) == [graph, tmp_path / f"{graph.name}.json", variables]
        assert stat.S_IMODE(variables.stat().st_mode) == 0o755
        assert {stat.S_IMODE(path.stat().st_mode) for path in variables.iterdir()} == {0o644}
    tensors = [ms.Tensor(value) for value in features(TINY, 1).values()]
    split, whole = (ms.nn.GraphCell(ms.load(str(path)))(*tensors).asnumpy() for path in (graph, tiny[2]))
    np.testing.assert_array_equal(split, whole)


def test_a_failed_export_leaves_the_earlier_file(tiny, tmp_path, monkeypatch):
    (tmp_path / "KTNET_squad.onnx").write_bytes(b"earlier")

    def fail_half_way(*_, file_name, **__):
        Path(file_name).write_bytes(b"half")
        raise RuntimeError("Erf operator is not yet supported.\nmore")

    monkeypatch.setattr(src.export.export.ms.onnx, "export", fail_half_way)
    with pytest.raises(InputError, match="--file_format ONNX: MindSpore .* cannot export this network .Erf operator"):
        run_export(tiny[0], tmp_path, "ONNX")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("KTNET_squad.onnx", b"earlier")]


@pytest.mark.parametrize(("more", "message"), [
    (["--file_format", "AIR"], "--file_format AIR: is written on Ascend alone, not on CPU"),
    (["--max_seq_len", "4000"], "--max_seq_len 4000: the encoder of .* has only"),
    (["--load_checkpoint_path", "nowhere.ckpt"], "nowhere.ckpt: no such file"),
])
def test_refused(tiny, tmp_path, more, message):
    with pytest.raises(InputError, match=message):
        run_export(tiny[0], tmp_path / "mindir", "MINDIR", *more)
    assert not (tmp_path / "mindir").exists()


def test_a_broken_file_of_sizes(tiny, tmp_path):
    checkpoint = tmp_path / "KTNET_squad-1_1.ckpt"
    checkpoint.write_bytes(tiny[0].read_bytes())
    config_path(checkpoint).write_text('{"network": 3}', encoding="utf-8")
    with pytest.raises(InputError, match="KTNET_squad-1_1.json: not the sizes of a KT-NET checkpoint"):
        run_export(checkpoint, tmp_path / "mindir", "MINDIR")


@pytest.mark.parametrize("flag", ["--data_set", "--file_format=PB", "--batch_size=0"])
def test_wrong_flags(tiny, tmp_path, flag, capsys):
    with pytest.raises(SystemExit) as end:
        run_export(tiny[0], tmp_path, "MINDIR", flag)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("error: export.py:")
