# SPDX-License-Identifier: Apache-2.0
"""scripts/get_data.sh against a mirror in a folder and against curls that fail."""
from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import pytest

from src.config import TASKS

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "get_data.sh"
ARCHIVES = {"tokenize": ("tokens/a.data",), "concepts": ("output_squad/a.data", "output_record/a.data"),
            "tagging": ("output/train-v1.1.tagged.json", "output/dev-v1.1.tagged.json"),
            "model": ("step_1/bert/cls_squad_out_w", "step_1/bert/cls_squad_out_b")}
BERT = ("config.json", "vocab.txt", "model.safetensors")

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="NO CURL: get_data.sh is not tested")


def run(data, *parts, script=SCRIPT, before=(), code=0, **environment):
    result = subprocess.run(["bash", str(script), *before, str(data), *parts], capture_output=True, text=True,
                            check=False, env={**os.environ, "PYTHON": sys.executable, **environment})
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.fixture
def mirror(tmp_path):
    """Files under their names, and a copy of the script that expects them in place of the official ones."""
    folder, repository = tmp_path / "mir ror", tmp_path / "repository"
    folder.mkdir()
    (repository / "scripts").mkdir(parents=True)
    for name in ("src", "utils"):
        (repository / name).symlink_to(ROOT / name)
    for name in ("common.sh", "guard.py", "get_wordnet.sh"):
        shutil.copy(ROOT / "scripts" / name, repository / "scripts")
    text = SCRIPT.read_text("utf-8")
    for name, place in (("wn_concept2vec.txt", "wn_concept2vec.txt"), ("nell_concept2vec.txt", "nell_concept2vec.txt"),
                        ("NELL.08m.1115.esv.csv.gz", "NELL.08m.1115.esv.csv.gz"),
                        ("KTNET_preprocess_nell_concepts.tar.gz", "unpack preprocess_nell_concepts"),
                        ("KTNET_preprocess_wordnet_concepts.tar.gz", "unpack preprocess_wordnet_concepts"),
                        ("KTNET_preprocess_tokenize_result_squad.tar.gz", "unpack preprocess_tokenize_result_squad"),
                        ("KTNET_preprocess_tokenize_result_record.tar.gz", "unpack preprocess_tokenize_result_record"),
                        ("KTNET_preprocess_squad_tagging_output.tar.gz", "unpack preprocess_squad_tagging_output"),
                        ("KTNET_fine-tuned-model_squad_nell.tar.gz", "[squad_nell]=")):
        content = name.encode() * 5000
        if name.startswith("KTNET"):
            content = archive(*(entries for part, entries in ARCHIVES.items() if part in name))
        (folder / name).write_bytes(content)
        text, changed = re.subn(rf"({re.escape(place)}(?:\"| |).*?)[0-9a-f]{{32}}",
                                rf"\g<1>{hashlib.md5(content).hexdigest()}", text)
        assert changed == 1
    for name in BERT:
        (folder / name).write_bytes(name.encode())
    script = repository / "scripts" / "get_data.sh"
    script.write_text(text, encoding="utf-8")
    return folder, script


def archive(names):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz") as packed:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = 3
            packed.addfile(entry, io.BytesIO(b"abc"))
    return target.getvalue()


def test_parts_are_fetched_checked_and_left_alone_afterwards(mirror, tmp_path):
    folder, script = mirror
    data, url = tmp_path / "da ta", folder.as_uri()
    said = run(data, "kb", "bert", "nell", script=script, MIRROR=url)
    assert said.count("got     ") == 6 and "All there: kb bert nell" in said
    for name in ("wn_concept2vec.txt", "nell_concept2vec.txt"):
        assert (data / "KB_embeddings" / name).read_bytes() == (folder / name).read_bytes()
    assert {path.name for path in (data / "cased_L-24_H-1024_A-16").iterdir()} == set(BERT)
    assert not list(data.rglob("*.part"))
    said = run(data, "kb", "bert", "nell", script=script, CURL="false")      # nothing is asked for a second time
    assert said.count("there   ") == 6 and "MISSING" not in said


def test_an_interrupted_download_goes_on(mirror, tmp_path):
    folder, script = mirror
    name = "wn_concept2vec.txt"
    whole = (folder / name).read_bytes()
    part = tmp_path / "data" / "KB_embeddings" / (name + ".part")
    part.parent.mkdir(parents=True)
    part.write_bytes(whole[:1000])
    fetched = tmp_path / "fetched"
    curl = tmp_path / "curl"
    curl.write_text(f'#!/usr/bin/env bash\necho "$@" >>"{fetched}"\nexec curl "$@"\n', encoding="utf-8")
    curl.chmod(0o755)
    run(tmp_path / "data", "kb", script=script, MIRROR=folder.as_uri(), CURL=str(curl))
    assert part.with_suffix("").read_bytes() == whole
    assert all("--continue-at -" in line for line in fetched.read_text("utf-8").splitlines())
    # A part that is whole, which curl refuses to go on with, is taken.
    os.replace(part.with_suffix(""), part)
    failing = tmp_path / "failing"
    failing.write_text("#!/usr/bin/env bash\nexit 33\n", encoding="utf-8")
    failing.chmod(0o755)
    run(tmp_path / "data", "kb", script=script, CURL=str(failing))
    assert part.with_suffix("").read_bytes() == whole


