"""Time and peak memory of retrieval.

    python -m benchmarks.retrieve steps DATA          every step but entity tagging, over a fresh copy of DATA's inputs
    python -m benchmarks.retrieve beliefs GIGABYTES   a made-up NELL export of that size, as text and as .gz
    python -m benchmarks.retrieve read FILE           one .data file, beside Python's own unpickler

DATA is a data folder with the data sets, the tagged files, WordNet, the belief export and the vectors.
"""
from __future__ import annotations

import argparse
import gzip
import os
import pickle
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


def read(path: Path) -> None:
    """Stream one file, then let Python's unpickler load it."""
    from src.knowledge.formats import read_records
    start = time.process_time()
    count = sum(1 for _ in read_records(path))
    ours = time.process_time() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start = time.process_time()
    with open(path, "rb") as source:
        pickle.load(source)      # a file of one's own
    print(f"{count} items: {ours:.2f} s of CPU, peak {memory:.0f} MB; pickle.load {time.process_time() - start:.2f} s")


def main() -> None:
    """Choose what to measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("steps", "beliefs", "read"))
    parser.add_argument("argument")
    args = parser.parse_args()
    if args.what == "steps":
        steps(Path(args.argument))
    elif args.what == "beliefs":
        beliefs(float(args.argument))
    else:
        read(Path(args.argument))


if __name__ == "__main__":
    main()
