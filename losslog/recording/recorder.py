"""The recorder: a run's queue, its drain thread, and the order in which they come to an end.

`put` is called on the training thread and by lanes, `_loop` is the drain thread, `finish` runs where the run is closed.
Contract:

- The queue is bounded: beyond its limit everything but `losslog.recording.drain.KEPT` is dropped and counted.
- `finish` is bounded by its timeout, and waits neither for lanes that back off or hang nor for a disk that does.
- With several ranks, those that do not log hand over what they have and say goodbye; the logging rank waits for that.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Any, Final

from losslog.delivery.delivery import Delivery
from losslog.ranks.joining import Joiner, Sender
from losslog.ranks.leases import Leases
from losslog.recording.drain import KEPT, Drain
from losslog.recording.intake import Batch, Event, Intake, Question
from losslog.runtime.containment import attempt, long_form
from losslog.runtime.notices import warn
from losslog.runtime.pace import start_thread

DRAIN_EVERY: Final = 0.2  # seconds; also what a kill -9 may lose
QUEUE_LIMIT: Final = 200_000  # batches; at 0.5 kB each 100 MB, where a disk hangs
PATIENCE: Final = 1.0  # seconds after which more batches have come than are being recorded: no time for rests


class Recorder:
    """Takes items from the training thread to the journal, or to the logging rank.

    Args:
        intake: what becomes of items: a `Drain`, or a `Sender` on a rank that does not log.
        delivery: lanes and follower, on the logging rank.
        leases: what is decided for all ranks, where there are several.

    Attributes:
        queue: items the drain has not taken yet.
        lost: batches that a full queue refused.
        lost_others: anything else that it refused.
        steps: batches logged; the training thread counts them here.
        cpu: seconds the drain thread has used.
        told: the drain failed with a defect of ours.
    """

    def __init__(self, intake: Intake, delivery: Delivery | None, leases: Leases | None) -> None:
        self.queue: deque[Any] = deque()
        self.lost = self.lost_others = 0
        self.steps = 0
        self.cpu = 0.0
        self.intake, self.delivery, self.leases = intake, delivery, leases
        self._in_hand, self._turn_began = 0, 0.0
        self.intake.pace.pressed = self._pressed
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the drain thread."""
        self._thread = start_thread(self._loop, "losslog-drain")

    def put(self, item: Any) -> None:
        """Queue something that is not a batch, and have it recorded soon."""
        if isinstance(item, Event) and item.hook not in KEPT and len(self.queue) >= QUEUE_LIMIT:
            self.lost_others += 1
            return
        self.queue.append(item)
        self._wake.set()

    def put_batch(self, batch: Batch) -> None:
        """Queue a batch; it is recorded at the drain's next turn."""
        if len(self.queue) < QUEUE_LIMIT:
            self.queue.append(batch)
        else:
            self.lost += 1

    def ask(self, timeout: float) -> Question | None:
        """Wait until everything queued so far is handled; None where that takes longer, or the drain has ended."""
        if self._thread is None or not self._thread.is_alive():
            return None
        question = Question()
        self.put(question)
        return question if question.answered.wait(timeout) else None

    def flush(self, timeout: float) -> bool:
        """Wait until everything queued so far is in the journal and with every plugin; whether it was in time."""
        deadline = time.monotonic() + timeout
        if self.ask(timeout) is None:
            return False
        return self.delivery is None or self.delivery.wait(self._end, deadline, committed=True)

    def _end(self) -> int:
        return self.intake.writer.end if isinstance(self.intake, Drain) else 0

    def _loop(self) -> None:
        while True:
            self._wake.wait(DRAIN_EVERY)
            self._wake.clear()
            items = [self.queue.popleft() for _ in range(len(self.queue))]
            self._in_hand, self._turn_began = len(items), time.monotonic()
            last = None in items
            self._handle([item for item in items if item is not None])
            self.cpu = time.thread_time()
            if last:
                return

    def _pressed(self) -> bool:
        """Whether the loop is faster than the drain with its rests."""
        return len(self.queue) > self._in_hand and time.monotonic() - self._turn_began > PATIENCE

    def _handle(self, items: list[Any]) -> None:
        _, error = attempt(self.intake.take, items)
        if error is not None:  # a defect of ours must not end logging silently
            warn("internal error while recording, some records are missing:\n%s", long_form(error))
        if self.leases is not None:
            attempt(self.leases.exchange, self.steps)
        if self.delivery is not None:
            self.delivery.wake(follower=any(isinstance(item, Event) for item in items))

    def finish(self, end: Event, timeout: float) -> None:
        """Bring everything to its end.

        Args:
            end: the last record.
            timeout: seconds it may take.
        """
        deadline = time.monotonic() + timeout
        self.intake.pace.active = False
        if self.delivery is not None:
            self.delivery.hurry()
        if self.ask(timeout) is None:
            return  # the disk hangs: nothing of ours may hold the process
        if isinstance(self.intake, Sender):
            self._stop(deadline)
            give_up = min(deadline, time.monotonic() + 5.0)
            while not self.intake.send(bye=True) and self.intake.reachable and time.monotonic() < give_up:
                time.sleep(0.05)
            return
        assert isinstance(self.intake, Drain)
        if self.intake.joiner is not None:
            self._hear_goodbyes(self.intake.joiner, deadline)
        if self.delivery is not None:  # lanes catch up, and may still raise alerts
            self.delivery.wait(self._end, time.monotonic() + timeout / 4, committed=False)
        self.put(end)
        self._stop(deadline)
        if self._thread is not None and self._thread.is_alive():
            return
        attempt(self.intake.finish)
        if self.delivery is not None:  # deliver and flush
            self.delivery.finish(self._end())
            self.intake.writer.close()
            self.delivery.wait(self._end, deadline, committed=True)

    def _stop(self, deadline: float) -> None:
        self.put(None)
        if self._thread is not None:
            self._thread.join(max(deadline - time.monotonic(), 0.1))

    def _hear_goodbyes(self, joiner: Joiner, deadline: float) -> None:
        while joiner.waiting_for and time.monotonic() < deadline:
            time.sleep(0.02)
            self._wake.set()
        if joiner.waiting_for:
            missing = ", ".join(str(rank) for rank in joiner.waiting_for)
            warn("closed without a goodbye of rank %s: what it logged last may be missing", missing)

    def leave(self) -> None:
        """Whatever is left goes on without this process."""
        if self.delivery is not None:
            self.delivery.leave()

    def stats(self) -> dict[str, Any]:
        """Figures of queue, journal and lanes, for `losslog.Run.stats`."""
        found: dict[str, Any] = {"queued": len(self.queue), "dropped": self.lost, "records": 0, "unwritten": 0,
                                 "journal": "", "journal_bytes": 0, "lanes": {}, "follower": None,
                                 "dropped_others": self.lost_others, "cpu": round(self.cpu, 4)}  # fmt: skip
        drain = self.intake
        if not isinstance(drain, Drain) or self.delivery is None:
            return found
        found |= {"dropped": self.lost + drain.dropped, "records": drain.records, "unwritten": drain.unwritten,
                  "dropped_others": self.lost_others + drain.dropped_others,
                  "journal": drain.trouble, "journal_bytes": drain.writer.end}  # fmt: skip
        found["lanes"] = self.delivery.stats(drain.writer.seq - 1 - drain.unwritten, drain.writer.end)
        follower = self.delivery.follower
        if follower is not None:
            found["follower"] = {"pid": follower.pid, "restarts": follower.restarts}
        return found
