"""What a lane does about a plugin that fails, is away, or hangs.

The lane's thread; `hung` is asked by others. Contract:

- A failure is counted, and said the 1st, 2nd, 4th, 8th time; 20 in a row are too many.
- "Not now" is said once, and waited for: 1 s, doubling, 60 s at most.
- A call hangs when it has lasted 5 s, or 20 s until the plugin has begun: imports and new databases take seconds.
"""

from __future__ import annotations

import time
from typing import ClassVar, Final

from losslog.journal.cursors import Position
from losslog.runtime.containment import long_form, one_line
from losslog.runtime.notices import now_and_then, say, warn

PARK_AFTER: Final = 20  # failures in a row


class Patience:
    """One plugin's standing.

    Args:
        name: the plugin's name.

    Attributes:
        state: ``starting``, ``live``, ``waiting`` (away), ``parked``, ``off`` or ``done``.
        reason: why.
        errors: calls that failed.
        skipped: records that were given up.
        first_error: the first since somebody took it.
        delay: seconds to wait before the next attempt.
        busy_since: when the call began that lasts, on the monotonic clock, or None.
        limit: seconds after which that call hangs.
    """

    back_off: ClassVar[tuple[float, float]] = (1.0, 60.0)
    hung_after: ClassVar[float] = 5.0
    hung_at_start: ClassVar[float] = 20.0

    def __init__(self, name: str) -> None:
        self.state = "starting"
        self.reason = ""
        self.errors = self.skipped = 0
        self.first_error: BaseException | None = None
        self.delay = 0.0
        self.busy_since: float | None = None
        self.limit = self.hung_at_start
        self._name = name
        # Failures in a row, of flushes and of records; and where the plugin stood before the first of them.
        self._streaks: dict[bool, tuple[int, Position]] = {}
        self._worked: set[bool] = set()

    @property
    def hung(self) -> bool:
        """Whether one call has lasted too long."""
        since = self.busy_since
        return since is not None and time.monotonic() - since > self.limit

    def standing(self) -> tuple[str, str]:
        """State and reason as others see them."""
        since = self.busy_since
        if self.hung and since is not None:
            return "hung", f"{time.monotonic() - since:.0f} s in one call"
        return self.state, self.reason

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
        self.reason = one_line(error)
        if now_and_then(self.errors):
            text = "plugin %s failed in %s (%d so far), %s:\n%s"
            warn(text, self._name, hook, self.errors, so, long_form(error))

    def works(self, *, flush: bool) -> None:
        """A call went well."""
        self._worked.add(flush)
        if self._streaks:
            self._streaks.pop(flush, None)

    def unbroken(self) -> Position | None:
        """Where the plugin stood before the failures that nothing has ended yet: several, or all there was; or None."""
        open_ones = (each for flush, each in self._streaks.items() if each[0] > 1 or flush not in self._worked)
        return min((first for _, first in open_ones), default=None)

    def away(self, error: BaseException) -> None:
        """The backend is not there: remember, say it once, wait longer each time."""
        if self.state != "waiting":
            warn("plugin %s: %s; its records are kept and delivered later", self._name, one_line(error))
        self.state, self.reason = "waiting", one_line(error)
        self.delay = min(max(self.delay * 2, self.back_off[0]), self.back_off[1])

    def back(self) -> None:
        """It is there."""
        if self.state == "waiting":
            say("plugin %s has recovered", self._name)
            self.state, self.reason = "live", ""
        self.delay = 0.0
