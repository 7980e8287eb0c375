"""The recorder: a bounded queue, a drain thread, and an end that comes in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from losslog.control import RunHandle
from losslog.delivery.delivery import Delivery
from losslog.journal.cursors import BEGINNING
from losslog.journal.file import Writer
from losslog.journal.lines import read
from losslog.journal.tail import Tail
from losslog.recording.drain import Drain
from losslog.recording.intake import Queue
from losslog.recording.items import Batch, Event
from losslog.recording.recorder import Recorder
from losslog.testing.waiting import until

pytestmark = pytest.mark.threaded


END = Event(0.0, "on_run_end", {"status": "finished", "error": None})


class Held(Drain):
    """A drain on a disk that can be made to hang."""

    def __init__(self, writer: Writer) -> None:
        self.tail = Tail(writer.path, own=True)
        self.queue = Queue()
        super().__init__(self.queue, writer, self.tail)
        self.path = writer.path
        self.gate = threading.Event()
        self.gate.set()

    def write(self) -> None:
        self.gate.wait(60)
        super().write()


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    writer = Writer(tmp_path)
    found = Held(writer)
    yield found
    found.gate.set()
    writer.close()


@pytest.fixture
def recorder(held: Held) -> Iterator[Recorder]:
    def handle(source: str) -> RunHandle:
        return RunHandle(id="", name="", dir=held.path.parent, config={}, source=source, post=lambda *each: None)

    delivery = Delivery(held.tail, handle, lambda *each: None, (), BEGINNING)
    found = Recorder(held.queue, held, delivery)
    found.start()
    yield found
    held.gate.set()
    found.finish(END, 30)


def batch(step: int) -> Batch:
    return Batch(time.time(), step, 1, None, [1.0], False, None, None, 1)


def hooks(held: Held) -> list[str]:
    return [record.hook for _, record in read(held.path) if record is not None]


def test_what_was_queued_is_written_when_it_was_asked_for(recorder: Recorder, held: Held) -> None:
    for count in range(1, 20):
        held.queue.put_batch(batch(count))
        assert recorder.ask(30) is not None
        assert len(hooks(held)) == count


def test_batches_are_written_without_being_asked_for(recorder: Recorder, held: Held, until: Any) -> None:
    held.queue.put_batch(batch(0))
    until(lambda: hooks(held) == ["on_batch_losses"])


def test_a_full_queue_drops_batches_and_metrics_and_counts_them(
    recorder: Recorder, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("losslog.recording.intake.QUEUE_LIMIT", 10)
    held.gate.clear()
    for step in range(100):
        held.queue.put_batch(batch(step))
        held.queue.put(Event(0.0, "on_metrics", {"metrics": {}}))
        held.queue.put(Event(0.0, "on_alert", {"key": str(step)}))
    held.gate.set()
    assert recorder.ask(30) is not None
    assert hooks(held).count("on_alert") == 100
    assert hooks(held).count("on_batch_losses") + held.queue.lost == 100
    assert hooks(held).count("on_metrics") + held.queue.lost_others == 100
    assert min(held.queue.lost, held.queue.lost_others) >= 70
    assert (recorder.stats()["dropped"], recorder.stats()["dropped_others"]) == (
        held.queue.lost,
        held.queue.lost_others,
    )


def test_a_question_is_not_waited_for_longer_than_it_may(recorder: Recorder, held: Held) -> None:
    held.gate.clear()
    assert recorder.ask(0.05) is None
    assert not recorder.flush(0.05)


def test_ranks_decide_while_the_disk_hangs(recorder: Recorder, held: Held) -> None:
    told: list[int] = []
    deciding = Recorder(held.queue, held, recorder.delivery, told.append)
    held.gate.clear()
    deciding.start()
    held.queue.steps = 7
    until(lambda: told.count(7) >= 2, "the ranks hear of each other")
    held.gate.set()
    deciding.finish(END, 30)
    assert not [each for each in threading.enumerate() if each.name == "losslog-leases"]


def test_the_end_comes_last(recorder: Recorder, held: Held) -> None:
    for step in range(10):
        held.queue.put_batch(batch(step))
    recorder.finish(END, 30)
    assert hooks(held) == ["on_batch_losses"] * 10 + ["on_run_end"]


def test_a_disk_that_hangs_does_not_hold_the_end(
    recorder: Recorder, held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # what waits is saved there
    held.gate.clear()
    held.queue.put_batch(batch(0))
    began = time.monotonic()
    recorder.finish(END, 0.2)
    assert time.monotonic() - began < 10
    held.gate.set()  # at which the spill hangs here, too
    until(lambda: list(tmp_path.glob("losslog-spill-*.jsonl")), "what waits is saved")


def test_after_the_end_a_question_returns_at_once(recorder: Recorder) -> None:
    recorder.finish(END, 30)
    assert recorder.ask(60) is None


def test_the_drain_does_without_rests_only_where_the_queue_outgrows_what_it_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue, now = Queue(), [100.0]
    monkeypatch.setattr("losslog.recording.intake.time.monotonic", lambda: now[0])
    for step in range(10):
        queue.put_batch(batch(step))
    assert len(queue.take()) == 10
    for step in range(11):
        queue.put_batch(batch(step))
    assert not queue.pressed()
    now[0] += 60
    assert queue.pressed()
    queue.items.popleft()
    assert not queue.pressed()
