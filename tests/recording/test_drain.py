"""From what a loop logged to lines in the journal."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from losslog.journal.file import Writer
from losslog.journal.folder import JOURNAL
from losslog.journal.records import keys_of
from losslog.journal.tail import Tail
from losslog.recording.drain import BESIDES, Drain
from losslog.recording.intake import Queue
from losslog.recording.items import Batch, Event, Question
from losslog.values.snapshot import Later, snapshot


class Rig:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.queue = Queue()
        self.writer = Writer(folder)
        self.tail = Tail(self.writer.path, own=True)
        self.drain = Drain(self.queue, self.writer, self.tail, lambda step: f"image ids of {step}")
        self.drain.pace.active = False
        self.step = 0

    def batch(self, losses: Any, total: Any = None, *, epoch: int = 1, lr: Any = None, n: int = 1) -> Batch:
        keys, values = snapshot(losses, total)
        self.step += 1
        return Batch(time.time(), self.step - 1, epoch, keys, values, total is not None, lr, None, n)

    def end(self, epoch: int = 1, losses: Any = None, at: float | None = None) -> Event:
        data = {"epoch": epoch, "epochs": None, "step": None, "losses": losses, "val_loss": None, "lr": None}
        return Event(time.time() if at is None else at, "on_epoch_end", data)

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / JOURNAL).read_bytes().splitlines()]

    def data(self, hook: str) -> list[dict[str, Any]]:
        return [each["data"] for each in self.records() if each["hook"] == hook]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    found = Rig(tmp_path)
    yield found
    found.writer.close()


def test_a_batch_becomes_a_record(rig: Rig) -> None:
    rig.drain.take([rig.batch({"a": 1.0, "b": 2.0}, lr=0.1, n=2)])
    assert rig.data("on_batch_losses") == [
        {"step": 0, "epoch": 1, "losses": {"a": 1.0, "b": 2.0}, "total": 3.0, "lr": 0.1, "n": 2}
    ]


def test_records_are_numbered_without_gaps_over_everything(rig: Rig) -> None:
    rig.drain.take([rig.batch(1.0), rig.end(), rig.batch(1.0), Event(0.0, "on_alert", {"key": "a"})])
    rig.drain.take([rig.batch(1.0)])
    assert [each["seq"] for each in rig.records()] == [0, 1, 2, 3, 4]


def test_near_lanes_see_what_was_written(rig: Rig) -> None:
    rig.drain.take([rig.batch(1.0), rig.batch(2.0)])
    assert [record.data["total"] for _, record in rig.tail.read(0) if record] == [1.0, 2.0]
    assert rig.tail.end == rig.writer.end == (rig.folder / JOURNAL).stat().st_size


@pytest.mark.parametrize("name", ["total", "loss", "total_loss"])
def test_a_component_that_is_the_sum_is_the_total(rig: Rig, name: str, caplog: pytest.LogCaptureFixture) -> None:
    rig.drain.take([rig.batch({"a": 1.0, "b": 2.0, name: 3.0}) for _ in range(3)])
    assert [each["losses"] for each in rig.data("on_batch_losses")] == [{"a": 1.0, "b": 2.0}] * 3
    assert caplog.text.count("is the sum of the others") == 1


def test_a_total_that_is_not_the_sum_is_kept_and_said_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.drain.take([rig.batch({"a": 1.0}, 10.0), rig.batch({"a": 1.0}, 20.0), rig.end()])
    assert [each["total"] for each in rig.data("on_batch_losses")] == [10.0, 20.0]
    assert rig.data("on_epoch_end")[0]["total"] == 15.0
    assert caplog.text.count("is not the sum of the components") == 1


def test_an_epochs_means(rig: Rig) -> None:
    rig.drain.take(
        [rig.batch({"a": 1.0}), rig.batch({"a": 2.0, "b": 6.0}), rig.end(1), rig.batch({"a": 9.0}), rig.end(2)]
    )
    assert [(each["losses"], each["total"]) for each in rig.data("on_epoch_end")] == [
        ({"a": 1.5, "b": 6.0}, 7.5), ({"a": 9.0}, 9.0),
    ]  # fmt: skip


def test_losses_given_at_an_epochs_end_count(rig: Rig) -> None:
    rig.drain.take([rig.batch({"a": 1.0}), rig.end(losses={"a": 5.0, "b": 1.0})])
    assert (rig.data("on_epoch_end")[0]["losses"], rig.data("on_epoch_end")[0]["total"]) == ({"a": 5.0, "b": 1.0}, 6.0)


def test_an_epoch_without_batches_has_no_losses(rig: Rig) -> None:
    rig.drain.take([rig.end()])
    assert "losses" not in rig.data("on_epoch_end")[0]


def test_the_last_learning_rate_stands_in_the_epoch(rig: Rig) -> None:
    rig.drain.take([rig.batch(1.0, lr=0.1), rig.batch(1.0, lr={"a": 0.2}), rig.batch(1.0), rig.end()])
    assert rig.data("on_epoch_end")[0]["lr"] == {"a": 0.2}


def test_dict_and_scalar_batches_may_mix_and_that_is_said_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.drain.take([rig.batch(1.0), rig.batch({"a": 2.0}), rig.batch(3.0), rig.end()])
    assert rig.data("on_epoch_end")[0]["losses"] == {"a": 2.0}
    assert caplog.text.count("dict and scalar losses mix") == 1


def test_a_question_is_answered_with_the_means_so_far(rig: Rig) -> None:
    first, second, third = Question(), Question(), Question()
    rig.drain.take([first, rig.batch({"a": 1.0}), rig.batch({"a": 3.0}), second, rig.end(), third])
    assert (first.means, second.means, third.means) == (None, {"a": 2.0}, {"a": 2.0})


def test_metrics_are_waited_for_here(rig: Rig) -> None:
    rig.drain.take([Event(0.0, "on_metrics", {"step": 1, "epoch": None, "metrics": Later(("x",), [2.0])})])
    assert rig.data("on_metrics") == [{"step": 1, "metrics": {"x": 2.0}}]


def test_an_alert_is_recorded_once_per_key(rig: Rig) -> None:
    rig.drain.take([Event(0.0, "on_alert", {"key": key}) for key in "abab"])
    assert [each["key"] for each in rig.data("on_alert")] == ["a", "b"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
def test_a_loss_that_is_not_finite_is_told_once_with_its_name(rig: Rig, value: float) -> None:
    rig.drain.take([rig.batch({"a": 1.0, "b": 1.0}), *(rig.batch({"a": 1.0, "b": value}) for _ in range(3))])
    (alert,) = rig.data("on_alert")
    assert (alert["component"], alert["step"], alert["level"]) == ("b", 1, "error")
    assert "image ids of 1" in alert["text"]


@pytest.mark.parametrize(("second", "title", "text"), [
    (math.nan, "a and 2 others are nan", "a, b, c are nan at step 1 (epoch 1)."),
    (math.inf, "a and 2 others are not finite", "a, b, c are not finite at step 1 (epoch 1)."),
])  # fmt: skip
def test_losses_that_are_not_finite_at_one_step_are_one_alert(rig: Rig, second: float, title: str, text: str) -> None:
    fine = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0}
    bad = {**fine, "a": math.nan, "b": second, "c": math.nan}
    rig.drain.take([rig.batch(fine), rig.batch(bad), rig.batch(bad)])
    rig.drain.take([rig.batch({**bad, "d": math.nan}), Event(0.0, "on_alert", {"key": "non_finite/b"})])
    several, one = rig.data("on_alert")
    assert (several["title"], several["evidence"]) == (title, {"losses": ["a", "b", "c"]})
    assert several["text"].startswith(text)
    assert "component" not in several
    assert (one["title"], one["component"], one["key"]) == ("d is nan", "d", "non_finite/d")


def test_an_alert_of_several_losses_is_known_again_by_the_keys_of_each() -> None:
    alert = {"key": "non_finite/a,b", "evidence": {"losses": ["a", "b"]}}
    assert keys_of(alert) == ["non_finite/a,b", "non_finite/a", "non_finite/b"]
    for odd in ({}, {"losses": 3}, None, {"losses": None}):
        assert keys_of({"key": "non_finite/a", "evidence": odd}) == ["non_finite/a"]
    assert keys_of({"key": "x/a", "evidence": {"losses": ["b"]}}) == ["x/a"]


def test_a_scalar_loss_that_is_not_finite_is_told(rig: Rig) -> None:
    rig.drain.take([rig.batch(math.nan)])
    assert rig.data("on_alert")[0]["title"] == "loss is nan"


def test_a_total_that_is_not_finite_is_called_what_it_is(rig: Rig) -> None:
    rig.drain.take([rig.batch({"a": 1.0}, math.inf)])
    assert rig.data("on_alert")[0]["title"] == "total is inf"


@pytest.mark.parametrize(("losses", "total"), [({"a": 1.0, "b": 2.0, "acc": math.nan}, None),
                                               ({"a": 1.0, "loss": math.nan}, 1.0)])  # fmt: skip
def test_what_is_no_loss_raises_no_alert_of_a_total_that_is_finite(rig: Rig, losses: Any, total: Any) -> None:
    rig.drain.take([rig.batch(losses, total)])
    assert rig.data("on_alert") == []


def test_not_finite_losses_are_in_the_journal(rig: Rig) -> None:
    rig.drain.take([rig.batch({"a": math.nan, "b": math.inf})])
    assert rig.data("on_batch_losses")[0]["losses"] == {"a": "NaN", "b": "Infinity"}


def test_one_item_that_cannot_be_written_costs_itself_alone(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    bad = Event(0.0, "on_checkpoint", {"path": object()})
    rig.drain.take([rig.batch(1.0), bad, rig.batch(2.0), rig.end(), rig.batch(3.0)])
    assert [each["total"] for each in rig.data("on_batch_losses")] == [1.0, 2.0, 3.0]
    assert [each["seq"] for each in rig.records()] == [0, 1, 2, 3]
    assert "internal error" in caplog.text


def test_drops_are_counted_in_their_epoch(rig: Rig) -> None:
    rig.queue.lost = 3
    rig.drain.take([rig.end(1), rig.end(2)])
    assert [each.get("dropped") for each in rig.data("on_epoch_end")] == [3, None]


@pytest.mark.parametrize("jump", [-3600.0, 3600.0, -1e9])
def test_a_clock_that_jumps_does_not_make_an_epoch_shorter_or_longer(rig: Rig, jump: float) -> None:
    rig.drain.take([rig.end(1)])
    rig.drain.take([rig.end(2, at=time.time() + jump)])
    assert 0 <= rig.data("on_epoch_end")[1]["duration"] < 60


@pytest.fixture
def full(rig: Rig) -> Iterator[Callable[[], None]]:
    """The disk is full until the function is called."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, before[1]))

    def free() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    yield free
    free()
    signal.signal(signal.SIGXFSZ, handler)


