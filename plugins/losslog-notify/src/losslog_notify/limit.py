"""How often a person may be called.

The plugin's lane. Contract:

- A burst goes out at once; after it, one message a while. What is held back meanwhile goes with the next.
"""

from __future__ import annotations


class Limit:
    """A bucket of messages that may go out.

    Args:
        burst: how many may go at once.
        every: seconds until one more may.
    """

    def __init__(self, burst: int, every: float) -> None:
        self._burst, self._every = burst, every
        self._left, self._at = float(burst), float("-inf")

    def allows(self, now: float) -> bool:
        """Whether a message may go out now.

        Args:
            now: on the monotonic clock.
        """
        more = self._burst if self._every == 0 or self._at == float("-inf") else (now - self._at) / self._every
        self._left, self._at = min(float(self._burst), self._left + more), now
        return self._left >= 1.0

    def spend(self) -> None:
        """One went out."""
        self._left = max(0.0, self._left - 1.0)
