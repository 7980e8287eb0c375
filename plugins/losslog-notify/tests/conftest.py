"""A service on loopback that takes, refuses, hangs or is away, and keeps what it took."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from losslog.control import RunHandle
from losslog.testing.waiting import until

pytest_plugins = ["losslog.testing.plugin"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("filterwarnings", "ignore::DeprecationWarning:(apprise|requests|markdown|paho).*")


class Endpoint:
    """What apprise calls ``json://127.0.0.1:PORT``.

    Attributes:
        taken: title, body and type of each message it took.
        asked: how many requests came, whatever became of them.
        status: what it answers: 200 takes the message, 0 never answers.
    """

    def __init__(self, port: int = 0) -> None:
        self.taken: list[dict[str, str]] = []
        self.asked, self.status = 0, 200
        self._released = threading.Event()
        self._lock = threading.Lock()
        if not port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
        self.port = port
        self.url = f"json://127.0.0.1:{port}/s3cret-path?rto=1&cto=1"
        self._server: ThreadingHTTPServer | None = None
        self.open()

    def open(self) -> None:
        """Listen."""
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with endpoint._lock:
                    endpoint.asked += 1
                    status = endpoint.status
                if status == 0:
                    endpoint._released.wait()
                    return
                if status == 200:
                    endpoint.taken.append({"title": body["title"], "body": body["message"], "type": body["type"]})
                self.send_response(status)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        self._released.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def text(self) -> str:
        """All it took."""
        return "\n".join(f"{each['title']}\n{each['body']}" for each in self.taken)

    def has(self, *words: str) -> None:
        """Wait until these words came."""
        until(lambda: all(word in self.text for word in words), f"{words} in what came", 30)


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    server = Endpoint()
    yield server
    server.close()


@pytest.fixture
def other() -> Iterator[Endpoint]:
    server = Endpoint()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("LOSSLOG_"):
            monkeypatch.delenv(name)


@pytest.fixture
def run(tmp_path: Path) -> RunHandle:
    folder = tmp_path / "runs" / "maskrcnn" / "20260101-000000-cafe"
    folder.mkdir(parents=True)
    return RunHandle(id=folder.name, name="maskrcnn", dir=folder, config={}, source="notify", post=lambda *_: None)
