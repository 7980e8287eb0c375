"""Many ranks: some join others on the way, and what is recorded is as if the logging rank had heard them all."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from losslog.ranks.mail import SILENT
from losslog.ranks.tree import FLAT, Tree
from losslog.recording.items import Event
from losslog.recording.sender import LIFELESS, LOOK_UP

pytest.importorskip("torch", reason="the ranks' store is torch's")


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Says how many ranks hand over to one."""
    return lambda width: monkeypatch.setenv("LOSSLOG_FANOUT", str(width))


@pytest.mark.parametrize(("size", "width"), [(2, None), (FLAT, None), (65, None), (1000, None), (4096, None),
                                             (16_384, None), (8, 2), (9, 2), (27, 3), (28, 3), (5, 4)])  # fmt: skip
def test_every_rank_is_heard_once_and_nobody_hears_many(
    size: int, width: int | None, wide: Callable[[int], None]
) -> None:
    if width is not None:
        wide(width)
    tree = Tree(size)
    heard = [below for rank in range(size) for below in tree.below(rank)]
    assert sorted(heard) == list(range(1, size))
    assert max(len(tree.below(rank)) for rank in range(size)) < max(FLAT, 4 * 16)
    for rank in range(1, size):
        above = tree.above(rank)
        assert rank in tree.below(above[0])
        assert above[-1] == 0
        assert all(rank in tree.joined_by(each) for each in above)
        assert bool(tree.below(rank)) <= bool(tree.height(rank))
    assert [*tree.joined_by(0)] == list(range(size))
    if size <= FLAT and width is None:
        assert (tree.levels, tree.every) == (0, 0.0)


@pytest.mark.parametrize("seed", range(30))
def test_whatever_they_log_and_however_they_take_turns(
    ranks: Callable[..., Any], clock: Any, wide: Callable[[int], None], seed: int
) -> None:
    draw = random.Random(seed)
    wide(draw.randint(2, 4))
    size, epochs = draw.randint(3, 20), draw.randint(1, 3)
    several = ranks(size)
    logged = {
        (rank, epoch): [
            {name: float(draw.randint(-50, 50)) for name in "abcd" if draw.random() < 0.6} | {"e": float(rank)}
            for _ in range(draw.randint(0, 6))
        ]
        for rank in range(size)
        for epoch in range(1, epochs + 1)
    }
    left = {
        rank: [(epoch, losses) for epoch in range(1, epochs + 1) for losses in [*logged[rank, epoch], None]]
        for rank in range(size)
    }
    while any(left.values()):
        rank = draw.choice([rank for rank in left if left[rank]])
        epoch, losses = left[rank].pop(0)
        if losses is None:
            several.end(rank, epoch)
        else:
            several.log(rank, losses, epoch=epoch)
    for _ in range(5):
        several.turn()
    wanted = []
    for epoch in range(1, epochs + 1):
        alike = [logged[rank, epoch] for rank in range(size)]
        for index in range(max(map(len, alike))):
            parts = [each[index] for each in alike if index < len(each)]
            spread = {name: [min(each), max(each)] for name, each in by_name(parts).items()}
            wanted.append((epoch, len(parts), means(parts), spread if len(parts) > 1 else None))
        (found,) = [each for each in several.epochs if each["epoch"] == epoch]
        assert found.get("losses", {}) == pytest.approx(means([losses for each in alike for losses in each]), rel=1e-12)
    found = [(each["epoch"], each["ranks"], each["losses"], each.get("spread")) for each in several.batches]
    assert [each[:2] for each in found] == [each[:2] for each in wanted]
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine[2] == pytest.approx(theirs[2], rel=1e-12)
        assert mine[3] == theirs[3]
    steps = [each["step"] for each in several.batches]
    assert steps == sorted(set(steps))


def by_name(parts: list[dict[str, float]]) -> dict[str, list[float]]:
    names = {name for part in parts for name in part}
    return {name: [part[name] for part in parts if name in part] for name in names}


def means(parts: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(each) / len(each) for name, each in by_name(parts).items()}


def step(several: Any, value: Callable[[int], float], *, without: tuple[int, ...] = ()) -> None:
    """All ranks log one batch, but some."""
    for rank in reversed(range(len(several.steps))):
        if rank not in without:
            several.log(rank, {"a": value(rank)})


def test_a_late_rank_is_waited_for_at_each_level_but_not_for_long(
    ranks: Callable[..., Any], clock: Any, wide: Callable[[int], None]
) -> None:
    wide(2)
    four = ranks(4)
    step(four, float, without=(3,))
    four.turn()
    assert four.batches == []
    clock.now += 1.01  # rank 2, which joins 2 and 3, waits no longer
    four.turn()
    assert [(each["ranks"], each["losses"]["a"]) for each in four.batches] == [(3, 1.0)]
    four.log(3, {"a": 9.0})
    for rank in (3, 2, 1, 0):
        four.end(rank)
    four.turn()
    assert four.epochs[0]["losses"] == {"a": 3.0}  # what came late is in the means


