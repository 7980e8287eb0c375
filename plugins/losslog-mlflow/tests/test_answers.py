"""What a server that misbehaves costs: never a metric, and each fault names itself in a line."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from losslog_mlflow import MlflowPlugin
from losslog_mlflow.uploads import Uploads

import losslog
from losslog.control import RunHandle
from losslog.delivery.caller import Caller
from losslog.delivery.lane import Lane
from losslog.delivery.patience import Patience
from losslog.delivery.progress import Progress
from losslog.delivery.refusals import Refusals
from losslog.journal.cursors import Cursor
from losslog.journal.file import Writer
from losslog.journal.folder import JOURNAL
from losslog.journal.records import Record, encode
from losslog.journal.tail import Tail
from losslog.testing import tell
from losslog.testing.waiting import until

T0 = 1764000000.0
Started = Callable[..., MlflowPlugin]
JSON = {"Content-Type": "application/json"}


class Asked(NamedTuple):
    """One request."""

    method: str
    path: str
    body: bytes


class Answer(NamedTuple):
    """What to answer instead of the real server: a status and a body, whole, dripped or cut short."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    drip: bool = False
    cut: int | None = None


class Proxy:
    """A loopback server that stands before a real MLflow server, and passes on what ``fate`` has no answer for.

    Args:
        target: the real server's address.
    """

    def __init__(self, target: str) -> None:
        self.fate: Callable[[Asked], Answer | None] = lambda asked: None
        self.asked: list[Asked] = []
        self.over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler(urlsplit(target).netloc))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.uri = f"http://127.0.0.1:{self._server.server_port}"

    def sizes(self, path: str) -> list[int]:
        """How large the bodies sent there were."""
        return [len(each.body) for each in self.asked if path in each.path]

    def stop(self) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self, target: str) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = Asked(self.command, self.path, body)
                proxy.asked.append(asked)
                found = proxy.fate(asked)
                if found is None:
                    self.pass_on(asked)
                else:
                    self.misbehave(found)

            def pass_on(self, asked: Asked) -> None:
                connection = http.client.HTTPConnection(target, timeout=30)
                headers = {
                    key: value for key, value in self.headers.items() if key.lower() not in ("host", "connection")
                }
                connection.request(asked.method, asked.path, asked.body, headers)
                answer = connection.getresponse()
                content = answer.read()
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
                connection.close()

            def misbehave(self, found: Answer) -> None:
                self.send_response(found.status)
                for key, value in found.headers.items():
                    self.send_header(key, value)
                self.send_header("Content-Length", str(len(found.body)))
                self.end_headers()
                if found.drip:
                    for byte in found.body:
                        self.wfile.write(bytes([byte]))
                        if proxy.over.wait(0.02):
                            break
                else:
                    self.wfile.write(found.body[: found.cut])
                if found.cut is not None or found.drip:
                    self.close_connection = True

            do_GET = do_POST = do_PUT = do_PATCH = handle_any

        return Handler


PAGE = b"<html><head><title>404 Not Found</title></head><body><center>nginx</center></body></html>"
HTML = {"Content-Type": "text/html"}


def for_a_while(seconds: float, answer: Answer) -> Callable[[Asked], Answer | None]:
    """That answer to everything for so long."""
    until = time.monotonic() + seconds
    return lambda asked: answer if time.monotonic() < until else None


def refusal(status: int, code: str, **headers: str) -> Answer:
    """A refusal in MLflow's own words."""
    return Answer(status, json.dumps({"error_code": code, "message": "no"}).encode(), JSON | headers)


@pytest.fixture
def proxy(server: Any) -> Iterator[Proxy]:
    found = Proxy(server.uri)
    yield found
    found.stop()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Patience, "back_off", (0.02, 0.05))
    monkeypatch.setattr("losslog_mlflow.uploads.BACK_OFF", (0.02, 0.05))
    monkeypatch.setattr(Refusals, "after", 0.3)
    monkeypatch.setattr(Uploads, "gives_up", 0.3)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")


def logs(asked: Asked) -> bool:
    return asked.path.endswith("runs/log-batch")


def uploads(asked: Asked) -> bool:
    return asked.method == "PUT" and "mlflow-artifacts" in asked.path


