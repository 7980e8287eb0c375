"""Background threads that leave the GIL to the training thread.

Contract:

- Threads are daemons: none can keep the process alive.
- Work in the training process comes in pieces of about 500 us, each followed by a rest many times as long, whatever the
  backlog: the drain, whose values a crash would lose, works a nineteenth of the time at most, near lanes, whose records
  are in the journal and can wait, a twenty-fifth of it together, and less where the drain works.
- A forked child finds no lock held (`Guard`): what held it is not there to let go of it.
- Where a loop is faster than the drain with its rests (the queue grows), there is no rest.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from typing import ClassVar, Final

WORK: Final = 500e-6  # seconds of Python between rests; at 100e-6 waking up is a third of the work
REST: Final = 18  # rests are this many times as long as the work was
LONG_REST: Final = 24  # the same for work that can wait


class NoThread(OSError):
    """The system lets this process have no more threads."""


def start_thread(target: Callable[[], None], name: str) -> threading.Thread:
    """A daemon thread: it must never keep the process alive.

    Raises:
        NoThread: none can be had.
    """
    thread = threading.Thread(target=target, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise NoThread("no thread can be had: a limit on processes (ulimit -u, a container's pids)?") from error
    return thread


class Guard:
    """As `threading.RLock` in a ``with``, but free in a forked child, whoever held it when the process was forked."""

    _all: ClassVar[weakref.WeakSet[Guard]] = weakref.WeakSet()

    def __init__(self) -> None:
        self._lock = threading.RLock()
        Guard._all.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(RuntimeError):  # forked in between: this is another lock
            self._lock.release()

    @classmethod
    def free_all(cls) -> None:
        """In a forked child: the threads that held them are not there."""
        for each in cls._all:
            each._lock = threading.RLock()


class Bell:
    """As `threading.Event`, for what is rung on the training thread.

    A signal handler may ring it in the middle of a ring: an Event's lock is not re-entrant, and would never be free.
    """

    def __init__(self) -> None:
        self._rings: queue.SimpleQueue[None] = queue.SimpleQueue()

    def set(self) -> None:
        """Ring."""
        if self._rings.empty():
            self._rings.put(None)

    def is_set(self) -> bool:
        """Whether it was rung since it was cleared."""
        return not self._rings.empty()

    def clear(self) -> None:
        """Forget that it was rung."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._rings.get_nowait()

    def wait(self, timeout: float) -> bool:
        """Wait until it is rung; whether it was."""
        with contextlib.suppress(queue.Empty):
            self._rings.get(timeout=max(timeout, 0.0))
            self._rings.put(None)
            return True
        return False

    def pause(self, seconds: float, over: Callable[[], bool], look: float) -> bool:
        """Wait, whoever rings, and look at each ring, and every ``look`` seconds, whether it is ``over``."""
        deadline = time.monotonic() + seconds
        while not over() and (left := deadline - time.monotonic()) > 0:
            if self.wait(min(left, look)):
                time.sleep(0.01)
                self.clear()
        return over()


_turns: Final = Guard()


class Pace:
    """Gives the GIL away: sleeps in proportion to the work done since the last rest.

    ``time.sleep(0)`` is not enough: the thread takes the GIL back before a waiting one has woken.

    Args:
        active: whether training goes on beside it.
        urgent: whether a crash would lose what waits.
        pressed: tells that there is no time for rests now.
    """

    _free = 0.0  # when all rests so far are over

    def __init__(self, active: bool, *, urgent: bool = False, pressed: Callable[[], bool] = lambda: False) -> None:
        self.active = active
        self._urgent = urgent
        self._pressed = pressed
        self.fresh()

    def rest(self) -> None:
        """Called between pieces of work."""
        if not self.active or (now := time.perf_counter()) - self._since < WORK:
            return
        worked = time.thread_time() - self._used  # without what it waited for the GIL
        if worked >= WORK and not self._pressed():
            pause = min(worked * (REST if self._urgent else LONG_REST), 0.05)
            with _turns:  # rests follow each other, so that several threads together work no more than one would
                Pace._free = max(Pace._free, now) + pause
                if not self._urgent:
                    pause = Pace._free - now
            time.sleep(pause)
            self.fresh()

    def fresh(self) -> None:
        """Called after waiting for something else."""
        self._since, self._used = time.perf_counter(), time.thread_time()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=Guard.free_all)
