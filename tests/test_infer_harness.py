# SPDX-License-Identifier: Apache-2.0
"""The C++ harness, built with sanitizers and run: on raw inputs, on models, and from a checkpoint to figures.

What needs MindSpore Lite is skipped where scripts/get_lite.sh has not brought it and LITE_HOME does not name it.
"""
from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import export
from src.config import KNOWLEDGE_BASES, KTNetConfig, MemoryConfig, feature_columns
from src.export.bin_files import MANIFEST, BinManifest, write_manifest
from testing import reference, small_training
from testing.reference import TINY, random_columns
from testing.small_checkpoint import make_checkpoint
from testing.toy_wordnet import make_wordnet

REPOSITORY = Path(__file__).parents[1]
HARNESS = REPOSITORY / "ascend310_infer"
LITE_HOME = Path(os.environ.get("LITE_HOME") or REPOSITORY / ".lite" / "mindspore_lite")
COUNT = 5
TOLERANCE = 1e-5     # against float64; found: 2e-6
FIRST = 1000000000


def skip_loudly(reason):
    warnings.warn(f"NOT TESTED: {reason}", stacklevel=2)
    pytest.skip(reason)


def run(*command, **options):
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "halt_on_error=1",
                   "PYTHON": sys.executable, "LITE_HOME": str(LITE_HOME), **options.pop("environment", {})}
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=900,
                          env=environment, **options)


def run_well(*command, **options):
    done = run(*command, **options)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def refusal(*command, **options):
    """The one line with which a program refuses."""
    done = run(*command, **options)
    assert done.returncode == 2, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Sanitizer" not in done.stderr and "runtime error:" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


