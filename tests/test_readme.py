# SPDX-License-Identifier: Apache-2.0
"""The commands of README and docs are run here or listed with a reason; both languages have the same ones."""
from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from examples.quickstart import toy_wordnet
from testing.small_predict import SAMPLE, make_vocabulary

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docker").glob("*.md"))]
TRANSLATED = {ROOT / "README.md": ROOT / "README_CN.md",
              **{path.parents[1] / path.name: path for path in sorted((ROOT / "docs" / "zh").glob("*.md"))}}
IN_BOTH = pytest.mark.parametrize("english", TRANSLATED, ids=lambda path: path.name)


class Command(NamedTuple):
    """One command of a page, without its comment."""

    page: str
    text: str


def fenced(text: str) -> Iterator[str]:
    """The contents of the bash blocks, and of the indented blocks that are commands."""
    yield from re.findall(r"^ *```(?:bash|shell|sh)\n(.*?)^ *```", text, re.S | re.M)
    for block in re.findall(r"(?:^ {4,}\S.*\n)+", re.sub(r"^ *```.*?^ *```", "", text, flags=re.S | re.M), re.M):
        if re.match(r"\s*(?:bash|python|pip|curl|docker) ", block):
            yield block


def commands(path: Path) -> list[Command]:
    """Those of a page, continued lines joined, comments and the blanks of alignment left out."""
    found = []
    for block in fenced(path.read_text("utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                found.append(Command(path.name, shlex.join(words)))
    return found


ALL = list(dict.fromkeys(command for page in PAGES for command in commands(page)))

# --- what is not run: pattern, reason; a test file in the reason must name the script

LISTED = {
    r"bash scripts/get_(wordnet|data|lite)\.sh": "network; get_data.sh: tests/test_get_data.py",
    r"bash scripts/test\.sh": "it is what runs this",
    r"bash scripts/run_(squad|record)_twomemory_distribute(_gpu)?\.sh": "several devices; tests/test_launchers.py",
    r"bash scripts/run_squad_twomemory(_gpu)?\.sh": "as ReCoRD's, which is run; tests/test_launchers.py",
    r"bash scripts/run_record_twomemory\.sh": "as the GPU's, which is run; tests/test_launchers.py",
    r"bash scripts/export\.sh": "export.py, which is run, twice; tests/test_export.py",
    r"bash scripts/run_infer_310\.sh": "MindSpore Lite; tests/test_infer_harness.py",
    r"python run_KTNET_squad\.py .*DATA": "hours; its flags are parsed here",
    r"python -m benchmarks\.": "minutes of measuring",
    r"python (retrieve|data_convert|run_KTNET_squad|run_KTNET_squad_eval|predict)\.py .*--kb_config":
        "your own knowledge base; tests/test_third_memory.py",
    r"python (retrieve|data_convert|run_KTNET_squad)\.py .*(--shard|-of-4)":
        "parts of a data set; tests/test_shards.py",
    r"python (export|predict)\.py (--file_format FOLDER|--model )": "a model folder; tests/test_model_folder.py",
    r"python train_kb_embedding\.py": "minutes of training; tests/test_kb_embedding.py",
    r"cmake .* -DFUZZ=ON|fuzz/": "clang with libFuzzer, and minutes",
    r"docker ": "a Docker engine",
    r"pip install ": "network",
}

# --- what is run, in a copy of the repository with the sample and a tiny encoder ---

RUN = [      # in this order, each command once, whatever page it is on
    r"bash scripts/quickstart\.sh", r"bash scripts/ask\.sh", r"python src/bert_ms_format\.py", r"python retrieve\.py",
    r"python data_convert\.py", r"bash scripts/run_record_twomemory_gpu\.sh", r"bash scripts/run_squad_eval\.sh",
    r"bash scripts/run_record_eval\.sh", r"python -m src\.reader\.squad_v1_official_evaluate",
    r"python -m src\.reader\.record_official_evaluate", r"python predict\.py .*--evaluation", r"python predict\.py",
    r"python export\.py"]
BERT = "data/cased_L-24_H-1024_A-16"
PLACES = {   # what a page leaves to the reader -> what stands in the copy; {task} is squad or record
    r"\[DATAPATH\]": "data", r"\[CHECKPOINT_PATH\]|.*KTNET_squad\S*\.ckpt": "{task}.ckpt",
    r"DATASET\.json": "{dataset}", r"PREDICTIONS\.json": "output/eval_{task}/predictions.json"}
DATASETS = {"squad": "data/SQuAD/dev-v1.1.json", "record": "data/ReCoRD/dev.json"}
ENVIRONMENT = {"FOREGROUND": "1", "DEVICE_TARGET": "CPU"}
SMALL = ("--epoch", "1", "--batch_size", "12", "--buckets", "1", "--keep_checkpoint_max", "1")
MORE = {r"bash scripts/quickstart\.sh": ("--", *SMALL),
        r"bash scripts/run_record_twomemory_gpu\.sh": ("--", *SMALL, "--first_epoch", "1")}


def is_listed(text: str) -> bool:
    return any(re.match(r"([A-Z_]+=\S+ )*" + pattern, text) for pattern in LISTED)


def is_run(text: str) -> bool:
    return any(re.match(pattern, text) for pattern in RUN)


def test_every_command_is_run_or_listed():
    assert len(ALL) > 25
    for command in ALL:
        assert is_listed(command.text) or is_run(command.text), f"{command.page}: {command.text}"
    for pattern in [*LISTED, *RUN]:
        if not re.search(r"docker|pip|benchmarks|cmake", pattern):
            assert any(re.match(pattern, command.text) for command in ALL), f"no page has {pattern}"


def test_reasons_name_tests_that_there_are():
    for pattern, reason in LISTED.items():
        for name in re.findall(r"tests/\S+\.py", reason):
            text = (ROOT / name).read_text("utf-8")
            script = re.search(r"(?:scripts/)?(\w+)", pattern.split(" ", 1)[1].replace("scripts/", ""))[1]
            assert re.search(script.rstrip("_"), text), f"{name}: nothing of {pattern}"


@IN_BOTH
def test_both_languages_have_the_same_commands(english):
    theirs, ours = commands(english), commands(TRANSLATED[english])
    assert [command.text for command in theirs] == [command.text for command in ours]


@IN_BOTH
def test_both_languages_have_the_same_sections_and_figures(english):
    """Headings by level, rows of tables, numbers in tables, flags and files."""
    english, chinese = (path.read_text("utf-8") for path in (english, TRANSLATED[english]))
    names = [set(re.findall(r"`([^`\s]+\.\w+|--\w+)`", text)) for text in (english, chinese)]
    assert names[0] == names[1]
    for pattern in (r"^#+ ", r"^\|.*\|$"):
        assert len(re.findall(pattern, english, re.M)) == len(re.findall(pattern, chinese, re.M)), pattern
    assert re.findall(r"^#+", english, re.M) == re.findall(r"^#+", chinese, re.M)
    rows = [[re.findall(r"`[^`]+`|\d+(?:[.,]\d+)*(?:e-?\d+)?", row) for row in re.findall(r"^\|.*\|$", text, re.M)]
            for text in (english, chinese)]
    for one, other in zip(*rows, strict=True):
        assert sorted(one) == sorted(other)


@pytest.mark.parametrize("page", [*PAGES, *TRANSLATED.values()], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = page.read_text("utf-8")
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
               for heading in re.findall(r"^#+ (.*)$", text, re.M)}
    for target in re.findall(r"\]\(([^)]+)\)|(?:src|srcset)=\"([^\"]+)\"", text):
        target = target[0] or target[1]
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif "://" not in target:
            assert (page.parent / target.split("#")[0]).exists(), target


def test_the_flag_tables_are_right():
    pytest.importorskip("mindspore")
    from tests import flag_tables
    assert flag_tables.PAGE.read_text("utf-8") == flag_tables.page(), "run python -m tests.flag_tables"


def test_every_source_names_its_licence():
    listed = subprocess.run(["git", "ls-files", "*.py", "*.sh", "*.cc", "*.h", "*.yaml", "*.html", "*CMakeLists.txt",
                             "*Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    sources = [ROOT / name for name in listed if (ROOT / name).is_file()]
    assert len(sources) > 100
    assert not [path for path in sources if "SPDX-License-Identifier: Apache-2.0" not in path.read_text("utf-8")[:200]]


def test_the_source_tree_names_every_room():
    tree = (ROOT / "docs" / "source_tree.md").read_text("utf-8")
    rooms = [path.parent.name for path in (ROOT / "src").glob("*/__init__.py")]
    assert rooms and all(f"├── {room} " in tree or f"└── {room} " in tree for room in rooms)


def test_flags_of_trainings_that_take_hours():
    pytest.importorskip("mindspore")
    from src.config import SQUAD
    from src.settings import TrainingSettings
    for command in ALL:
        if command.text.startswith("python run_KTNET_squad.py"):
            TrainingSettings.parse(shlex.split(command.text)[2:], SQUAD)


# --- the copy ---------------------------------------------------------------------------------------------------------

def copy_repository(target: Path) -> None:
    """What git would have in a clone, with the files that are not committed yet; the environment by a link."""
    names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                           capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    (target / ".venv").symlink_to(sys.prefix)


def make_encoder(folder: Path, vocabulary: Path) -> None:
    """A BERT of one layer, 16 wide, as a HuggingFace folder."""
    from safetensors.numpy import save_file

    from src.config import BertConfig
    from testing.small_training import random_encoder
    from tests.test_bert_ms_format import EMBEDDINGS, LAYER
    config = BertConfig(vocab_size=len(vocabulary.read_text("utf-8").splitlines()), hidden_size=16, num_hidden_layers=1,
                        num_attention_heads=2, intermediate_size=32, max_position_embeddings=384)
    names = {ours: theirs for ours, theirs, *_ in EMBEDDINGS}
    names |= {f"bert.bert_encoder.layers.0.{ours}": f"encoder.layer.0.{theirs}" for ours, theirs, *_ in LAYER}
    folder.mkdir(parents=True)
    save_file({names[name]: values for name, values in random_encoder(config).items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**dataclasses.asdict(config), "model_type": "bert"}), "utf-8")
    shutil.copy(vocabulary, folder / "vocab.txt")


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A clone with a data folder as README lays it out, of the quickstart's sample; SQuAD's part alone beside it."""
    pytest.importorskip("mindspore")
    root = tmp_path_factory.mktemp("readme") / "ktnet"
    copy_repository(root)
    data = root / "data"
    for name in ("SQuAD", "ReCoRD", "KB_embeddings", "raw"):
        shutil.copytree(SAMPLE / name, data / name)
    toy_wordnet.main([str(SAMPLE / "toy_wordnet.json"), str(data / "nltk" / "corpora" / "wordnet")])
    make_encoder(root / BERT, make_vocabulary(data))
    shutil.copytree(data, root / "part", ignore=shutil.ignore_patterns("ReCoRD"))
    export = next((root / "part" / "raw").glob("NELL.*"))
    export.rename(root / "part" / export.name)      # where scripts/get_data.sh puts it
    (root / "tower.txt").write_text("The Clock Tower of Tarn was built in 1692 by the mason Henrik Dale.\n", "utf-8")
    return root


def adapted(text: str) -> list[str]:
    """The words of a command with what stands in the copy."""
    task = "record" if "record" in text else "squad"
    words = shlex.split(text)
    for pattern, place in PLACES.items():
        words = [place.format(task=task, dataset=DATASETS[task]) if re.fullmatch(pattern, word) else word
                 for word in words]
    return words


def run(words: list[str], folder: Path) -> None:
    """In the folder, with its environment first on PATH; fails with what was said."""
    environment = {**os.environ, **ENVIRONMENT, "PATH": f"{folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    if "quickstart.sh" in words[1]:
        environment |= {"DATAPATH": "part", "ENCODER": BERT}
    ended = subprocess.run(words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
                           text=True, check=False)
    assert ended.returncode == 0, f"{shlex.join(words)}\n{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"


def keep_checkpoint(folder: Path, pattern: str, task: str) -> None:
    """Put a checkpoint where PLACES says."""
    for path in folder.glob(pattern):
        for one in (path, path.with_suffix(".json")):
            shutil.copy(one, folder / f"{task}{one.suffix}")


@pytest.mark.slow
def test_commands_that_can_be_run_are_run(copy):
    wanted = list(dict.fromkeys(command.text for command in ALL if not is_listed(command.text)))
    for pattern in RUN:
        for text in [text for text in wanted if re.match(pattern, text)]:
            wanted.remove(text)
            run([*adapted(text), *MORE.get(pattern, ())], copy)
            keep_checkpoint(copy, "quickstart_output/*/squad/finetune_checkpoint/KTNET_squad-*.ckpt", "squad")
            keep_checkpoint(copy, "output/finetune_checkpoint/KTNET_record-*.ckpt", "record")
    assert not wanted
    made = [str(path.relative_to(copy)) for path in copy.rglob("*")]
    for name in (BERT + "/roberta.ckpt", "data/SQuAD/train.mindrecord", "output/eval_squad/eval_result.json",
                 "output/eval_record/eval_result.json", "page.html", "mindir/KTNET_squad.mindir"):
        assert name in made
