"""Lanes: at least once, in order, and nothing a plugin does gets any further."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from losslog import BackendUnavailable, hookimpl
from losslog.control import RunHandle
from losslog.delivery.caller import Caller
from losslog.delivery.lane import Lane
from losslog.delivery.patience import PARK_AFTER, Patience
from losslog.delivery.progress import Progress
from losslog.journal.cursors import Cursor
from losslog.journal.file import Writer
from losslog.journal.folder import JOURNAL
from losslog.journal.records import Record, encode
from losslog.journal.tail import Tail

pytestmark = pytest.mark.threaded


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Patience, "back_off", (0.02, 0.04))
    monkeypatch.setattr(Patience, "hung_after", 0.3)
    monkeypatch.setattr(Patience, "hung_at_start", 0.3)


class Book:
    """A journal, and lanes on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer = Writer(folder)
        self.lanes: list[Lane] = []
        self.posted: list[tuple[str, dict[str, Any]]] = []
        self.add("on_run_start", name="n", config={}, epochs=None, steps_per_epoch=None, options={}, resumed=False)

    def add(self, hook: str, **data: Any) -> None:
        self.writer.append([encode(Record(self.writer.seq, 1000.0 + self.writer.seq, hook, data))])

    def batches(self, count: int) -> None:
        first = self.writer.seq - 1
        for step in range(first, first + count):
            self.add("on_batch_losses", step=step, epoch=1, losses={"a": float(step)}, total=float(step))

    def lane(self, plugin: Any, name: str = "probe", **options: Any) -> Lane:
        make = plugin if callable(plugin) else lambda: plugin
        handle = RunHandle(
            id="id", name="n", dir=self.folder, config={}, source=name, post=lambda *each: self.posted.append(each)
        )
        lane = Lane(
            name,
            lambda: Caller(name, make()),
            Tail(self.folder / JOURNAL),
            Progress(Cursor(self.folder, name)),
            handle,
            **options,
        )
        self.lanes.append(lane)
        lane.start()
        return lane

    def to_the_end(self, lane: Lane) -> None:
        lane.finish(self.writer.end)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    found = Book(tmp_path)
    yield found
    for lane in found.lanes:
        lane.abandon()
    found.writer.close()


def test_records_come_in_order(book: Book, probe: Any, until: Callable[..., None]) -> None:
    book.batches(50)
    lane = book.lane(probe)
    book.to_the_end(lane)
    until(lambda: lane.patience.over)
    assert [seq for _, _, seq in probe.calls] == list(range(51))
    assert (lane.patience.state, lane.figures().committed) == ("done", book.writer.end)


@pytest.mark.parametrize("leaves", [True, False])
def test_what_failed_to_the_end_is_at_no_time_said_to_be_durable(
    book: Book, until: Callable[..., None], leaves: bool
) -> None:
    """Not while it may still be put back, nor where its process goes before it could be."""
    said: list[int] = []

    class Refusing:
        flush_every = 0.01

        @hookimpl
        def on_batch_losses(self, step: int) -> None:
            pass

        @hookimpl
        def on_flush(self) -> None:
            said.append(lane.figures().committed)
            if leaves and lane.progress.at.seq == 8 and lane.patience.errors >= 8:
                lane.abandon()
            raise ValueError("on purpose")

    book.batches(8)
    plugin = Refusing()
    lane = book.lane(lambda: plugin)
    book.to_the_end(lane)
    until(lambda: lane.patience.over)
    assert lane.patience.errors >= 8
    assert (max(said), lane.figures().committed) == (0, 0)
    assert lane.patience.state == "parked"
    assert lane.progress.committed.seq == -1
    cursor = Cursor(book.folder, "probe")
    cursor.load()
    assert (cursor.at.seq, len(cursor.skipped)) == (-1, 0)


def test_records_that_come_later_are_delivered_too(book: Book, probe: Any, until: Callable[..., None]) -> None:
    lane = book.lane(probe)
    for count in range(1, 6):
        book.batches(10)
        lane.wake()
        until(lambda count=count: len(probe.steps) == 10 * count)
    assert probe.steps == list(range(50))


def test_nobody_needs_to_wake_it(book: Book, probe: Any, until: Callable[..., None]) -> None:
    book.lane(probe)
    until(lambda: probe.calls)
    book.batches(1)
    until(lambda: probe.steps)


