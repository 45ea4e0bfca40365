# SPDX-License-Identifier: Apache-2.0
"""Broken and hostile pickles for the reader of the authors' ``.data`` files; benchmarks/fuzz_readers.py has the rest.

    python -m benchmarks.fuzz_formats [--count N] [--seed N]

An input is a mutation of a well-formed pickle, a random walk over opcodes, a pickle that asks for code, or noise. For
each the reader must either refuse with InputError in one line or give plain data; where Python's own unpickler (with
all imports refused) gives a list or dict as well, the two must agree. No import, compilation, process or network access
may happen meanwhile, and the address space is limited.
"""
from __future__ import annotations

import argparse
import codecs
import io
import os
import pickle
import pickletools
import random
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from src.knowledge.pickles import load_plain, shape_problem
from utils.util import InputError

ADDRESS_SPACE = 2 << 30
FORBIDDEN = ("import", "exec", "compile", "os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen",
             "socket.connect", "pickle.find_class", "ctypes.dlopen", "shutil.rmtree", "os.remove")
PLAIN = (dict, list, tuple, set, frozenset, str, bytes, int, float, bool, type(None))
OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]


class Exploit:
    """Pickled by reference to a function with arguments: what an attacker would send."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def seeds() -> list[bytes]:
    """Well-formed pickles of the shapes that travel in ``.data`` files, and of others, in all protocols."""
    shared = ["concept:city", "concept:person"]
    question = {"id": "q1", "query_tokens": ["who", "é", "x" * 300, ""], "indices": [0, 1, 255, 70000, -1],
                "query_entities": [("the black sea", 8, 10)], "more": {1.5, None}, "deep": [[[]], (), (1,), {}],
                "flags": [True, False], "bytes": b"ab\n", "first": shared, "second": shared}
    values = [[question, question], [], [dict.fromkeys("abc")], {"dog": ["__dog_NN_1"], "cat": shared, "x": shared}, {}]
    return [pickle.dumps(value, protocol) for value in values for protocol in range(6)]


def hostile() -> list[bytes]:
    """Pickles that would run code, with every way of asking for it."""
    exploit = Exploit(os.system, "echo run by a pickle")
    made = [pickle.dumps([{"id": exploit}], protocol) for protocol in range(6)]
    made += [b"(S'echo run'\nios\nsystem\n.", b"cos\nsystem\n(S'echo run'\ntR.", b"(cos\nsystem\nS'echo run'\no.",
             b"\x80\x02]\x82\x01a.", b"]Pfile\na.", b"](S'a'\nQe.", b"\x80\x04]\x8c\x02os\x8c\x06system\x93a."]
    return made


def walk(rng: random.Random) -> bytes:
    """A random walk over opcodes whose operands are mostly right."""
    out = bytearray(rng.choice((b"\x80\x04]", b"\x80\x02](", b"(lp0\n", b"\x80\x03}(", b"]", b"")))
    for _ in range(rng.randrange(60)):
        code = rng.choice(OPCODES) if rng.random() < 0.2 else rng.choice(
            (b"]", b"}", b"(", b"a", b"e", b"s", b"u", b"\x94", b"h", b"q", b"K", b"\x8c", b"X", b"N", b"t", b"\x85"))
        out += code
        if code in (b"\x8c", b"C", b"U"):
            text = bytes(rng.choices(b"ab \xc3\xa9\x94h.", k=rng.randrange(6)))
            out += bytes([max(len(text) + rng.choice((0, 0, 0, 0, 1, -1)), 0)]) + text
        elif code in (b"X", b"B", b"T"):
            text = bytes(rng.choices(b"abc", k=rng.randrange(6)))
            out += struct.pack("<I", rng.choice((len(text), len(text), 2 ** 31, 2 ** 32 - 1))) + text
        elif code in (b"h", b"q", b"K"):
            out.append(rng.randrange(8) if rng.random() < 0.9 else rng.randrange(256))
        elif code in (b"j", b"r", b"J"):
            out += struct.pack("<I", rng.choice((0, 1, 2, 300, 2 ** 32 - 1)))
        elif code in (b"p", b"g", b"I", b"L", b"F", b"V", b"S"):
            out += rng.choice((b"0\n", b"1\n", b"01\n", b"'a'\n", b"-5\n", b"9" * 50 + b"\n", b"\\u12\n", b"nan\n"))
    return bytes(out) + rng.choice((b"e.", b".", b"", b"u.", b"a."))


def mutate(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A few changes: flipped, inserted, removed, repeated or foreign bytes, a cut."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        place = rng.randrange(len(changed) + 1)
        kind = rng.randrange(7)
        if kind == 0 and place < len(changed):
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[place:place] = bytes([rng.randrange(256)])
        elif kind == 2:
            changed[place:place] = rng.choice(OPCODES)
        elif kind == 3:
            del changed[place:place + rng.randrange(1, 9)]
        elif kind == 4:
            changed[place:place] = changed[place:place + rng.randrange(1, 40)]
        elif kind == 5:
            start = rng.randrange(len(other) + 1)
            changed[place:place] = other[start:start + rng.randrange(1, 40)]
        elif rng.random() < 0.3:
            del changed[place:]
    return bytes(changed)


def inputs(count: int, seed: int) -> Iterator[bytes]:
    """``count`` inputs that depend on ``seed`` alone."""
    rng = random.Random(seed)
    good, bad = seeds(), hostile()
    for _ in range(count):
        choice = rng.random()
        if choice < 0.55:
            yield mutate(rng, rng.choice(good), rng.choice(good + bad))
        elif choice < 0.85:
            yield walk(rng)
        elif choice < 0.95:
            yield mutate(rng, rng.choice(bad), rng.choice(good))
        else:
            yield rng.randbytes(rng.randrange(1, 200))


class _NoImports(pickle._Unpickler):   # type: ignore[name-defined, misc]  # the C one crashes on odd BYTEARRAY8
    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError("imports are refused")


    def load_bytearray8(self) -> None:
        raise pickle.UnpicklingError("could ask for any amount of memory")

    dispatch = {**pickle._Unpickler.dispatch, pickle.BYTEARRAY8[0]: load_bytearray8}   # type: ignore[attr-defined]


def reference(data: bytes) -> Any:
    """What Python's unpickler makes of the data, or the exception it raises."""
    try:
        return _NoImports(io.BytesIO(data)).load()
    except Exception as error:   # noqa: BLE001 - it raises nearly everything on broken data
        return error


