"""A component now, as a line of a live view.

No thread, no I/O. Contract:

- Plain frozen data; what is not known is None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """A component now.

    Attributes:
        name: of the component; ``total``, or ``loss`` where the loop gives a scalar.
        value: mean of the last steps.
        share: of the total, 0 to 1; None where there is one loss only.
        change: against the last epoch's mean, 0.1 is 10 % up; None before there is one.
        val: its last validation loss, or None.
        curve: values over the whole run, first to last.
        word: what an alert called it, e.g. ``stalled since 245``; "" for nothing.
    """

    name: str
    value: float
    share: float | None
    change: float | None
    val: float | None
    curve: list[float]
    word: str


def change(value: float, before: Any) -> float | None:
    """The relative change of a value; None where that means nothing."""
    if not isinstance(before, int | float) or before == 0 or value != value or before != before:
        return None
    return (value - before) / abs(before)


def counted(number: int, what: str) -> str:
    """``1 step``, ``2 steps``."""
    return f"{number} {what}{'s' * (number != 1)}"


def word_of(alert: Mapping[str, Any]) -> str:
    """What an alert calls its component: the state and the onset where its key has them, else its title."""
    source, _, rest = str(alert.get("key")).partition("/")
    state, _, since = rest.rpartition("/")
    state = state.rpartition("/")[2]
    if source == "plateau" and state and since:
        return f"{state.replace('_', ' ')} since {since}"
    return "non-finite" if source == "non_finite" else str(alert.get("title") or "")
