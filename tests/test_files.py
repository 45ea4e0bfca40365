# SPDX-License-Identifier: Apache-2.0
"""Reading and writing files: text with and without a byte order mark, JSON that is none, and where outputs end up."""
from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fuzz_readers import READERS, make_input, seeds, try_reader
from src.config import BertConfig, KTNetConfig, load_knowledge_bases
from src.knowledge.concepts import read_concept_names
from src.knowledge.triples import read_triples
from src.reader.metrics import read_predictions
from src.reader.squad_twomemory import read_examples
from src.reader.tokenization import load_vocabulary
from testing import small_data
from utils.util import (
    InputError,
    atomic_path,
    describe,
    file_digest,
    read_json,
    read_text,
    run_main,
    text_digest,
    write_json,
    write_text,
)

ROOT = Path(__file__).parents[1]
MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize(("read", "content"), [
    (read_text, b"Ida Roth"),
    (read_json, b'{"a": 1}'),
    (read_predictions, b'{"a": "Seine"}'),
    (load_vocabulary, b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n"),
    (read_concept_names, b"concept:person 0.5\n"),
    (read_triples, b"a likes b\n"),
    (lambda path: list(read_examples(path, "dev")),
     b'{"data": [{"paragraphs": [{"context": "Paris", "qas": [{"id": "a", "question": "?", "answers": []}]}]}]}'),
], ids=["text", "json", "predictions", "vocabulary", "vectors", "triples", "data set"])
def test_a_byte_order_mark_changes_nothing(tmp_path, read, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    plain = read(path)
    path.write_bytes(MARK + content)
    assert read(path) == plain


def test_a_vocabulary_saved_on_windows_is_the_same(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_bytes(b"[PAD]\n[UNK]\n")
    digest = text_digest(path)
    assert digest == file_digest(path)
    path.write_bytes(MARK + b"[PAD]\r\n[UNK]\r\n")
    assert text_digest(path) == digest


@pytest.mark.parametrize(("content", "message"), [
    (b"9" * 5000, "whole number of more than 64 bits"),
    (b'{"a": 18446744073709551616}', "whole number of more than 64 bits"),
    (b'{"a": Infinity}', "Infinity is no finite number"),
    (b'{"a": 1e999}', "1e999 is no finite number"),
    (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    (b'["\\ud800"]', "half a surrogate pair"),
    (b'["\xff"]', r"not UTF-8 \(byte 0xff\)"),
    (b'{"a":\n 1', "line 2, column 3: not JSON"),
    (b"", "line 1, column 1: not JSON"),
    (b'{"a": {"b": 1, "b": 2}}', "the key 'b' comes twice"),
])
def test_json_that_is_refused(tmp_path, content, message):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_json(path)
    assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_too_little_memory_is_one_line(capsys):
    def allocate(_):
        np.zeros((1 << 40, 1 << 20), np.int8)

    with pytest.raises(SystemExit) as ended:
        run_main(allocate, [])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and error.startswith("error: out of memory (Unable to allocate") and \
        error.count("\n") == 1


def test_json_that_is_read(tmp_path):
    path = tmp_path / "file.json"
    values = {"text": "\U0001f600 \u00e9", "numbers": [-2 ** 63, 2 ** 64 - 1, 0.5, 1e300]}
    write_json(path, values)
    assert read_json(path) == values
    with pytest.raises(InputError, match="not finite"):
        write_json(path, {"threshold": float("inf")})
    path.write_text('["\\ud83d\\ude00"]')      # a whole pair
    assert read_json(path) == ["\U0001f600"]


@pytest.mark.parametrize(("change", "message"), [
    ({"num_hidden_layers": -1}, "num_hidden_layers must be a positive whole number"),
    ({"num_hidden_layers": 1_000_000}, "at most 1000"),
    ({"hidden_size": True}, "hidden_size must be a positive whole number"),
    ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob is 1.5; it must be below 1"),
    ({"hidden_dropout_prob": "0.1"}, "hidden_dropout_prob must be a number"),
    ({"hidden_act": 3}, "hidden_act must be a string"),
    ({"hidden_size": 10 ** 8}, "an encoder of these sizes has .* billion weights"),
    ({"intermediate_size": 10 ** 8, "hidden_size": 1024}, "an encoder of these sizes has .* billion weights"),
])
def test_sizes_that_cannot_be(tmp_path, change, message):
    sizes = {"vocab_size": 48, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
             "intermediate_size": 64}
    write_json(tmp_path / "bert_config.json", {**sizes, **change})
    with pytest.raises(InputError, match=message):
        BertConfig.from_json_file(tmp_path / "bert_config.json")
    with pytest.raises(InputError, match=f"x.json: bert: {message}|x.json: bert: .*{message}"):
        KTNetConfig.from_dict({"bert": {**sizes, **change}, "memories": [], "max_seq_len": 64}, "x.json")


@pytest.mark.parametrize("change", [
    {"retrieved": "x/{dataset}/{spLit}"}, {"retrieved": "x/{d!taset}"}, {"retrieved": "x/{"}, {"retrieved": {}},
    {"vectors": {"a": 1}}, {"label": 1e308}, {"name": "a/b"}, {"max_concepts": 1.5}, {"vectors": "a\0b"}])
def test_knowledge_bases_that_cannot_be(tmp_path, change):
    entry = {"name": "wn", "label": "W", "vectors": "a", "retrieved": "x/{dataset}/{split}", "key": "word",
             "max_concepts": 9}
    write_json(tmp_path / "kb.json", [entry])
    assert load_knowledge_bases(tmp_path / "kb.json")[0].name == "wn"
    write_json(tmp_path / "kb.json", [{**entry, **change}])
    with pytest.raises(InputError, match="kb.json: entry 1"):
        load_knowledge_bases(tmp_path / "kb.json")


@pytest.mark.parametrize("change", [{"retrieved": "./x/{dataset}"}, {"retrieved": "b"}, {"pruned": "a"},
                                    {"pruned": "x/{dataset}"}])
def test_knowledge_bases_that_write_over_each_other(tmp_path, change):
    entry = {"name": "one", "label": "1", "vectors": "a", "retrieved": "x/{dataset}", "key": "word", "max_concepts": 9}
    other = {**entry, "name": "two", "vectors": "b", "retrieved": "y/{dataset}"}
    write_json(tmp_path / "kb.json", [entry, other])
    assert len(load_knowledge_bases(tmp_path / "kb.json")) == 2
    write_json(tmp_path / "kb.json", [entry, {**other, **change}])
    with pytest.raises(InputError, match="kb.json: .* is written by one knowledge base and is another's file"):
        load_knowledge_bases(tmp_path / "kb.json")


def test_no_reader_ends_in_a_traceback(tmp_path):
    """Fewer inputs than benchmarks/fuzz_readers.py tries, of the same kinds."""
    rng, known = random.Random(5), seeds()
    for name in READERS:
        ends = {try_reader(name, make_input(rng, known[name]), tmp_path) for _ in range(60)}
        skips = name in ("tag_cache", "metrics")          # damaged lines
        expected = {"read"} if skips else {"read", "refused"}
        assert ends == expected, name


# --- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mask", "mode"), [(0o077, 0o600), (0o002, 0o664), (0o022, 0o644)])
def test_new_files_get_the_usual_mode_and_old_ones_keep_theirs(tmp_path, mask, mode):
    kept = tmp_path / "kept"
    kept.write_text("old")
    kept.chmod(0o640)
    before = os.umask(mask)
    try:
        write_text(tmp_path / "new", "text")
        write_text(kept, "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == mode
    assert (stat.S_IMODE(kept.stat().st_mode), kept.read_text()) == (0o640, "text")


def test_a_private_file_is_private_while_it_is_written(tmp_path):
    path = tmp_path / "kept"
    path.write_text("old")
    path.chmod(0o600)
    with atomic_path(path) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600


def test_links_are_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("old")
    (tmp_path / "link").symlink_to("second")
    (tmp_path / "second").symlink_to("real/file")
    (tmp_path / "dangling").symlink_to("real/new")
    write_text(tmp_path / "link", "new")
    write_text(tmp_path / "dangling", "made")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "dangling").is_symlink()
    assert (tmp_path / "real" / "file").read_text() == "new" and (tmp_path / "real" / "new").read_text() == "made"
    assert sorted(path.name for path in (tmp_path / "real").iterdir()) == ["file", "new"]
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(InputError, match="circle"):
        write_text(tmp_path / "a", "text")
    with pytest.raises(InputError, match="real: is a folder"):
        write_text(tmp_path / "real", "text")


def test_devices_and_pipes_are_written_into(tmp_path):
    """A link to the null device and a named pipe are there afterwards; the pipe's reader gets all."""
    (tmp_path / "null").symlink_to(os.devnull)
    write_text(tmp_path / "null", "text")
    assert (tmp_path / "null").is_symlink() and stat.S_ISCHR(os.stat(os.devnull).st_mode)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "through the pipe")
    assert os.read(reader, 100) == b"through the pipe" and stat.S_ISFIFO(pipe.stat().st_mode)
    os.close(reader)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["null", "pipe"]


def test_standard_output_as_a_file_keeps_what_was_printed(tmp_path):
    code = ("from utils.util import write_text; print('before'); write_text('/dev/stdout', 'text\\n'); print('after')")
    with open(tmp_path / "out", "w") as out:
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "before\ntext\nafter\n"


def test_a_long_message_keeps_its_place_and_its_fix():
    text = str(InputError(f"dev.json: question {'x' * 100_000} has no answer; remove it"))
    assert text.startswith("dev.json: question x") and text.endswith("x has no answer; remove it") and len(text) < 1000


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_converted_files_get_the_usual_mode(tmp_path):
    from src.data_convert import convert

    conversion = small_data.conversion(small_data.make_data(tmp_path / "data"))
    before = os.umask(0o027)
    try:
        convert(conversion, num_workers=1)
    finally:
        os.umask(before)
    written = [path for path in conversion.target.parent.iterdir() if "train." in path.name]
    assert {stat.S_IMODE(path.stat().st_mode) for path in written} >= {0o640}
    assert stat.S_IMODE(conversion.target.stat().st_mode) == 0o640
    conversion.target.chmod(0o600)
    convert(conversion, num_workers=1, force=True)
    assert stat.S_IMODE(conversion.target.stat().st_mode) == 0o600


@pytest.mark.parametrize("write", [
    lambda path: (_ for _ in ()).throw(OSError(28, "No space left on device")),
    lambda path: (_ for _ in ()).throw(OSError(28, "No space left on device", str(path)))])
def test_a_full_disk_names_the_file(tmp_path, write):
    """And nothing of it is left there."""
    with pytest.raises(OSError) as caught, atomic_path(tmp_path / "answers.json") as temporary:
        temporary.write_text("half")
        next(write(temporary))
    assert describe(caught.value) == f"{tmp_path / 'answers.json'}: No space left on device"
    assert not list(tmp_path.iterdir())