def test_the_cursor_follows_a_flush(book: Book, probe: Any, until: Callable[..., None]) -> None:
    book.batches(5)
    lane = book.lane(probe)
    until(lambda: lane.figures().committed == book.writer.end)
    assert probe.flushes >= 1


def test_a_second_object_goes_on_where_the_first_was(book: Book, probes: Any, until: Callable[..., None]) -> None:
    first, second = probes(), probes()
    book.batches(5)
    lane = book.lane(first)
    until(lambda: lane.figures().committed == book.writer.end)
    lane.abandon()
    book.batches(5)
    again = book.lane(second)
    book.to_the_end(again)
    until(lambda: again.patience.over)
    assert second.calls[0][0] == "on_run_start"
    assert (first.steps, second.steps) == ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9])


def test_two_lanes_do_not_share_a_cursor(book: Book, probes: Any, until: Callable[..., None]) -> None:
    first, second = probes(), probes()
    lane = book.lane(first)
    until(lambda: lane.figures().committed == book.writer.end)
    waiting = book.lane(second)
    until(lambda: waiting.patience.state == "waiting")
    assert second.calls == []
    assert "another process" in waiting.patience.reason


class Raising:
    """Raises what it is told to, at the steps it is told to."""

    def __init__(self, error: BaseException | type, steps: Any = None) -> None:
        self.error, self.steps, self.got, self.flushed = error, steps, [], 0

    @hookimpl
    def on_batch_losses(self, step: int) -> None:
        if self.steps is None or step in self.steps:
            raise self.error
        self.got.append(step)

    @hookimpl
    def on_flush(self) -> None:
        self.flushed += 1


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_a_record_that_fails_is_skipped_and_counted(book: Book, error: Any, until: Callable[..., None]) -> None:
    book.batches(10)
    plugin = Raising(error, {3, 5})
    lane = book.lane(plugin)
    book.to_the_end(lane)
    until(lambda: lane.patience.over)
    assert plugin.got == [0, 1, 2, 4, 6, 7, 8, 9]
    assert (lane.patience.state, lane.patience.errors, lane.patience.skipped) == ("done", 2, 2)


