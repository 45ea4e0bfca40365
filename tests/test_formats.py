"""The reader and writer of .data files, and of vectors files."""
from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import fuzz_formats
from src.knowledge import unpickle
from src.knowledge.concepts import (
    concept_ids,
    padded_table,
    read_concept_names,
    read_concept_vectors,
    write_concept_vectors,
)
from src.knowledge.formats import (
    read_mapping,
    read_records,
    retrieved_item_problem,
    write_mapping,
    write_records,
)
from utils.util import InputError

SHARED = Path(__file__).parents[2] / "shared" / "data"
PROTOCOLS = range(6)


def token_item(identity: str, words: int = 50) -> dict[str, Any]:
    """An item of a token file."""
    rng = random.Random(identity)
    tokens = [rng.choice("abcdefgh") + rng.choice(("", "x", "é", "z" * 20)) for _ in range(words)]
    half = {"tokens": tokens, "subtokens": tokens, "sub_to_ori_index": list(range(words)),
            "entities": [(tokens[1], 1, 1), ("two words", 2, 3)]}
    return {"id": identity, **{f"{side}_{key}": value for side in ("query", "document") for key, value in half.items()}}


def retrieved_item(identity: str) -> dict[str, Any]:
    """An item of a file of retrieved entities, with a list that is shared as the authors' files share it."""
    concepts = ["concept:city", "concept:team"]
    entities = [{"entity_string": "paris", "token_start": place, "token_end": place + 1, "retrieved_concepts": concepts,
                 "retrieved_entities": []} for place in range(3)]
    return {"id": identity, "document_entities": entities, "query_entities": entities[:1]}


# --- reading what picklers write ----------------------------------------------------------------------------------

SCALARS = (st.none() | st.booleans() | st.integers(-2 ** 62, 2 ** 62) | st.floats(allow_nan=False)
           | st.text(max_size=8) | st.sampled_from(["the", "the", "a" * 300, "ü" * 200]))
VALUES = st.recursive(SCALARS, lambda inner: (
    st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    | st.lists(inner, max_size=4).map(tuple)
    | st.sets(st.integers(0, 300) | st.text(max_size=2), max_size=3)), max_leaves=12)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=4), max_size=4), st.sampled_from(PROTOCOLS),
       st.booleans())
def test_whatever_plain_data_a_pickler_writes_comes_back(tmp_path_factory, items, protocol, pure_python):
    path = tmp_path_factory.mktemp("data") / "items.data"
    items = items + items[:1]      # the pickler refers back to the first
    if protocol < 4 and any("set" in repr(type(value)) for value in _walk(items)):
        protocol = 4               # before protocol 4, sets are made by calling a class
    path.write_bytes((pickle._dumps if pure_python else pickle.dumps)(items, protocol))
    assert list(read_records(path)) == items


def _walk(value: Any):
    yield value
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, (list, tuple, set)):
        for part in value:
            yield from _walk(part)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_files_larger_than_a_block_with_references_across_items(tmp_path, protocol, monkeypatch):
    monkeypatch.setattr(unpickle, "_BLOCK", 1000)     # so that runs and references cross blocks
    words = [f"word{number}" for number in range(2000)]
    items = [{"id": str(number), "words": words[number:number + 600], "nearby": words[number]}
             for number in range(300)]
    path = tmp_path / "items.data"
    path.write_bytes(pickle.dumps(items, protocol))
    assert list(read_records(path)) == items


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_mappings_of_any_protocol(tmp_path, protocol):
    mapping = {f"word{number}": [f"__w_NN_{sense}" for sense in range(number % 4)] for number in range(2500)}
    path = tmp_path / "map.data"
    path.write_bytes(pickle.dumps(mapping, protocol))
    assert read_mapping(path) == mapping


def test_what_is_written_is_read_by_both_readers(tmp_path):
    items = [token_item("a"), retrieved_item("b"), token_item("c", words=30_000), {"id": "tiny"}]
    path = tmp_path / "items.data"
    assert write_records(path, iter(items)) == 4
    assert list(read_records(path)) == items == pickle.loads(path.read_bytes())
    assert b"\x94" not in _opcodes(path)      # no object has a number
    write_records(path, [])
    assert list(read_records(path)) == [] == pickle.loads(path.read_bytes())
    mapping = {"dog": ["__dog_NN_1"], "": []}
    write_mapping(path, mapping)
    assert read_mapping(path) == mapping == pickle.loads(path.read_bytes())


def _opcodes(path: Path) -> bytes:
    """The opcodes of a pickle, one byte each."""
    import pickletools
    return b"".join(code.code.encode("latin-1") for code, _, _ in pickletools.genops(path.read_bytes()))


