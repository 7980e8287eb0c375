"""Several ranks, one series: the logging rank joins what the others hand over.

Drain threads only. Contract:

- Batches are joined by (epoch, index in the epoch): each component is the mean over the ranks that had it, with the
  smallest and largest value beside it. Different keys or numbers of batches are right by construction.
- A batch waits at most 2 s for late ranks, longer where there are so many that they speak more seldom, and says over
  how many it is. Epoch means are over all batches of all ranks, from each rank's own sums.
- A rank that says nothing is not waited for (`losslog.ranks.mail`), nor is one that speaks but has not ended an epoch
  30 s after the logging rank did, until it ends one in time.
- Where there are many, some ranks join others (`losslog.ranks.relay`); then these are what is heard here.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from losslog.ranks import relay
from losslog.ranks.mail import SILENT, Inbox
from losslog.ranks.store import Store
from losslog.ranks.sums import VALIDATED, Share, Sums, join, sums_in, val_loss_of, validation, validations
from losslog.ranks.tree import Tree
from losslog.runtime.notices import warn
from losslog.values.totals import EpochMeans

LATE: Final = 2.0  # seconds a batch waits for other ranks
AHEAD: Final = 100_000  # batches of ranks that are ahead kept in memory


class Ready(NamedTuple):
    """What can be recorded next: a ``batch`` over the ranks that had it, or an ``event``.

    Attributes:
        batch: about the logging rank's part of it, if it has one.
        epoch: the batch's.
        step: the batch's.
        event: as `Joiner.add_event` got it.
        means: likewise.
    """

    batch: Sums | None
    epoch: int = 0
    step: int = 0
    event: Any = None
    means: EpochMeans | None = None


class _Slot:
    """One place in the order of records: a batch to be joined, or an event that waits for those before it."""

    def __init__(self, epoch: int, index: int, event: Any = None, means: EpochMeans | None = None) -> None:
        self.epoch, self.index, self.event, self.means = epoch, index, event, means
        self.shares: dict[int, Sums] = {}
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
        self._rank, self._post, tree = rank, post, Tree(world_size)
        self._inbox = Inbox(store, rank, tree, lambda text: warn("%s", text))
        self._tree = tree
        self._late = LATE + tree.levels * (relay.LATE * tree.levels + 3 * tree.every)
        self._endless: set[int] = set()  # ranks that speak, but do not end their epochs
        self._slots: deque[_Slot] = deque()
        self._open: dict[tuple[int, int], _Slot] = {}
        self._ahead: dict[tuple[int, int], dict[int, Sums]] = {}
        self._ends: dict[int, dict[int, dict[str, Any]]] = {}
        self._epoch = 0  # the one the logging rank is in
        self._lengths: dict[int, int] = {}  # its batches in that one, and in earlier ones until they are recorded
        self._ended_epoch = 0
        self.step = -1

    @property
    def waiting_for(self) -> list[int]:
        """Ranks that have not said goodbye and are not given up."""
        return self._inbox.waiting_for

    def add_batch(self, epoch: int, share: Share) -> None:
        """The logging rank's own batch."""
        if epoch != self._epoch:
            self._epoch, self._lengths[epoch] = epoch, 0
        index = self._lengths[epoch]
        self._lengths[epoch] += 1
        slot = _Slot(epoch, index)
        slot.shares = {self._rank: Sums.of(self._rank, share), **self._ahead.pop((epoch, index), {})}
        self._open[epoch, index] = slot
        self._slots.append(slot)

    def add_event(self, event: Any, means: EpochMeans | None = None, epoch: int = 0) -> None:
        """An event of the logging rank; with ``epoch`` the end of that epoch, whose means of this rank come with it."""
        self._slots.append(_Slot(epoch, -1, event, means))

    def receive(self) -> None:
        """Take what the other ranks have handed over."""
        self._inbox.receive(self._take)

    def _take(self, other: int, item: dict[str, Any]) -> None:
        batch = sums_in(other, item)
        if batch is not None:
            self._share(other, *batch)
        elif "end" in item:
            epoch, sums = item["end"]
            if epoch > self._ended_epoch:  # else it is recorded without this rank, which was silent then
                known = self._ends.setdefault(epoch, {})
                known[other] = relay.merged([known[other], sums]) if other in known else sums
                self._endless.discard(other)
        elif "alert" in item:
            self._post("alert", item["alert"])
        elif "request" in item:
            self._post(item["request"]["kind"], item["request"]["data"])
        elif "note" in item:
            warn("%s", item["note"])

    def _share(self, other: int, epoch: int, index: int, sums: Sums) -> None:
        slot = self._open.get((epoch, index))
        if slot is not None:
            slot.shares[other] = sums
        elif epoch > self._ended_epoch and index >= self._lengths.get(epoch, 0) and len(self._ahead) < AHEAD:
            self._ahead.setdefault((epoch, index), {})[other] = sums
        # Else it is late: its record is written, and the epoch's means have it all the same.

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
            yield Ready(None, event=slot.event, means=slot.means)

    def _batch(self, epoch: int, shares: dict[int, Sums]) -> Ready:
        batch = join(shares[rank] for rank in sorted(shares, key=lambda each: (each != self._rank, each)))
        self.step = max(batch.about["step"], self.step + 1)  # steps only rise, whoever had more batches
        return Ready(batch, epoch, self.step)

    def _complete(self, slot: _Slot) -> bool:
        if time.monotonic() - slot.since > self._late:
            return True
        return all(other in slot.shares or other in self._ends.get(slot.epoch, {}) for other in self.waiting_for)

    def _ended(self, slot: _Slot) -> bool:
        missing = {*self.waiting_for} - self._endless - {*self._ends.get(slot.epoch, {})}
        if time.monotonic() - slot.since <= SILENT:
            return not missing
        for other in sorted(missing):
            self._endless.add(other)
            warn("%s has not ended epoch %d: its means go without that rank", self._tree.named(other), slot.epoch)
        return True

    def finish(self, data: dict[str, Any], means: EpochMeans, *, heard: bool) -> None:
        """Add to the record of an epoch that has ended what other ranks had.

        Args:
            data: of the record.
            means: of the logging rank; get those of the others too.
            heard: whether validation losses are what was heard on this rank; then they are means over the ranks.
        """
        several = list(self._ends.pop(data["epoch"], {}).values())
        for each in several:
            means.merge(each)
        if data["step"] is not None:
            data["step"] = max(data["step"], self.step)
        if heard:
            own = {} if data["val_loss"] is None else validation(data["val_loss"])
            data["val_loss"] = val_loss_of(validations([own, *(each.get(VALIDATED, {}) for each in several)]))