# ------------------------------------------------------------------------------------------------------- raw inputs
@pytest.fixture(scope="session")
def tools(tmp_path_factory):
    """The folder of the programs, built with sanitizers; without MindSpore Lite only inspect_inputs."""
    for tool in ("cmake", "make", "g++"):
        if shutil.which(tool) is None:
            skip_loudly(f"the inference harness: {tool} is not installed")
    if run("g++", "-fsyntax-only", "-x", "c++", "-", input="#include <nlohmann/json.hpp>").returncode != 0:
        skip_loudly("the inference harness: nlohmann-json3-dev is not installed")
    build = tmp_path_factory.mktemp("tools")
    done = run("bash", HARNESS / "build.sh", environment={"BUILD_FOLDER": str(build), "SANITIZE": "ON"})
    if done.returncode == 2 and ("no MindSpore Lite in" in done.stderr or "gflags.h is missing" in done.stderr):
        warnings.warn(f"NOT TESTED: inference outside Python: {done.stderr.strip()}", stacklevel=1)
        run_well("cmake", "-S", HARNESS, "-B", build, "-DSANITIZE=ON", "-DLITE_HOME=")
        done = run("cmake", "--build", build, "--target", "inspect_inputs", "--parallel", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    return build


@pytest.fixture(scope="session")
def inspect(tools):
    """The harness's own code without MindSpore Lite."""
    return tools / "inspect_inputs"


def write_inputs(folder, config=TINY, count=COUNT):
    """Raw inputs as preprocess.py writes them; returns them as one batch by name."""
    columns = feature_columns(config.memories, "dev", config.max_seq_len)
    batch = random_columns(config, count, seed=3)
    batch["unique_id"] = np.arange(FIRST, FIRST + count, dtype=np.int32).reshape(-1, 1)
    manifest = BinManifest("squad", "made up", columns, tuple(range(FIRST, FIRST + count)))
    for place, column in zip(manifest.folders, columns, strict=True):
        (folder / place).mkdir(parents=True)
        for number in range(count):
            batch[column.name][number].tofile(folder / place / f"{manifest.stem(number)}.bin")
    write_manifest(folder, manifest)
    return {column.name: batch[column.name] for column in columns}


@pytest.fixture
def inputs(tmp_path):
    write_inputs(tmp_path / "in puts")
    return tmp_path / "in puts"


def folders(inputs):
    return sorted(path for path in inputs.iterdir() if path.is_dir())


def edit_manifest(inputs, edit):
    manifest = json.loads((inputs / MANIFEST).read_text(encoding="utf-8"))
    edit(manifest)
    (inputs / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")


def test_reads_every_byte(inspect, inputs):
    lines = run_well(inspect, "inputs", *folders(inputs)).splitlines()
    columns = feature_columns(TINY.memories, "dev", TINY.max_seq_len)
    assert lines[:-1] == [f"{column.name} {column.dtype} {4 * int(np.prod(column.shape))}" for column in columns]
    total = sum(int(np.fromfile(path, np.uint8).sum()) for path in inputs.glob("*/*.bin"))
    assert lines[-1] == f"squad {COUNT} {total}"


def test_folders_are_known_by_name(inspect, inputs):
    """Neither their order nor how their path is spelled matters."""
    chosen = [f"{inputs}/../in puts/05_data/", f"{inputs}/00_data"]
    assert [line.split()[0] for line in run_well(inspect, "inputs", *chosen).splitlines()[:-1]] == [
        "nell_concept_ids", "input_mask"]
    assert run_well(inspect, "inputs", "03_data", cwd=inputs).startswith("sent_ids int32")


def cut_a_file(inputs):
    path = inputs / "02_data" / "squad_batch_1_3.bin"
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(("spoil", "message"), [
    (cut_a_file, "02_data/squad_batch_1_3.bin: has 159 bytes, not the 160 of pos_ids; run preprocess.py again"),
    (lambda inputs: (inputs / "06_data" / "squad_batch_1_4.bin").unlink(),
     "06_data/squad_batch_1_4.bin: no such file, but there are 5 features"),
    (lambda inputs: (inputs / "01_data" / "squad_batch_1_5.bin").write_bytes(b"more"),
     "01_data/squad_batch_1_5.bin: is none of the 5 features of squad"),
    (lambda inputs: shutil.rmtree(inputs / "04_data"), "04_data: no such folder"),
    (lambda inputs: (inputs / MANIFEST).unlink(), "manifest.json: no such file; the inputs are missing or incomplete"),
    (lambda inputs: (inputs / MANIFEST).write_text('{"dataset": "squad",'), "inputs (character 21: not JSON); run"),
    (lambda inputs: (inputs / MANIFEST).write_text("[" * 100000), "nested too deeply"),
    (lambda inputs: (inputs / MANIFEST).write_text(f'{{"count": {"9" * 5000}}}'), "(a number is too large)"),
    (lambda inputs: (inputs / MANIFEST).write_text(f'{{"count": {"[" * 4}{"]" * 4}}}'), '(no "dataset")'),
    (lambda inputs: (inputs / MANIFEST).write_bytes(b'{"dataset": "\x00"}'), "character 14: not JSON"),
    (lambda inputs: (inputs / MANIFEST).write_bytes(b'{"dataset": "\xff"}'), "character 14: not JSON"),
    (lambda inputs: (inputs / MANIFEST).write_text('{"dataset": "squad"} {}'), "character 22: not JSON"),
    (lambda inputs: os.truncate(inputs / MANIFEST, (16 << 20) + 1), "too large a file"),
    (lambda inputs: (inputs / MANIFEST).write_text('"squad"'), 'no object with "dataset"'),
    (lambda inputs: edit_manifest(inputs, lambda values: values.update(count=0)), "no features of a data set"),
    (lambda inputs: edit_manifest(inputs, lambda values: values.update(count=-1)), '"count" is not a whole number'),
    (lambda inputs: edit_manifest(inputs, lambda values: values.update(count=1e300)), '"count" is not a whole number'),
    (lambda inputs: edit_manifest(inputs, lambda values: values.update(count=2.5)), '"count" is not a whole number'),
    (lambda inputs: edit_manifest(inputs, lambda values: values.update(count=9 * 10**15)), "9000000000000000 features"),
    (lambda inputs: edit_manifest(inputs, lambda values: values.update(dataset=7)), '"dataset" is not a string'),
    (lambda inputs: edit_manifest(inputs, lambda values: values.update(inputs={})), '"inputs" is not a list'),
    (lambda inputs: edit_manifest(inputs, lambda values: values.pop("inputs")), 'no "inputs"'),
    (lambda inputs: edit_manifest(inputs, lambda values: values.update(dataset="../x")), "no features of a data set"),
    (lambda inputs: edit_manifest(inputs, lambda values: values["inputs"][0].update(folder="../00_data")),
     "an impossible name"),
    (lambda inputs: edit_manifest(inputs, lambda values: values["inputs"][0].update(dtype="float\n16")),
     "(unknown dtype of input_mask); run preprocess.py again"),
    (lambda inputs: edit_manifest(inputs, lambda values: values["inputs"][0].update(shape=[2**40, 2**40])),
     "an impossible shape"),
    (lambda inputs: edit_manifest(inputs, lambda values: values["inputs"][0].update(shape=[7])),
     "shape and bytes of input_mask differ"),
    (lambda inputs: edit_manifest(inputs, lambda values: values["inputs"].pop()),
     "06_data: is no folder of the inputs that"),
])
def test_inputs_that_are_refused(inspect, inputs, spoil, message):
    chosen = folders(inputs)
    spoil(inputs)
    assert message in refusal(inspect, "inputs", *chosen)


def test_a_long_manifest_without_blanks_is_read(inspect, inputs):
    """A reader that looks for the next blank at every value would reach the time limit of :func:`run`."""
    edit_manifest(inputs, lambda values: values.update(unique_ids=[7] * 3_000_000))
    text = (inputs / MANIFEST).read_text(encoding="utf-8").replace(" ", "")
    (inputs / MANIFEST).write_text(text, encoding="utf-8")
    assert run_well(inspect, "inputs", *folders(inputs)).splitlines()[-1].startswith(f"squad {COUNT} ")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_spoiled_manifests_are_read_or_refused(inspect, tmp_path, data):
    """Nothing that a manifest says may make the harness crash."""
    inputs = tmp_path / "once"
    if not inputs.exists():
        write_inputs(inputs, count=1)
        shutil.copy(inputs / MANIFEST, tmp_path / "whole")
    text = bytearray((tmp_path / "whole").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text) - 1))
        text[start:start + data.draw(st.integers(0, 3))] = data.draw(
            st.sampled_from([b"", b"[", b"{", b'"', b"-", b"e9", b"99999999999", b"null", b"\\", b"\xff", b","]))
    (inputs / MANIFEST).write_bytes(bytes(text))
    done = run(inspect, "inputs", *folders(inputs))
    assert done.returncode in (0, 2) and "Sanitizer" not in done.stderr and "runtime error:" not in done.stderr


