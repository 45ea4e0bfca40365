# SPDX-License-Identifier: Apache-2.0
"""Kill every long script, and its processes, again and again; prints one JSON line a script, each kill to stderr.

    python -m benchmarks.kill_scripts [--kills 20] [--seed 1] [SCRIPT ...]

Each script is started on a tiny network or data set in a copy of the repository and gets a signal (TERM, INT, KILL, HUP
in turn) at a random moment of its run: first at its own process, the next time at another process of it chosen at
random. Ten seconds later nothing of it may be alive. After all kills it is run to its end, which must succeed. The
scripts: retrieve, convert, train, evaluate, preprocess, get_data, launcher, background, distributed, infer, quickstart.
"""
from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import http.server
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from scripts import guard
from src.config import BertConfig
from src.weights.checkpoint import write_checkpoint
from testing import small_raw, small_training
from utils.args import OneLineParser, non_negative_int, positive_int
from utils.util import InputError, run_main

ROOT = Path(__file__).parents[1]
MARK = "KTNET_KILL_TEST"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGHUP)
LEFT = 10.0                 # seconds in which everything must be gone
LONGEST = 3600.0            # seconds of a whole run
SHORT = ("--stages", "one", "--epoch", "2", "--batch_size", "4", "--buckets", "1", "--save_steps", "2",
         "--resume", "True")
PIECE, PAUSE = 1 << 12, 0.01        # the web server's speed


@dataclasses.dataclass
class Script:
    """What is started."""

    command: list[str]
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    outputs: Sequence[Path] = ()    # what makes the next run end early
    background: bool = False        # the command prints PID NUMBER and ends


class Place:
    """A copy of the repository with tiny data."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder, folder / "a copy"
        tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for name in tracked.rstrip("\0").split("\0"):
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_file():
                shutil.copy(ROOT / name, target)
        self.python = self._make_environment()
        for name in (".lite", ".kernels"):
            if (ROOT / name).exists():
                (self.root / name).symlink_to((ROOT / name).resolve())
        self.data = small_training.make_training_data(folder / "data")
        self.output = folder / "output"
        config = dataclasses.replace(small_training.ENCODER, num_hidden_layers=1)      # half the time to compile
        (self.data.bert() / "bert_config.json").write_text(json.dumps(dataclasses.asdict(config)), encoding="utf-8")
        write_checkpoint(self.data.bert() / "roberta.ckpt", small_training.random_encoder(config))

    def _make_environment(self) -> str:
        """A .venv with this one's packages, which quickstart.sh finds complete."""
        venv = self.root / ".venv"
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").symlink_to(Path(sys.executable).resolve())
        shutil.copy(Path(sys.prefix) / "pyvenv.cfg", venv)
        (venv / "lib").symlink_to((Path(sys.prefix) / "lib").resolve())
        stamps = []
        for path in sorted(self.root.glob("requirements*.txt")):
            done = subprocess.run(["cksum"], stdin=path.open("rb"), capture_output=True, text=True, check=True)
            stamps.append(f"{path.name}={done.stdout}")
        (venv / ".requirements").write_text("".join(stamps), encoding="utf-8")
        return str(venv / "bin" / "python")

    def program(self, name: str, *flags: str, outputs: Sequence[Path] = ()) -> Script:
        """A Python program of the repository."""
        return Script([self.python, str(self.root / name), *flags], outputs=outputs)

    def shell(self, name: str, *arguments: str, outputs: Sequence[Path] = (), **environment: str) -> Script:
        """One of scripts/."""
        return Script(["bash", str(self.root / "scripts" / name), *arguments],
                      {"DEVICE_TARGET": "CPU", "FOREGROUND": "1", "PYTHON": self.python, **environment}, outputs)

    @functools.cached_property
    def checkpoint(self) -> Path:
        """Of a short training."""
        flags = small_training.flags(self.data, self.folder / "trained", epoch=1)
        subprocess.run([self.python, str(self.root / "run_KTNET_squad.py"), *flags], check=True, capture_output=True)
        return max((self.folder / "trained" / "finetune_checkpoint").glob("KTNET_squad-*_*.ckpt"))

    @functools.cached_property
    def mindir(self) -> Path:
        """The exported network."""
        done = self.shell("export.sh", "-", str(self.checkpoint), "--", "--file_format", "ONNX")
        subprocess.run(done.command, env={**os.environ, **done.environment}, check=True, capture_output=True)
        return self.root / "mindir" / "KTNET_squad.onnx"


def retrieve(place: Place) -> Script:
    (place.folder / "raw").mkdir()
    data = small_raw.make_inputs(place.folder / "raw")
    return place.program("retrieve.py", "--data_url", str(data.root), "--dataset", "squad", "--force")