def is_plain(value: Any, depth: int = 0) -> bool:
    """Whether a value consists of the admitted types alone."""
    if type(value) not in PLAIN or depth > 200:
        return False
    if isinstance(value, dict):
        return all(is_plain(part, depth + 1) for pair in value.items() for part in pair)
    return not isinstance(value, (list, tuple, set, frozenset)) or all(is_plain(part, depth + 1) for part in value)


def _read_plain(path: Path, kind: type) -> Any:
    """What the reader of pickles gives, refused where its shape is beyond measure."""
    value = load_plain(path, kind)
    problem = shape_problem(value)
    if problem:
        raise InputError(f"{path}: {problem}")
    return value


def check(data: bytes, path: Path) -> tuple[str, float]:
    """Feed one pickle to the reader; raises AssertionError if it misbehaved.

    Returns:
        How it ended, and the seconds that the reader took.
    """
    kind: type = dict if b"}" in data[:4] or data[:2] == b"(d" else list
    value, refusal, seconds = _watch_reader(lambda file: _read_plain(file, kind), data, path)
    expected = reference(data)
    if refusal:
        return _kind_of_refusal(refusal, type(expected) is kind and is_plain(expected)), seconds
    assert is_plain(value), f"not plain: {data!r}"
    if isinstance(expected, Exception):
        return f"read, though Python's unpickler says {type(expected).__name__}", seconds
    assert repr(value) == repr(expected), f"{value!r} instead of {expected!r} from {data!r}"
    return "read", seconds


def _watch_reader(reader: Callable[[Path], Any], data: bytes, path: Path) -> tuple[Any, str, float]:
    """Feed one input to a reader.

    Returns:
        What it gave, or with what message it refused, and the seconds that it took.
    """
    path.write_bytes(data)
    events: list[str] = []
    WATCHED.append(events)
    start = time.perf_counter()
    value, refusal = None, ""
    try:
        value = reader(path)
    except InputError as error:
        refusal = str(error)
        assert str(path) in refusal and "\n" not in refusal and refusal.isprintable() and len(refusal) < 1000, refusal
    finally:
        seconds = time.perf_counter() - start
        WATCHED.remove(events)
    assert not events, f"{events} while reading {data!r}"
    return value, refusal, seconds


def _kind_of_refusal(refusal: str, plain: bool) -> str:
    if plain:
        return "refused, though Python's unpickler reads it (bytes behind the end and the like)"
    kinds = [kind for kind in ("asks for", "is not allowed", "cut short", "of memory") if kind in refusal]
    return f"refused: {kinds[0] if kinds else 'other'}"


WATCHED: list[list[str]] = []


def _watch(event: str, _: tuple[Any, ...]) -> None:
    for events in WATCHED:
        if event.startswith(FORBIDDEN):
            events.append(event)


def run(count: int, seed: int) -> tuple[Counter[str], float]:
    """Feed ``count`` inputs; returns how they ended and the longest time that one took, in seconds."""
    for codec in ("ascii", "latin-1", "raw_unicode_escape"):
        codecs.lookup(codec)      # Python imports its codecs when they are first used
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        path = Path(folder) / "fuzz.data"
        for data in [*hostile(), *inputs(count, seed)]:
            outcome, seconds = check(data, path)
            outcomes[outcome] += 1
            slowest = max(slowest, seconds)
    return outcomes, slowest


def main() -> None:
    """Run the fuzzer and print how the inputs ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    sys.addaudithook(_watch)
    start = time.perf_counter()
    outcomes, slowest = run(args.count, args.seed)
    for outcome, number in outcomes.most_common():
        print(f"{number:8d}  {outcome}")
    print(f"{sum(outcomes.values())} inputs in {time.perf_counter() - start:.0f} s, the slowest took {slowest:.3f} s, "
          f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
