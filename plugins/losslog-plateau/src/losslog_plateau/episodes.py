"""What holds of whom for how long, so that it is said once, and again only after it was over for a while.

Plain data, in constant memory for a fixed set of things to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

REST: Final = 3
"""Visits in a row at which a thing must not hold before it may be said again."""


class Episodes:
    """Of one run."""

    def __init__(self) -> None:
        self._gone: dict[str, int] = {}  # by what is open: visits since it held last

    def begins(self, what: str, whose: str) -> bool:
        """It holds at this visit; whether that is news."""
        key = f"{what}/{whose}"
        new = key not in self._gone
        self._gone[key] = 0
        return new

    def rests(self, what: str, whose: str) -> None:
        """It does not hold at this visit."""
        key = f"{what}/{whose}"
        if key in self._gone:
            self._gone[key] += 1
            if self._gone[key] >= REST:
                del self._gone[key]

    def state_dict(self) -> dict[str, int]:
        """Plain data from which `load_state_dict` restores exactly."""
        return dict(self._gone)

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restore what `state_dict` gave."""
        self._gone = dict(state)