def test_results_appear_whole_or_not_at_all(inspect, inputs, tmp_path):
    report = run_well(inspect, "copy", inputs / "01_data", tmp_path / "out" / "results")
    assert report.splitlines() == ["average: 2.000 ms", "count: 5", "workers: 1",
                                   "per question, all workers together: 1.000 ms"]
    for number in range(COUNT):
        assert (tmp_path / "out" / "results" / f"squad_batch_1_{number}_0.bin").read_bytes() == (
            inputs / "01_data" / f"squad_batch_1_{number}.bin").read_bytes()
    assert len(list((tmp_path / "out" / "results").iterdir())) == COUNT
    (tmp_path / "file").write_text("not a folder")
    assert "file/below: this folder cannot be made" in refusal(inspect, "copy", inputs / "01_data",
                                                               tmp_path / "file" / "below")
    (tmp_path / "taken" / "squad_batch_1_2_0.bin").mkdir(parents=True)
    message = refusal(inspect, "copy", inputs / "01_data", tmp_path / "taken")
    assert "squad_batch_1_2_0.bin: cannot be written" in message
    assert sorted(path.name for path in (tmp_path / "taken").iterdir()) == [
        "squad_batch_1_0_0.bin", "squad_batch_1_1_0.bin", "squad_batch_1_2_0.bin"]


def test_erf_keeps_gelu_exact(inspect, tmp_path):
    """The harness's own erf, for MindSpore Lite: GELU within 1e-6, odd, 1 at the ends, and nothing made of NaN."""
    inputs = np.concatenate([np.linspace(-7, 7, 140001), [0.0, -0.0, 50.0, -50.0, np.inf, -np.inf, 1e-30, np.nan]])
    inputs.astype("<f4").tofile(tmp_path / "in")
    run_well(inspect, "erf", tmp_path / "in", tmp_path / "out")
    inputs, found = (np.fromfile(tmp_path / name, "<f4").astype(np.float64) for name in ("in", "out"))
    exact = np.array([math.erf(value) for value in inputs])
    np.testing.assert_allclose(found, exact, rtol=0, atol=4e-7)        # found: 3.1e-7
    argument = inputs[:140001] * math.sqrt(2.0)
    assert np.abs(argument / 2 * (found - exact)[:140001]).max() < 1e-6
    np.testing.assert_array_equal(found[-8:], [0.0, -0.0, 1.0, -1.0, 1.0, -1.0, found[-2], np.nan])
    np.testing.assert_array_equal(found[:140001], -found[140000::-1])


def test_mindspore_lite_calls_the_harness_erf(harness):
    """Otherwise a sixth of the time goes into MindSpore Lite's own."""
    symbols = run_well("nm", "-D", "--defined-only", harness / "main")
    assert re.search(r" T ElementErf$", symbols, re.MULTILINE)