def test_a_failing_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "items.data"
    write_records(path, [{"id": "old"}])

    def items():
        yield {"id": "new"}
        raise RuntimeError("the step fails")

    with pytest.raises(RuntimeError):
        write_records(path, items())
    assert list(read_records(path)) == [{"id": "old"}]
    assert os.listdir(tmp_path) == ["items.data"]


def test_items_come_before_a_later_fault(tmp_path):
    path = tmp_path / "items.data"
    write_records(path, [token_item(str(number)) for number in range(20)])
    path.write_bytes(path.read_bytes()[:-50])
    items = read_records(path)
    assert [next(items)["id"] for _ in range(19)] == [str(number) for number in range(19)]
    with pytest.raises(InputError, match="cut short"):
        next(items)


@pytest.mark.parametrize("made", ["ours", "python's"])
def test_memory_does_not_grow_with_the_file(tmp_path, made, monkeypatch):
    monkeypatch.setattr(unpickle, "_CACHED_PIECES", 500)
    monkeypatch.setattr(unpickle, "_BLOCK", 1 << 14)

    def peak(count: int, keep: bool = False) -> int:
        path = tmp_path / f"{count}.data"
        items = ({"id": str(number), "tokens": (words := [f"w{number}_{place}" for place in range(40)]),
                  "again": words[:1], "places": list(range(40))} for number in range(count))
        if made == "ours":
            write_records(path, items)
        else:
            path.write_bytes(pickle.dumps(list(items)))
        tracemalloc.start()
        kept = [item if keep else None for item in read_records(path)]
        high = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(kept) == count
        return high

    assert peak(2000) < 700_000 < 4_000_000 < peak(2000, keep=True)


# --- refusals -----------------------------------------------------------------------------------------------------

