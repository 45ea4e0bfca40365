# SPDX-License-Identifier: Apache-2.0
"""The reader and writer of .data files, and of vectors files."""
from __future__ import annotations

import gzip
import json
import os
import pickle
import random
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import fuzz_formats
from src.knowledge import concepts, formats, pickles
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
from testing.real_data import SHARED, needs_shared
from utils.util import InputError

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
def test_mappings_of_any_protocol(tmp_path, protocol):
    mapping = {f"word{number}": [f"__w_NN_{sense}" for sense in range(number % 4)] for number in range(2500)}
    path = tmp_path / "map.data"
    path.write_bytes(pickle.dumps(mapping, protocol))
    assert read_mapping(path) == mapping
    path.write_bytes(pickle.dumps({word.encode(): [name.encode() for name in names]
                                   for word, names in mapping.items()}, 4))
    assert read_mapping(path) == mapping      # bytes, as Python 2 has text


def as_json(value: Any) -> Any:
    """The value as JSON has it: tuples are lists."""
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("form", ["json", "pickle"])
def test_what_is_written_comes_back(tmp_path, form):
    items = [token_item("a"), retrieved_item("b"), token_item("c", words=30_000), {"id": "tiny", "text": "ü\u2028"}]
    path = tmp_path / "items.data"
    assert write_records(path, iter(items), form) == 4
    assert as_json(list(read_records(path))) == as_json(items)
    mapping = {"dog": ["__dog_NN_1"], "": []}
    write_mapping(tmp_path / "map.data", mapping, form)
    assert read_mapping(tmp_path / "map.data") == mapping
    if form == "pickle":
        assert pickle.loads(path.read_bytes()) == items
        assert pickle.loads((tmp_path / "map.data").read_bytes()) == mapping
        assert b"\x94" not in _opcodes(path)      # no object has a number
    else:
        assert [json.loads(line) for line in path.read_bytes().splitlines()] == as_json(items)


def test_json_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "items.data"
    path.write_text('{"id": "a"}\n{"id": "b"}\n', encoding="utf-8-sig")
    assert list(read_records(path)) == [{"id": "a"}, {"id": "b"}]


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
    with pytest.raises(InputError, match=r"items\.data: line 20: .*cut short"):
        next(items)


def test_json_is_read_with_little_memory(tmp_path):
    path = tmp_path / "items.data"
    write_records(path, ({"id": str(number), "tokens": [f"w{number}_{place}" for place in range(40)]}
                         for number in range(2000)))
    tracemalloc.start()
    assert sum(1 for _ in read_records(path)) == 2000
    high = tracemalloc.get_traced_memory()[1]
    kept = list(read_records(path))
    assert high < 700_000 < 4_000_000 < tracemalloc.get_traced_memory()[1] and len(kept) == 2000
    tracemalloc.stop()


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
    with pytest.raises(InputError, match=r"evil\.data: byte \d+: opcode (GLOBAL asks for 'posix\.mkdir|STACK_GLOBAL)"):
        list(read_records(path))
    assert not marker.exists()


def test_imports_are_refused_even_by_the_unpickler_itself(tmp_path, monkeypatch):
    """The second wall behind the look at the opcodes."""
    monkeypatch.setattr(pickles, "_check_opcodes", lambda path, data: None)
    path, marker = tmp_path / "evil.data", tmp_path / "it ran"
    path.write_bytes(pickle.dumps([Exploit(marker)]))
    with pytest.raises(InputError, match=r"asks for posix\.mkdir"):
        list(read_records(path))
    assert not marker.exists()


@pytest.mark.parametrize(("code", "name"), [
    (b"]c__builtin__\neval\n.", "GLOBAL asks for '__builtin__.eval'"),
    (b"](ios\nsystem\n.", "INST asks for 'os.system'"),
    (b"]c\x1b[2J\nx\n.", r"GLOBAL asks for '\x1b"),
    (b"]R.", "REDUCE"), (b"]b.", "BUILD"), (b"](o.", "OBJ"), (b"]\x81.", "NEWOBJ"), (b"]\x92.", "NEWOBJ_EX"),
    (b"]\x82\x01.", "EXT1"), (b"]\x83\x01\x00.", "EXT2"), (b"]\x84\x01\x00\x00\x00.", "EXT4"), (b"]Pid\n.", "PERSID"),
    (b"]Q.", "BINPERSID"), (b"]\x96" + bytes(8) + b".", "BYTEARRAY8"), (b"]\x97.", "NEXT_BUFFER"),
    (b"]\x98.", "READONLY_BUFFER"), (b"]0.", "POP"), (b"]2.", "DUP"), (b"]\x8b\x01\x00\x00\x00\x00.", "LONG4"),
    (b"]\x93.", "STACK_GLOBAL"), (b"]\xff.", "0xff is no opcode")])
