"""The recorder: a run's drain thread, and the order in which everything comes to its end.

`_loop` is the drain thread, `_agree` that of the ranks' decisions; `finish` and `leave` run where the run is closed,
`ask` and `flush` where the loop asks.
Contract:

- `finish` is bounded by its timeout (a disk gets `AT_LEAST`), and waits neither for lanes that back off or hang nor for
  a disk that does.
- With several ranks, those that do not log hand over what they have and say goodbye; the logging rank waits for that.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from losslog.delivery.delivery import Delivery
from losslog.recording.intake import Intake, Queue
from losslog.recording.items import Event, Item, Question
from losslog.runtime.containment import attempt, long_form
from losslog.runtime.notices import warn
from losslog.runtime.pace import Bell, start_thread

SPILL: Final = 6.0  # seconds that saving what a disk did not take may take
AT_LEAST: Final = 1.0  # seconds that a disk gets for what is queued, however little time there is
DRAIN_EVERY: Final = 0.2  # seconds; also what a kill -9 may lose


class Recorder:
    """Takes items from the queue to the journal, or to the logging rank.

    Args:
        queue: where the training thread puts them.
        intake: what becomes of them.
        delivery: who gets the records.
        exchange: told the steps made, five times a second, where ranks decide things together.

    Attributes:
        cpu: seconds the drain thread has used.
    """

    def __init__(
        self, queue: Queue, intake: Intake, delivery: Delivery, exchange: Callable[[int], None] | None = None
    ) -> None:
        self.delivery = delivery
        self.cpu = 0.0
        self._queue, self._intake, self._exchange = queue, intake, exchange
        self._ending = False
        self._over = Bell()
        self._thread: threading.Thread | None = None
        self._agreeing: threading.Thread | None = None

    def start(self) -> None:
        """Start the drain thread.

        Raises:
            OSError: no thread can be had; the journal is let go of.
        """
        try:
            self._thread = start_thread(self._loop, "losslog-drain")
            if self._exchange is not None:
                self._agreeing = start_thread(self._agree, "losslog-leases")
        except OSError:
            self._ending = True  # for a drain that has begun
            attempt(self._intake.close, time.monotonic())
            raise

    @property
    def _alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def ask(self, timeout: float) -> Question | None:
        """Wait until everything queued so far is handled; None where that takes longer, or the drain has ended."""
        if not self._alive:
            return None
        question = Question()
        self._queue.put(question)
        return question if question.answered.wait(timeout) else None

    def flush(self, timeout: float) -> bool:
        """Wait until everything queued so far is in the journal and with every plugin; whether it was in time."""
        deadline = time.monotonic() + timeout
        return self.ask(timeout) is not None and self.delivery.wait(self._end, deadline, committed=True)

    def _end(self) -> int:
        return self._intake.end

    def _loop(self) -> None:
        ending = False
        while not ending:
            self._queue.bell.wait(DRAIN_EVERY)
            self._queue.bell.clear()
            ending = self._ending  # whatever was queued before it was set is taken now
            self._handle(self._queue.take())
            self.cpu = time.thread_time()

    def _agree(self) -> None:
        """The ranks' decisions, in a thread of their own: no disk that hangs makes other ranks wait for news."""
        while self._exchange is not None and not self._over.is_set():
            attempt(self._exchange, self._queue.steps)
            self._over.wait(DRAIN_EVERY)

    def _handle(self, items: list[Item]) -> None:
        _, error = attempt(self._intake.take, items)
        if error is not None:  # a defect of ours must not end logging silently
            warn("internal error while recording, some records are missing:\n%s", long_form(error))
        if Event in map(type, items):
            self.delivery.wake()

    def finish(self, end: Event, timeout: float) -> None:
        """Bring everything to its end.

        Args:
            end: the last record.
            timeout: seconds it may take.
        """
        deadline = time.monotonic() + timeout
        self._intake.pace.active = False
        self.delivery.hurry()
        if self.ask(max(timeout, AT_LEAST)) is None:  # the disk hangs: nothing of ours may hold the process
            self._spill(end)
            return
        self._hear_goodbyes(time.monotonic() + self._intake.patience * (deadline - time.monotonic()))
        self.delivery.wait(self._end, time.monotonic() + timeout / 4, committed=False)  # lanes may still raise alerts
        self._queue.put(end)
        self._ending = True
        self._over.set()
        self._queue.bell.set()
        for thread in filter(None, (self._agreeing, self._thread)):
            thread.join(max(deadline - time.monotonic(), AT_LEAST))
        if self._alive:
            self._spill()
            return
        attempt(self._intake.close, deadline)
        self.delivery.finish(self._end())  # deliver and flush
        self.delivery.wait(self._end, deadline, committed=True)

    def _spill(self, *more: Item) -> None:
        self._over.set()
        if self._alive:
            items = [*self._intake.hand, *self._queue.items, *more]
            thread, _ = attempt(start_thread, lambda: attempt(self._intake.spill, items) and None, "losslog-spill")
            if thread is not None:
                thread.join(SPILL)

    def _hear_goodbyes(self, deadline: float) -> None:
        while self._intake.waiting_for and time.monotonic() < deadline:
            time.sleep(0.02)
            self._queue.bell.set()
        if self._intake.waiting_for:
            missing = ", ".join(map(str, self._intake.waiting_for))
            warn("closed without a goodbye of rank %s: what it logged last may be missing", missing)

    def leave(self) -> None:
        """Whatever is left goes on without this process."""
        self.delivery.leave()

    def stats(self) -> dict[str, Any]:
        """Figures of queue, journal and lanes, for `losslog.Run.stats`."""
        queued = sum(type(each) is not Question for each in [*self._intake.hand, *self._queue.items])
        found = {"queued": queued, "cpu": round(self.cpu, 4), **self._intake.figures()}
        found["lanes"] = self.delivery.stats(found["seq"], found["journal_bytes"])
        follower = self.delivery.follower
        found["follower"] = None if follower is None else {"pid": follower.pid, "restarts": follower.restarts}
        return found