def convert(place: Place) -> Script:
    return place.program("data_convert.py", "--data_url", str(place.data.root), "--dataset", "squad", "--force",
                         "--num_workers", "2", "--max_seq_len", "48", "--doc_stride", "16", "--max_query_length", "16")


def train(place: Place) -> Script:
    return place.program("run_KTNET_squad.py", *small_training.flags(place.data, place.output / "training", epoch=2,
                                                                     save_steps=1, resume=True),
                         outputs=[place.output / "training"])


def evaluate(place: Place) -> Script:
    return place.program("run_KTNET_squad_eval.py", "--device_target", "CPU", "--data_url", str(place.data.root),
                         "--load_checkpoint_path", str(place.checkpoint), "--checkpoints", str(place.output / "eval"))


def preprocess(place: Place) -> Script:
    return place.program("preprocess.py", "--dataset", "squad", "--data_url", str(place.data.root),
                         "--preprocess_path", str(place.output / "preprocess"), outputs=[place.output / "preprocess"])


def launcher(place: Place) -> Script:
    return place.shell("run_squad_twomemory.sh", str(place.data.root), "--", *SHORT, outputs=[place.root / "output"])


def background(place: Place) -> Script:
    script = launcher(place)
    script.environment["FOREGROUND"] = "0"
    return dataclasses.replace(script, background=True)


def distributed(place: Place) -> Script:
    return place.shell("run_squad_twomemory_distribute_gpu.sh", str(place.data.root), "2", "--", *SHORT,
                       "--checkpoints", str(place.output / "distributed"), outputs=[place.output / "distributed"])


def infer(place: Place) -> Script:
    return place.shell("run_infer_310.sh", str(place.mindir), str(place.data.root / "SQuAD"), "y", "squad",
                       str(place.data.root), outputs=[place.root / "preprocess_result", place.root / "result_files"])


def get_data(place: Place) -> Script:
    """Against a slow web server; what it sends is not official, so the files without an MD5 are fetched."""
    mirror = place.folder / "mirror"
    mirror.mkdir()
    for name in ("config.json", "vocab.txt", "model.safetensors"):
        (mirror / name).write_bytes(b"0123456789abcdef" * 20_000)
    return place.shell("get_data.sh", str(place.folder / "fetched"), "bert", MIRROR=serve(mirror), NO_PROXY="127.0.0.1",
                       no_proxy="127.0.0.1", outputs=[place.folder / "fetched"])


