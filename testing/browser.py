# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium for tests, driven through chromedriver's HTTP interface."""
from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KEYS = {"ArrowRight": "\ue014", "ArrowDown": "\ue015", "Home": "\ue011", "End": "\ue010", "Tab": "\ue004",
        "Enter": "\ue007"}
NARROWEST = 500      # pixels: Chromium makes no narrower window, so phones are emulated


def missing() -> str:
    """What the tests lack on this machine, if anything."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    return "" if chromium and shutil.which("chromedriver") else \
        "NO CHROMIUM: the page is not tested; apt-get install chromium chromium-driver"


class Browser:
    """One window."""

    def __init__(self, address: str, width: int, height: int, folder: Path) -> None:
        self._address = address
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},{height}",
                     f"--user-data-dir={folder}"]
        options = {"args": arguments, "binary": shutil.which("chromium") or shutil.which("google-chrome")}
        if width < NARROWEST:
            options["mobileEmulation"] = {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 1.0}}
        answer = self._call("POST", "/session", {"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}})
        self._session = f"/session/{answer['sessionId']}"

    def _call(self, method: str, path: str, values: Any = None) -> Any:
        body = None if values is None else json.dumps(values).encode()
        request = urllib.request.Request(self._address + path, body, {"Content-Type": "application/json"},
                                         method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=300) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from None

    def open(self, path: Path, fragment: str = "") -> None:
        """Load a file."""
        self.visit(path.as_uri() + fragment)

    def visit(self, address: str) -> None:
        """Load what is at an address."""
        self._call("POST", f"{self._session}/url", {"url": address})

    def settle(self) -> None:
        """Wait for the events that the page has queued, and two frames."""
        self.run_async("const done = arguments[0];"
                       "setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(() => done())))")

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a function body of JavaScript."""
        return self._call("POST", f"{self._session}/execute/sync", {"script": script, "args": arguments})

    def run_async(self, script: str, *arguments: Any) -> Any:
        """What a function body of JavaScript hands to its last argument."""
        return self._call("POST", f"{self._session}/execute/async", {"script": script, "args": arguments})

    def screenshot(self) -> bytes:
        """What the window shows, as PNG."""
        return base64.b64decode(self._call("GET", f"{self._session}/screenshot"))

    def press(self, *keys: str) -> None:
        """Press keys, by name or character, on what has the focus."""
        actions = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("POST", f"{self._session}/actions", {"actions": [{"type": "key", "id": "k", "actions": actions}]})

    def log(self) -> list[str]:
        """What the page wrote to the console: errors and blocked requests."""
        return [entry["message"] for entry in self._call("POST", f"{self._session}/se/log", {"type": "browser"})]

    def close(self) -> None:
        """End the session."""
        self._call("DELETE", self._session)


@contextlib.contextmanager
def open_browser(folder: Path, width: int = 1200, height: int = 900) -> Iterator[Browser]:
    """A browser that ends with the block; its profile lies in ``folder``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        browser = Browser(f"http://127.0.0.1:{port}", width, height, folder)
        try:
            yield browser
        finally:
            browser.close()
    finally:
        driver.terminate()
        driver.wait()
