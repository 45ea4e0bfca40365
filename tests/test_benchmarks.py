# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks report, from what they have measured."""
from __future__ import annotations

import signal

import pytest

from benchmarks import attention_clock, kill_scripts, turns
from benchmarks.step_profile import PARTS, part_of, shares
from src.config import BertConfig
from src.cpu import kernels as cpu_kernels
from utils import device

LAYER = "Default/gradients-Gradients/network-KTNETWithLoss/network-KTNET/bert-BertModel/bert_encoder-Encoder/0"


@pytest.mark.parametrize(("name", "part"), [
    (f"{LAYER}/intermediate-Linear/matmul-MatMul/MatMul-op3", "products"),
    (f"{LAYER}/attention-Attention/output-ResidualOutput/dense-Linear/matmul-TileProduct/Custom-op4", "products"),
    (f"{LAYER}/intermediate_product-TileProductAndResidual/Custom-op5", "products"),
    (f"{LAYER}/fused_attention-FusedAttention/Custom-op7", "attention"),
    (f"{LAYER}/add_norm-AddNorm/Custom-op9", "norms and activations"),
    ("Gradients/network-KTNET/MemoryLayer_wn-FusedMemoryLayer/read-ReadMemory/Custom-op1", "memories"),
    ("Default/network-KTNET/bert-BertModel/bert_embedding_lookup-EmbeddingLookup/Gather-op0", "embedding"),
    ("Default/network-KTNET/dense1-SpanOutput/Mul-op5", "head"),
    ("Default/update-Updater/adam-AdamUpdate/Adam-op100", "optimizer")])
def test_every_operator_belongs_to_a_part(name, part):
    assert part_of(name) == part


def test_shares_are_seconds_a_step(tmp_path):
    folder = tmp_path / "run" / "FRAMEWORK"
    folder.mkdir(parents=True)
    (folder / "cpu_op_detail_info_0.csv").write_text(
        "op_side,op_type,op_name,full_op_name,op_occurrences,op_total_time(ms),subgraph,pid\n"
        "Host,MatMul,MatMul-op0,Default/network-KTNET/MatMul-op0,4,3000.0,Default,1\n"
        "Host,MatMul,MatMul-op1,Default/network-KTNET/MatMul-op1,4,1000.0,Default,1\n"
        "Host,Adam,Adam-op0,Default/Adam-op0,4,500.0,Default,1\n", encoding="utf-8")
    found = shares(tmp_path, 4)
    assert found == {**dict.fromkeys(PARTS, 0.0), "products": 1.0, "optimizer": 0.125}


def test_products_within_attention_are_counted(monkeypatch):
    monkeypatch.setenv(device.PRODUCT_MODE, "BF16")
    if not cpu_kernels.multiply_tiles():
        pytest.skip("this processor has no matrix unit")
    small = BertConfig(vocab_size=20, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    assert 0.0 < attention_clock.share_of_products(small, 2, 100) < 1.0


@pytest.mark.parametrize(("unit", "wanted", "types"), [
    (None, "auto", ("float32",)), ("AMX", "auto", ("float32", "bfloat16")), ("AMX", "bfloat16", ("bfloat16",))])
def test_types_that_are_measured(monkeypatch, unit, wanted, types):
    monkeypatch.setattr(turns, "bfloat16_unit", lambda: unit)
    assert turns.compute_types(wanted) == types


def test_the_kill_test_starts_scripts_with_no_signal_ignored_or_blocked(tmp_path):
    """As nohup and a shell's background jobs ignore some, and run_main() blocks SIGINT."""
    log = tmp_path / "log"
    before = signal.getsignal(signal.SIGHUP), signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        script = kill_scripts.Script(["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"])
        with kill_scripts.started(script, "test", log) as (process, _):
            process.wait()
    finally:
        signal.signal(signal.SIGHUP, before[0])
        signal.pthread_sigmask(signal.SIG_SETMASK, before[1])
    blocked, ignored = (int(line.split()[1], 16) for line in log.read_text().splitlines())
    assert not any((blocked | ignored) >> (number - 1) & 1 for number in kill_scripts.SIGNALS)