def quickstart(place: Place) -> Script:
    encoder = place.folder / "encoder"
    encoder.mkdir()
    number = subprocess.run(["cksum"], input=f"{encoder}\n", capture_output=True, text=True, check=True).stdout
    output = place.folder / "quickstart" / f"encoder-encoder-{number.split()[0]}"
    output.mkdir(parents=True)
    texts = "".join(path.read_text("utf-8") for path in (place.root / "examples" / "quickstart").rglob("*.json"))
    characters = sorted({character for character in texts.lower() if not character.isspace()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *characters, *("##" + character for character in characters)]
    (output / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    config: BertConfig = dataclasses.replace(small_training.ENCODER, vocab_size=len(vocabulary),
                                             max_position_embeddings=128)
    (output / "bert_config.json").write_text(json.dumps(dataclasses.asdict(config)), encoding="utf-8")
    write_checkpoint(output / "roberta.ckpt", small_training.random_encoder(config))
    return place.shell("quickstart.sh", ENCODER=str(encoder), OUTPUT=str(place.folder / "quickstart"), EPOCHS="1",
                       outputs=[place.folder / "quickstart" / f"sample-{output.name.partition('-')[2]}"])


SCRIPTS: dict[str, Callable[[Place], Script]] = {
    made.__name__: made for made in (retrieve, convert, train, evaluate, preprocess, get_data, launcher, background,
                                     distributed, infer, quickstart)}


def serve(folder: Path) -> str:
    """A web server on this machine that sends slowly and resumes; ends with this process."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:       # noqa: N802
            content = (folder / self.path.lstrip("/")).read_bytes()
            begin = int(self.headers.get("Range", "bytes=0-")[len("bytes="):-1])
            self.send_response(206 if "Range" in self.headers else 200)
            self.send_header("Content-Length", str(len(content) - begin))
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            with contextlib.suppress(OSError):
                for at in range(begin, len(content), PIECE):
                    self.wfile.write(content[at:at + PIECE])
                    time.sleep(PAUSE)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


@contextlib.contextmanager
def started(script: Script, mark: str, log: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The script as started, and the process id that is its own."""
    with open(log, "ab") as target:
        process = subprocess.Popen(script.command, stdin=subprocess.DEVNULL, stdout=target, stderr=subprocess.STDOUT,
                                   cwd=log.parent, env={**os.environ, **script.environment, MARK: mark},
                                   preexec_fn=reset_signals)
    own = process.pid
    if script.background:
        process.wait()
        words = log.read_text("utf-8", errors="replace").split()
        own = int(words[len(words) - 1 - words[::-1].index("PID") + 1].rstrip(","))
    try:
        yield process, own
    finally:
        for pid in alive(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()


def reset_signals() -> None:
    """As an interactive shell starts a command: none ignored (nohup, a shell's background job) and none blocked."""
    for number in set(SIGNALS) - {signal.SIGKILL}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def alive(mark: str) -> list[int]:
    """The script's processes that live; zombies have no environment."""
    return guard.members(mark, MARK)


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:80]
    except OSError:
        return "ended now"


def wait(mark: str, seconds: float) -> float | None:
    """Seconds until nothing was alive; None if something still is."""
    begin = time.monotonic()
    while alive(mark):
        if time.monotonic() - begin > seconds:
            return None
        time.sleep(0.05)
    return time.monotonic() - begin


def kill_often(name: str, place: Place, kills: int, generator: random.Random) -> dict[str, object]:
    """Start and kill, then let it end."""
    script = SCRIPTS[name](place)
    log = place.folder / f"{name}.log"
    duration, seconds, survivors, killed = whole_run(script, f"{name}-whole", log), [], [], []
    remove(script.outputs)
    attempts, alone = 0, False          # alone: it starts no other process
    while len(killed) < kills and attempts < 4 * kills:
        attempts += 1
        at_another = len(killed) % 2 == 1 and not alone
        mark, number = f"{name}-{attempts}", SIGNALS[(len(killed) // 2 + 2 * at_another) % len(SIGNALS)]
        with started(script, mark, log) as (_, own):
            time.sleep(generator.random() * duration * (0.5 if at_another else 1.0))
            watched = False
            while processes := alive(mark):
                others = [pid for pid in processes if pid != own]
                if others or not at_another:
                    break
                watched = True
                time.sleep(0.1)
            if not processes:                   # it has ended
                remove(script.outputs)
                alone = alone or watched
                continue
            target = generator.choice(others) if at_another else own
            what = f"{number.name} to {'itself' if target == own else command_of(target)}"
            try:
                os.kill(target, number)
            except ProcessLookupError:          # it has ended by itself in between
                continue
            killed.append(what)
            gone = wait(mark, LEFT)
            if gone is None:
                survivors.append(f"{what}: {', '.join(map(command_of, alive(mark)))}")
            else:
                seconds.append(gone)
            end = "still alive" if gone is None else f"{gone:.2f} s"
            print(f"{name}: {what}: {end}", file=sys.stderr, flush=True)
    again = whole_run(script, f"{name}-again", log)
    return {"script": name, "kills": len(killed), "at_its_own_process": sum("itself" in what for what in killed),
            "alive_after_10_s": survivors, "slowest_end_s": round(max(seconds, default=0.0), 2),
            "whole_run_s": round(duration, 1), "rerun_succeeds": again > 0}


def remove(outputs: Sequence[Path]) -> None:
    for path in outputs:
        shutil.rmtree(path, ignore_errors=True)


def whole_run(script: Script, mark: str, log: Path) -> float:
    """Run to the end; returns the seconds.

    Raises:
        InputError: it fails.
    """
    begin = time.monotonic()
    with started(script, mark, log) as (process, _):
        try:
            process.wait(LONGEST)
        except subprocess.TimeoutExpired:
            raise InputError(f"benchmark: {mark} has not ended after {LONGEST:.0f} s") from None
        while alive(mark) and time.monotonic() - begin < LONGEST:
            time.sleep(0.5)
        code = process.wait()
        text = log.read_text("utf-8", errors="replace")
        if script.background:
            run_log = Path(text.rsplit("log ", 1)[1].strip())
            code = 2 if "error: " in run_log.read_text("utf-8") else 0
    if code:
        raise InputError(f"benchmark: {mark} ended with code {code}: {text[-500:]}")
    return time.monotonic() - begin


def main(argv: Sequence[str] | None = None) -> None:
    parser = OneLineParser(prog="python -m benchmarks.kill_scripts", description=__doc__,
                           formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=positive_int, default=20, help="of each script [20]")
    parser.add_argument("--seed", type=non_negative_int, default=1, help="of moments and processes [1]")
    parser.add_argument("scripts", nargs="*", metavar="SCRIPT", help="which ones [all]")
    args = parser.parse_args(argv)
    if unknown := set(args.scripts) - SCRIPTS.keys():
        parser.error(f"{min(unknown)}: no such script; there are {' '.join(SCRIPTS)}")
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder))
        for name in args.scripts or SCRIPTS:
            try:
                print(json.dumps(kill_often(name, place, args.kills, random.Random(args.seed))), flush=True)
            except InputError as error:
                print(json.dumps({"script": name, "error": str(error)}), flush=True)


if __name__ == "__main__":
    run_main(main)
