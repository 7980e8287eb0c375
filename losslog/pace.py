"""Background threads that leave the GIL to the training thread.

Contract:

- Threads are daemons: none can keep the process alive.
- Work in the training process comes in pieces of about 300 us, each followed by a rest twelve times as long, so that
  the user's own ops wait for the GIL a thirteenth of the time at most, whatever the backlog, in however many threads.
- Where resting would lose data (a queue that fills up), there is no rest.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

WORK: Final = 300e-6  # seconds of Python between rests; at 100e-6 waking up is a third of the work
REST: Final = 12  # rests are this many times as long as the work was
_turns = threading.Lock()


def start_thread(target: Callable[[], None], name: str) -> threading.Thread:
    """A daemon thread: it must never keep the process alive."""
    thread = threading.Thread(target=target, name=name, daemon=True)
    thread.start()
    return thread


class Pace:
    """Gives the GIL away: sleeps in proportion to the work done since the last rest.

    ``time.sleep(0)`` is not enough: the thread takes the GIL back before a waiting one has woken.

    Args:
        active: whether training goes on beside it.

    Attributes:
        pressed: tells that there is no time for rests now.
    """

    _free = 0.0  # when all rests so far are over

    def __init__(self, active: bool) -> None:
        self.active = active
        self.pressed: Callable[[], bool] = lambda: False
        self._since = time.perf_counter()

    def rest(self) -> None:
        """Called between pieces of work."""
        if not self.active:
            return
        now = time.perf_counter()
        worked = now - self._since
        if worked >= WORK and not self.pressed():
            with _turns:  # rests of several threads follow each other, so that their work together is a thirteenth
                Pace._free = max(Pace._free, now) + min(worked * REST, 0.05)
                pause = Pace._free - now
            time.sleep(pause)
            self._since = time.perf_counter()

    def fresh(self) -> None:
        """Called after waiting for something else."""
        self._since = time.perf_counter()