def test_every_other_opcode_is_refused_by_name(tmp_path, code, name):
    path = tmp_path / "odd.data"
    path.write_bytes(code)
    with pytest.raises(InputError) as refusal:
        list(read_records(path))
    assert name in str(refusal.value) and f"{path}: byte" in str(refusal.value)


@pytest.mark.parametrize(("code", "reason"), [
    (b"]h\x00.", "damaged"), (b"]j\xff\xff\xff\xffa.", "damaged"), (b"](K\x01K\x02u.", "damaged"),
    (b"](}\x94K\x01h\x00se.", "more than 64 deep"),
    (b"]}}}ss.", "damaged"), (b"]a.", "damaged"), (b"].x", "ends before"),
    (b"](.", "damaged"), (b"]\x8a\x09" + bytes(9) + b"a.", "64 bits"), (b"]I" + b"9" * 40 + b"\na.", "64 bits"),
    (b"]L" + b"9" * 5000 + b"L\na.", "64 bits"), (b"]\x8c\x02\xff\xffa.", "damaged"), (b"]Fabc\na.", "damaged"),
    (b"]r\xff\xff\xff\x7f.", "LONG_BINPUT of 2147483647"), (b"]p99999999\n.", "PUT of"), (b"]p-1\n.", "PUT of"),
    (b"\x80\x04\x95" + b"\xff" * 7 + b"\x7f].", "FRAME of"), (b"}.", "holds a dict"), (b"K\x01.", "holds a int"),
    (b"]K\x01a.", "item 0 is a int"), (b"", "empty"), (b"](((((((((((((((.", "damaged")])
def test_broken_pickles_are_refused(tmp_path, code, reason):
    path = tmp_path / "odd.data"
    path.write_bytes(code)
    with pytest.raises(InputError, match=reason):
        list(read_records(path))


@pytest.mark.parametrize(("line", "reason"), [
    (b'{"id": NaN}', "no finite number"), (b'{"id": 1e999}', "no finite number"),
    (b'{"id": ' + b"9" * 5000 + b"}", "64 bits"),
    (b'{"id": "\xff"}', "UTF-8"), (b'{"id": ' + b"[" * 5000, "nested|not JSON"), (b'{"a": 1', "not JSON"),
    (b'{"id": ' + b"[" * 100 + b"]" * 100 + b"}", "64 deep"), (b"{}\n[]", "line 2 is a list")])
def test_broken_json_is_refused(tmp_path, line, reason):
    path = tmp_path / "odd.data"
    path.write_bytes(line + b"\n")
    with pytest.raises(InputError, match=reason) as refusal:
        list(read_records(path))
    assert str(refusal.value).startswith(f"{path}: ") and len(str(refusal.value)) < 400


def test_a_line_beyond_measure_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "MAX_LINE", 50)
    path = tmp_path / "long.data"
    path.write_text('{"id": "a"}\n{"id": "' + "b" * 60 + '"}\n')
    with pytest.raises(InputError, match="line 2: more than 50"):
        list(read_records(path))


