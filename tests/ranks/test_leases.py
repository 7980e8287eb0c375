"""Requests over several ranks, without processes: each rank's leases over torch's own store, and its inbox."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from losslog.control import Requests, lr_data
from losslog.ranks.leases import FIRST, LIMIT, Leases

pytest.importorskip("torch", reason="the ranks' store is torch's")


class Rank:
    """What one rank knows, and at which step each request reached its loop."""

    def __init__(self, store: Any, logging_rank: bool) -> None:
        self.store = store
        self.leases = Leases(store, logging_rank)
        self.requests = Requests()
        self.steps = 0
        self.taken: list[tuple[str, int]] = []

    def exchange(self) -> None:
        """The drain thread's part."""
        self.leases.exchange(self.steps)

    def step(self, count: int = 1) -> None:
        """The training thread's part."""
        for _ in range(count):
            self.steps += 1
            self.leases.settle(self.steps, self.requests)
            self.taken += [(each["id"], self.steps) for each in self.requests.take_lr()]
            if self.requests.stop_reason and "stop" not in dict(self.taken):
                self.taken.append(("stop", self.steps))


@pytest.fixture
def ranks(stores: Callable[[], Any]) -> Callable[[int], list[Rank]]:
    return lambda size: [Rank(stores(), logging_rank=rank == 0) for rank in range(size)]


def ask(rank: Rank, name: str) -> None:
    if name == "stop":
        rank.leases.propose("stop", {"reason": "enough"})
    else:
        rank.leases.propose("lr", lr_data(0.5, None) | {"id": name})


def decided(rank: Rank) -> list[list[Any]]:
    return json.loads(rank.store.peek("lease") or b'{"decisions": []}')["decisions"]


def test_inside_the_first_lease_nobody_asks_and_nothing_changes(ranks: Callable[[int], list[Rank]]) -> None:
    deciding, other = ranks(2)
    ask(deciding, "stop")
    deciding.exchange()
    for rank in (deciding, other):
        rank.store.away = True
        rank.step(FIRST - 1)  # returns at once, though the other has read nothing
    assert deciding.taken == other.taken == []


def test_a_request_takes_effect_at_the_end_of_the_lease_that_was_given(ranks: Callable[[int], list[Rank]]) -> None:
    deciding, other = ranks(2)
    ask(deciding, "stop")
    for rank in (deciding, other):
        rank.exchange()
        rank.step(FIRST)
    assert deciding.taken == other.taken == [("stop", FIRST)]


def test_a_request_inside_a_later_lease_waits_for_its_end(ranks: Callable[[int], list[Rank]]) -> None:
    deciding, other = ranks(2)
    deciding.steps = other.steps = 200
    deciding.exchange()
    other.exchange()
    lease = json.loads(deciding.store.peek("lease"))["until"]
    ask(deciding, "a")
    deciding.exchange()
    other.step(lease - 200 - 1)
    assert lease > 200
    assert [step for step, *_ in decided(deciding)] == [lease]
    other.exchange()
    other.step(1)
    deciding.step(lease - 200)
    assert deciding.taken == other.taken == [("a", lease)]


def test_requests_keep_their_order_and_each_comes_once(ranks: Callable[[int], list[Rank]]) -> None:
    deciding, other = ranks(2)
    for name in ("a", "b", "a", "stop", "stop", "c"):
        ask(deciding, name)
        deciding.exchange()
    assert [data.get("id", kind) for _, kind, data in decided(deciding)] == ["a", "b", "stop", "c"]
    other.exchange()
    for rank in (deciding, other):
        rank.leases._until = 10**9
        rank.step(5 * FIRST)
    assert [name for name, _ in other.taken] == [name for name, _ in deciding.taken]
    assert {*deciding.taken} == {*other.taken}
    assert {name for name, _ in other.taken} == {"a", "b", "c", "stop"}


