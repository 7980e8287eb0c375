"""The drain of a rank that does not log: what it has goes to the logging rank, or to a rank that joins it on the way.

Drain thread. Contract:

- Batches, the sums of each epoch, alerts and requests are handed over in order; what the store does not take waits, up
  to a bound for batches.
- Where others hand over to this rank, it joins what they have with its own (`losslog.ranks.relay`).
- Where the rank above shows no life, what is handed over goes to the next one up; what went to the first meanwhile is
  lost unless that one comes back.
- The last word is a goodbye, so that nobody need wait for more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from losslog.ranks.joining import AHEAD
from losslog.ranks.mail import Outbox
from losslog.ranks.relay import Relay, alive
from losslog.ranks.store import Store
from losslog.ranks.sums import VALIDATED, Share, validation
from losslog.ranks.tree import Tree
from losslog.recording.intake import Intake, Queue
from losslog.recording.items import Batch, Event, Item
from losslog.runtime.notices import warn
from losslog.values.totals import Whole

HEARTBEAT: Final = 1.0  # seconds between words of a rank that has nothing to say
GOODBYE: Final = 5.0  # seconds that the last word may take
LOOK_UP: Final = 5.0  # seconds between two looks whether the rank above is there
LIFELESS: Final = 20.0  # seconds without a sign of it after which the next one up is taken


class Sender(Intake):
    """Hands over what comes.

    Args:
        queue: see `Intake`.
        store: the ranks' store.
        rank: this one.
        culprit: see `Intake`.
        world_size: number of ranks.
    """

    patience = 0.5  # the rank above waits for this one's goodbye, and this one for those below

    def __init__(
        self, queue: Queue, store: Store, rank: int, culprit: Callable[[int], str] = lambda step: "",
        world_size: int = 2,
    ) -> None:  # fmt: skip
        super().__init__(queue, culprit)
        self._store, self._rank = store, rank
        self._outbox, self._tree = Outbox(store, rank), Tree(world_size)
        self._above = self._tree.above(rank)
        self._relay: Relay | None = None
        self._spoke = 0.0
        self._epoch, self._index = 0, 0
        self._waiting: list[Any] = []
        self._urgent = False
        self._sign: tuple[bytes | None, float] = (None, time.monotonic())
        self._looked = time.monotonic()

    @property
    def waiting_for(self) -> Sequence[int]:  # type: ignore[override]
        """Ranks below that have yet to say goodbye."""
        return () if self._relay is None else self._relay.inbox.waiting_for

    def on_batch(self, batch: Batch, whole: Whole, weights: Mapping[str, float] | None) -> None:
        """Hand over a batch."""
        if batch.epoch != self._epoch:
            self._epoch, self._index = batch.epoch, 0
        share = Share.of(batch, whole)
        if self._joins is not None:
            self._joins.add_batch(batch.epoch, self._index, share)
        else:
            self._add("batch", [batch.epoch, self._index, *share])
        self._index += 1

    def on_event(self, event: Event) -> None:
        """Hand over what only this rank knows: the sums of its epoch, its alerts, its requests."""
        if event.hook == "on_epoch_end":
            means = self.take_means()
            sums = means.sums()
            if event.heard and event.data["val_loss"] is not None:
                sums[VALIDATED] = validation(event.data["val_loss"])
            if self._joins is not None:
                self._joins.add_end(event.data["epoch"], sums)
            else:
                self._add("end", [event.data["epoch"], sums])
            self.last_means = means.result()[0]
        elif event.hook == "on_alert":
            self._add("alert", event.data | {"text": f"[rank {self._rank}] {event.data['text']}"})
        elif event.hook == "request":
            self._add("request", event.data)

    @property
    def _joins(self) -> Relay | None:
        """What this rank joins; None where nobody hands over to it."""
        if self._relay is None and self._tree.height(self._rank) and self._store.queues:
            self._relay = Relay(self._store, self._rank, self._tree)
        return self._relay

    def _add(self, kind: str, body: Any) -> None:
        if kind not in ("batch", "sums") or len(self._waiting) < AHEAD:
            self._waiting.append({kind: body})
            self._urgent = self._urgent or kind not in ("batch", "sums", "end")
        else:
            self.once("the ranks' store does not answer: more than %d batches cannot be handed over", AHEAD)

    def pass_on(self) -> None:
        """Hand over what the items gave, and what others gave."""
        self._gather()
        self._look_up()
        self._send()

    def _gather(self, *, all_of_it: bool = False) -> None:
        if self._joins is not None:
            self._joins.receive()
            for item in self._joins.ready(all_of_it=all_of_it):
                for kind, body in item.items():
                    self._add(kind, body)

    def _look_up(self) -> None:
        """Take the next rank up where the one above shows no life."""
        now = time.monotonic()
        if len(self._above) < 2 or now - self._looked < LOOK_UP or not self._store.queues:
            return
        self._looked = now
        sign = self._store.peek(alive(self._above[0]))
        if sign != self._sign[0]:
            self._sign = (sign, now)
        elif now - self._sign[1] > LIFELESS + 2 * self._tree.every:
            gone = self._above.pop(0)
            warn("rank %d, which joins this one, shows no life: rank %d hands over to rank %d now", gone, self._rank,
                 self._above[0])  # fmt: skip
            self._sign = (None, now)

    def spill(self, items: Sequence[Item]) -> None:
        """Nothing here waits for a disk."""

    def close(self, deadline: float) -> None:
        """Say goodbye."""
        deadline = min(deadline, time.monotonic() + GOODBYE)
        self._gather(all_of_it=True)
        while not self._send(bye=True) and self._store.open() and time.monotonic() < deadline:
            time.sleep(0.05)

    def _send(self, *, bye: bool = False) -> bool:
        """Hand over what is waiting, when it is time; False where the store does not answer."""
        now = time.monotonic()
        quiet = now - self._spoke
        if not (bye or quiet > max(HEARTBEAT, 2 * self._tree.every) or (
            self._waiting and (self._urgent or quiet >= self._tree.every)
        )):  # fmt: skip
            return True
        to = self._above[0] if self._store.queues else 0
        self._waiting = self._outbox.send(to, self._waiting + ([{"bye": True}] if bye else []))
        if self._waiting:
            self._waiting = [each for each in self._waiting if each is not None and "bye" not in each]
            return False
        self._spoke, self._urgent = now, False
        return True
