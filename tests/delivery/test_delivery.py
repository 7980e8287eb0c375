"""Delivery: near lanes and the follower as one thing that is waited for within bounds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from losslog import BackendUnavailable, hookimpl
from losslog.control import RunHandle
from losslog.delivery.delivery import Delivery, lanes_for
from losslog.delivery.discovery import Plugin, named
from losslog.delivery.trust import Trust
from losslog.journal.cursors import BEGINNING
from losslog.journal.file import Writer, append_record
from losslog.journal.folder import JOURNAL
from losslog.journal.tail import Tail

pytestmark = pytest.mark.threaded


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    found = Writer(tmp_path)
    append_record(found, "on_run_start", {"name": "n", "config": {"a": 1}})
    for step in range(3):
        append_record(found, "on_batch_losses", {"step": step, "epoch": 1, "losses": 1.0, "total": 1.0})
    yield found
    found.close()


@pytest.fixture
def delivery(writer: Writer, tmp_path: Path) -> Iterator[Delivery]:
    def handle(source: str) -> RunHandle:
        return RunHandle(id="", name="", dir=tmp_path, config={}, source=source, post=lambda *each: None)

    found = Delivery(Tail(tmp_path / JOURNAL), handle, lambda *each: None, (), BEGINNING)
    yield found
    found.leave()


def soon() -> float:
    return time.monotonic() + 30


def test_it_waits_until_every_lane_has_everything(delivery: Delivery, writer: Writer, probes: Any) -> None:
    first, second = probes(), probes()
    delivery.add(Plugin.of_object(first, "first"))
    delivery.add(Plugin.of_object(second, "second"))
    assert delivery.wait(lambda: writer.end, soon(), committed=True)
    assert first.steps == second.steps == [0, 1, 2]


def test_it_does_not_wait_for_a_lane_that_backs_off(delivery: Delivery, writer: Writer, until: Any) -> None:
    class Away:
        @hookimpl
        def on_run_start(self) -> None:
            raise BackendUnavailable("gone")

    delivery.add(Plugin.of_object(Away()))
    until(lambda: delivery.lanes["Away"].patience.state == "waiting")
    began = time.monotonic()
    assert not delivery.wait(lambda: writer.end, soon(), committed=True)
    assert time.monotonic() - began < 10


def test_it_waits_no_longer_than_it_may(delivery: Delivery, writer: Writer) -> None:
    release = threading.Event()

    class Slow:
        @hookimpl
        def on_run_start(self) -> None:
            release.wait(60)

    delivery.add(Plugin.of_object(Slow()))
    assert not delivery.wait(lambda: writer.end, time.monotonic() + 0.05, committed=True)
    release.set()


def test_figures_tell_how_far_behind_each_is(delivery: Delivery, writer: Writer, probe: Any) -> None:
    delivery.add(Plugin.of_object(probe))
    assert delivery.wait(lambda: writer.end, soon(), committed=True)
    append_record(writer, "on_alert", {"key": "a"})
    assert delivery.stats(writer.seq - 1, writer.end)["Probe"]["behind"] in (0, 1)  # it may have seen it already
    assert delivery.wait(lambda: writer.end, soon(), committed=True)
    assert delivery.stats(writer.seq - 1, writer.end)["Probe"]["behind"] == 0


def test_the_first_error_is_told_once(delivery: Delivery, writer: Writer, until: Any) -> None:
    class Bad:
        @hookimpl
        def on_batch_losses(self) -> None:
            raise ValueError("mine")

    delivery.add(Plugin.of_object(Bad()))
    until(lambda: delivery.lanes["Bad"].patience.errors == 3)
    assert isinstance(delivery.first_error(), ValueError)
    assert delivery.first_error() is None


def test_lanes_for_a_process_that_does_not_train(
    writer: Writer, package: Callable[..., str], far_source: str, tmp_path: Path, until: Any
) -> None:
    package(far_source, "far")
    (lane,) = lanes_for(tmp_path, named(["far"]), lambda *each: None, Trust(), name="n", config={"a": 1})
    lane.finish(writer.end)
    lane.start()
    until(lambda: lane.patience.over)
    assert lane.patience.state == "done"
    assert (tmp_path / "far.txt").read_text().splitlines() == [
        "start 0", "batch 0 1.0", "batch 1 1.0", "batch 2 1.0",
    ]  # fmt: skip
