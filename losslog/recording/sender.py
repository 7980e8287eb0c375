"""The drain of a rank that does not log: what it has goes to the logging rank.

Drain thread. Contract:

- Batches, the sums of each epoch, alerts and requests are handed over in order; what the store does not take waits, up
  to a bound for batches.
- The last word is a goodbye, so that the logging rank need not wait for more.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from losslog.ranks.joining import AHEAD, Share
from losslog.ranks.store import Store
from losslog.recording.intake import Intake, Queue
from losslog.recording.items import Batch, Event
from losslog.values.totals import Whole

HEARTBEAT: Final = 1.0  # seconds between words of a rank that has nothing to say
GOODBYE: Final = 5.0  # seconds that the last word may take


class Sender(Intake):
    """Hands over what comes.

    Args:
        queue: see `Intake`.
        store: the ranks' store.
        rank: this one.
        culprit: see `Intake`.
    """

    def __init__(self, queue: Queue, store: Store, rank: int, culprit: Callable[[int], str] = lambda step: "") -> None:
        super().__init__(queue, culprit)
        self._store, self._rank = store, rank
        self._count = 0
        self._spoke = 0.0
        self._epoch, self._index = 0, 0
        self._waiting: list[dict[str, Any]] = []

    def on_batch(self, batch: Batch, whole: Whole, weights: Mapping[str, float] | None) -> None:
        """Hand over a batch."""
        if batch.epoch != self._epoch:
            self._epoch, self._index = batch.epoch, 0
        self._add("batch", [batch.epoch, self._index, *Share.of(batch, whole)])
        self._index += 1

    def on_event(self, event: Event) -> None:
        """Hand over what only this rank knows: the sums of its epoch, its alerts, its requests."""
        if event.hook == "on_epoch_end":
            means = self.take_means()
            self._add("end", [event.data["epoch"], means.sums()])
            self.last_means = means.result()[0]
        elif event.hook == "on_alert":
            self._add("alert", event.data | {"text": f"[rank {self._rank}] {event.data['text']}"})
        elif event.hook == "request":
            self._add("request", event.data)

    def _add(self, kind: str, body: Any) -> None:
        if kind != "batch" or len(self._waiting) < AHEAD:
            self._waiting.append({kind: body})
        else:
            self.once("the ranks' store does not answer: more than %d batches cannot be handed over", AHEAD)

    def pass_on(self) -> None:
        """Hand over what the items gave."""
        self._send()

    def close(self, deadline: float) -> None:
        """Say goodbye."""
        deadline = min(deadline, time.monotonic() + GOODBYE)
        while not self._send(bye=True) and self._store.open() and time.monotonic() < deadline:
            time.sleep(0.05)

    def _send(self, *, bye: bool = False) -> bool:
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