def test_while_the_disk_is_full_records_wait_and_nothing_is_lost(
    rig: Rig, full: Callable[[], None], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("losslog.recording.drain.RETRY_EVERY", 0.0)
    for _ in range(10):
        rig.drain.take([rig.batch(1.0) for _ in range(10)])
    assert (rig.drain.figures()["unwritten"] > 0, "File too large" in rig.drain.trouble) == (True, True)
    assert [each["seq"] for each in rig.records()] == list(range(len(rig.records())))
    full()
    rig.drain.take([])
    assert [each["data"]["step"] for each in rig.records()] == list(range(100))
    assert (rig.drain.figures()["unwritten"], rig.drain.trouble) == (0, "")
    assert caplog.text.count("cannot be written") == 1


def test_while_the_disk_is_full_batches_beyond_the_bound_are_dropped_and_counted(
    rig: Rig, full: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("losslog.recording.drain.MAX_WAITING", 50 * (BESIDES + 100))
    monkeypatch.setattr("losslog.recording.drain.RETRY_EVERY", 0.0)
    for epoch in range(1, 21):
        rig.drain.take([*(rig.batch(1.0, epoch=epoch) for _ in range(10)), rig.end(epoch)])
    assert rig.drain.figures()["unwritten"] < 50 + 20 + 10
    full()
    rig.drain.take([rig.end(21)])
    assert len(rig.data("on_epoch_end")) == 21
    kept = len(rig.data("on_batch_losses"))
    assert kept + rig.drain.dropped == 200
    assert sum(each.get("dropped", 0) for each in rig.data("on_epoch_end")) == rig.drain.dropped
    assert rig.drain.dropped_others == 0


def test_while_the_disk_is_full_the_oldest_metrics_beyond_the_bound_are_dropped_and_counted(
    rig: Rig, full: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("losslog.recording.drain.MAX_WAITING", 100 * (BESIDES + 100))
    monkeypatch.setattr("losslog.recording.drain.RETRY_EVERY", 0.0)
    rig.drain.take([rig.batch(1.0) for _ in range(50)])
    assert rig.drain.trouble
    waiting = 0
    for step in range(2000):
        own = {"step": step, "metrics": {"x": 1.0}}
        rig.drain.take([Event(0.0, "on_metrics" if step % 10 else "on_eval", own)])
        waiting = max(waiting, rig.drain.figures()["unwritten"])
        if step % 100 == 99:
            rig.drain.take([Event(0.0, "on_alert", {"key": str(step)}), rig.end(step)])
    assert waiting < 50 + 2 * 20 + 120
    full()
    rig.drain.take([Event(0.0, "on_run_end", {"status": "finished"})])
    assert [each["seq"] for each in rig.records()] == list(range(len(rig.records())))
    assert [len(rig.data(hook)) for hook in ("on_batch_losses", "on_alert", "on_epoch_end", "on_run_end")] == [
        50,
        20,
        20,
        1,
    ]
    left = [each["data"]["step"] for each in rig.records() if each["hook"] in ("on_metrics", "on_eval")]
    assert left == list(range(2000 - len(left), 2000))
    assert len(left) + rig.drain.dropped_others == 2000
    assert [record.seq for _, record in rig.tail.read(0) if record] == list(range(rig.drain.records))
    assert rig.drain.figures()["unwritten"] == 0


def test_once_the_disk_has_room_again_nothing_more_is_dropped(
    rig: Rig, full: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("losslog.recording.drain.MAX_WAITING", 2000)
    monkeypatch.setattr("losslog.recording.drain.RETRY_EVERY", 0.0)
    rig.drain.take([rig.batch(1.0) for _ in range(100)])
    full()
    rig.drain.take([])
    before = (rig.drain.dropped, rig.drain.dropped_others)
    rig.drain.take([rig.batch(1.0) for _ in range(100)])
    rig.drain.take([Event(0.0, "on_metrics", {"step": step, "metrics": {}}) for step in range(100)])
    assert (rig.drain.dropped, rig.drain.dropped_others) == before
    assert len(rig.data("on_metrics")) == 100


def test_at_the_end_the_disk_is_tried_once_more_whenever_it_was_tried_last(rig: Rig, full: Callable[[], None]) -> None:
    for _ in range(10):
        rig.drain.take([rig.batch(1.0) for _ in range(10)])
    full()
    rig.drain.close(0.0)
    assert len(rig.data("on_batch_losses")) == 100


def test_a_folder_deleted_in_mid_run_is_put_back_at_the_epochs_end(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.drain.take([rig.batch(1.0) for _ in range(5)])
    for each in rig.folder.iterdir():
        each.unlink()
    rig.folder.rmdir()
    rig.drain.take([rig.batch(1.0), rig.end()])
    assert len(rig.data("on_batch_losses")) == 6
    assert "deleted or replaced" in caplog.text


def test_it_is_synced_at_an_epochs_end(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(fd), sync(fd)))
    rig.drain.take([rig.batch(1.0)])
    assert synced == []
    rig.drain.take([rig.end()])
    assert len(synced) == 1
