"""Requests that take effect on every rank at the same step, without a collective.

`settle` runs on the training thread, `exchange` on a thread of its own, since no disk may hold it up. Contract:

- The logging rank publishes up to which step nothing changes (a lease, 0.8 s of steps ahead), and each decision with
  the step it takes effect at, which is never inside a lease already given: a request waits 0.8 s at most.
- A rank inside its lease goes on without asking anybody; beyond it, it waits for news, 30 s at most.
- Steps are counted by each rank's own `log_batch` calls, which DDP keeps alike.
- Every decision stays in what is published, since nobody knows when a rank that was paused last read it. So they are
  bounded: one stop, and `LIMIT` learning-rate requests in a run; more are refused, which is said once.
"""

from __future__ import annotations

import json
import threading
import time
from typing import Any, Final

from losslog.control import Gate, Requests
from losslog.ranks.store import Store
from losslog.runtime.notices import warn
from losslog.runtime.pace import Guard

FIRST: Final = 64  # steps before the first decision; every rank knows it without asking
AHEAD: Final = 0.8  # seconds of steps a lease covers; news takes up to 0.4 s from rank to rank
PATIENCE: Final = 30.0  # seconds a rank waits beyond its lease
LIMIT: Final = 1000  # learning-rate decisions in a run: 130 kB of JSON, read five times a second on each rank
KEY: Final = "lease"


class Leases:
    """One rank's view of what has been decided.

    Args:
        store: the ranks' store.
        logging_rank: whether this rank decides.
        every: seconds between two looks at the news; 0 is at each turn. Leases are longer by twice that.
    """

    def __init__(self, store: Store, logging_rank: bool, every: float = 0.0) -> None:
        self._store, self._decides = store, logging_rank
        self._every, self._ahead, self._read = every, AHEAD + 2 * every, 0.0
        self._guard = Guard()
        self._until = FIRST
        self._decisions: list[list[Any]] = []  # [step, kind, data]
        self._done = 0
        self._proposed: list[tuple[str, dict[str, Any]]] = []
        self._gate = Gate(LIMIT, "%d learning-rate requests were decided for all ranks: further ones are refused")
        self._news = threading.Event()
        self._seen = (0, time.monotonic())
        self._rate = 0.0
        self._waits = True

    def propose(self, kind: str, data: dict[str, Any]) -> None:
        """On the logging rank: decide this as soon as possible; what comes twice, and a second stop, are dropped."""
        with self._guard:
            waiting = 0 if kind == "stop" else len(self._decisions) + len(self._proposed)
            if self._gate.admits(data.get("id", kind), waiting):
                self._proposed.append((kind, data))

    def exchange(self, steps: int) -> None:
        """Publish, on the logging rank, or read the news, on the others.

        Args:
            steps: how many steps this rank has made.
        """
        if not self._decides:
            if time.monotonic() - self._read < self._every and steps + 1 < self._until:
                return
            self._read = time.monotonic()
            found = self._store.peek(KEY)
            if found is not None:
                news = json.loads(found)
                with self._guard:
                    self._until, self._decisions = max(self._until, news["until"]), news["decisions"]
                self._news.set()
            return
        now = time.monotonic()
        before, at = self._seen
        if now - at >= 0.1:
            self._rate = max((steps - before) / (now - at), 0.5 * self._rate)
            self._seen = (steps, now)
        with self._guard:
            until, fresh = self._until, self._proposed
            decisions = [*self._decisions, *([until, kind, data] for kind, data in fresh)]
            self._proposed = []
            wanted = steps + max(4, int(self._rate * self._ahead)) + 1
        if not (fresh or wanted > until):
            return
        until = max(until + (1 if fresh else 0), wanted)
        # Published before we act on it ourselves: what the others cannot know, we do not do.
        if self._store.put(KEY, json.dumps({"until": until, "decisions": decisions}).encode("ascii")):
            with self._guard:
                self._until, self._decisions = until, decisions
            self._news.set()
        elif fresh:
            with self._guard:
                self._proposed = fresh + self._proposed

    def settle(self, steps: int, requests: Requests) -> None:
        """Put what takes effect at this step into the inbox; waits where this rank is beyond its lease."""
        if steps >= self._until and self._waits:
            self._wait(steps)
        with self._guard:
            due = [each for each in self._decisions[self._done :] if each[0] <= steps]
            self._done += len(due)
        for _, kind, data in due:
            requests.put(kind, data)

    def _wait(self, steps: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while steps >= self._until:
            self._news.clear()
            if steps < self._until:
                return
            if not self._news.wait(max(deadline - time.monotonic(), 0.0)):
                self._waits = False
                warn("no word from the logging rank for %.0f s: requests may take effect at different steps", PATIENCE)
                return