MODEL = (b"\x0a\x031.1" b"\x12\x09MindSpore" b"\x2a\x062.10.0" b"\x3a\x90\x03" + bytes(400) + b"\x50\x01" b"\x68\x03")


@pytest.mark.parametrize(("contents", "message"), [
    (MODEL, "version 3 of 2.10.0"),
    (MODEL[:100], "the file is truncated, or not a MindIR"),
    (MODEL[:10], "the file is truncated, or not a MindIR"),
    (b"", "not a MindIR"),
    (b"\x08\x04" + MODEL, "an ONNX file, not a MindIR; convert it with onnx_to_lite"),
    (b"PK\x03\x04" + bytes(100), "not a MindIR"),
    (b"\x0a\x031.1", "not a MindIR"),
    (b"\x0a" + b"\xff" * 20, "not a MindIR"),
    (b"\x12" + b"\xff" * 9 + b"\x01", "the file is truncated, or not a MindIR"),
])
def test_what_a_model_file_is(inspect, tmp_path, contents, message):
    (tmp_path / "model").write_bytes(contents)
    done = run(inspect, "model", tmp_path / "model")
    assert done.returncode == (0 if contents == MODEL else 2)
    assert message in done.stdout + done.stderr and "Sanitizer" not in done.stderr


def test_a_cut_model_is_never_taken_for_whole(inspect, tmp_path):
    """Cut between two fields it lacks those that follow; what cannot be told is left to MindSpore Lite."""
    for length in (0, 1, 2, 4, 5, 6, 16, 17, 24, 25, 26, 27, 28, 426):
        (tmp_path / "model").write_bytes(MODEL[:length])
        assert "model" in refusal(inspect, "model", tmp_path / "model")
    assert "nowhere: no such file" in refusal(inspect, "model", tmp_path / "nowhere")


# ------------------------------------------------------------------------------------------------------------ models
@pytest.fixture(scope="session")
def harness(tools):
    """The folder of the whole harness."""
    if not (tools / "main").is_file():
        pytest.skip("inference outside Python is NOT TESTED: MindSpore Lite or gflags is missing; bash "
                    "scripts/get_lite.sh and apt-get install libgflags-dev install them")
    pytest.importorskip("onnx", reason="onnx is not installed: inference outside Python is NOT tested")
    return tools


@pytest.fixture(scope="session")
def models(harness, tmp_path_factory):
    """A tiny network's weights and its exported files by name."""
    folder = tmp_path_factory.mktemp("models")
    weights = make_checkpoint(folder / "KTNET_squad-1_1.ckpt", TINY)
    for name, flags in (("whole", ("ONNX",)), ("short", ("ONNX", "--max_seq_len", "24")), ("newer", ("MINDIR",))):
        export.main(["--dataset", "squad", "--load_checkpoint_path", str(folder / "KTNET_squad-1_1.ckpt"),
                     "--file_path", str(folder), "--file_name", name, "--device_target", "CPU",
                     "--file_format", *flags])
    for name in ("whole", "short"):
        run_well(harness / "onnx_to_lite", folder / f"{name}.onnx", folder / f"{name}.mindir")
    return folder, weights


def command(harness, model, inputs, output, *more, device="CPU", leave_out=()):
    places = [f"--input{number}_path={path}" for number, path in enumerate(folders(inputs)) if number not in leave_out]
    return (harness / "main", f"--mindir_path={model}", *places, f"--device_type={device}",
            f"--result_path={output}/results", f"--time_path={output}/time", *more)


@pytest.mark.skipif(reference.torch is None, reason="PyTorch is not installed: results are NOT compared")
def test_logits_are_those_of_the_equations(harness, models, tmp_path):
    folder, weights = models
    batch = write_inputs(tmp_path / "in")
    results = tmp_path / "results"
    results.mkdir()
    for name in ("squad_batch_1_77_0.bin", "record_batch_1_0_0.bin", "mine.bin"):
        (results / name).write_bytes(b"earlier")
    report = run_well(*command(harness, folder / "whole.mindir", tmp_path / "in", tmp_path, "--workers=3"))
    wanted = reference.logits(weights, TINY, batch)
    for number in range(COUNT):
        found = np.fromfile(results / f"squad_batch_1_{number}_0.bin", "<f4").reshape(2, TINY.max_seq_len)
        np.testing.assert_allclose(found, wanted[:, number], rtol=0, atol=TOLERANCE)
    assert {path.name for path in results.iterdir()} == {
        "mine.bin", "record_batch_1_0_0.bin", *(f"squad_batch_1_{number}_0.bin" for number in range(COUNT))}
    assert (tmp_path / "time" / "test_perform_static.txt").read_text() in report
    assert f"count: {COUNT}\nworkers: 3\n" in report and "average: " in report


