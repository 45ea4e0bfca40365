# SPDX-License-Identifier: Apache-2.0
"""predict.py --serve: a page with two fields and the knowledge below the answer, and the same as JSON.

    GET  /       the page
    POST /ask    {"passage": ..., "question": ...} -> the answer as predict.py --json gives it
    POST /page   the same -> the answer's page with the knowledge

One network answers one question at a time; a few may wait, further ones are refused at once. It listens on this machine
only, and takes requests only for its own address, so that pages of other sites cannot ask it through a browser.
"""
from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.settings import PredictionSettings
from src.viewer.page import render_page
from utils.util import LOGGER, InputError, parse_json

if TYPE_CHECKING:
    from src.inference.reader import Reader

ADDRESS = "127.0.0.1"
LONGEST_BODY = 1_000_000          # bytes of a request
LONGEST_PASSAGE, LONGEST_QUESTION = 100_000, 2_000      # characters
WAITING = 16                      # questions in the queue beside the one that is being answered
SECONDS = 30                      # that a client may take to send its request
FORM = Path(__file__).with_name("serve.html")


class RefusedError(Exception):
    """A request that is not answered: status and reason."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Service:
    """One network for all requests, run by the thread that calls :meth:`work`: MindSpore's settings are a thread's own.

    Args:
        reader: loaded with its attention, for the page.
        waiting: how many questions may wait while it answers one.
    """

    def __init__(self, reader: Reader, waiting: int = WAITING) -> None:
        self.reader = reader
        self._queue: queue.Queue[tuple[Future[Any], Callable[[], Any]] | None] = queue.Queue(waiting)

    def work(self) -> None:
        """Answer what comes until :meth:`stop`."""
        while (item := self._queue.get()) is not None:
            future, answer = item
            try:
                future.set_result(answer())
            except Exception as error:  # noqa: BLE001 - it belongs to the request, not to this thread
                future.set_exception(error)

    def stop(self) -> None:
        """End :meth:`work` when what waits is answered."""
        self._queue.put(None)

    def _wait_for(self, answer: Callable[[], Any]) -> Any:
        future: Future[Any] = Future()
        try:
            self._queue.put_nowait((future, answer))
        except queue.Full:
            raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "too many questions are waiting; try again in a moment"
                          ) from None
        return future.result()

    def ask(self, passage: str, question: str) -> dict[str, Any]:
        """The answer as a JSON object."""
        return self._wait_for(lambda: self.reader.ask(passage, question).to_dict())

    def page(self, passage: str, question: str) -> str:
        """The page with the knowledge behind the answer."""
        def make() -> str:
            knowledge = self.reader.knowledge
            case = self.reader.case(self.reader.predict(passage, question))
            return render_page([case], knowledge.bases, knowledge.names, gloss=knowledge.gloss)

        return self._wait_for(make)


def read_request(body: bytes) -> tuple[str, str]:
    """Passage and question of a request.

    Raises:
        RefusedError: it is no such request, or too long.
    """
    try:
        values = parse_json(body.decode("utf-8"), "request")
    except (InputError, UnicodeDecodeError):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "send JSON: {\"passage\": \"...\", \"question\": \"...\"}") from None
    if not isinstance(values, dict) or not all(isinstance(values.get(name), str) for name in ("passage", "question")):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "send {\"passage\": \"...\", \"question\": \"...\"}, both texts")
    for name, most in (("passage", LONGEST_PASSAGE), ("question", LONGEST_QUESTION)):
        if len(values[name]) > most:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                          f"the {name} has {len(values[name])} characters; at most {most} are taken")
    return values["passage"], values["question"]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "KT-NET", ""
    timeout = SECONDS

    def do_GET(self) -> None:
        """The form."""
        if not self._is_own():
            return
        if self.path == "/":
            self._send(HTTPStatus.OK, "text/html; charset=utf-8", FORM.read_bytes())
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "ask with POST /ask; the page is /")

    def do_POST(self) -> None:
        """An answer."""
        if not self._is_own():
            return
        try:
            passage, question = read_request(self._body())
            if self.path == "/ask":
                answered = json.dumps(self.server.service.ask(passage, question), ensure_ascii=False)
                self._send(HTTPStatus.OK, "application/json; charset=utf-8", answered.encode())
            elif self.path == "/page":
                self._send(HTTPStatus.OK, "text/html; charset=utf-8", self.server.service.page(passage,
                                                                                               question).encode())
            else:
                raise RefusedError(HTTPStatus.NOT_FOUND, "ask with POST /ask or POST /page")
        except RefusedError as refusal:
            self._refuse(refusal.status, str(refusal))
        except InputError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))

    def _is_own(self) -> bool:
        """Whether the request is for this server's own address; refuses others."""
        port = self.server.server_address[1]
        if self.headers.get("Host") in (f"{ADDRESS}:{port}", f"localhost:{port}"):
            return True
        self._refuse(HTTPStatus.FORBIDDEN, f"this is http://{ADDRESS}:{port}/ and answers under that address only")
        return False

    def _body(self) -> bytes:
        if self.headers.get_content_type() != "application/json":
            raise RefusedError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send Content-Type: application/json")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "send Content-Length")
        if len(length) > 12 or int(length) > LONGEST_BODY:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {LONGEST_BODY} bytes are taken")
        return self.rfile.read(int(length))

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self.close_connection = True        # what is left of the request is not read
        self._send(status, "application/json; charset=utf-8",
                   json.dumps({"error": reason}, ensure_ascii=False).encode())

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:  # noqa: A002 - the base class calls it so
        """Nothing for each request."""


class Server(ThreadingHTTPServer):
    """Listens on this machine; what comes before there is a service waits.

    Args:
        port: 0 takes any that is free.

    Raises:
        InputError: the port cannot be used.
    """

    daemon_threads = True
    request_queue_size = 128
    service: Service

    def __init__(self, port: int) -> None:
        try:
            super().__init__((ADDRESS, port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"--serve {port}: cannot listen there ({reason}); give another port") from None


def run_server(settings: PredictionSettings) -> None:
    """What predict.py --serve does: answer until the process is stopped."""
    assert settings.question.serve is not None
    with Server(settings.question.serve) as server:
        from src.inference.reader import Reader  # imports MindSpore: not for a port in use
        LOGGER.info("loading MindSpore")
        service = server.service = Service(Reader(settings))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        LOGGER.info("http://%s:%d/ answers questions; Ctrl-C ends it", *server.server_address[:2])
        try:
            service.work()
        finally:
            server.shutdown()
