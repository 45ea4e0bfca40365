# SPDX-License-Identifier: Apache-2.0
"""A data folder that a tiny network can be trained on within seconds, and the flags for it."""
from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from src.config import SPLITS, SQUAD, BertConfig, DataFolder, WindowConfig
from src.data_convert import convert
from testing import small_data
from testing.reference import encoder_shapes
from utils.util import run_main

ROOT = Path(__file__).parents[1]
WINDOWS = WindowConfig(max_seq_len=48, doc_stride=16, max_query_length=16)
QUESTIONS = 22       # no multiple of the batch sizes used, so that the last batch of an epoch is filled up
ENCODER = BertConfig(vocab_size=len(small_data.VOCABULARY), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                     intermediate_size=64, max_position_embeddings=64)


def make_training_data(root: Path, dropout: float = 0.1) -> DataFolder:
    """Data set, knowledge, encoder and converted features below ``root``."""
    from src.weights.checkpoint import write_checkpoint

    data = small_data.make_data(root)
    path = data.dataset_json(SQUAD, "train")
    train = json.loads(path.read_text(encoding="utf-8"))
    paragraphs = [paragraph for article in train["data"] for paragraph in article["paragraphs"]]
    questions = [(paragraph["context"], question) for paragraph in paragraphs for question in paragraph["qas"]]
    many = []
    for number in range(QUESTIONS):
        context, question = questions[number % len(questions)]
        longer = context + " The river runs through a town." * (number % 4)
        many.append({"context": longer, "qas": [{**question, "id": f"t{number}"}]})
    path.write_text(json.dumps({"version": "1.1", "data": [{"title": "all", "paragraphs": many}]}), encoding="utf-8")
    for split in SPLITS:
        small_data.make_tokens(data, "squad", split)
        small_data.make_entities(data, "squad", split)
        convert(small_data.conversion(data, "squad", split, windows=WINDOWS), num_workers=1)
    encoder = dataclasses.replace(ENCODER, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    (data.bert() / "bert_config.json").write_text(json.dumps(dataclasses.asdict(encoder)), encoding="utf-8")
    write_checkpoint(data.bert() / "roberta.ckpt", random_encoder(encoder))
    return data


def random_encoder(config: BertConfig) -> dict:
    """Weights of an encoder as they come from pretraining: small numbers, layer norms near one."""
    import numpy as np

    random = np.random.RandomState(7)
    return {name: (random.randn(*shape) * 0.1 + name.endswith("gamma")).astype(np.float32)
            for name, shape in encoder_shapes(config).items()}


def flags(data: DataFolder, output: Path, **values: object) -> list[str]:
    """Command line of a short training on CPU."""
    chosen = {"device_target": "CPU", "data_url": data.root, "checkpoints": output, "batch_size": 4, "epoch": 2,
              "buckets": 1, "learning_rate": 0.003, "ema_decay": 0.9} | values
    return as_words(chosen)


def as_words(values: Mapping[str, object]) -> list[str]:
    """Flags and their values as a command line."""
    return [part for name, value in values.items() for part in (f"--{name}", str(value))]


@dataclass(frozen=True)
class Ended:
    """How a script ended that was run in this process."""

    stdout: str
    stderr: str


def run_here(main: Callable[[Sequence[str] | None], None], flags: Sequence[str], code: int = 0) -> Ended:
    """Run a script's main function as its own process would; fails where the exit code is another one."""
    shown, said, ended = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(said):
        try:
            run_main(main, flags)
        except SystemExit as end:
            ended = end.code
    assert ended == code, shown.getvalue() + said.getvalue()
    return Ended(shown.getvalue(), said.getvalue())


def train(data: DataFolder, output: Path, **values: object) -> Ended:
    """A short training in this process."""
    import run_KTNET_squad
    return run_here(run_KTNET_squad.main, flags(data, output, **values))


def run_and_kill(command: Sequence[str], lines: int | None, pause: float, until: str | None = None) -> int:
    """Run a training and kill it with SIGKILL.

    Args:
        command: command line.
        lines: how many lines that tell of a step or a saved checkpoint to wait for; None lets it run to its end.
        pause: seconds between the last of them and the kill.
        until: text of a line to wait for in their place.

    Returns:
        The exit code; -SIGKILL when it was killed.
    """
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    seen = 0
    if lines == 0:
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
    for line in process.stderr:
        seen += line.startswith(("epoch:", "saved"))
        if seen and seen == lines or until is not None and until in line:
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
            break
    process.stderr.read()
    return process.wait()
