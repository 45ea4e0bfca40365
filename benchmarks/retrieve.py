# SPDX-License-Identifier: Apache-2.0
"""Time and peak memory of retrieval.

    python -m benchmarks.retrieve steps DATA          every step but entity tagging, over a fresh copy of DATA's inputs
    python -m benchmarks.retrieve beliefs GIGABYTES   a made-up NELL export of that size, as text and as .gz
    python -m benchmarks.retrieve archive QUESTIONS   made-up NELL and token files, as pickles and as JSON lines

DATA is a data folder with the data sets, the tagged files, WordNet, the belief export and the vectors.
"""
from __future__ import annotations

import argparse
import gzip
import os
import pickle
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from src.knowledge.formats import write_records

INPUTS = ("SQuAD", "ReCoRD", "raw", "KB_embeddings", "cased_L-24_H-1024_A-16", "uncased_L-24_H-1024_A-16", "nltk")


def run_measured(*command: str) -> tuple[float, float]:
    """Seconds and peak memory in MB of a command."""
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {' '.join(command)}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def steps(data: Path) -> None:
    """All steps in one process, then each data set's in its own, over links to the inputs."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in INPUTS:
            if (data / name).exists():
                (Path(scratch) / name).symlink_to((data / name).resolve())
        for name in ("first run", "second run (all up to date)"):
            seconds, memory = run_measured(sys.executable, "retrieve.py", "--data_url", scratch)
            print(f"{name}: {seconds:.1f} s, peak {memory:.0f} MB")


def write_export(path: Path, gigabytes: float) -> None:
    """Rows like NELL's: mostly relations between entities, a sixth generalizations, of which some are promoted."""
    rng = random.Random(0)
    header = "Entity\tRelation\tValue\tIteration of Promotion\tProbability\tSource" + "\tmore" * 7 + "\n"
    filler = "\t".join(["[MBL-Iter:1115-2018/09/03-From:thing]" * 4, '"Some Name" "some name"', '"other"'] + ["x"] * 4)
    rows = []
    for _ in range(10_000):      # one block of rows, repeated under other names
        entity = f"concept:c{rng.randrange(280)}:name_{rng.randrange(10 ** 6)}_@"
        relation = "generalizations" if rng.random() < 1 / 6 else "concept:atlocation"
        rows.append(f"{entity}\t{relation}\tconcept:c{rng.randrange(280)}\t{rng.randrange(1115)}\t"
                    f"{rng.random() * 0.5 + 0.5:.6f}\t{filler}\n")
    block = "".join(rows)
    opener = gzip.open(path, "wt", compresslevel=1) if path.suffix == ".gz" else open(path, "w")   # noqa: SIM115
    with opener as export:
        export.write(header)
        for number in range(int(gigabytes * 2 ** 30 / len(block)) + 1):
            export.write(block.replace("@", str(number)))


def beliefs(gigabytes: float) -> None:
    """Build the belief file from a made-up export."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("beliefs.csv", "beliefs.csv.gz"):
            export, kept = Path(scratch) / name, Path(scratch) / "kept.tsv"
            write_export(export, gigabytes)
            code = ("import sys; from pathlib import Path; from src.knowledge.nell import build_belief_file; "
                    "print(build_belief_file(Path(sys.argv[1]), Path(sys.argv[2])), 'beliefs kept')")
            seconds, memory = run_measured(sys.executable, "-c", code, str(export), str(kept))
            print(f"{name}, {export.stat().st_size / 2 ** 30:.2f} GB on disk: {seconds:.0f} s, peak {memory:.0f} MB, "
                  f"kept {kept.stat().st_size / 2 ** 20:.0f} MB")
            export.unlink()


def made_up_items(kind: str, count: int) -> Iterator[dict[str, Any]]:
    """Items like those of SQuAD: 140 words and 8 entities a passage, each with 3 categories."""
    rng = random.Random(0)
    words = [f"w{number}" for number in range(30_000)]
    for number in range(count):
        document, query = rng.choices(words, k=140), rng.choices(words, k=11)
        if kind == "nell":
            entities = [{"entity_string": " ".join(document[place:place + 2]), "token_start": place,
                         "token_end": place + 1, "retrieved_concepts": [f"concept:c{rng.randrange(280)}"] * 3,
                         "retrieved_entities": [f"concept:c1:{word}" for word in document[place:place + 3]]}
                        for place in range(0, 136, 17)]
            yield {"id": f"{number:024x}", "document_entities": entities, "query_entities": entities[:1]}
        else:
            sides = {"document": document, "query": query}
            yield {"id": f"{number:024x}",
                   **{f"{side}_{name}": list(map(str.upper, tokens)) for side, tokens in sides.items()
                      for name in ("tokens", "subtokens")},
                   **{f"{side}_sub_to_ori_index": list(range(len(tokens))) for side, tokens in sides.items()},
                   **{f"{side}_entities": [(tokens[0], 0, 0)] for side, tokens in sides.items()}}


READ = """
import resource, sys, time
from src.knowledge.formats import read_records
start = time.process_time()
count = sum(1 for _ in read_records(sys.argv[1]))
print(f"{count} items in {time.process_time() - start:.1f} s of CPU, "
      f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
"""


def archive(count: int) -> None:
    """Write archives as Python's pickler and this project write them; read each in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        for kind in ("nell", "tokens"):
            for form in ("pickle", "json"):
                path = Path(scratch) / f"{kind}.{form}"
                writer = os.fork()      # or its memory would count as that of the processes started later
                if not writer:
                    if form == "pickle":
                        with open(path, "wb") as target:
                            pickle.dump(list(made_up_items(kind, count)), target)
                    else:
                        write_records(path, made_up_items(kind, count))
                    os._exit(0)
                os.waitpid(writer, 0)
                print(f"{kind} as {form}, {path.stat().st_size / 2 ** 20:.0f} MB: ", end="", flush=True)
                run_measured(sys.executable, "-c", READ, str(path))
                path.unlink()


def main() -> None:
    """Choose what to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("steps", "beliefs", "archive"))
    parser.add_argument("argument")
    args = parser.parse_args()
    if args.what == "steps":
        steps(Path(args.argument))
    elif args.what == "beliefs":
        beliefs(float(args.argument))
    else:
        archive(int(args.argument))


if __name__ == "__main__":
    main()
