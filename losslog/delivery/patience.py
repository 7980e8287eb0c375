"""What a lane does about a plugin that fails, is away, or hangs.

The lane's thread; `standing`, `hung`, `idle` and `over` are asked by others. Contract:

- Whatever the plugin raises is contained. A failure is counted, and said the 1st, 2nd, 4th, 8th time.
- 20 failures in a row are too many. "Not now" is said once, and waited for: 1 s, doubling, 60 s at most.
- A call hangs when it has lasted 5 s, or 20 s until the plugin has begun: imports and new databases take seconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from traceback import extract_tb
from typing import Any, ClassVar, Final

from losslog.control import RunHandle
from losslog.delivery.caller import Caller
from losslog.errors import StopTraining
from losslog.journal.cursors import Position
from losslog.journal.records import Record
from losslog.runtime.containment import asked_to_wait, attempt, long_form, one_line
from losslog.runtime.notices import now_and_then, say, warn

PARK_AFTER: Final = 20  # failures in a row
_forks: Final = [0]  # that led to this process


class Patience:
    """One plugin's standing.

    Args:
        name: the plugin's name.

    Attributes:
        state: ``starting``, ``live``, ``waiting`` (away), ``parked``, ``off`` or ``done``.
        reason: why.
        last: the last failure, in a line.
        errors: calls that failed.
        skipped: records that were given up.
        first_error: the first since somebody took it.
        delay: seconds to wait before the next attempt.
    """

    back_off: ClassVar[tuple[float, float]] = (1.0, 60.0)
    hung_after: ClassVar[float] = 5.0
    hung_at_start: ClassVar[float] = 20.0

    def __init__(self, name: str) -> None:
        self.state = "starting"
        self.reason = self.last = ""
        self.errors = self.skipped = 0
        self.first_error: BaseException | None = None
        self.delay = 0.0
        self._name, self._forks = name, _forks[0]
        self._seen: set[tuple[Any, ...]] = set()  # where errors came from whose tracebacks were shown
        self._busy_since: float | None = None
        self._limit = self.hung_at_start
        # Failures in a row, of flushes and of records; and where the plugin stood before the first of them.
        self._streaks: dict[bool, tuple[int, Position]] = {}
        self._worked: set[bool] = set()

    def guard(self, function: Callable[..., Any], *args: Any, begun: bool = True) -> tuple[Any, BaseException | None]:
        """Call into the plugin: what it returned, or what it raised."""
        self._limit = self.hung_after if begun else self.hung_at_start
        self._busy_since = time.monotonic()
        found = attempt(function, *args)
        self._busy_since = None
        if _forks[0] != self._forks:
            os._exit(0)  # the child of a plugin that forked: the run is its parent's
        return found

    def call(self, caller: Caller, record: Record, run: RunHandle) -> tuple[Any, BaseException | None]:
        """Hand a record over: what its hook returned, or what it raised."""
        run.handling = (record.hook, record.seq)
        seq, at, hook, data = record
        found = self.guard(caller.call, hook, data, run, seq, at, begun=hook != "on_run_start")
        if isinstance(found[1], StopTraining):  # the loop is elsewhere
            run.request_stop(str(found[1]) or hook)
            return None, None
        return found

    @property
    def hung(self) -> bool:
        """Whether one call has lasted too long."""
        since = self._busy_since
        return since is not None and time.monotonic() - since > self._limit

    @property
    def takes(self) -> float:
        """How many seconds the present call may take, 0 where there is none."""
        return 0.0 if self._busy_since is None else self._limit

    @property
    def over(self) -> bool:
        """Whether the lane has nothing more to do."""
        return self.state in ("done", "parked", "off")

    @property
    def idle(self) -> bool:
        """Whether nobody need wait for it: it has ended, is backing off, or hangs."""
        return self.over or self.state == "waiting" or self.hung

    def standing(self, trouble: str = "") -> tuple[str, str]:
        """State and reason as others see them; ``trouble`` is the reason where there is no other."""
        since = self._busy_since
        if self.hung and since is not None:
            return "hung", f"{time.monotonic() - since:.0f} s in one call"
        return self.state, self.reason or trouble

    def skips(self, error: BaseException, hook: str, before: Position) -> Position | None:
        """A record is given up.

        Args:
            error: what was raised.
            hook: where.
            before: where the plugin stood before that record.

        Returns:
            Where it stood before the first of the failures, if that was one too many in a row; else None.
        """
        self.skipped += 1
        flush = hook == "on_flush"
        count, first = self._streaks.get(flush, (0, before))
        self._streaks[flush] = (count + 1, first)
        self.failed(error, hook, "record skipped")
        return first if count + 1 >= PARK_AFTER else None

    def failed(self, error: BaseException, hook: str, so: str) -> None:
        """Count a failure, and say what becomes of it."""
        self.errors += 1
        self.first_error = self.first_error or error
        self.reason = self.last = one_line(error)
        if now_and_then(self.errors):
            text = "plugin %s failed in %s (%d so far), %s:\n%s"
            place = (type(error), *((each.filename, each.lineno) for each in extract_tb(error.__traceback__)))
            told = f"{one_line(error)} (as before)" if place in self._seen else long_form(error)
            self._seen.add(place)
            warn(text, self._name, hook, self.errors, so, told)

    def refuses(self, why: str) -> None:
        """A record is given up that the backend will never have, while it has those before and after it."""
        self.skipped += 1
        self.errors += 1
        self.reason = self.last = why
        warn("plugin %s: %s: that record is skipped", self._name, why)

    def works(self, *, flush: bool) -> None:
        """A call went well."""
        self._worked.add(flush)
        if self._streaks:
            self._streaks.pop(flush, None)

    def unbroken(self) -> Position | None:
        """Where the plugin stood before the failures that nothing has ended yet: several, or all there was; or None."""
        streaks = list(self._streaks.items())  # others ask too
        open_ones = (each for flush, each in streaks if each[0] > 1 or flush not in self._worked)
        return min((first for _, first in open_ones), default=None)

    def sure(self, committed: Position) -> Position:
        """How far what was committed will stay so: failures that nothing has ended may yet be put back."""
        first = None if self.over else self.unbroken()
        return committed if first is None else min(committed, first)

    def away(self, error: BaseException) -> None:
        """The backend is not there: remember, say it once, wait longer each time."""
        if self.state != "waiting":
            warn("plugin %s: %s; its records are kept and delivered later", self._name, one_line(error))
        self.state, self.reason = "waiting", one_line(error)
        self.delay = min(max(self.delay * 2, self.back_off[0]), self.back_off[1])
        self.delay = max(self.delay, asked_to_wait(error))

    def started(self, error: BaseException | None) -> None:
        """The lane's thread was started, or why it could not be."""
        if error is not None:
            self.state, self.reason = "parked", str(error)
            warn("plugin %s gets nothing, the journal keeps its records: %s", self._name, error)

    def back(self) -> None:
        """It is there."""
        if self.state == "waiting":
            say("plugin %s has recovered", self._name)
            self.state, self.reason = "live", ""
        self.delay = 0.0


def _forked() -> None:
    _forks[0] += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
