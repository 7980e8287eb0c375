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
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from losslog.ranks.store import Store
from losslog.runtime.containment import attempt, one_line
from losslog.runtime.notices import warn
from losslog.values.losses import Losses
from losslog.values.totals import EpochMeans, Whole, by_component, mean_of

LATE: Final = 2.0  # seconds a batch waits for other ranks
SILENT: Final = 30.0  # seconds without a word after which a rank is not waited for
FIRST_WORD: Final = 15.0  # the same for a rank that has never spoken: perhaps its script made no run
AHEAD: Final = 100_000  # batches of ranks that are ahead kept in memory


class Share(NamedTuple):
    """One rank's part of one batch; it travels as a JSON list.

    Attributes:
        losses: components, or one float.
        total: the batch's total.
        given: whether the loop gave that total itself.
        about: time, step, lr, batch_size, n, and weights where autograd told them.
    """

    losses: Losses
    total: float
    given: bool
    about: dict[str, Any]

    @classmethod
    def of(cls, batch: Any, whole: Whole, weights: Mapping[str, float] | None = None) -> Share:
        """This rank's part of a `losslog.recording.items.Batch`."""
        about = {key: getattr(batch, key) for key in ("time", "step", "lr", "batch_size", "n")}
        return cls(whole.losses, whole.total, whole.given, about | {"weights": weights})


class Ready(NamedTuple):
    """What can be recorded next: a batch with its ``shares``, or an ``event`` that has none.

    Attributes:
        shares: of each rank that had the batch, the logging rank's first.
        epoch: the batch's.
        step: the batch's.
        event: as `Joiner.add_event` got it.
        means: likewise.
    """

    shares: list[Share]
    epoch: int = 0
    step: int = 0
    event: Any = None
    means: EpochMeans | None = None


def join(shares: list[Share]) -> tuple[Losses, float, dict[str, list[float]]]:
    """(losses, total, spread) over the ranks that had each component."""
    several = [share.losses for share in shares]
    losses = mean_of(several)
    spread = {name or "loss": [min(values), max(values)] for name, values in by_component(several).items()}
    if any(share.given for share in shares):
        return losses, sum(share.total for share in shares) / len(shares), spread
    return losses, sum(losses.values()) if isinstance(losses, dict) else losses, spread


class _Slot:
    """One place in the order of records: a batch to be joined, or an event that waits for those before it."""

    def __init__(self, epoch: int, index: int, event: Any = None, means: EpochMeans | None = None) -> None:
        self.epoch, self.index, self.event, self.means = epoch, index, event, means
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

    def add_event(self, event: Any, means: EpochMeans | None = None, epoch: int = 0) -> None:
        """An event of the logging rank; with ``epoch`` the end of that epoch, whose means of this rank come with it."""
        self._slots.append(_Slot(epoch, -1, event, means))

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

    def ready(self, *, all_of_it: bool = False) -> Iterator[Ready]:
        """What can be recorded now, in order.

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
            yield Ready([], event=slot.event, means=slot.means)

    def _batch(self, epoch: int, shares: dict[int, Share]) -> Ready:
        ordered = [shares[rank] for rank in sorted(shares, key=lambda each: (each != self._rank, each))]
        self.step = max(ordered[0].about["step"], self.step + 1)  # steps only rise, whoever had more batches
        return Ready(ordered, epoch, self.step)

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