def test_failures_are_said_with_their_traceback_at_doubling_numbers(
    book: Book, until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    book.batches(40)
    lane = book.lane(Raising(ValueError("xyzzy"), set(range(0, 40, 2))))
    book.to_the_end(lane)
    until(lambda: lane.patience.over)
    said = [each.getMessage() for each in caplog.records if "failed in on_batch_losses" in each.getMessage()]
    assert [text.split("(")[1].split()[0] for text in said] == ["1", "2", "4", "8", "16"]
    assert all("Traceback" in text and "xyzzy" in text for text in said)


def test_twenty_failures_in_a_row_park_it_and_put_its_cursor_back(book: Book, until: Callable[..., None]) -> None:
    book.batches(100)
    plugin = Raising(ValueError("no"), set(range(10, 100)))
    lane = book.lane(plugin)
    until(lambda: lane.patience.over)
    assert (lane.patience.state, lane.patience.errors) == ("parked", PARK_AFTER)
    assert lane.figures().seq == 10  # the record of step 9
    healthy = Raising(ValueError("no"), set())
    again = book.lane(healthy)
    book.to_the_end(again)
    until(lambda: again.patience.over)
    assert plugin.got + healthy.got == list(range(100))


def test_a_success_in_between_starts_the_count_anew(book: Book, until: Callable[..., None]) -> None:
    book.batches(80)
    lane = book.lane(Raising(ValueError("no"), set(range(80)) - set(range(0, 80, PARK_AFTER)) - {79}))
    book.to_the_end(lane)
    until(lambda: lane.patience.over)
    assert lane.patience.state == "done"


@pytest.mark.parametrize("first", [0, 5, 7])
def test_a_lane_that_ends_amid_failures_stands_before_the_first_of_them(
    book: Book, first: int, until: Callable[..., None]
) -> None:
    book.batches(9)
    plugin = Raising(ValueError("wrong experiment"), set(range(first, 9)))
    lane = book.lane(plugin)
    book.to_the_end(lane)
    until(lambda: lane.patience.over)
    assert lane.figures()[:2] == ("parked", "it failed to the end, the last: ValueError: wrong experiment")
    assert lane.figures().committed < book.writer.end
    healthy = Raising(ValueError("no"), set())
    again = book.lane(healthy)
    book.to_the_end(again)
    until(lambda: again.patience.over)
    assert (plugin.got + healthy.got, again.patience.state) == (list(range(9)), "done")


def test_a_backend_that_never_took_anything_is_not_done(book: Book, until: Callable[..., None]) -> None:
    book.batches(8)
    lane = book.lane(Flushing(set(range(8))))
    book.to_the_end(lane)
    until(lambda: lane.patience.over)
    assert lane.patience.state == "parked"
    again = book.lane(plugin := Flushing(set()))
    book.to_the_end(again)
    until(lambda: again.patience.over)
    assert plugin.stored == list(range(8))


def test_a_last_record_that_alone_fails_is_skipped_like_any_other(book: Book, until: Callable[..., None]) -> None:
    book.batches(9)
    lane = book.lane(Raising(ValueError("no"), {8}))
    book.to_the_end(lane)
    until(lambda: lane.patience.over)
    assert (lane.patience.state, lane.patience.skipped) == ("done", 1)


@pytest.mark.parametrize("error", [ValueError("no such experiment"), SystemExit(2)], ids=repr)
def test_a_plugin_that_refuses_the_start_has_not_begun(
    book: Book, error: BaseException, probe: Any, until: Callable[..., None]
) -> None:
    class Refusing(Raising):
        @hookimpl
        def on_run_start(self) -> None:
            raise error

    book.batches(3)
    plugin = Refusing(ValueError("no"), set())
    lane = book.lane(plugin)
    book.to_the_end(lane)
    until(lambda: lane.patience.over)
    assert (lane.patience.state, plugin.got, lane.figures().committed) == ("parked", [], 0)
    assert "has not begun" in lane.figures().reason
    again = book.lane(probe)
    book.to_the_end(again)
    until(lambda: again.patience.over)
    assert probe.steps == [0, 1, 2]


@pytest.mark.parametrize("answer", ["yes", 1.5, True, [3]], ids=repr)
def test_a_flush_that_answers_nonsense_fails_like_any_other(
    book: Book, answer: Any, until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    class Strange:
        @hookimpl
        def on_batch_losses(self) -> None:
            pass

        @hookimpl
        def on_flush(self) -> Any:
            return answer

    book.batches(3)
    lane = book.lane(Strange())
    book.to_the_end(lane)
    until(lambda: lane.patience.over)
    assert lane.patience.state == "parked"
    assert f"on_flush returned {answer!r}" in caplog.text


@pytest.mark.parametrize("every", ["often", None, float("nan"), -1, [1]], ids=repr)
def test_a_flush_every_that_is_no_number_of_seconds_is_named(
    book: Book, every: Any, probe: Any, until: Callable[..., None]
) -> None:
    probe.flush_every = every
    lane = book.lane(probe)
    until(lambda: lane.patience.over)
    why = f"could not be made: ValueError: its flush_every is {every!r}: give a number of seconds"
    assert lane.figures()[:2] == ("parked", why)


def test_a_flush_that_fails_once_skips_nothing(
    book: Book, until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    class Once(Flushing):
        @hookimpl
        def on_flush(self) -> None:
            if self.poison:
                self.poison, self.pending = set(), []
                raise ValueError("once")
            super().on_flush()

    book.batches(5)
    lane = book.lane(plugin := Once({0}))
    book.to_the_end(lane)
    until(lambda: lane.patience.over)
    assert (plugin.stored, lane.patience.errors, lane.patience.skipped) == (list(range(5)), 1, 0)
    assert "delivered again one by one" in caplog.text
    assert "record skipped" not in caplog.text


class Away:
    """A backend that is not there at first."""

    flush_every = 0.0

    def __init__(self, error: BaseException, times: int, where: str = "hook") -> None:
        self.error, self.times, self.where = error, times, where
        self.pending: list[int] = []
        self.stored: list[int] = []

    def _fail(self, where: str) -> None:
        if where == self.where and self.times:
            self.times -= 1
            self.pending.clear()
            raise self.error

    @hookimpl
    def on_run_start(self) -> None:
        self._fail("start")

    @hookimpl
    def on_batch_losses(self, step: int) -> None:
        if step == 5:
            self._fail("hook")
        self.pending.append(step)

    @hookimpl
    def on_flush(self) -> None:
        self._fail("flush")
        self.stored += self.pending
        self.pending.clear()


AWAY = [BackendUnavailable("gone"), ConnectionRefusedError("gone"), TimeoutError("gone"), OSError(28, "disk full")]


@pytest.mark.parametrize("where", ["hook", "flush", "start"])
@pytest.mark.parametrize("error", AWAY, ids=lambda each: type(each).__name__)
def test_a_backend_that_is_away_gets_everything_once_when_it_is_back(
    book: Book, error: Any, where: str, until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "losslog")
    book.batches(10)
    plugin = Away(error, 3, where)
    lane = book.lane(plugin)
    book.to_the_end(lane)
    until(lambda: lane.patience.over)
    assert plugin.stored == list(range(10))
    assert (lane.patience.state, lane.patience.errors) == ("done", 0)
    said = [each.getMessage() for each in caplog.records]
    assert len([text for text in said if "delivered later" in text]) == 1
    assert len([text for text in said if "recovered" in text]) == 1


def test_a_lane_that_backs_off_need_not_be_waited_for(book: Book, until: Callable[..., None]) -> None:
    book.batches(10)
    lane = book.lane(Away(BackendUnavailable(), 10**9))
    until(lambda: lane.patience.state == "waiting")
    assert lane.patience.idle
    assert not lane.patience.over


class Flushing:
    """Its flush fails where a poisonous step is among what it has."""

    flush_every = 0.0

    def __init__(self, poison: set[int]) -> None:
        self.poison, self.pending, self.stored = poison, [], []

    @hookimpl
    def on_batch_losses(self, step: int) -> None:
        self.pending.append(step)

    @hookimpl
    def on_flush(self) -> None:
        pending, self.pending = self.pending, []
        if self.poison & set(pending):
            raise ValueError("poison")
        self.stored += pending


def test_of_a_failed_flush_only_the_poisonous_record_is_skipped(book: Book, until: Callable[..., None]) -> None:
    book.batches(30)
    plugin = Flushing({7, 20})
    lane = book.lane(plugin)
    book.to_the_end(lane)
    until(lambda: lane.patience.over)
    assert plugin.stored == [step for step in range(30) if step not in (7, 20)]
    assert (lane.patience.state, lane.patience.skipped) == ("done", 2)


def test_a_flush_that_always_fails_parks_the_lane(book: Book, until: Callable[..., None]) -> None:
    book.batches(200)
    lane = book.lane(Flushing(set(range(200))))
    until(lambda: lane.patience.over)
    assert lane.patience.state == "parked"
    assert lane.figures().seq < 200 - PARK_AFTER


def test_a_flush_that_always_fails_parks_the_lane_also_where_records_trickle_in(
    book: Book, until: Callable[..., None]
) -> None:
    lane = book.lane(Flushing(set(range(200))))
    for _ in range(100):
        if lane.patience.over:
            break
        skipped = lane.patience.skipped
        book.batches(1)
        lane.wake()
        until(lambda skipped=skipped: lane.patience.over or lane.patience.skipped > skipped)
    assert lane.patience.state == "parked"


class Slowly:
    """Durable only up to the step before the last."""

    flush_every = 0.0

    def __init__(self) -> None:
        self.seqs: list[int] = []
        self.all = threading.Event()

    @hookimpl
    def on_batch_losses(self, seq: int) -> None:
        self.seqs.append(seq)

    @hookimpl
    def on_flush(self) -> int | None:
        return None if self.all.is_set() else (self.seqs[-1] - 1 if self.seqs else -1)


def test_the_cursor_never_passes_what_the_plugin_made_durable(book: Book, until: Callable[..., None]) -> None:
    book.batches(10)
    plugin = Slowly()
    lane = book.lane(plugin)
    until(lambda: lane.figures().seq == 9)
    assert lane.progress.at.offset == book.writer.end
    plugin.all.set()
    until(lambda: lane.figures().seq == 10)


@pytest.mark.parametrize(("upto", "expected"), [(3, [3, 4, 5]), (None, [0, 1, 2, 3, 4, 5]), (-1, [0, 1, 2, 3, 4, 5]),
                                                (10**6, [])])  # fmt: skip
def test_a_plugin_that_knows_how_far_its_backend_is_gets_the_rest(
    book: Book, probes: Any, upto: int | None, expected: list[int], until: Callable[..., None]
) -> None:
    class Knowing(probes):  # type: ignore[misc]
        def delivered_upto(self, run: Any) -> int | None:
            return upto

    book.batches(6)
    plugin = Knowing()
    lane = book.lane(plugin)
    book.to_the_end(lane)
    until(lambda: lane.patience.over)
    assert plugin.steps == expected


def test_a_backend_that_is_behind_the_cursor_gets_it_again(book: Book, probes: Any, until: Callable[..., None]) -> None:
    class Knowing(probes):  # type: ignore[misc]
        def delivered_upto(self, run: Any) -> int:
            return 2

    book.batches(6)
    first = book.lane(probes())
    until(lambda: first.figures().committed == book.writer.end)
    first.abandon()
    plugin = Knowing()
    again = book.lane(plugin)
    book.to_the_end(again)
    until(lambda: again.patience.over)
    assert plugin.steps == [2, 3, 4, 5]


@pytest.mark.parametrize("where", ["__init__", "delivered_upto", "on_batch_losses", "on_flush"])
def test_a_plugin_that_hangs_is_seen_to_hang_wherever_it_does(
    book: Book, where: str, until: Callable[..., None]
) -> None:
    release = threading.Event()

    def hang(place: str) -> None:
        if place == where:
            release.wait(60)

    class Hanging:
        def __init__(self) -> None:
            hang("__init__")

        def delivered_upto(self, run: Any) -> None:
            hang("delivered_upto")

        @hookimpl
        def on_batch_losses(self) -> None:
            hang("on_batch_losses")

        @hookimpl
        def on_flush(self) -> None:
            hang("on_flush")

    book.batches(1)
    lane = book.lane(Hanging)
    try:
        until(lambda: lane.patience.hung)
        assert lane.patience.idle
        assert lane.figures().state == "hung"
    finally:
        release.set()


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(1)], ids=repr)
def test_a_plugin_that_cannot_be_made_is_parked(book: Book, error: BaseException, until: Callable[..., None]) -> None:
    def make() -> Any:
        raise error

    lane = book.lane(make)
    until(lambda: lane.patience.over)
    assert lane.patience.state == "parked"
    assert "could not be made" in lane.patience.reason


def test_what_a_plugin_changes_no_other_sees(book: Book, probes: Any, until: Callable[..., None]) -> None:
    class Vandal:
        @hookimpl
        def on_batch_losses(self, losses: dict[str, float]) -> None:
            losses.clear()
            losses["b"] = 1.0

    tail = Tail(book.folder / JOURNAL)
    book.batches(5)
    witness, lanes = probes(), []
    for name, plugin in (("vandal", Vandal()), ("witness", witness)):
        handle = RunHandle(id="", name="", dir=book.folder, config={}, source=name, post=lambda *each: None)
        lanes.append(
            Lane(
                name, lambda plugin=plugin, name=name: Caller(name, plugin), tail, Progress(Cursor(None, name)), handle
            )
        )
        lanes[-1].finish(book.writer.end)
        lanes[-1].start()
        until(lambda: lanes[-1].patience.over)
    assert [data["losses"] for data in witness.of("on_batch_losses")] == [{"a": float(i)} for i in range(5)]


def test_batch_every_delivers_means(book: Book, probe: Any, until: Callable[..., None]) -> None:
    book.batches(10)
    book.add("on_run_end", status="finished")
    lane = book.lane(probe, batch_every=4)
    book.to_the_end(lane)
    until(lambda: lane.patience.over)
    assert [(data["step"], data["total"]) for data in probe.of("on_batch_losses")] == [(3, 1.5), (7, 5.5), (9, 8.5)]


def test_an_open_window_is_not_committed(book: Book, probe: Any, until: Callable[..., None]) -> None:
    book.batches(6)
    lane = book.lane(probe, batch_every=4)
    until(lambda: lane.progress.at.offset == book.writer.end and lane.figures().seq == 4)
    assert probe.steps == [3]


def test_garbled_lines_are_passed_over_and_said_once(
    book: Book, probe: Any, until: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    book.batches(3)
    book.writer.append([b"garbage\n", b"\xff\xfe\n"])
    book.batches(1)
    lane = book.lane(probe)
    book.to_the_end(lane)
    until(lambda: lane.patience.over)
    assert probe.steps == [0, 1, 2, 5]
    assert sum("garbled" in each.getMessage() for each in caplog.records) == 1


def test_hooks_of_another_version_are_passed_over(book: Book, probe: Any, until: Callable[..., None]) -> None:
    book.add("on_something_new", what=1)
    book.batches(1)
    lane = book.lane(probe)
    book.to_the_end(lane)
    until(lambda: lane.patience.over)
    assert (len(probe.steps), lane.patience.errors) == (1, 0)


def test_a_journal_that_vanishes_for_a_while_is_waited_for(book: Book, probe: Any, until: Callable[..., None]) -> None:
    lane = book.lane(probe)
    until(lambda: probe.calls)
    away = book.folder / "away"
    (book.folder / JOURNAL).rename(away)
    lane.wake()
    until(lambda: lane.patience.state != "live")
    away.rename(book.folder / JOURNAL)
    book.batches(3)
    until(lambda: probe.steps == [0, 1, 2])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_child_of_a_plugin_that_forks_ends_there(book: Book, until: Callable[..., None]) -> None:
    class Forking:
        def __init__(self) -> None:
            self.children: list[int] = []

        @hookimpl
        def on_batch_losses(self, step: int) -> None:
            with (book.folder / "calls.txt").open("a") as file:
                file.write(f"{step}\n")
            if step == 2:
                child = os.fork()
                if child:
                    self.children.append(child)

    book.batches(6)
    plugin = Forking()
    lane = book.lane(plugin)
    book.to_the_end(lane)
    until(lambda: lane.patience.over)
    assert os.waitstatus_to_exitcode(os.waitpid(plugin.children[0], 0)[1]) == 0
    assert (book.folder / "calls.txt").read_text().split() == ["0", "1", "2", "3", "4", "5"]


def test_cpu_seconds_are_those_of_the_lane(book: Book, until: Callable[..., None]) -> None:
    class Burning:
        @hookimpl
        def on_batch_losses(self) -> None:
            sum(range(200_000))

    book.batches(5)
    lane = book.lane(Burning())
    book.to_the_end(lane)
    until(lambda: lane.patience.over)
    assert lane.figures().cpu > 0.001


def test_a_lane_that_has_everything_is_done_when_it_is_let_go(
    book: Book, probe: Any, until: Callable[..., None]
) -> None:
    book.batches(3)
    lane = book.lane(probe)
    until(lambda: lane.figures().committed == book.writer.end)
    book.to_the_end(lane)
    lane.abandon()  # close() saw the commit, and does not wait for the lane to see the end
    until(lambda: lane.patience.over)
    assert lane.patience.state == "done"


def test_a_garbled_seq_does_not_hold_the_cursor(book: Book, probe: Any, until: Callable[..., None]) -> None:
    book.batches(3)
    data = {"step": 3, "epoch": 1, "losses": 1.0, "total": 1.0}
    book.writer.append([encode(Record(9000, 1.0, "on_batch_losses", data))])  # one digit too many
    book.batches(3)
    lane = book.lane(probe)
    book.to_the_end(lane)
    until(lambda: lane.patience.over)
    assert (lane.patience.state, lane.figures().committed) == ("done", book.writer.end)


def test_what_is_said_of_a_parked_lane_is_final(book: Book, until: Callable[..., None]) -> None:
    seen: list[tuple[str, int]] = []

    class Watched(Patience):
        @property
        def over(self) -> bool:
            seen.append((self.state, book.lanes[-1].progress.committed.offset if book.lanes else 0))
            return super().over

    book.batches(100)
    lane = book.lane(Flushing(set(range(100))), patience=Watched("probe"))
    until(lambda: lane.patience.over)
    assert {offset for state, offset in seen if state == "parked"} == {lane.progress.committed.offset}


def test_a_flush_that_never_says_enough_is_named(book: Book, until: Callable[..., None]) -> None:
    class Reluctant:
        @hookimpl
        def on_batch_losses(self) -> None:
            pass

        @hookimpl
        def on_flush(self) -> int:
            return 0

    book.batches(3)
    lane = book.lane(Reluctant())
    book.to_the_end(lane)
    until(lambda: lane.figures().reason)
    assert lane.figures().reason == "on_flush says that 3 records are not durable yet"
