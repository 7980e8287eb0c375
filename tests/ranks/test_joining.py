"""Ranks joined through a real store, without processes: each rank's sender, and the logging rank's drain, by hand."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from losslog.ranks.joining import LATE
from losslog.ranks.mail import FIRST_WORD, SILENT
from losslog.ranks.relay import merged
from losslog.ranks.store import Store
from losslog.ranks.sums import VALIDATED, Share, Sums, val_loss_of, validation
from losslog.ranks.sums import join as join_sums
from losslog.recording.intake import Queue
from losslog.recording.items import Batch, Event
from losslog.recording.sender import HEARTBEAT, Sender
from losslog.values.snapshot import snapshot
from losslog.values.totals import EpochMeans, Whole

Ranks = Any  # of conftest: several ranks of one run
Clock = Any

pytest.importorskip("torch", reason="the ranks' store is torch's")


def join(several: list[Share]) -> Any:
    return join_sums(Sums.of(rank, each) for rank, each in enumerate(several)).result()


def share(losses: Any, total: float, given: bool = False) -> Share:
    return Share(losses, total, given, {})


# ---------------------------------------------------------------------- one batch


def test_a_component_is_the_mean_over_the_ranks_that_had_it() -> None:
    losses, total, spread = join([share({"a": 1.0}, 1.0), share({"a": 3.0, "b": 5.0}, 8.0)])
    assert (losses, total) == ({"a": 2.0, "b": 5.0}, 7.0)
    assert spread == {"a": [1.0, 3.0], "b": [5.0, 5.0]}


def test_scalar_losses_stay_scalar() -> None:
    assert join([share(1.0, 1.0), share(4.0, 4.0)]) == (2.5, 2.5, {"loss": [1.0, 4.0]})


def test_where_one_rank_has_a_dict_and_another_a_number_the_dict_counts() -> None:
    assert join([share({"a": 1.0}, 1.0), share(9.0, 9.0)])[0] == {"a": 1.0}


def test_totals_that_were_given_are_averaged() -> None:
    assert join([share({"a": 1.0}, 10.0, True), share({"a": 3.0}, 20.0, True)])[1] == 15.0


# ---------------------------------------------------------------------- several


def test_unlike_numbers_of_batches_give_the_mean_over_all(ranks: Callable[..., Ranks]) -> None:
    two = ranks()
    for rank, count, value in ((0, 20, 1.0), (1, 30, 3.0)):
        for _ in range(count):
            two.log(rank, {"a": value})
        two.end(rank)
    two.turn()
    assert two.epochs[0]["losses"] == {"a": 2.2}
    assert [each.get("ranks") for each in two.batches] == [2] * 20 + [1] * 10
    assert [each["step"] for each in two.batches] == list(range(30))


def test_the_total_of_an_epoch_is_over_all_batches_too(ranks: Callable[..., Ranks]) -> None:
    two = ranks()
    for rank, count, total in ((0, 1, 10.0), (1, 3, 2.0)):
        for _ in range(count):
            two.log(rank, {"a": 1.0}, total=total)
        two.end(rank)
    two.turn()
    assert (two.epochs[0]["losses"], two.epochs[0]["total"]) == ({"a": 1.0}, 4.0)


@pytest.mark.parametrize("seed", range(25))
def test_whatever_the_ranks_log_and_however_they_take_turns(
    ranks: Callable[..., Ranks], clock: Clock, seed: int
) -> None:
    """Any numbers of batches and any keys, handed over in any order: every mean is over whoever had the component."""
    rng = random.Random(seed)
    size, epochs = rng.randint(2, 4), rng.randint(1, 3)
    several = ranks(size)
    logged = {
        (rank, epoch): [
            {name: float(rng.randint(-50, 50)) for name in "abcd" if rng.random() < 0.6} | {"e": float(rank)}
            for _ in range(rng.randint(0, 6))
        ]
        for rank in range(size)
        for epoch in range(1, epochs + 1)
    }
    left = {
        rank: [(epoch, losses) for epoch in range(1, epochs + 1) for losses in [*logged[rank, epoch], None]]
        for rank in range(size)
    }
    while any(left.values()):
        rank = rng.choice([rank for rank in left if left[rank]])
        epoch, losses = left[rank].pop(0)
        if losses is None:
            several.end(rank, epoch)
        else:
            several.log(rank, losses, epoch=epoch)
    several.turn()
    wanted = []
    for epoch in range(1, epochs + 1):
        alike = [logged[rank, epoch] for rank in range(size)]
        for index in range(max(map(len, alike))):
            parts = [each[index] for each in alike if index < len(each)]
            wanted.append((epoch, len(parts), means(parts)))
        (found,) = [each for each in several.epochs if each["epoch"] == epoch]
        assert found.get("losses", {}) == means([losses for each in alike for losses in each])
    assert [(each["epoch"], each["ranks"], each["losses"]) for each in several.batches] == wanted
    steps = [each["step"] for each in several.batches]
    assert steps == sorted(set(steps))


def means(parts: list[dict[str, float]]) -> dict[str, float]:
    names = {name for part in parts for name in part}
    values = {name: [part[name] for part in parts if name in part] for name in names}
    return {name: sum(each) / len(each) for name, each in values.items()}


def test_surplus_batches_of_another_rank_come_after_the_logging_ranks_last(ranks: Callable[..., Ranks]) -> None:
    two = ranks()
    for value in range(3):
        two.log(1, {"a": float(value)})
    two.end(1)
    two.log(0, {"a": 0.0})
    two.end(0)
    two.log(1, {"a": 9.0}, epoch=2)
    two.log(0, {"a": 9.0}, epoch=2)
    two.turn()
    assert [(each["epoch"], each["step"], each["losses"]["a"]) for each in two.batches] == [
        (1, 0, 0.0), (1, 1, 1.0), (1, 2, 2.0), (2, 3, 9.0),
    ]  # fmt: skip
    assert two.epochs[0]["step"] == 2


# ---------------------------------------------------------------------- late, silent, gone


def test_a_batch_waits_for_a_late_rank_but_not_for_long(ranks: Callable[..., Ranks], clock: Clock) -> None:
    two = ranks()
    two.log(1, {"a": 1.0})
    two.log(0, {"a": 3.0})
    two.log(0, {"a": 5.0})
    clock.now += LATE
    two.turn()
    assert [each["ranks"] for each in two.batches] == [2]
    clock.now += 0.01
    two.turn()
    assert [(each["ranks"], each["losses"]["a"]) for each in two.batches] == [(2, 2.0), (1, 5.0)]


def test_what_comes_too_late_for_its_batch_is_in_the_epochs_means(ranks: Callable[..., Ranks], clock: Clock) -> None:
    two = ranks()
    two.log(0, {"a": 1.0})
    clock.now += LATE + 0.01
    two.turn()
    two.log(1, {"a": 4.0})
    two.end(0)
    two.end(1)
    two.turn()
    assert [(each["ranks"], each["losses"]) for each in two.batches] == [(1, {"a": 1.0})]
    assert two.epochs[0]["losses"] == {"a": 2.5}


def test_a_rank_that_has_ended_its_epoch_is_not_waited_for(ranks: Callable[..., Ranks], clock: Clock) -> None:
    two = ranks()
    two.end(1)
    two.log(0, {"a": 1.0})
    two.turn()
    assert [each["ranks"] for each in two.batches] == [1]


def test_a_rank_that_says_nothing_is_reported_once_and_waited_for_no_longer(
    ranks: Callable[..., Ranks], clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    two = ranks()
    two.log(1, {"a": 1.0})
    two.drain.take([])
    clock.now += SILENT
    two.drain.take([])
    assert (caplog.text, two.joiner.waiting_for) == ("", [1])
    for _ in range(3):
        clock.now += SILENT
        two.drain.take([])
    assert caplog.text.count("rank 1 has said nothing for 30 s") == 1
    assert two.joiner.waiting_for == []
    two.log(0, {"a": 1.0})
    two.log(0, {"a": 1.0})
    two.end(0)
    assert (len(two.batches), len(two.epochs)) == (2, 1)


def test_a_rank_that_never_spoke_is_given_less_time(
    ranks: Callable[..., Ranks], clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    two = ranks()
    clock.now += FIRST_WORD + 1
    two.drain.take([])
    assert "rank 1 has said nothing for 15 s" in caplog.text


def test_a_silent_rank_that_speaks_again_is_waited_for_again(ranks: Callable[..., Ranks], clock: Clock) -> None:
    two = ranks()
    clock.now += SILENT
    two.drain.take([])
    two.log(1, {"a": 1.0})
    two.drain.take([])
    assert two.joiner.waiting_for == [1]


def test_a_rank_with_nothing_to_say_is_heard_all_the_same(ranks: Callable[..., Ranks], clock: Clock) -> None:
    two = ranks()
    for _ in range(40):
        clock.now += HEARTBEAT + 0.01
        two.turn()
    assert two.joiner.waiting_for == [1]


def test_sums_of_an_epoch_that_is_recorded_already_are_ignored(ranks: Callable[..., Ranks], clock: Clock) -> None:
    two = ranks()
    two.log(1, {"a": 100.0})
    two.log(0, {"a": 1.0})
    clock.now += SILENT + 1
    two.drain.take([])  # takes the batch; from then on nothing comes
    clock.now += SILENT + 1
    two.drain.take([])
    two.end(0)
    assert two.epochs[0]["losses"] == {"a": 1.0}
    two.end(1)  # it was asleep
    for rank in (0, 1):
        two.log(rank, {"a": 2.0 + rank}, epoch=2)
        two.end(rank, 2)
    two.turn()
    assert [each["losses"] for each in two.epochs] == [{"a": 1.0}, {"a": 2.5}]
    assert two.joiner._ends == {}  # nor are they kept


@pytest.mark.parametrize("logs", [False, True])
def test_a_rank_that_speaks_but_never_ends_an_epoch_does_not_hold_the_records_for_ever(
    ranks: Callable[..., Ranks], clock: Clock, caplog: pytest.LogCaptureFixture, logs: bool
) -> None:
    two = ranks()
    for epoch in (1, 2, 3):
        two.log(0, {"a": float(epoch)}, epoch=epoch)
        if logs:
            two.log(1, {"a": 0.0})
        two.end(0, epoch)
        for _ in range(int(SILENT) + 5 if epoch == 1 else int(LATE) + 2):
            clock.now += 1.01
            two.turn()
        assert [each["epoch"] for each in two.epochs] == list(range(1, epoch + 1))
    assert [each["losses"] for each in two.epochs] == [{"a": 1.0}, {"a": 2.0}, {"a": 3.0}]
    assert [each["epoch"] for each in two.batches] == [1, 2, 3]
    assert caplog.text.count("rank 1 has not ended epoch 1") == 1


def test_a_rank_that_ends_epochs_again_is_waited_for_again(ranks: Callable[..., Ranks], clock: Clock) -> None:
    two = ranks()
    two.end(0, 1)
    clock.now += SILENT + 1
    two.turn()
    two.end(1, 1)
    two.end(1, 2)
    two.turn()
    two.end(0, 2)
    two.end(0, 3)
    two.turn()
    assert [each["epoch"] for each in two.epochs] == [1, 2]


def test_nobody_waits_for_a_rank_that_has_said_goodbye(ranks: Callable[..., Ranks], clock: Clock) -> None:
    two = ranks()
    two.log(1, {"a": 1.0})
    two.senders[1].close(clock.now)
    two.turn()
    assert two.joiner.waiting_for == []
    two.log(0, {"a": 1.0})
    two.log(0, {"a": 1.0})
    two.end(0)
    assert ([each["ranks"] for each in two.batches], len(two.epochs)) == ([2, 1], 1)


def test_at_the_end_nobody_is_waited_for(ranks: Callable[..., Ranks], clock: Clock) -> None:
    two = ranks()
    two.log(0, {"a": 1.0})
    two.end(0)
    two.drain.close(clock.now)
    assert (len(two.batches), len(two.epochs)) == (1, 1)


# ---------------------------------------------------------------------- the store


def waiting(store: Store, *, again: bool = False) -> list[list[Any]]:
    """What waits for the logging rank, taken out of the store, and put back there ``again``."""
    words = [*store.pull("to/0")]
    for word in words if again else ():
        assert store.push("to/0", word)
    return [json.loads(word.partition(b" ")[2]) for word in words]


def test_what_was_read_is_deleted_from_the_store(ranks: Callable[..., Ranks], stores: Callable[[], Store]) -> None:
    two = ranks()
    two.log(1, {"a": 1.0})
    two.log(1, {"a": 1.0})
    assert len(waiting(stores(), again=True)) == 2
    two.drain.take([])
    assert waiting(stores()) == []


def test_much_goes_over_in_chunks_and_in_order(ranks: Callable[..., Ranks], stores: Callable[[], Store]) -> None:
    two = ranks()
    keys, values = snapshot({"a": 1.0}, None)
    batches = [Batch(0.0, step, 1, keys, values, False, None, None, 1) for step in range(4500)]
    two.take(1, *batches)
    assert [len(each) for each in waiting(stores(), again=True)] == [2000, 2000, 500]
    two.drain.take(batches)
    while len(two.batches) < 4500:  # a turn takes no more than it can in a tenth of a second
        two.drain.take([])
    assert [each["ranks"] for each in two.batches] == [2] * 4500


def test_not_finite_losses_go_over(ranks: Callable[..., Ranks]) -> None:
    two = ranks()
    two.log(1, {"a": float("inf")})
    two.log(0, {"a": 1.0})
    two.turn()
    assert two.batches[0]["losses"] == {"a": "Infinity"}
    assert two.posted[0][1]["text"].startswith("[rank 1] a is inf at step 0")


def test_alerts_and_requests_of_other_ranks_are_passed_on(ranks: Callable[..., Ranks]) -> None:
    two = ranks()
    alert = {"title": "hot", "text": "very", "key": "k"}
    stop = {"kind": "stop", "data": {"reason": "enough"}}
    two.take(1, Event(0.0, "on_alert", alert), Event(0.0, "request", stop))
    two.drain.take([])
    assert two.posted == [("alert", alert | {"text": "[rank 1] very"}), ("stop", {"reason": "enough"})]


GARBLED = [b"", b"{", b"null", b"7", b"[7]", b'[{"batch": [1]}]', b'[{"batch": {}}]', b'[{"end": []}]',
           b'[{"end": [1]}]', b'[{"request": {}}]', b"\xff\xfe"]  # fmt: skip


@pytest.mark.parametrize("chunk", GARBLED)
def test_what_cannot_be_read_costs_its_rank_alone(
    ranks: Callable[..., Ranks], stores: Callable[[], Store], clock: Clock, caplog: pytest.LogCaptureFixture,
    chunk: bytes,
) -> None:  # fmt: skip
    three = ranks(3)
    raw = stores()
    for number in range(3):
        assert raw.push("to/0", b"1 " + chunk if number else chunk + b" ")  # the first by nobody knows whom
    three.log(2, {"a": 3.0})
    three.log(0, {"a": 1.0})
    assert [each["losses"] for each in three.batches] == [{"a": 2.0}]  # at once: the first rank is not waited for
    assert caplog.text.count("what rank 1 hands over cannot be read") == 1
    assert [*raw.pull("to/0")] == []


def test_without_a_store_things_wait_until_there_is_one(ranks: Callable[..., Ranks], stores: Any) -> None:
    two = ranks()
    later = stores()
    later.away = True
    two.senders[1] = Sender(Queue(), later, 1)
    two.log(1, {"a": 1.0})
    two.end(1)
    assert two.batches == []
    later.away = False
    two.log(1, {"a": 5.0}, epoch=2)
    two.log(0, {"a": 3.0})
    two.end(0)
    assert (two.batches[0]["losses"], two.epochs[0]["losses"]) == ({"a": 2.0}, {"a": 2.0})


def test_what_waits_for_a_store_is_bounded_and_what_is_not_a_batch_is_kept(
    stores: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("losslog.recording.sender.AHEAD", 50)
    store = stores()
    store.away = True
    sender = Sender(Queue(), store, 1)
    keys, values = snapshot({"a": 1.0}, None)
    sender.take([Batch(0.0, step, 1, keys, values, False, None, None, 1) for step in range(500)])
    sender.take([Event(0.0, "on_epoch_end", {"epoch": 1})])
    store.away = False
    sender.take([])
    (items,) = waiting(store)
    assert len(items) == 51
    assert items[-1]["end"][1]["counts"] == {"a": 500}
    assert caplog.text.count("cannot be handed over") == 1


# ---------------------------------------------------------------------- threads


@pytest.mark.threaded
@pytest.mark.parametrize("seed", range(3))
def test_ranks_in_threads_of_their_own(ranks: Callable[..., Ranks], monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """Nothing is late here, however busy the machine: what comes out does not depend on who was first."""
    for name in ("joining.LATE", "mail.SILENT", "mail.FIRST_WORD", "relay.LATE", "relay.ENDLESS"):
        monkeypatch.setattr(f"losslog.ranks.{name}", 300.0)
    rng = random.Random(seed)
    several = ranks(4)
    counts = [[rng.randint(0, 60) for _ in range(3)] for _ in range(4)]

    def train(rank: int) -> None:
        for epoch, count in enumerate(counts[rank], start=1):
            for _ in range(count):
                several.log(rank, {"a": float(rank)}, epoch=epoch)
            several.end(rank, epoch)
        several.senders[rank].close(time.monotonic() + 30)

    threads = [threading.Thread(target=train, args=(rank,)) for rank in (1, 2, 3)]
    for each in threads:
        each.start()
    for epoch, count in enumerate(counts[0], start=1):
        for _ in range(count):
            several.log(0, {"a": 0.0}, epoch=epoch)
        several.end(0, epoch)
    deadline = time.monotonic() + 60
    while several.joiner.waiting_for and time.monotonic() < deadline:
        several.drain.take([])
    for each in threads:
        each.join(60)
    several.drain.close(0.0)
    for epoch, found in enumerate(several.epochs):
        number = [each[epoch] for each in counts]
        wanted = sum(rank * count for rank, count in enumerate(number)) / sum(number)
        assert found["losses"] == {"a": pytest.approx(wanted, rel=1e-12)}
    wanted_ranks = [
        sum(each[epoch] > index for each in counts)
        for epoch in range(3)
        for index in range(max(c[epoch] for c in counts))
    ]
    assert [each["ranks"] for each in several.batches] == wanted_ranks


@pytest.mark.parametrize("world_size", [2, 3])
def test_validation_losses_that_were_heard_are_means_over_the_ranks(
    ranks: Callable[..., Ranks], world_size: int
) -> None:
    several = ranks(world_size)
    for epoch, losses in enumerate(([1.0, 2.0, 6.0], [{"a": 1.0}, {"a": 3.0, "b": 4.0}, {"a": 5.0}], [None, 2.0, 4.0])):
        for rank in reversed(range(world_size)):
            several.log(rank, 1.0, epoch=epoch + 1)
            several.end(rank, epoch + 1, losses[rank])
        several.turn()
    means = [each.get("val_loss") for each in several.epochs]
    if world_size == 2:
        assert means == [1.5, {"a": 2.0, "b": 4.0}, 2.0]
    else:
        assert means == [3.0, {"a": 3.0, "b": 4.0}, 3.0]


def test_those_that_the_loop_gives_are_the_logging_ranks(ranks: Callable[..., Ranks]) -> None:
    several = ranks()
    for rank, value in ((1, 3.0), (0, 1.0)):
        several.log(rank, 1.0)
        several.end(rank, 1, value, heard=bool(rank))
    several.turn()
    assert several.epochs[0]["val_loss"] == 1.0


def test_validation_losses_go_on_through_those_that_join_others() -> None:
    means = EpochMeans()
    means.add(Whole(1.0, 1.0, False))
    parts = [means.sums() | {VALIDATED: validation(each)} for each in ({"a": 1.0}, {"a": 3.0}, {"b": 5.0})]
    joined = merged([merged(parts[:2]), parts[2], means.sums()])
    assert val_loss_of(json.loads(json.dumps(joined))[VALIDATED]) == {"a": 2.0, "b": 5.0}
    assert val_loss_of(merged([means.sums()])[VALIDATED]) is None
