"""Waiting for what another thread or process does.

Test thread. Contract:

- Every wait is bounded; one that is in vain fails and says what it waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PAUSE = 0.005  # seconds between looks


def until(true: Callable[[], Any], what: str = "", seconds: float = 60.0) -> None:
    """Wait until something is true.

    Args:
        true: asked again and again.
        what: what the failure calls it.
        seconds: how long at most.

    Raises:
        AssertionError: it did not come true in time.
    """
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what or getattr(true, '__name__', true)}")
        time.sleep(PAUSE)
