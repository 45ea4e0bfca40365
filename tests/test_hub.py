# SPDX-License-Identifier: Apache-2.0
"""Models by their name on the HuggingFace hub: fetched from a server of the test's own."""
from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")
from src.weights.folder import CARD, CONFIG, SUMS, VOCABULARY, WEIGHTS  # noqa: E402
from src.weights.hub import is_hub_name, local_model  # noqa: E402
from utils.util import InputError  # noqa: E402

ROOT = Path(__file__).parents[1]
NAME, COMMIT = "somebody/ktnet", "c" * 40
FILES = {name: name.encode() * 9 for name in (CONFIG, WEIGHTS, VOCABULARY, CARD, SUMS, "concepts/wn.txt",
                                              "nltk/corpora/wordnet/index.noun", "evil.pkl")}
FETCH = "import sys; from pathlib import Path; from src.weights.hub import local_model; " \
        "print(local_model(Path(sys.argv[1])))"


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's interface as fetching a model takes."""

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, with_body):
        self.server.asked.append(self.path)
        headers = {}
        if self.path.startswith(f"/api/models/{NAME}/revision/"):
            body = json.dumps({"id": NAME, "modelId": NAME, "sha": COMMIT, "private": False, "tags": [],
                               "siblings": [{"rfilename": name} for name in FILES]}).encode()
        elif self.path.startswith(f"/api/models/{NAME}/tree/"):
            body = json.dumps([{"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
                               for name, content in FILES.items()]).encode()
        elif f"/{NAME}/resolve/" in self.path and (name := self.path.split("/", 5)[5]) in FILES:
            body = FILES[name]
            headers = {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": COMMIT}
        else:
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(200)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def hub():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def fetch(name, endpoint, home):
    """In a process of its own: the package reads HF_ENDPOINT when it is imported."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return subprocess.run([sys.executable, "-c", FETCH, name], cwd=ROOT, capture_output=True, text=True, check=False,
                          env={**clean, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"})


def test_a_model_is_fetched_from_the_hub(hub, tmp_path):
    result = fetch(NAME, f"http://127.0.0.1:{hub.server_port}", tmp_path)
    assert result.returncode == 0, result.stderr
    folder = Path(result.stdout.strip())
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == {name: content for name, content in FILES.items() if name != "evil.pkl"}
    assert not any("evil" in path for path in hub.asked)        # nothing but what a model folder has


def test_without_a_network_one_line_says_so(tmp_path):
    result = fetch(NAME, "http://127.0.0.1:9", tmp_path)
    assert result.returncode == 1
    assert f"InputError: --model {NAME}: no such folder, and not to be had from the" in result.stderr.splitlines()[-1]


def test_without_the_package_one_line_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match="pip install huggingface_hub"):
        local_model(Path(NAME))


def test_paths_are_no_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "output").mkdir()
    for path in ("model", "output/model", "/a/b", "../a/b", "a/b/c", "a/KTNET.ckpt", "a/KTNET.safetensors", "a/.."):
        assert not is_hub_name(Path(path)) and local_model(Path(path)) == Path(path)
    assert is_hub_name(Path(NAME))