def test_a_silent_rank_below_another_is_said_by_the_logging_rank(
    ranks: Callable[..., Any], clock: Any, wide: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    wide(2)
    four = ranks(4)
    step(four, float)
    for _ in range(40):
        clock.now += 1.01
        for rank in (2, 1, 0):
            four.take(rank)
    assert caplog.text.count("rank 3 has said nothing for 30 s") == 1
    step(four, float, without=(3,))
    assert [each["ranks"] for each in four.batches] == [4, 3]
    four.log(3, {"a": 9.0})  # too late for that batch, and waited for again
    four.turn()
    step(four, lambda rank: 1.0)
    for _ in range(3):
        clock.now += 0.4
        four.turn()
    assert four.batches[-1]["ranks"] == 4


def test_a_joiner_that_dies_is_missing_with_its_ranks_and_these_come_back(
    ranks: Callable[..., Any], clock: Any, wide: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    wide(2)
    eight = ranks(8)  # 7 -> 6 -> 4 -> 0; 3 -> 2 -> 0
    step(eight, float)
    for _ in range(4):
        eight.turn()
    assert [each["ranks"] for each in eight.batches] == [8]
    dead = eight.senders.pop(4)
    assert dead.waiting_for
    for _ in range(int(SILENT) + 5):
        clock.now += 1.01
        eight.turn()
    assert caplog.text.count("rank 4, which joins ranks 4 to 7, has said nothing for 30 s") == 1
    assert caplog.text.count("rank 6 hands over to rank 0 now") == 1
    assert caplog.text.count("rank 5 hands over to rank 0 now") == 1
    step(eight, lambda rank: 2.0, without=(4,))
    for _ in range(5):
        clock.now += 0.5
        eight.turn()
    assert [each["ranks"] for each in eight.batches] == [8, 7]
    for rank in (7, 6, 5, 3, 2, 1, 0):
        eight.end(rank)
    for _ in range(5):
        clock.now += 0.5
        eight.turn()
    assert eight.epochs[0]["losses"]["a"] == pytest.approx((sum(range(8)) - 4 + 7 * 2.0) / 14)
    assert LOOK_UP < LIFELESS


def test_a_joiner_that_was_paused_loses_nothing(
    ranks: Callable[..., Any], clock: Any, wide: Callable[[int], None], caplog: pytest.LogCaptureFixture
) -> None:
    wide(2)
    eight = ranks(8)
    for _ in range(3):
        step(eight, float)
    for _ in range(10):  # rank 4 stands still, the others go on
        clock.now += 1.0
        step(eight, float, without=(4,))
    for rank in (7, 6, 5, 3, 2, 1, 0):
        eight.end(rank)
    for _ in range(10):
        eight.log(4, {"a": 4.0})
    eight.end(4)
    for _ in range(5):
        eight.turn()
    assert len(eight.batches) == 13
    assert eight.epochs[0]["losses"] == {"a": 3.5}
    assert "nothing" not in caplog.text
    assert "no life" not in caplog.text


def test_alerts_requests_and_goodbyes_go_all_the_way_up(
    ranks: Callable[..., Any], clock: Any, wide: Callable[[int], None]
) -> None:
    wide(2)
    eight = ranks(8)
    eight.take(7, Event(0.0, "on_alert", {"title": "hot", "text": "very", "key": "k"}),
               Event(0.0, "request", {"kind": "stop", "data": {"reason": "enough"}}))  # fmt: skip
    for _ in range(3):
        eight.turn()
    alert = {"title": "hot", "text": "[rank 7] very", "key": "k"}
    assert eight.posted == [("alert", alert), ("stop", {"reason": "enough"})]
    step(eight, float)
    for rank in (7, 5, 3, 1, 6, 2, 4):
        while eight.senders[rank].waiting_for:
            eight.take(rank)
        eight.senders[rank].close(clock.now + 1)
    eight.drain.take([])
    assert eight.joiner.waiting_for == []
    eight.drain.close(clock.now)
    assert [each["ranks"] for each in eight.batches] == [8]


def test_without_queues_all_hand_over_to_the_logging_rank(
    ranks: Callable[..., Any], clock: Any, wide: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("losslog.ranks.store.Store.queues", False)  # torch before it had them, or a store of files
    wide(2)
    four = ranks(4)
    step(four, float)
    step(four, float)
    four.turn()
    assert [each["ranks"] for each in four.batches] == [4, 4]
    for rank in (3, 2, 1, 0):
        four.end(rank)
    four.turn()
    assert four.epochs[0]["losses"] == {"a": 1.5}