def test_models_and_devices_that_are_refused(harness, models, tmp_path):
    folder, _ = models
    write_inputs(tmp_path / "in")
    (tmp_path / "noise.mindir").write_bytes(np.random.RandomState(1).bytes(5000))
    whole = (folder / "whole.mindir").read_bytes()
    (tmp_path / "cut.mindir").write_bytes(whole[:len(whole) // 2])
    (tmp_path / "spoiled.mindir").write_bytes(whole[:40] + b"\xff" * 40 + whole[80:])

    def refused(model, *more, **options):
        message = refusal(*command(harness, model, tmp_path / "in", tmp_path, *more, **options))
        assert not (tmp_path / "results").exists() and not (tmp_path / "time").exists()
        return message

    newer = refused(folder / "newer.mindir")
    assert "it was written by MindSpore 2.10.0 (MindIR version 3); use the MindSpore Lite of that release" in newer
    assert "an ONNX file, not a MindIR" in refused(folder / "whole.onnx")
    assert "nowhere.mindir: no such file" in refused(tmp_path / "nowhere.mindir")
    assert "not a MindIR" in refused(tmp_path / "noise.mindir")
    assert "cut" in refused(tmp_path / "cut.mindir")
    assert "spoiled.mindir" in refused(tmp_path / "spoiled.mindir")
    assert "its input input_mask is [1, 24], 96 bytes, but" in refused(folder / "short.mindir")
    assert "reads an input src_ids that no --input<N>_path holds" in refused(folder / "whole.mindir", leave_out=(1,))
    assert "cannot load it on GPU 3; is the device there" in refused(folder / "whole.mindir", "--device_id=3",
                                                                     device="GPU")
    assert "cannot load it on Ascend 0; is the device there" in refused(folder / "whole.mindir", device="Ascend")
    assert "--device_type TPU: unknown; use Ascend, GPU or CPU" in refused(folder / "whole.mindir", device="TPU")
    assert "--mindir_path is missing" in refused("")
    assert "--threads at least 1" in refused(folder / "whole.mindir", "--threads=0")
    unknown = run(*command(harness, folder / "whole.mindir", tmp_path / "in", tmp_path, "--thread=1"))
    assert unknown.returncode != 0 and "unknown command line flag 'thread'" in unknown.stderr
    cut_a_file(tmp_path / "in")
    assert "squad_batch_1_3.bin: has 159 bytes" in refused(folder / "whole.mindir")


def test_conversion_that_is_refused(harness, models, tmp_path):
    (tmp_path / "noise.onnx").write_bytes(np.random.RandomState(1).bytes(5000))
    converter = harness / "onnx_to_lite"
    assert "cannot convert it" in refusal(converter, tmp_path / "noise.onnx", tmp_path / "out.mindir")
    assert "no such file" in refusal(converter, tmp_path / "nowhere.onnx", tmp_path / "out.mindir")
    assert "must end in .mindir" in refusal(converter, models[0] / "whole.onnx", tmp_path / "out.ms")
    assert [path.name for path in tmp_path.iterdir()] == ["noise.onnx"]


# ------------------------------------------------------------------------------------------------------- end to end
@pytest.fixture(scope="module")
def copy(tmp_path_factory, training_data):
    """A copy of the repository, a data folder with converted features and a checkpoint for them."""
    folder = tmp_path_factory.mktemp("end to end")
    root = folder / "a copy"
    root.mkdir()
    for name in ("scripts", "src", "utils", "ascend310_infer"):
        shutil.copytree(REPOSITORY / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "out"))
    for script in REPOSITORY.glob("*.py"):
        shutil.copy(script, root)
    memories = tuple(MemoryConfig(base.name, rows=16, width=16, max_concepts=base.max_concepts)
                     for base in KNOWLEDGE_BASES)
    make_checkpoint(folder / "KTNET_squad-1_1.ckpt", KTNetConfig(small_training.ENCODER, memories,
                                                                  small_training.WINDOWS.max_seq_len))
    return root, training_data.root, folder / "KTNET_squad-1_1.ckpt"


def script(root, name, *arguments, **environment):
    return run("bash", root / "scripts" / name, *arguments, cwd=root.parent,
               environment={"DEVICE_TARGET": "CPU", "FOREGROUND": "1", **environment})


def test_the_whole_way_gives_the_evaluations_answers(harness, copy):
    """From a model folder, which the harness's script exports for the MindSpore Lite that there is."""
    root, data, checkpoint = copy
    make_wordnet(root.parent / "wordnet")
    model = root.parent / "a model"
    exported = script(root, "export.sh", "-", checkpoint, "--", "--file_format", "FOLDER", "--export_path", model,
                      "--data_url", data, "--wordnet_path", root.parent / "wordnet")
    assert exported.returncode == 0 and (model / "SHA256SUMS").is_file(), exported.stderr
    done = script(root, "run_infer_310.sh", model, data / "SQuAD", "y", "squad", data, "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (root / "mindir" / "KTNET_squad.onnx").is_file()
    assert (root / "mindir" / "KTNET_squad.lite.mindir.json").is_file()         # what the features are compared with
    evaluated = script(root, "run_squad_eval.sh", data, checkpoint)
    assert evaluated.returncode == 0, evaluated.stdout + evaluated.stderr
    ours, theirs = root / "output" / "infer_squad", root / "output" / "eval_squad"
    assert (ours / "eval_result.json").read_text() == (theirs / "eval_result.json").read_text()
    assert (ours / "predictions.json").read_text() == (theirs / "predictions.json").read_text()
    assert json.loads((root / "acc.log").read_text().splitlines()[-1]) == json.loads(
        (ours / "eval_result.json").read_text())
    assert "average: " in (root / "infer.log").read_text()

    (root / "result_files" / "record_batch_1_0_0.bin").write_bytes(b"kept")     # the other data set's
    (root / "result_files" / "squad_batch_1_99999_0.bin").write_bytes(b"old")
    again = script(root, "run_infer_310.sh", root / "mindir" / "KTNET_squad.lite.mindir",
                   data / "SQuAD" / "dev.mindrecord", "n", "squad", data)      # device 0 is the default
    assert again.returncode == 0, again.stdout + again.stderr
    assert (root / "result_files" / "record_batch_1_0_0.bin").read_bytes() == b"kept"
    assert not (root / "result_files" / "squad_batch_1_99999_0.bin").exists()
    assert (root / "infer.1.log").is_file()
    assert (ours / "eval_result.json").read_text() == (theirs / "eval_result.json").read_text()

    (root / "preprocess_result" / "00_data" / "squad_batch_1_0.bin").write_bytes(b"")
    broken = script(root, "run_infer_310.sh", root / "mindir" / "KTNET_squad.lite.mindir", data / "SQuAD", "n", "squad",
                    data, "0")
    assert broken.returncode == 2 and not (root / "acc.log").exists()
    assert "squad_batch_1_0.bin: has 0 bytes" in broken.stderr and "infer failed; the complete log is" in broken.stderr


@pytest.mark.parametrize(("place", "value", "message"), [
    (0, "nowhere.mindir", "MINDIR_PATH: .*nowhere.mindir is not a file"),
    (1, "nowhere", "DATA_FILE_PATH: .*nowhere is not a file"),
    (2, "yes", "NEED_PREPROCESS: yes is neither y nor n"),
    (3, "SQuAD", "DATASET: SQuAD is neither squad nor record"),
    (4, "nowhere", "DATA_URL: .*nowhere is not a folder"),
    (5, "-1", "DEVICE_ID: -1 is not a device number"),
])
def test_wrong_arguments(copy, place, value, message):
    root, data, checkpoint = copy
    arguments = [checkpoint, data / "SQuAD", "y", "squad", data, "0"]
    arguments[place] = value
    done = script(root, "run_infer_310.sh", *arguments)
    assert done.returncode == 2
    assert re.search(message, done.stderr), done.stderr


def test_scripts_say_what_is_missing(copy, tmp_path):
    root, data, checkpoint = copy
    done = script(root, "run_infer_310.sh", checkpoint, data / "SQuAD", "n", "squad", data, "0",
                  LITE_HOME=str(tmp_path))
    assert done.returncode == 2 and "no MindSpore Lite in" in done.stderr and "scripts/get_lite.sh" in done.stderr
    done = script(root, "export.sh", "-", "-")
    assert done.returncode == 2 and "no checkpoint given" in done.stderr
    done = script(root, "export.sh", checkpoint, "nowhere.ckpt")
    assert done.returncode == 2 and "nowhere.ckpt: no such checkpoint file" in done.stderr
