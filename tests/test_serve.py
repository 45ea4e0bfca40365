# SPDX-License-Identifier: Apache-2.0
"""predict.py --serve: answers over HTTP, and what is refused."""
from __future__ import annotations

import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

pytest.importorskip("mindspore")
import predict  # noqa: E402
from src.inference import Reader, serve  # noqa: E402
from testing import browser  # noqa: E402
from testing.small_predict import sample_flags as flags  # noqa: E402
from testing.small_raw import tagged_passages  # noqa: E402
from utils.util import InputError  # noqa: E402

JSON = {"Content-Type": "application/json"}


class Echo:
    """In the place of a reader: answers with the question, as slowly as it is told."""

    def __init__(self):
        self.go = threading.Event()
        self.go.set()
        self.asked = 0

    def ask(self, passage, question):
        self.go.wait(60)
        self.asked += 1
        if not passage.strip():
            raise InputError("no words in the passage; give some text")
        return SimpleNamespace(to_dict=lambda: {"answer": question})


def working(reader, waiting):
    """A server, and the thread that stands for the main one."""
    server = serve.Server(0)
    service = server.service = serve.Service(reader, waiting)
    threads = [threading.Thread(target=server.serve_forever), threading.Thread(target=service.work)]
    for thread in threads:
        thread.start()
    return service, server, threads


@pytest.fixture
def echo():
    reader = Echo()
    service, server, threads = working(reader, waiting=4)
    yield reader, server
    reader.go.set()
    server.shutdown()
    service.stop()
    for thread in threads:
        thread.join()
    server.server_close()


def request(server, method="POST", path="/ask", body=None, headers=JSON, **host):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=120)
    body = json.dumps({"passage": "A tower.", "question": "What?"}) if body is None else body
    try:
        connection.request(method, path, body=body, headers={**headers, **host})
        reply = connection.getresponse()
        text = reply.read().decode("utf-8")
        return reply.status, json.loads(text) if reply.headers["Content-Type"].startswith("application/json") else text
    finally:
        connection.close()


def test_the_form_and_an_answer(echo):
    status, page = request(echo[1], "GET", "/")
    assert status == 200 and "<textarea" in page and "http" not in page.replace("<!DOCTYPE html>", "")
    assert request(echo[1]) == (200, {"answer": "What?"})


@pytest.mark.parametrize(("status", "reason", "values"), [
    (403, "answers under that address only", {"Host": "evil.example"}),
    (403, "answers under that address only", {"method": "GET", "path": "/", "Host": "evil.example:80"}),
    (404, "POST /ask", {"path": "/other"}), (404, "POST /ask", {"method": "GET", "path": "/../etc/passwd"}),
    (415, "application/json", {"headers": {"Content-Type": "text/plain"}}),
    (400, "send JSON", {"body": "{"}), (400, "send JSON", {"body": b"\xff"}), (400, "both texts", {"body": "[]"}),
    (400, "both texts", {"body": json.dumps({"passage": 1, "question": "b"})}),
    (413, "the passage has 100001 characters", {"body": json.dumps({"passage": "a" * 100_001, "question": "b"})}),
    (413, "the question has 2001 characters", {"body": json.dumps({"passage": "a", "question": "b" * 2001})}),
    (413, "at most 1000000 bytes", {"headers": {**JSON, "Content-Length": "1000001"}}),
    (413, "at most 1000000 bytes", {"headers": {**JSON, "Content-Length": "9" * 40}}),
    (411, "send Content-Length", {"headers": {**JSON, "Content-Length": "-5"}}),
    (411, "send Content-Length", {"headers": {**JSON, "Content-Length": "\u00b2"}}),
    (400, "no words in the passage", {"body": json.dumps({"passage": " ", "question": "b"})})])
def test_refusals(echo, status, reason, values):
    found, said = request(echo[1], **values)
    assert found == status and reason in said["error"] and "\n" not in said["error"]
    assert request(echo[1]) == (200, {"answer": "What?"})      # and it goes on


