"""What a backend never takes holds up nothing else; what it does not take now is kept."""

from __future__ import annotations

import time
import urllib.error
from collections.abc import Callable, Iterator
from email.message import Message
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from losslog import BackendUnavailable, hookimpl
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
from losslog.runtime.containment import LONGEST_WAIT, answered, asked_to_wait, means_not_now

pytestmark = pytest.mark.threaded
START: dict[str, Any] = {"name": "n", "config": {}, "options": {}, "resumed": False}


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Patience, "back_off", (0.005, 0.01))
    monkeypatch.setattr(Refusals, "after", 0.05)


class Server:
    """Takes what its plugin gathered at each flush, but for what it refuses."""

    def __init__(self, refuses: Callable[[list[int]], bool], *, at_once: bool = False) -> None:
        self.taken: list[int] = []
        self.sizes: list[int] = []
        self._refuses, self._at_once = refuses, at_once
        self._gathered: list[int] = []

    flush_every = 0.01

    @hookimpl
    def on_batch_losses(self, step: int) -> None:
        self._gathered.append(step)
        if self._at_once:
            self.send()

    @hookimpl
    def on_run_end(self) -> None:
        self._gathered.append(-1)

    @hookimpl
    def on_flush(self) -> None:
        self.send()

    def send(self) -> None:
        gathered, self._gathered = self._gathered, []
        self.sizes.append(len(gathered))
        if self._refuses(gathered):
            raise BackendUnavailable("500 Internal Server Error", refused=True)
        self.taken += gathered


@pytest.fixture
def deliver(tmp_path: Path, until: Callable[..., None]) -> Iterator[Callable[..., Lane]]:
    """A lane that delivers so many batches and an end, until it is over or ``enough``."""
    writer, lanes = Writer(tmp_path), []

    def add(hook: str, data: dict[str, Any]) -> None:
        writer.append([encode(Record(writer.seq, 1000.0, hook, data))])

    def run(plugin: Any, batches: int, *, end: bool = True, enough: Callable[[], bool] | None = None) -> Lane:
        add("on_run_start", START)
        for step in range(batches):
            add("on_batch_losses", {"step": step, "epoch": 1, "losses": {"a": 1.0}, "total": 1.0})
        if end:
            add("on_run_end", {"status": "finished"})
        handle = RunHandle(id="id", name="n", dir=tmp_path, config={}, source="probe", post=lambda *_: None)
        progress = Progress(Cursor(tmp_path, "probe"))
        lane = Lane("probe", lambda: Caller("probe", plugin), Tail(tmp_path / JOURNAL), progress, handle)
        lanes.append(lane)
        lane.finish(writer.end)
        lane.start()
        until(enough or (lambda: lane.patience.over))
        return lane

    yield run
    for lane in lanes:
        lane.abandon()
    writer.close()


def skipped(lane: Lane) -> list[list[int]]:
    return lane.progress.skipped.ranges


@pytest.mark.parametrize("at_once", [False, True], ids=["in its flush", "in its hook"])
@pytest.mark.parametrize("poison", [0, 7, 99])
def test_a_record_that_alone_is_refused_for_long_is_skipped(
    deliver: Callable[..., Lane], poison: int, at_once: bool, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(lambda steps: poison in steps, at_once=at_once)
    lane = deliver(server, 100)
    assert sorted({*server.taken}) == [each for each in range(-1, 100) if each != poison]
    assert skipped(lane) == [[poison + 1, poison + 1]]
    assert lane.patience.state == "done"
    assert "a record alone is refused while others are taken: BackendUnavailable: 500" in caplog.text


@pytest.mark.parametrize("poison", [{7, 8}, {3, 9, 10, 11}, {0, 1, 2}])
def test_several_that_are_refused_are_skipped_alone(deliver: Callable[..., Lane], poison: set[int]) -> None:
    server = Server(lambda steps: bool(poison & {*steps}))
    lane = deliver(server, 20)
    assert sorted({*server.taken}) == [each for each in range(-1, 20) if each not in poison]
    assert {step for step in range(20) if step + 1 in lane.progress.skipped} == poison


def test_a_server_that_refuses_everything_for_long_loses_nothing(deliver: Callable[..., Lane]) -> None:
    began = time.monotonic()
    server = Server(lambda steps: time.monotonic() - began < 0.5)
    lane = deliver(server, 50)
    assert sorted({*server.taken}) == list(range(-1, 50))
    assert skipped(lane) == []


def test_the_last_record_is_not_given_up_where_nothing_shows_that_others_are_taken(
    deliver: Callable[..., Lane],
) -> None:
    server = Server(lambda steps: 9 in steps)
    lane = deliver(server, 10, end=False, enough=lambda: server.sizes[-30:] == [1] * 30)
    assert sorted({*server.taken}) == list(range(9))
    assert skipped(lane) == []
    assert lane.patience.state == "waiting"


def test_silence_is_about_no_record(deliver: Callable[..., Lane]) -> None:
    """A server that is not there is waited for, however long it takes, and at its return everything goes at once."""
    began = time.monotonic()

    class Away(Server):
        def send(self) -> None:
            try:
                super().send()
            except BackendUnavailable as error:
                raise ConnectionError("nobody there") from error

    server = Away(lambda steps: time.monotonic() - began < 0.4)
    lane = deliver(server, 50)
    assert skipped(lane) == []
    assert server.sizes[-1] >= 50


def test_what_a_plugin_says_is_refused_is_skipped_without_a_second_delivery(
    deliver: Callable[..., Lane], caplog: pytest.LogCaptureFixture
) -> None:
    class Frank(Server):
        def refused(self) -> dict[int, str]:
            return {4: "too large for the server"} if not self.sizes[1:] else {}

    server = Frank(lambda steps: False)
    lane = deliver(server, 10)
    assert server.taken == [*range(10), -1]
    assert skipped(lane) == [[4, 4]]
    assert "plugin probe: too large for the server: that record is skipped" in caplog.text


def http(status: int, wait: str | None = None) -> urllib.error.HTTPError:
    headers = Message()
    if wait is not None:
        headers["Retry-After"] = wait
    return urllib.error.HTTPError("http://host", status, "no", headers, None)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (BackendUnavailable("x"), 0.0),
        (BackendUnavailable("x", retry_after=7), 7.0),
        (BackendUnavailable("x", retry_after="7.5"), 7.5),
        (BackendUnavailable("x", retry_after="86400"), LONGEST_WAIT),
        (BackendUnavailable("x", retry_after="nan"), 0.0),
        (BackendUnavailable("x", retry_after="-5"), 0.0),
        (BackendUnavailable("x", retry_after="soon"), 0.0),
        (BackendUnavailable("x", retry_after=formatdate(0)), 0.0),
        (BackendUnavailable("x", retry_after=formatdate(4e9)), LONGEST_WAIT),
        (http(429, "12"), 12.0),
        (http(503), 0.0),
        (ConnectionError("x"), 0.0),
    ],
)
def test_a_backend_is_left_alone_for_as_long_as_it_asks(error: BaseException, seconds: float) -> None:
    assert asked_to_wait(error) == seconds
    patience = Patience("probe")
    patience.away(error)
    assert patience.delay == max(seconds, Patience.back_off[0])


@pytest.mark.parametrize("status", [400, 401, 404, 408, 413, 425, 429, 500, 503])
def test_which_answers_pass(status: int) -> None:
    assert means_not_now(http(status)) == (status in (408, 425, 429, 500, 503))
    assert answered(http(status))
    assert not answered(ConnectionError())