def has(asked: Asked, step: int) -> bool:
    """Whether the call brings a metric of that step."""
    return logs(asked) and any(int(each["step"]) == step for each in json.loads(asked.body).get("metrics", ()))


class Book:
    """A run's journal, and a lane of the real plugin on it."""

    def __init__(self, run: RunHandle, uri: str) -> None:
        self.run = run
        self.writer = Writer(run.dir)
        self.add("on_run_start", name="maskrcnn", config={}, options={}, resumed=False)
        progress = Progress(Cursor(run.dir, "mlflow"))
        make = lambda: Caller("mlflow", MlflowPlugin(tracking_uri=uri, checkpoints=True))  # noqa: E731
        self.lane = Lane("mlflow", make, Tail(run.dir / JOURNAL), progress, run)

    def add(self, hook: str, **data: Any) -> int:
        seq = self.writer.seq
        self.writer.append([encode(Record(seq, T0 + seq, hook, data))])
        return seq

    def batches(self, steps: range) -> None:
        for step in steps:
            self.add("on_batch_losses", step=step, epoch=1, losses={"a": float(step)}, total=float(step))

    def checkpoint(self) -> int:
        (self.run.dir / "last.pth").write_bytes(b"weights" * 1000)
        return self.add("on_checkpoint", epoch=1, step=0, path="last.pth")

    def deliver(self, *, over: Callable[[], bool] | None = None) -> None:
        self.add("on_run_end", status="finished")
        self.lane.finish(self.writer.end)
        self.lane.start()
        until(over or (lambda: self.lane.patience.over))


@pytest.fixture
def book(run: RunHandle, proxy: Proxy) -> Iterator[Book]:
    found = Book(run, proxy.uri)
    yield found
    found.lane.abandon()
    found.writer.close()


def steps_of(reader: Any, server: Any, run: Any) -> list[int]:
    return sorted({step for step, _ in reader(server.uri).series(run, "batch/train_a")})