def test_what_the_others_cannot_know_is_not_done(ranks: Callable[[int], list[Rank]]) -> None:
    deciding, other = ranks(2)
    deciding.store.away = True
    ask(deciding, "a")
    ask(deciding, "b")
    deciding.exchange()
    deciding.step(FIRST - 1)
    deciding.store.away = False
    assert deciding.store.peek("lease") is None
    ask(deciding, "c")
    deciding.exchange()
    other.exchange()
    for rank in (deciding, other):
        rank.leases._until = 10**9
    deciding.step(1)
    other.step(FIRST)
    assert deciding.taken == other.taken == [("a", FIRST), ("b", FIRST), ("c", FIRST)]


def test_of_requests_without_end_a_thousand_are_decided_and_a_stop_still_is(
    ranks: Callable[[int], list[Rank]], caplog: pytest.LogCaptureFixture
) -> None:
    deciding, _ = ranks(2)
    for number in range(3 * LIMIT):
        ask(deciding, str(number))
    deciding.exchange()
    ask(deciding, "stop")
    deciding.exchange()
    found = decided(deciding)
    assert [data.get("id", kind) for _, kind, data in found] == [*map(str, range(LIMIT)), "stop"]
    assert caplog.text.count("further ones are refused") == 1


def test_beyond_its_lease_a_rank_waits_for_news_and_not_for_ever(
    ranks: Callable[[int], list[Rank]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("losslog.ranks.leases.PATIENCE", 0.05)
    _, other = ranks(2)
    other.step(FIRST - 1)
    began = time.monotonic()
    other.step(1)
    assert 0.05 <= time.monotonic() - began < 30
    monkeypatch.setattr("losslog.ranks.leases.PATIENCE", 3600.0)
    other.step(1000)  # it waits once
    assert caplog.text.count("no word from the logging rank") == 1


@pytest.mark.threaded
def test_a_paused_logging_rank_holds_the_others_at_the_end_of_their_lease(ranks: Callable[[int], list[Rank]]) -> None:
    deciding, other = ranks(2)
    ask(deciding, "stop")
    arrived, done = threading.Event(), threading.Event()

    def train() -> None:
        other.step(FIRST - 1)
        arrived.set()
        other.step(1)
        done.set()

    thread = threading.Thread(target=train)
    thread.start()
    assert arrived.wait(30)
    other.exchange()  # there is nothing yet
    assert not done.wait(0.05)
    deciding.exchange()
    other.exchange()
    assert done.wait(30)
    thread.join(30)
    assert other.taken == [("stop", FIRST)]


@pytest.mark.threaded
@pytest.mark.parametrize("seed", range(4))
def test_every_request_lands_at_the_same_step_on_all_ranks(
    ranks: Callable[[int], list[Rank]], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Ranks train and exchange in threads of their own, and one of them is paused now and then."""
    monkeypatch.setattr("losslog.ranks.leases.PATIENCE", 300.0)  # however busy the machine
    monkeypatch.setattr("losslog.ranks.leases.AHEAD", 0.0)  # short leases, so that there are many
    rng = random.Random(seed)
    several = ranks(rng.randint(2, 4))
    steps, over = 600, threading.Event()
    pauses = {id(rank): {rng.randrange(steps) for _ in range(3)} for rank in several}
    wishes = dict(zip(rng.sample(range(500), 4), ("a", "b", "c", "stop"), strict=True))

    def train(rank: Rank) -> None:
        while rank.steps < steps:
            if rank is several[0] and rank.steps in wishes:
                ask(rank, wishes[rank.steps])
            if rank.steps in pauses[id(rank)]:
                over.wait(0.03)
            rank.step()

    def exchange(rank: Rank) -> None:
        while not over.is_set():
            rank.exchange()
            over.wait(0.002)

    trains = [threading.Thread(target=train, args=(rank,)) for rank in several]
    exchanges = [threading.Thread(target=exchange, args=(rank,)) for rank in several]
    for each in (*trains, *exchanges):
        each.start()
    for each in trains:
        each.join(120)
    over.set()
    for each in exchanges:
        each.join(30)
    assert [rank.steps for rank in several] == [steps] * len(several)
    assert len(several[0].taken) == len(wishes)
    assert all(rank.taken == several[0].taken for rank in several)