def test_too_many_at_a_time(echo):
    """One is answered, four wait, the others of fifty are refused at once; then all is as before."""
    reader, server = echo
    reader.go.clear()
    refused = threading.Semaphore(0)

    def one(number):
        found = request(server, body=json.dumps({"passage": "a", "question": str(number)}))
        if found[0] == 503:
            refused.release()
        return found

    with ThreadPoolExecutor(50) as pool:
        waiting = [pool.submit(one, number) for number in range(50)]
        for _ in range(45):
            assert refused.acquire(timeout=60)
        reader.go.set()
        replies = [reply.result() for reply in waiting]
    answered = [(number, said) for number, (status, said) in enumerate(replies) if status == 200]
    assert len(answered) == 5 == reader.asked
    assert all(said == {"answer": str(number)} for number, said in answered)
    assert all("try again" in said["error"] for status, said in replies if status == 503)
    assert request(server)[0] == 200


class Shown(Echo):
    """Gives what the page shows of an answer, and a page in the place of the viewer's."""

    def ask(self, passage, question):
        candidates = [{"text": "Ida Roth", "probability": 0.9}, {"text": "Roth", "probability": 0.1}]
        return SimpleNamespace(to_dict=lambda: {"answer": "Ida Roth", "probability": 0.9, "nbest": candidates})


def test_the_page_asks_and_shows(tmp_path, monkeypatch):
    """In a browser: the answer, the page below it, and a refusal in words."""
    if reason := browser.missing():
        pytest.skip(reason)
    monkeypatch.setattr(serve.Service, "page", lambda service, passage, question: f"<p id='it'>{question}</p>")
    service, server, threads = working(Shown(), waiting=4)
    port = server.server_address[1]
    ask = """const done = arguments[arguments.length - 1];
        document.getElementById("passage").value = arguments[0]; document.getElementById("question").value = "Who?";
        document.getElementById("form").requestSubmit();
        const wait = () => document.getElementById("ask").disabled ? setTimeout(wait, 20) :
            done([document.getElementById("answer").textContent, document.getElementById("page").hidden]);
        wait();"""
    try:
        with browser.open_browser(tmp_path) as window:
            window.visit(f"http://127.0.0.1:{port}/")
            assert window.run_async(ask, "Built by Ida Roth.") == ["Ida Roth 90%; or: Roth (10%)", False]
            assert window.run("return document.getElementById('page').srcdoc") == "<p id='it'>Who?</p>"
            refused = window.run_async(ask, "a" * 100_001)
            assert "100001 characters; at most 100000" in refused[0]
    finally:
        server.shutdown()
        service.stop()
        for thread in threads:
            thread.join()
        server.server_close()


def test_a_port_in_use_is_told(echo):
    port = echo[1].server_address[1]
    with pytest.raises(InputError, match=f"--serve {port}: cannot listen there"):
        serve.Server(port)
    with pytest.raises(InputError, match="--serve 70000"):
        serve.Server(70000)


def test_serving_takes_no_passage(folder):
    with pytest.raises(InputError, match="--serve: passages and questions come over HTTP"):
        predict.main(flags(folder, "--serve", "0", "--passage", "a"))


@pytest.mark.slow
def test_a_network_answers_as_predict_does(folder):
    from src.settings import PredictionSettings

    passage = next(iter(tagged_passages(folder))).text
    question = "Who built the Clock Tower of Tarn?"
    reader = Reader(PredictionSettings.parse(flags(folder, "--serve", "0")))
    server = serve.Server(0)
    service = server.service = serve.Service(reader)
    body = json.dumps({"passage": passage, "question": question})

    def client():
        try:
            return request(server, body=body), request(server, path="/page", body=body)
        finally:
            service.stop()

    with ThreadPoolExecutor(2) as pool:
        pool.submit(server.serve_forever)
        asked = pool.submit(client)
        service.work()                       # here, as in predict.py: in the thread that loaded the network
        (status, answered), (page_status, page) = asked.result()
        server.shutdown()
    server.server_close()
    assert status == page_status == 200 and answered == json.loads(json.dumps(reader.ask(passage, question).to_dict()))
    data = json.loads(page.split('<script type="application/json" id="data">')[1].split("</script>")[0])
    assert data["cases"][0]["question"] == question.split() and data["cases"][0]["answer"] in answered["answer"]
