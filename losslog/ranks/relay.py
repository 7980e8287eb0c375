"""One rank joins what others hand over, for whoever is above it.

Drain threads only. Contract:

- One `Sums` for each batch, in order, once all that are waited for have it, or have ended the epoch, or `Relay.late`
  seconds later; what comes later still is only in the epoch's means.
- One end of an epoch for all of them, likewise after `ENDLESS` seconds at the latest; the ends that come later are
  handed on by themselves.
- Alerts, requests and what a person should know are handed on at once.
"""

from __future__ import annotations

import time
from typing import Any, Final

from losslog.ranks.mail import Inbox
from losslog.ranks.store import Store
from losslog.ranks.sums import VALIDATED, Share, Sums, join, sums_in, validations
from losslog.ranks.tree import Tree
from losslog.values.totals import EpochMeans

LATE: Final = 1.0  # seconds a batch waits here, at the lowest level
ENDLESS: Final = 8.0  # seconds an end of an epoch waits here, at the lowest level
AHEAD: Final = 20_000  # batches that wait here
ALIVE_EVERY: Final = 1.0


def alive(rank: int) -> str:
    """The key under which a rank that joins others says that it is there."""
    return f"alive/{rank}"


def merged(several: list[dict[str, Any]]) -> dict[str, Any]:
    """The sums of an epoch over several ranks, as `losslog.values.totals.EpochMeans.sums` gives them."""
    means = EpochMeans()
    for sums in several:
        means.merge(sums)
    return means.sums() | {VALIDATED: validations(each.get(VALIDATED, {}) for each in several)}


class Relay:
    """What one rank joins.

    Args:
        store: the ranks' store.
        rank: this one.
        tree: all ranks.

    Attributes:
        inbox: what others hand over to it.
        late: seconds a batch waits.
    """

    def __init__(self, store: Store, rank: int, tree: Tree) -> None:
        self._store, self._rank, height = store, rank, tree.height(rank)
        self.late = (LATE + 2 * tree.every) * height
        self._endless = ENDLESS * height
        self._items: list[dict[str, Any]] = []
        self.inbox = Inbox(store, rank, tree, lambda text: self._items.append({"note": text}))
        self._slots: dict[tuple[int, int], tuple[float, dict[int, Sums]]] = {}
        self._ends: dict[int, tuple[float, dict[int, dict[str, Any]]]] = {}
        self._sent: dict[int, int] = {}  # by epoch, up to which index
        self._ended = 0
        self._beat, self._beaten = 0, 0.0

    def add_batch(self, epoch: int, index: int, share: Share) -> None:
        """This rank's own batch."""
        self._add(self._rank, epoch, index, Sums.of(self._rank, share))

    def add_end(self, epoch: int, sums: dict[str, Any]) -> None:
        """This rank's own end of an epoch."""
        self._end(self._rank, epoch, sums)

    def receive(self) -> None:
        """Hear the others, and tell them that this rank is there."""
        now = time.monotonic()
        if now - self._beaten >= ALIVE_EVERY:
            self._beat, self._beaten = self._beat + 1, now
            self._store.put(alive(self._rank), b"%d" % self._beat)
        self.inbox.receive(self._take)

    def _take(self, other: int, item: dict[str, Any]) -> None:
        batch = sums_in(other, item)
        if batch is not None:
            self._add(other, *batch)
        elif "end" in item:
            self._end(other, *item["end"])
        else:
            self._items.append(item)

    def _add(self, rank: int, epoch: int, index: int, sums: Sums) -> None:
        if epoch > self._ended and index >= self._sent.get(epoch, 0) and len(self._slots) < AHEAD:
            self._slots.setdefault((epoch, index), (time.monotonic(), {}))[1][rank] = sums

    def _end(self, rank: int, epoch: int, sums: dict[str, Any]) -> None:
        if epoch <= self._ended:
            self._items.append({"end": [epoch, sums]})
        else:
            known = self._ends.setdefault(epoch, (time.monotonic(), {}))[1]
            known[rank] = merged([known[rank], sums]) if rank in known else sums

    def ready(self, *, all_of_it: bool = False) -> list[dict[str, Any]]:
        """What is to be handed on now, in order.

        Args:
            all_of_it: wait for nobody any more.
        """
        waited = {self._rank, *self.inbox.waiting_for}
        now = time.monotonic()
        blocked: set[int] = set()
        for epoch, index in sorted(self._slots):
            since, parts = self._slots[epoch, index]
            ended = self._ends.get(epoch, (0.0, {}))[1]
            if epoch in blocked or not (
                all_of_it or now - since > self.late or all(each in parts or each in ended for each in waited)
            ):
                blocked.add(epoch)
                continue
            del self._slots[epoch, index]
            self._sent[epoch] = index + 1
            ordered = [parts[rank] for rank in sorted(parts, key=lambda each: (each != self._rank, each))]
            self._items.append({"sums": [epoch, index, *join(ordered)]})
        for epoch in sorted(self._ends):
            since, ends = self._ends[epoch]
            if epoch in blocked or not (all_of_it or now - since > self._endless or waited <= ends.keys()):
                break
            del self._ends[epoch]
            self._sent.pop(epoch, None)
            self._ended = epoch
            self._items.append({"end": [epoch, merged([ends[rank] for rank in sorted(ends)])]})
        items, self._items = self._items, []
        return items