class Exploit:
    """What an attacker would pickle."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_code_is_refused_by_name_and_not_run(tmp_path, protocol):
    path, marker = tmp_path / "evil.data", tmp_path / "it ran"
    path.write_bytes(pickle.dumps([{"id": "first"}, {"id": Exploit(marker)}], protocol))
    with pytest.raises(InputError, match=r"evil\.data: byte \d+: opcode (STACK_)?GLOBAL asks for posix\.mkdir"):
        list(read_records(path))
    assert not marker.exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_unknown_class_is_refused_by_name(tmp_path, protocol):
    from collections import OrderedDict
    path = tmp_path / "odd.data"
    path.write_bytes(pickle.dumps([OrderedDict(a=1)], protocol))
    with pytest.raises(InputError, match="asks for collections.OrderedDict"):
        list(read_records(path))


@pytest.mark.parametrize(("code", "name"), [
    (b"]c__builtin__\neval\n.", "GLOBAL asks for __builtin__.eval"), (b"](ios\nsystem\n.", "INST asks for os.system"),
    (b"]R.", "REDUCE"), (b"]b.", "BUILD"), (b"](o.", "OBJ"), (b"]\x81.", "NEWOBJ"), (b"]\x92.", "NEWOBJ_EX"),
    (b"]\x82\x01.", "EXT1"), (b"]\x83\x01\x00.", "EXT2"), (b"]\x84\x01\x00\x00\x00.", "EXT4"), (b"]Pid\n.", "PERSID"),
    (b"]Q.", "BINPERSID"), (b"]\x96" + bytes(8) + b".", "BYTEARRAY8"), (b"]\x97.", "NEXT_BUFFER"),
    (b"]\x98.", "READONLY_BUFFER"), (b"]0.", "POP"), (b"]2.", "DUP"), (b"]\x8b\x01\x00\x00\x00\x00.", "LONG4"),
    (b"]\xff.", "0xff is no opcode"), (b"]\x80\x04.", "PROTO"), (b"\x80\x09].", "PROTO 9 is unknown")])
def test_every_other_opcode_is_refused_by_name(tmp_path, code, name):
    path = tmp_path / "odd.data"
    path.write_bytes(code)
    with pytest.raises(InputError) as refusal:
        list(read_records(path))
    assert name in str(refusal.value) and f"{path}: byte" in str(refusal.value)


@pytest.mark.parametrize(("code", "reason"), [
    (b"]h\x00.", "object 0"), (b"]\x94h\x00a.", "object 0"), (b"]j\xff\xff\xff\xff.", "object 4294967295"),
    (b"]}\x94]\x94h\x01as.", "opcode"), (b"](]\x94h\x00ae.", "holds itself"), (b"]}}}ss.", "as a key"),
    (b"](K\x01K\x02u.", "no dict"), (b"]]K\x01s.", "no dict"), (b"](K\x01K\x02\x90.", "no set"),
    (b"]K\x01e.", "no MARK"),
    (b"]a.", "nothing on the stack"), (b"]\x94q\x01.", "two ways"), (b"]}(K\x01ua.", "key without a value"),
    (b"].x", "before the file's end"), (b"]K\x01.", "before a list is complete"), (b"](.", "before a list is complete"),
    (b"]\x8a\x09" + bytes(9) + b"a.", "number of 9 bytes"), (b"]I" + b"9" * 40 + b"\na.", "64 bits"),
    (b"]\x8c\x02\xff\xffa.", "UTF-8"), (b"]Fabc\na.", "no number"), (b"]Sabc\na.", "quotes"),
    (b"]V\\u12\na.", "escape"),
    (b"\x94].", "nothing to number"), (b"}.", "holds a dict where a list"), (b"K\x01.", "before a list is complete"),
    (b"]K\x01a.", "item 0 is a int"), (b"", "empty"), (b"]p-1\n.", "negative")])
def test_broken_pickles_are_refused(tmp_path, code, reason):
    path = tmp_path / "odd.data"
    path.write_bytes(code)
    with pytest.raises(InputError, match=reason):
        list(read_records(path))


def test_every_cut_is_noticed(tmp_path):
    path = tmp_path / "cut.data"
    for protocol in PROTOCOLS:
        whole = pickle.dumps([{"a": ["b"], "wide": "ü" * 130, "n": [(1.5, 70000), 2 ** 40, "b"]}], protocol)
        for length in range(1, len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(InputError, match="cut short|cut.data: byte"):
                list(read_records(path))


def test_lengths_that_lie_allocate_nothing(tmp_path):
    path = tmp_path / "lie.data"
    for code in (b"]X\xff\xff\xff\x7f", b"]B\xff\xff\xff\xff", b"]\x8d" + b"\xff" * 7 + b"\x7f", b"]\x8e" + b"\xff" * 8,
                 b"\x80\x04\x95" + b"\xff" * 8 + b"]."):
        path.write_bytes(code + bytes(100))
        tracemalloc.start()
        with pytest.raises(InputError, match="cut short"):
            list(read_records(path))
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
        tracemalloc.stop()


def nested(depth: int, chunk: bytes, closing: bytes) -> bytes:
    """A dict in a list with something deep in it."""
    return b"\x80\x04]}\x8c\x01a" + chunk * depth + b"K\x01" + closing * depth + b"sa."


@pytest.mark.parametrize(("chunk", "closing"), [(b"]", b"a"), (b"](", b"e"), (b"", b"\x85"), (b"(", b"t"),
                                                (b"}\x8c\x01a", b"s")])
def test_depth_is_limited(tmp_path, chunk, closing):
    path = tmp_path / "deep.data"
    path.write_bytes(nested(20, chunk, closing))
    assert len(list(read_records(path))) == 1
    for depth in (100, 200_000):
        path.write_bytes(nested(depth, chunk, closing))
        with pytest.raises(InputError, match="64 deep"):
            list(read_records(path))


def test_a_small_file_cannot_stand_for_a_giant(tmp_path):
    code = b"\x80\x04](]\x94K\x01a"                       # object 0, and then each holds the one before ten times
    for number in range(60):
        code += b"]\x94(" + b"h" + bytes([number]) + (b"h" + bytes([number])) * 9 + b"e"
    path = tmp_path / "laughs.data"
    path.write_bytes(code + b"e.")
    with pytest.raises(InputError, match="values in one item"):
        list(unpickle.stream(path, list))


@pytest.mark.parametrize("chunk", [b"]", b"]\x94(", b"(", b"\x8c\x01a", b"\x8c\x02ab\x94", b"K\x01", b"j\x01\0\0\0",
                                   b"N", b"jjjj", b"\x8f"])
def test_floods_are_refused_with_little_memory(tmp_path, chunk):
    """A process with 700 MB of address space for everything refuses 100 MB of anything."""
    path = tmp_path / "flood.data"
    with open(path, "wb") as flood:
        flood.write(b"\x80\x04](")
        for _ in range(100):
            flood.write(chunk * ((1 << 20) // len(chunk)))
    code = ("import resource, sys\nfrom src.knowledge.formats import read_records\nfrom utils.util import InputError\n"
            "limit = 700 << 20\nresource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
            "try:\n    list(read_records(sys.argv[1]))\nexcept InputError as error:\n    print(error)\n"
            # not ru_maxrss, which a process inherits from the one that started it
            "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])")
    done = subprocess.run([sys.executable, "-c", code, str(path)], cwd=Path(__file__).parents[1], check=True, text=True,
                          stdout=subprocess.PIPE, env={"PATH": os.environ["PATH"], "OPENBLAS_NUM_THREADS": "1"})
    refusal, peak = done.stdout.strip().rsplit("\n", 1)
    assert "flood.data: byte" in refusal and int(peak) < 350_000
    os.unlink(path)


def test_fuzz(tmp_path):
    """A small share of benchmarks/fuzz_formats.py, whose checks raise when the reader misbehaves."""
    outcomes, _ = fuzz_formats.run(2000, seed=random.randrange(1 << 30))
    assert sum(outcomes.values()) > 2000 and outcomes["read"] > 0 and outcomes["refused: would run code"] > 0


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        list(read_records(tmp_path / "missing.data"))
    with pytest.raises(InputError, match="not a file"):
        read_mapping(tmp_path)


def test_the_wrong_file_is_noticed(tmp_path):
    path = tmp_path / "items.data"
    write_records(path, [{"id": "a"}])
    with pytest.raises(InputError, match="holds a list where a dict is expected"):
        read_mapping(path)
    path.write_bytes(pickle.dumps({"dog": "not a list"}))
    with pytest.raises(InputError, match="'dog' is no list of strings"):
        read_mapping(path)


# --- the shapes ---------------------------------------------------------------------------------------------------

def test_sound_items_have_no_problem():
    assert retrieved_item_problem(retrieved_item("a")) == ""


@pytest.mark.parametrize(("entity", "problem"), [
    ({"token_start": 3, "token_end": 2}, "span"), ({"token_start": "a"}, "span"),
    ({"retrieved_concepts": [1]}, "strings")])
def test_faults_of_retrieved_items(entity, problem):
    item = retrieved_item("a")
    item["query_entities"] = [{**item["query_entities"][0], **entity}]
    assert problem in retrieved_item_problem(item)


# --- vectors ------------------------------------------------------------------------------------------------------

def test_vectors_come_back_and_are_padded(tmp_path):
    path = tmp_path / "vectors.txt"
    vectors = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    names = [f"concept:{number}" for number in range(19)] + ["ünï"]
    write_concept_vectors(path, names, vectors)
    read_names, read_vectors = read_concept_vectors(path)
    assert read_names == names == read_concept_names(path)
    np.testing.assert_allclose(read_vectors, vectors, rtol=1e-5)
    assert read_vectors.dtype == np.float32
    assert concept_ids(path)["concept:0"] == 1 and concept_ids(path)["ünï"] == 20
    table = padded_table(read_vectors, 16)
    assert table.shape == (32, 16) and table.dtype == np.float32
    np.testing.assert_array_equal(table[1:21, :5], read_vectors)
    assert table[0].any() == table[21:].any() == table[:, 5:].any() == np.False_
    assert padded_table(read_vectors, 1).shape == (21, 5)


@pytest.mark.parametrize(("text", "message"), [
    ("a 1 2\nb 1\n", "line 2: 1 numbers"), ("a 1 2\nb 1 2 3\n", "line 2: 3 numbers"),
    ("a 1 2\nb 1 nan\n", "line 2: 'nan'"), ("a 1 2\nb inf 2\n", "line 2: 'inf'"), ("a 1 2\nb 1 x\n", "line 2: 'x'"),
    ("a 1 2\nb 1 2\na 3 4\n", "line 3: .* line 1"),
    ("a\n", "line 1: no numbers"), ("a 1 2\n 1 2\n", "line 2: no concept name"), ("", "empty"),
    ("a 1 2\n\nb 1 2", "line 2"),
    ("a 1 2\nb 1 1e99\n", "line 2: '1e99'")])
def test_faults_of_vectors_files(tmp_path, text, message):
    path = tmp_path / "vectors.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as refusal:
        read_concept_vectors(path)
    assert str(path) in str(refusal.value)


def test_vectors_that_are_no_text(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_bytes(b"a 1 2\n\xff\xfe 1 2\n")
    with pytest.raises(InputError, match="line 2: the name is not UTF-8"):
        read_concept_names(path)
    with pytest.raises(InputError, match="no such file"):
        read_concept_names(tmp_path / "missing.txt")


# --- the authors' files -------------------------------------------------------------------------------------------

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data")


@needs_shared
@pytest.mark.parametrize("pattern", ["tokenization_*/tokens/dev*.data", "retrieve_nell/*/dev*.data"])
def test_the_authors_records(pattern):
    paths = sorted(SHARED.glob(pattern))
    assert paths
    for path in paths:
        with open(path, "rb") as source:
            expected = pickle.load(source)
        for item, wanted in zip(read_records(path), expected, strict=True):
            assert item == wanted and ("token" in pattern or not retrieved_item_problem(item))


@needs_shared
def test_the_authors_mappings_and_vectors():
    for path in SHARED.glob("retrieve_wordnet/*/*.data"):
        assert read_mapping(path) == pickle.loads(path.read_bytes())
    names, vectors = read_concept_vectors(SHARED / "KB_embeddings" / "nell_concept2vec.txt")
    assert padded_table(vectors).shape == (288, 112) and names[0] == "concept:coach"
    assert len(read_concept_names(SHARED / "KB_embeddings" / "wn_concept2vec.txt")) == 40943