def test_a_cut_download_is_kept_for_the_next_time(mirror, tmp_path):
    _, script = mirror
    curl = tmp_path / "cutting"
    curl.write_text('#!/usr/bin/env bash\nwhile [[ $1 != --output ]]; do shift; done\nprintf abc >>"$2"\nexit 18\n',
                    encoding="utf-8")
    curl.chmod(0o755)
    said = run(tmp_path / "data", "kb", script=script, CURL=str(curl), code=2)
    assert "run this again to resume from byte 3" in said
    assert (tmp_path / "data" / "KB_embeddings" / "wn_concept2vec.txt.part").read_text("utf-8") == "abc"


@contextlib.contextmanager
def serve(folder: Path, sent: int):
    """A web server on this machine that breaks every connection after ``sent`` bytes; with the requests it got."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):       # noqa: N802
            content = (folder / self.path.lstrip("/")).read_bytes()
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            requests.append((self.path, int(asked[1]) if asked else 0))
            begin = int(asked[1]) if asked else 0
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(content) - begin))
            if asked:
                self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            self.wfile.write(content[begin:begin + sent])

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_broken_connection_is_taken_up_where_it_broke(mirror, tmp_path):
    folder, script = mirror
    whole = (folder / "wn_concept2vec.txt").read_bytes()
    data = tmp_path / "data" / "KB_embeddings"
    with serve(folder, sent=50_000) as (url, requests):
        said = run(tmp_path / "data", "kb", script=script, MIRROR=url, code=2, NO_PROXY="127.0.0.1")
        assert "run this again to resume from byte 50000" in said
        assert (data / "wn_concept2vec.txt.part").read_bytes() == whole[:50_000]
        run(tmp_path / "data", "kb", script=script, MIRROR=url, NO_PROXY="127.0.0.1")
    assert (data / "wn_concept2vec.txt").read_bytes() == whole
    assert [begin for path, begin in requests if path == "/wn_concept2vec.txt"] == [0, 50_000]
    # What is taken up but belongs to another file does not pass for the official one.
    (data / "wn_concept2vec.txt").unlink()
    (data / "wn_concept2vec.txt.part").write_bytes(b"x" * 50_000)
    with serve(folder, sent=len(whole)) as (url, requests):
        said = run(tmp_path / "data", "kb", script=script, MIRROR=url, code=2, NO_PROXY="127.0.0.1")
    assert requests == [("/wn_concept2vec.txt", 50_000)] and "not the official file: MD5" in said
    assert [path.name for path in data.iterdir()] == ["nell_concept2vec.txt"]


def test_what_is_not_official_is_named(mirror, tmp_path):
    folder, script = mirror
    (folder / "wn_concept2vec.txt").write_text("<html>quota exceeded</html>", encoding="utf-8")
    (folder / "vocab.txt").write_text("<!DOCTYPE html><html>sign in</html>", encoding="utf-8")
    data = tmp_path / "data"
    said = run(data, "kb", "bert", script=script, MIRROR=folder.as_uri(), code=2)
    assert "not the official file" in said and "a web page" in said and "download by hand" in said
    assert said.count("got     ") == 3 and not list(data.rglob("*.part"))
    assert not (data / "KB_embeddings" / "wn_concept2vec.txt").exists()
    mine = data / "KB_embeddings" / "wn_concept2vec.txt"
    mine.write_text("my own", encoding="utf-8")
    said = run(data, "kb", script=script, MIRROR=folder.as_uri())
    assert "left as it is" in said and mine.read_text("utf-8") == "my own"


def test_archives_of_the_authors_are_unpacked(mirror, tmp_path):
    folder, script = mirror
    data = tmp_path / "data"
    said = run(data, "authors", script=script, MIRROR=folder.as_uri())
    assert said.count("unpacked") == 8
    assert (data / "tokenization_record" / "tokens" / "a.data").read_bytes() == b"abc"
    assert (data / "retrieve_nell" / "output_squad" / "a.data").read_bytes() == b"abc"
    assert (data / "raw" / "dev-v1.1.tagged.json").read_bytes() == b"abc"
    assert run(data, "authors", script=script, CURL="false").count("there   ") == 8


def test_trained_networks_are_unpacked(mirror, tmp_path):
    folder, script = mirror
    data = tmp_path / "data"
    assert "unpacked models/squad_nell" in run(data, "squad_nell", script=script, MIRROR=folder.as_uri())
    assert {path.name for path in (data / "models" / "squad_nell").iterdir()} == {"cls_squad_out_w", "cls_squad_out_b"}
    assert "there   models/squad_nell" in run(data, "squad_nell", script=script, CURL="false")
    listed = run(data, "models", before=["--list"], code=2, CURL="false")
    assert listed.count("MISSING models/KTNET_fine-tuned-model_") == 5


@pytest.mark.parametrize("part", ["authors", "squad_nell"])
def test_killed_while_unpacking(mirror, tmp_path, part):
    folder, script = mirror
    data, tools = tmp_path / "data", tmp_path / "tools"
    tools.mkdir()
    tar = tools / "tar"         # unpacks, half of the first file, and hangs
    tar.write_text(f'''#!/usr/bin/env bash
"{shutil.which("tar")}" "$@" && find "$4" -type f -exec truncate --size 1 {{}} +
touch "{tmp_path}/unpacking"
exec sleep 60
''', encoding="utf-8")
    tar.chmod(0o755)
    killed = subprocess.Popen(["bash", str(script), str(data), part], stdout=subprocess.DEVNULL,
                              env={**os.environ, "PYTHON": sys.executable, "MIRROR": folder.as_uri(),
                                   "PATH": f"{tools}:{os.environ['PATH']}"})
    while not (tmp_path / "unpacking").exists():
        time.sleep(0.05)
    second = run(data, part, script=script, MIRROR=folder.as_uri(), code=2)
    assert "another get_data.sh is at work there" in second and second.count("\n") == 1
    killed.kill()
    killed.wait()
    end = time.monotonic() + 30
    while "another get_data.sh" in (said := attempt(data, part, script, folder)):
        assert time.monotonic() < end
    assert "All there" in said and "unpacked" in said
    for path in data.rglob("*"):
        assert not path.name.startswith(".unpack") and (path.suffix == ".gz" or not path.is_file()
                                                        or path.name == ".get_data.lock" or path.stat().st_size == 3)


def attempt(data, part, script, folder):
    done = subprocess.run(["bash", str(script), str(data), part], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHON": sys.executable, "MIRROR": folder.as_uri()})
    return done.stdout + done.stderr


def test_a_wordnet_cut_short_is_not_there(mirror, tmp_path):
    _, script = mirror
    wordnet = tmp_path / "data" / "nltk" / "corpora" / "wordnet"
    wordnet.mkdir(parents=True)
    (wordnet / "data.noun").write_text("  1 half\n", encoding="utf-8")
    said = run(tmp_path / "data", "wordnet", script=script, code=2)
    assert "All there" not in said and str(wordnet) in said


def test_the_list_fetches_nothing_and_says_everything(tmp_path):
    said = run(tmp_path / "data", before=["--list"], code=2, CURL="false")
    for place in ("SQuAD/train-v1.1.json", "SQuAD/dev-v1.1.json", "ReCoRD/train.json", "ReCoRD/dev.json",
                  "KB_embeddings/wn_concept2vec.txt", "NELL.08m.1115.esv.csv.gz", "nltk/corpora/wordnet",
                  "cased_L-24_H-1024_A-16/model.safetensors"):
        assert f"MISSING {place}" in said
    assert said.count("    from ") == 11 and list((tmp_path / "data").rglob("*")) == []


def test_a_failing_network_is_no_end(tmp_path):
    said = run(tmp_path / "data", "squad", "record", code=2, CURL="false")
    assert said.count("curl failed with code 1") == 8      # each once as it happens, once in the list
    assert "drive.usercontent.google.com" in said and "SQuAD-explorer/dataset/dev-v1.1.json" in said


def test_wrong_arguments(tmp_path):
    assert "no such part" in run(tmp_path, "squat", code=2)
    assert "DATAPATH" in run("", code=2)
    assert "not a program" in run(tmp_path, "kb", code=2, CURL="no-such-curl")


def test_the_table_of_files_is_complete():
    table = (ROOT / "docs" / "files.md").read_text("utf-8")
    text = SCRIPT.read_text("utf-8")
    digests = set(re.findall(r"\b[0-9a-f]{32}\b", text)) | {
        digest for task in TASKS.values() for digest in task.official_md5.values()}
    assert len(digests) == 18 and digests <= set(re.findall(r"\b[0-9a-f]{32}\b", table))
    addresses = [url for url in re.findall(r"https?://[^\s'\"]+", text) if "drive.usercontent" not in url]
    assert len(addresses) == 5 and all(url in table for url in addresses)