MISBEHAVIOURS = {
    "a proxy's page instead of an answer": (Answer(404, PAGE, HTML), "is not MLflow (404, text/html)"),
    "a page with status 200": (Answer(200, PAGE, HTML), "is not MLflow (200, text/html)"),
    "a page that says it is JSON": (Answer(200, PAGE, JSON), "is not MLflow (200, application/json)"),
    "a gateway's own JSON": (Answer(404, b'{"message": "no route"}', JSON), "is not MLflow (404, application/json)"),
    "a gateway that fails": (Answer(502, PAGE, HTML), "fails (502)"),
    "maintenance": (Answer(503, PAGE, HTML | {"Retry-After": "1"}), "is away (503, again after 1)"),
    "too many calls": (
        refusal(429, "REQUEST_LIMIT_EXCEEDED", **{"Retry-After": "1"}), "fewer calls (429, again after 1)"
    ),
    "an error of the server": (refusal(500, "INTERNAL_ERROR"), "fails (500)"),
    "redirects without end": (Answer(302, b"", {"Location": "/api/2.0/mlflow/again"}), "it redirects without end"),
    "a connection that is closed in mid-answer": (Answer(200, b"{" * 500, JSON, cut=20), "breaks off in the middle"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MISBEHAVIOURS)
def test_a_server_that_misbehaves_for_a_while_loses_nothing_and_is_named(
    book: Book, proxy: Proxy, reader: Any, server: Any, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    answer, words = MISBEHAVIOURS[kind]
    book.batches(range(30))
    proxy.fate = for_a_while(1.0, answer)
    book.deliver()
    assert steps_of(reader, server, book.run) == list(range(30))
    assert (book.lane.patience.state, book.lane.progress.skipped.ranges) == ("done", [])
    said = [each for each in caplog.text.splitlines() if words in each]
    assert said, caplog.text
    assert all(len(each) < 500 for each in said)
    assert "nginx" not in caplog.text or "502" in words or "503" in words


def test_an_answer_byte_by_byte_is_said_to_hang_and_holds_nobody(
    started: Started, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = started(tracking_uri=proxy.uri)
    monkeypatch.setattr(Patience, "hung_after", 0.2)
    patience = Patience("mlflow")
    proxy.fate = lambda asked: Answer(200, b"{" * 5000, JSON, drip=True)
    caught: list[Any] = []
    call = threading.Thread(target=lambda: caught.append(patience.guard(plugin.on_flush)), daemon=True)
    call.start()
    until(lambda: patience.hung)
    assert patience.standing()[0] == "hung"
    assert "in one call" in patience.standing()[1]
    assert patience.idle
    proxy.over.set()
    call.join(20)
    assert isinstance(caught[0][1], losslog.BackendUnavailable)


def test_what_is_too_large_is_halved_until_it_is_not(book: Book, proxy: Proxy, reader: Any, server: Any) -> None:
    limit = 4000
    proxy.fate = lambda asked: Answer(413, PAGE, HTML) if logs(asked) and len(asked.body) > limit else None
    book.batches(range(300))
    book.deliver()
    assert steps_of(reader, server, book.run) == list(range(300))
    assert (book.lane.patience.errors, book.lane.progress.skipped.ranges) == (0, [])
    sizes = proxy.sizes("runs/log-batch")
    assert max(sizes) > limit
    assert sum(size > limit for size in sizes) < 12  # what it takes is remembered


@pytest.mark.parametrize("poison", [0, 17, 39])
def test_a_record_that_the_server_fails_at_is_skipped_alone(
    book: Book, proxy: Proxy, reader: Any, server: Any, caplog: pytest.LogCaptureFixture, poison: int
) -> None:
    book.batches(range(40))
    proxy.fate = lambda asked: refusal(500, "INTERNAL_ERROR") if has(asked, poison) else None
    book.deliver()
    assert steps_of(reader, server, book.run) == [each for each in range(40) if each != poison]
    assert book.lane.progress.skipped.ranges == [[poison + 1, poison + 1]]
    assert "a record alone is refused while others are taken" in caplog.text


@pytest.mark.parametrize("status", [413, 400, 500, 403, 404])
def test_metrics_do_not_wait_for_a_checkpoint_that_is_refused(
    book: Book, proxy: Proxy, reader: Any, server: Any, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    seq = book.checkpoint()
    book.batches(range(20))
    proxy.fate = lambda asked: Answer(status, PAGE, HTML) if uploads(asked) else None
    book.deliver()
    assert steps_of(reader, server, book.run) == list(range(20))
    assert reader(server.uri).run(book.run).info.status == "FINISHED"
    assert (book.lane.patience.state, book.lane.progress.skipped.ranges) == ("done", [[seq, seq]])
    assert "last.pth" in caplog.text
    assert str(status) in caplog.text


def test_a_checkpoint_that_waits_holds_the_cursor_but_no_metric(
    book: Book, proxy: Proxy, reader: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Uploads, "gives_up", 600.0)
    seq = book.checkpoint()
    book.batches(range(20))
    proxy.fate = lambda asked: Answer(503, PAGE, HTML) if uploads(asked) else None
    there = reader(server.uri)
    book.deliver(over=lambda: len(proxy.sizes("mlflow-artifacts")) > 2)
    until(lambda: steps_of(reader, server, book.run) == list(range(20)))
    assert book.lane.progress.committed.seq < seq
    proxy.fate = lambda asked: None
    until(lambda: book.lane.patience.over)
    assert book.lane.progress.skipped.ranges == []
    kept = there.client.list_artifacts(there.run(book.run).info.run_id, "checkpoints")
    assert [Path(each.path).name for each in kept] == ["last.pth"]
    assert [value for _, value in there.series(book.run, "batch/train_a")] == [float(each) for each in range(20)]


def test_a_step_that_no_store_has_room_for_is_that_records_own_trouble(
    started: Started, run: Any, reader: Any, server: Any
) -> None:
    plugin = started(tracking_uri=server.uri)
    tell(plugin, "on_batch_losses", step=2**63, losses={"a": 1.0}, lr=None, time=T0)
    with pytest.raises(Exception, match=r"out of range|Int|int|Value") as caught:
        plugin.on_flush()
    assert not isinstance(caught.value, losslog.BackendUnavailable)
    tell(plugin, "on_batch_losses", step=2**63 - 1, losses={"a": 1.0}, lr=None, time=T0)
    plugin.on_flush()
    assert reader(server.uri).series(run, "batch/train_a") == [(2**63 - 1, 1.0)]
