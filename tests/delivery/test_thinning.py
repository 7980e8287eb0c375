from __future__ import annotations

from typing import Any

import pytest

from losslog.delivery.thinning import Thinner, newest
from losslog.journal.records import Record


def batch(seq: int, step: int, value: float, **more: Any) -> Record:
    data = {"step": step, "epoch": 1, "losses": {"a": value}, "total": value, "lr": 0.1, **more}
    return Record(seq, 100.0 + seq, "on_batch_losses", data)


def test_one_passes_everything_on() -> None:
    record = batch(0, 0, 1.0)
    assert list(Thinner(1).take(record)) == [record]


def test_a_window_goes_out_with_its_last_step() -> None:
    thinner = Thinner(3)
    assert [list(thinner.take(batch(seq, seq, float(seq)))) for seq in range(2)] == [[], []]
    (out,) = thinner.take(batch(2, 2, 5.0))
    assert (out.seq, out.time, out.data["step"], out.data["losses"], out.data["total"], out.data["n"]) == (
        2, 102.0, 2, {"a": 2.0}, 2.0, 3,
    )  # fmt: skip


def test_windows_end_at_multiples_whatever_the_first_step_was() -> None:
    thinner = Thinner(4)
    out = [record.data["step"] for step in range(6, 17) for record in thinner.take(batch(step, step, 1.0))]
    assert out == [7, 11, 15]


def test_an_open_window_goes_out_before_anything_else() -> None:
    thinner = Thinner(10)
    list(thinner.take(batch(0, 0, 1.0)))
    end = Record(1, 101.0, "on_epoch_end", {"epoch": 1})
    assert [each.hook for each in thinner.take(end)] == ["on_batch_losses", "on_epoch_end"]


def test_what_has_not_gone_out_is_known() -> None:
    thinner = Thinner(10)
    assert thinner.pending_seq is None
    list(thinner.take(batch(5, 0, 1.0)))
    list(thinner.take(batch(6, 1, 1.0)))
    assert thinner.pending_seq == 5
    thinner.clear()
    assert thinner.pending_seq is None


def test_accumulated_passes_add_up() -> None:
    thinner = Thinner(2)
    list(thinner.take(batch(0, 0, 1.0, n=4)))
    (out,) = thinner.take(batch(1, 1, 1.0))
    assert out.data["n"] == 5


@pytest.mark.parametrize("step", ["x", None, float("inf"), [1]], ids=repr)
def test_a_step_that_a_foreign_journal_made_up_does_no_harm(step: Any) -> None:
    thinner = Thinner(2)
    out = [each for record in (batch(0, 0, 1.0), batch(1, step, 3.0)) for each in thinner.take(record)]
    assert [each.data["losses"] for each in out] == [{"a": 2.0}]


@pytest.mark.parametrize("key", ["losses", "total"])
@pytest.mark.parametrize("absent", [True, False])
def test_a_batch_of_a_foreign_journal_may_lack_its_numbers(key: str, absent: bool) -> None:
    thinner, odd = Thinner(2), batch(0, 0, 1.0)
    if absent:
        del odd.data[key]
    else:
        odd.data[key] = None
    assert list(thinner.take(odd)) == []
    (out,) = thinner.take(batch(1, 1, 3.0))
    other = {"losses": ("total", 2.0), "total": ("losses", {"a": 2.0})}[key]
    assert (out.data[key], out.data[other[0]]) == ({"losses": {"a": 3.0}, "total": 3.0}[key], other[1])
    assert [list(thinner.take(odd)), [each.data.get(key) for each in thinner.take(odd)]] == [[], [None]]


def test_a_plugin_that_only_shows_gets_the_first_and_the_newest_of_what_waits() -> None:
    end = Record(9, 1.0, "on_epoch_end", {"epoch": 1})
    found = [(seq, batch(seq, seq, 1.0, epoch=1 + seq // 4)) for seq in range(9)]
    found = [*found[:6], (90, end), *found[6:], (99, None)]
    kept = [(place, None if each is None else each.seq) for place, each in newest(found)]
    assert kept == [(0, 0), (3, 3), (4, 4), (5, 5), (90, 9), (6, 6), (7, 7), (8, 8), (99, None)]
    assert newest([]) == []


def test_a_window_has_all_of_its_steps_also_where_the_plugin_only_shows(make_run: Any, package: Any) -> None:
    source = """
    from losslog import hookimpl
    class Plugin:
        near, newest_only, seen = True, True, []
        @hookimpl
        def on_batch_losses(self, losses, n):
            self.seen.append((losses["a"], n))
    """
    run = make_run(plugins=[package(source, "shows")], options={"shows": {"batch_every": 10}})
    for step in range(100):
        run.log_batch({"a": float(step)})
    run.close()
    from losslog_test_shows import Plugin

    assert Plugin.seen == [(4.5 + 10 * window, 10) for window in range(10)]


def test_a_near_plugin_that_only_shows_is_past_all_records(make_run: Any, probes: Any, until: Any) -> None:
    class Shows(probes):  # type: ignore[misc]
        newest_only = True

    shows = Shows()
    run = make_run(plugins=[shows])
    for _epoch in (1, 2):
        for _ in range(500):
            run.log_batch({"a": 1.0})
        run.end_epoch()
        assert shows.run is None or run.flush(30)
    run.close()
    firsts = [next(data["step"] for data in shows.of("on_batch_losses") if data["epoch"] == epoch) for epoch in (1, 2)]
    assert firsts == [0, 500]
    assert {499, 999} <= set(shows.steps)
    assert shows.steps == sorted(set(shows.steps))
    assert len(shows.steps) < 1000
    assert [data["epoch"] for data in shows.of("on_epoch_end")] == [1, 2]
    (lane,) = run.stats["lanes"].values()
    assert (lane["state"], lane["behind"]) == ("done", 0)
