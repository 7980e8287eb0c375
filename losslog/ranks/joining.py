"""Several ranks, one series: the logging rank joins what the others hand over.

Drain threads only. Contract:

- Batches are joined by (epoch, index in the epoch): each component is the mean over the ranks that had it, with the
  smallest and largest value beside it. Different keys or numbers of batches are right by construction.
- A batch waits at most 2 s for late ranks, and says over how many it is. Epoch means are over all batches of all ranks,
  from each rank's own sums.
- A rank that says nothing for 30 s is reported and no longer waited for, until it speaks again. Nor is one that speaks
  but has not ended an epoch 30 s after the logging rank did, until it ends one in time; nor one that cannot be read.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from losslog.ranks.store import Store
from losslog.recording.intake import Batch, Event, Intake, Share
from losslog.runtime.containment import attempt, one_line
from losslog.runtime.notices import warn
from losslog.values.losses import Losses

LATE: Final = 2.0  # seconds a batch waits for other ranks
SILENT: Final = 30.0  # seconds without a word after which a rank is not waited for
FIRST_WORD: Final = 15.0  # the same for a rank that has never spoken: perhaps its script made no run
HEARTBEAT: Final = 1.0  # seconds between words of a rank that has nothing to say
AHEAD: Final = 100_000  # batches of ranks that are ahead kept in memory


def join(shares: list[Share]) -> tuple[Losses, float, dict[str, list[float]]]:
    """(losses, total, spread) over the ranks that had each component."""
    found: dict[str, list[float]] = {}
    for share in shares:
        for name, value in (share.losses if isinstance(share.losses, dict) else {"": share.losses}).items():
            found.setdefault(name, []).append(value)
    named = len(found) > 1 or "" not in found
    means = {name: sum(values) / len(values) for name, values in found.items() if name or not named}
    spread = {name or "loss": [min(values), max(values)] for name, values in found.items() if name or not named}
    losses: Losses = means if named else means[""]
    if any(share.given for share in shares):
        return losses, sum(share.total for share in shares) / len(shares), spread
    return losses, sum(means.values()), spread


class Sender(Intake):
    """The drain of a rank that does not log: batches, sums and alerts go to the logging rank.

    Args:
        store: the ranks' store.
        rank: this one.
        culprit: see `Intake`.
    """

    def __init__(self, store: Store, rank: int, culprit: Callable[[int], str] = lambda step: "") -> None:
        super().__init__(culprit)
        self._store, self._rank = store, rank
        self._count = 0
        self._spoke = 0.0
        self._epoch, self._index = 0, 0
        self._waiting: list[dict[str, Any]] = []

    def pass_on(self) -> None:
        """Hand over what the items gave."""
        self.send()

    def on_batch(self, batch: Batch, losses: Losses, total: float, given: bool) -> None:
        """Hand over a batch."""
        if batch.epoch != self._epoch:
            self._epoch, self._index = batch.epoch, 0
        self._add("batch", [batch.epoch, self._index, *Share.of(batch, losses, total, given).plain()])
        self._index += 1

    def on_event(self, event: Event) -> None:
        """Hand over what only this rank knows: the sums of its epoch, its alerts, its requests."""
        if event.hook == "on_epoch_end":
            self._add("end", [event.data["epoch"], self.means.sums()])
            self.last_means = self.means.result()[0]
            self.means.reset()
        elif event.hook == "on_alert":
            self._add("alert", event.data | {"text": f"[rank {self._rank}] {event.data['text']}"})
        elif event.hook == "request":
            self._add("request", event.data)

    def _add(self, kind: str, body: Any) -> None:
        if kind != "batch" or len(self._waiting) < AHEAD:
            self._waiting.append({kind: body})
        else:
            self.once("the ranks' store does not answer: more than %d batches cannot be handed over", AHEAD)

    @property
    def reachable(self) -> bool:
        """Whether there is a store to hand things over with."""
        return self._store.open()

    def send(self, *, bye: bool = False) -> bool:
        """Hand over what is waiting; False where the store does not answer."""
        now = time.monotonic()
        if not (self._waiting or bye or now - self._spoke > HEARTBEAT):
            return True
        items = self._waiting + ([{"bye": True}] if bye else [])
        for start in range(0, max(len(items), 1), 2000):  # a chunk stays below a megabyte
            chunk = json.dumps(items[start : start + 2000]).encode("ascii")
            if not self._store.put(f"{self._rank}/{self._count}", chunk):
                self._waiting = items[start:]
                return False
            self._count += 1
        self._waiting, self._spoke = [], now
        return True


class _Slot:
    """One place in the order of records: a batch to be joined, or an event that waits for those before it."""

    def __init__(self, epoch: int, index: int, event: Any = None) -> None:
        self.epoch, self.index, self.event = epoch, index, event
        self.shares: dict[int, Share] = {}
        self.since = time.monotonic()


class Joiner:
    """The logging rank's end.

    Args:
        store: the ranks' store.
        rank: the logging rank.
        world_size: number of ranks.
        post: takes the alerts and requests of other ranks.
    """

    def __init__(self, store: Store, rank: int, world_size: int, post: Callable[[str, dict[str, Any]], None]) -> None:
        self._store, self._rank, self._post = store, rank, post
        self._next = {other: 0 for other in range(world_size) if other != rank}
        self._heard = dict.fromkeys(self._next, time.monotonic())
        self._silent: set[int] = set()
        self._endless: set[int] = set()  # ranks that speak, but do not end their epochs
        self.gone: set[int] = set()
        self._slots: deque[_Slot] = deque()
        self._open: dict[tuple[int, int], _Slot] = {}
        self._ahead: dict[tuple[int, int], dict[int, Share]] = {}
        self._ends: dict[int, dict[int, dict[str, Any]]] = {}
        self._epoch = 0  # the one the logging rank is in
        self._lengths: dict[int, int] = {}  # its batches in that one, and in earlier ones until they are recorded
        self._ended_epoch = 0
        self.step = -1

    @property
    def waiting_for(self) -> list[int]:
        """Ranks that have not said goodbye and are not given up."""
        return [other for other in self._next if other not in self.gone and other not in self._silent]

    def add_batch(self, epoch: int, share: Share) -> None:
        """The logging rank's own batch."""
        if epoch != self._epoch:
            self._epoch, self._lengths[epoch] = epoch, 0
        index = self._lengths[epoch]
        self._lengths[epoch] += 1
        slot = _Slot(epoch, index)
        slot.shares = {self._rank: share, **self._ahead.pop((epoch, index), {})}
        self._open[epoch, index] = slot
        self._slots.append(slot)

    def add_event(self, event: Any, epoch: int = 0) -> None:
        """An event of the logging rank; with ``epoch`` the end of that epoch."""
        self._slots.append(_Slot(epoch, -1, event))

    def receive(self) -> None:
        """Take what the other ranks have handed over."""
        now = time.monotonic()
        for other in self._next:
            while (chunk := self._store.take(f"{other}/{self._next[other]}")) is not None:
                self._next[other] += 1
                self._heard[other] = now
                self._silent.discard(other)
                _, error = attempt(self._take, other, chunk)
                if error is not None and other not in self.gone:
                    self.gone.add(other)
                    warn("what rank %d hands over cannot be read (%s): it is left out", other, one_line(error))
            patience = SILENT if self._next[other] else FIRST_WORD
            if other not in self.gone | self._silent and now - self._heard[other] > patience:
                self._silent.add(other)
                warn("rank %d has said nothing for %.0f s: the losses go on without it", other, patience)

    def _take(self, other: int, chunk: bytes) -> None:
        for item in json.loads(chunk):
            if "batch" in item:
                epoch, index, *rest = item["batch"]
                share = Share(*rest)
                slot = self._open.get((epoch, index))
                if slot is not None:
                    slot.shares[other] = share
                elif epoch > self._ended_epoch and index >= self._lengths.get(epoch, 0) and len(self._ahead) < AHEAD:
                    self._ahead.setdefault((epoch, index), {})[other] = share
                # Else it is late: its record is written, and the epoch's means have it all the same.
            elif "end" in item:
                epoch, sums = item["end"]
                if epoch > self._ended_epoch:  # else it is recorded without this rank, which was silent then
                    self._ends.setdefault(epoch, {})[other] = sums
                    self._endless.discard(other)
            elif "alert" in item:
                self._post("alert", item["alert"])
            elif "request" in item:
                self._post(item["request"]["kind"], item["request"]["data"])
            elif "bye" in item:
                self.gone.add(other)

    def ready(self, *, all_of_it: bool = False) -> Iterator[tuple[list[Share] | None, Any, int, int]]:
        """What can be recorded now, in order: (shares, None, epoch, step) of a batch, (None, event, 0, 0) of an event.

        Args:
            all_of_it: wait for nobody any more.
        """
        while self._slots:
            slot = self._slots[0]
            if slot.event is None:
                if not (all_of_it or self._complete(slot)):
                    return
                self._slots.popleft()
                del self._open[slot.epoch, slot.index]
                yield self._batch(slot.epoch, slot.shares)
                continue
            if slot.epoch:
                if not (all_of_it or self._ended(slot)):
                    return
                for key in sorted(key for key in self._ahead if key[0] <= slot.epoch):
                    yield self._batch(key[0], self._ahead.pop(key))  # ranks with more batches than the logging one
                self._ended_epoch = max(self._ended_epoch, slot.epoch)
                self._lengths = {k: v for k, v in self._lengths.items() if k > slot.epoch or k == self._epoch}
            self._slots.popleft()
            yield None, slot.event, 0, 0

    def _batch(self, epoch: int, shares: dict[int, Share]) -> tuple[list[Share], None, int, int]:
        ordered = [shares[rank] for rank in sorted(shares, key=lambda each: (each != self._rank, each))]
        self.step = max(ordered[0].about["step"], self.step + 1)  # steps only rise, whoever had more batches
        return ordered, None, epoch, self.step

    def _complete(self, slot: _Slot) -> bool:
        if time.monotonic() - slot.since > LATE:
            return True
        return all(other in slot.shares or other in self._ends.get(slot.epoch, {}) for other in self.waiting_for)

    def _ended(self, slot: _Slot) -> bool:
        missing = {*self.waiting_for} - self._endless - {*self._ends.get(slot.epoch, {})}
        if time.monotonic() - slot.since <= SILENT:
            return not missing
        for other in sorted(missing):
            self._endless.add(other)
            warn("rank %d has not ended epoch %d: its means go without that rank", other, slot.epoch)
        return True

    def sums(self, epoch: int) -> list[dict[str, Any]]:
        """The other ranks' sums of an epoch that has ended."""
        return list(self._ends.pop(epoch, {}).values())