def test_every_cut_is_noticed(tmp_path):
    path = tmp_path / "cut.data"
    for protocol in PROTOCOLS:
        whole = pickle.dumps([{"a": ["b"], "wide": "ü" * 130, "n": [(1.5, 70000), 2 ** 40, "b"]}], protocol)
        for length in range(1, len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(InputError, match="cut short|cut.data: "):
                list(read_records(path))


def test_lengths_that_lie_allocate_nothing(tmp_path):
    path = tmp_path / "lie.data"
    for code in (b"]X\xff\xff\xff\x7f", b"]B\xff\xff\xff\xff", b"]\x8d" + b"\xff" * 7 + b"\x7f", b"]\x8e" + b"\xff" * 8,
                 b"\x80\x04\x95" + b"\xff" * 8 + b"]."):
        path.write_bytes(code + bytes(100))
        tracemalloc.start()
        with pytest.raises(InputError, match="cut short|FRAME"):
            list(read_records(path))
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
        tracemalloc.stop()


def nested(depth: int, chunk: bytes, closing: bytes) -> bytes:
    """A dict in a list with something deep in it, and text that makes the file larger."""
    text = b"x" * (5 * depth)
    return (b"\x80\x04]}\x8c\x01a" + chunk * depth + b"K\x01" + closing * depth + b"s\x8c\x01bX"
            + len(text).to_bytes(4, "little") + text + b"sa.")


@pytest.mark.parametrize(("chunk", "closing"), [(b"]", b"a"), (b"](", b"e"), (b"", b"\x85"), (b"(", b"t"),
                                                (b"}\x8c\x01a", b"s")])
def test_depth_is_limited(tmp_path, chunk, closing):
    path = tmp_path / "deep.data"
    path.write_bytes(nested(20, chunk, closing))
    assert len(list(read_records(path))) == 1
    for depth in (100, 200_000):
        path.write_bytes(nested(depth, chunk, closing))
        with pytest.raises(InputError, match="64 deep|of memory"):
            list(read_records(path))


def test_a_small_file_cannot_stand_for_a_giant(tmp_path):
    code = b"\x80\x04](]\x94K\x01a"                       # object 0, and then each holds the one before ten times
    for number in range(60):
        code += b"]\x94(" + b"h" + bytes([number]) + (b"h" + bytes([number])) * 9 + b"e"
    path = tmp_path / "laughs.data"
    path.write_bytes(code + b"e.")
    assert "values in one item" in pickles.shape_problem(pickles.load_plain(path, list))


@pytest.mark.parametrize("chunk", [b"]", b"]\x94(", b"(", b"\x8f", b"}", b")"])
def test_floods_are_refused_before_they_are_built(tmp_path, chunk):
    path = tmp_path / "flood.data"
    path.write_bytes(b"\x80\x04](" + chunk * ((1 << 20) // len(chunk)) + b"e.")
    tracemalloc.start()
    with pytest.raises(InputError, match=r"flood\.data: byte .* of memory"):
        list(read_records(path))
    assert tracemalloc.get_traced_memory()[1] < 2_000_000
    tracemalloc.stop()


def test_a_file_beyond_measure_is_refused_by_its_size(tmp_path, monkeypatch):
    path = tmp_path / "large.data"
    path.write_bytes(pickle.dumps([{"id": "a"}]))
    monkeypatch.setattr(pickles, "MAX_BYTES", 10)
    with pytest.raises(InputError, match="at most 10"):
        list(read_records(path))
    monkeypatch.setattr(pickles, "MAX_BYTES", 1000)
    monkeypatch.setattr(pickles, "MAX_MEMORY", 100)
    with pytest.raises(InputError, match="more than 100 of memory"):
        list(read_records(path))


def test_fuzz(tmp_path):
    """A small share of benchmarks/fuzz_formats.py, whose checks raise when the reader misbehaves."""
    outcomes, _ = fuzz_formats.run(2000, seed=random.randrange(1 << 30))
    assert sum(outcomes.values()) > 2000 and outcomes["read"] > 0 and outcomes["refused: asks for"] > 0


def test_files_that_are_none(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        list(read_records(tmp_path / "missing.data"))
    with pytest.raises(InputError, match="not a file"):
        read_mapping(tmp_path)


@pytest.mark.parametrize("form", ["json", "pickle"])
def test_the_wrong_file_is_noticed(tmp_path, form):
    path = tmp_path / "items.data"
    write_records(path, [{"id": "a"}, {"id": "b"}], form)
    with pytest.raises(InputError, match="holds a list where a dict is expected|no single dict"):
        read_mapping(path)
    write_mapping(path, {"dog": "not a list"}, form)
    with pytest.raises(InputError, match="'dog' is not a list of strings"):
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


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("header", [b"", b"3 2\n", b"\xef\xbb\xbf3 2\n", b"\xef\xbb\xbf"])
def test_vectors_with_a_header_or_packed_have_the_same_ids(tmp_path, monkeypatch, packed, header):
    monkeypatch.setattr(concepts, "PARSED_LINES", 2)
    path = tmp_path / "vectors.txt"
    data = header + b"dog 1 2\ncat 3 4\nnew_york 5 6\n"
    path.write_bytes(gzip.compress(data) if packed else data)
    names, vectors = read_concept_vectors(path)
    assert names == read_concept_names(path) == ["dog", "cat", "new_york"] and concept_ids(path)["dog"] == 1
    np.testing.assert_array_equal(vectors, [[1, 2], [3, 4], [5, 6]])


def test_faults_of_headers_and_packed_vectors(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_bytes(b"4 2\ndog 1 2\ncat 3 4\n")
    with pytest.raises(InputError, match="2 concepts, its first line says 4"):
        read_concept_names(path)
    path.write_bytes(b"3 2\ndog 1 2\ncat 3 x\nbat 1 2\n")
    with pytest.raises(InputError, match="line 3: 'x'"):      # the header is a line, too
        read_concept_vectors(path)
    path.write_bytes(gzip.compress(b"dog 1 2\n")[:-5])
    with pytest.raises(InputError, match="cut short or damaged"):
        read_concept_names(path)
    path.write_bytes(b"5 1\n6 2\n")      # numbers are names where that is all they can be
    assert read_concept_names(path) == ["5", "6"]


def test_vectors_that_are_no_text(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_bytes(b"a 1 2\n\xff\xfe 1 2\n")
    with pytest.raises(InputError, match="line 2: the name is not UTF-8"):
        read_concept_names(path)
    with pytest.raises(InputError, match="no such file"):
        read_concept_names(tmp_path / "missing.txt")


# --- the authors' files -------------------------------------------------------------------------------------------



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


