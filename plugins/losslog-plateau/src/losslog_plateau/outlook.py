"""The words for tables and for the end of a run: where a component stands, and what came of it.

Pure functions from numbers to sentences; no decision is made here.
"""

from __future__ import annotations

from typing import Final

from .phrases import blocked, partly, stands
from .situation import Rate, Situation

GONE: Final = {
    "non_finite": "not finite since {}: lower the learning rate or clip gradients",
    "zero": "exactly zero since {}",
    "missing": "no longer reported since {}",
}
"""What is said of a component in these states: where it stood before means nothing now."""


def verdict(state: str, s: Situation, known: bool, why: str = "") -> str:
    """One sentence for a table.

    Args:
        state: The component's state.
        s: Its situation.
        known: Whether there is a level yet.
        why: Where it comes from that it is not finite, where that was traced.
    """
    if state == "non_finite":
        if why:
            return f"{s.component} has not been finite since {s.axis} {s.since}: {why}. Go back to a checkpoint before."
        return (
            f"{s.component} has not been finite since {s.axis} {s.since}: go back to a checkpoint before, lower the "
            f"learning rate or clip gradients; with mixed precision, check that the loss is computed in float32."
        )
    if state in GONE:
        return f"{s.component}: {GONE[state].format(f'{s.axis} {s.since}')}."
    if not known:
        return f"{s.component}: {state}; no whole epoch seen yet."
    rate = "" if s.rate is None else f", changing by {s.rate}"
    measured = "" if s.blocked is None else f" Measured: {blocked(s.blocked)}"
    return f"{s.component}: {state}; {stands(s)}{rate}.{measured}"


def outlook(state: str, s: Situation, level: float | None, why: str = "") -> str:
    """What came of a component, in a few words; ``why``: as for `verdict`."""
    whole = s.epoch is not None and s.epoch > 1
    since = f"epoch {int(s.since / s.epoch) + 1}" if whole and s.epoch else f"{s.axis} {s.since}"
    at, briefly = "" if level is None else f" at {level:.3g}{partly(s)}", _briefly(s)
    if state == "non_finite" and why:
        return f"not finite since {s.axis} {s.since}: {why}"
    if state in GONE:
        return GONE[state].format(f"{s.axis} {s.since}") + (briefly if state == "zero" else "")
    if state == "improving" and s.rate is not None:
        still = f"{-s.rate.change:.2g} % {_per(s.rate)}"
        return f"still falling {still}{briefly}" if briefly else f"still improving {still}: train longer"
    if state in ("stalled", "flat", "diverging"):
        return f"{state} since {since}{at}{briefly}"
    if state == "converged":
        return f"converged{at}{briefly}"
    if state == "unclear":
        if s.rate is None:
            return f"too few values to say{'' if level is None else f': it ended{at}'}{briefly}"
        return f"ended{at}, changing by {s.rate}{briefly or ': neither flat nor surely improving'}"
    return f"{state}{at}{briefly}"


def _briefly(s: Situation) -> str:
    """The same for the end of a line; "" where nothing keeps it from learning."""
    if s.blocked is None:
        return ""
    head = s.blocked.text.partition(": ")[0]
    text = head if len(head.split()) > 1 else s.blocked.text
    return f": {text.removeprefix(f'{s.component} ').partition(', though')[0]}"


def _per(rate: Rate) -> str:
    return "an epoch" if rate.per == "epoch" else f"per {rate.per}"
