"""The words of alerts: what a person needs to know about a finding, and what to do.

- Pure functions from numbers to sentences; no decision is made here.
- Losses are printed with three significant digits, rates in % per epoch (per 1000 steps where no epoch is known).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp
from typing import Any, Final

from .known import HEADS
from .phrases import because, blocked, forecast_of, movement, range_of_others, stands
from .situation import Measured, Situation

IMAGES: Final = 6  # named in an alert


def stalled(s: Situation) -> str:
    """A component that no longer improves, too high, while others do."""
    verb = "improves" if len(s.improving) == 1 else "improve"
    others = f", while {', '.join(s.improving)} still {verb}" if s.improving else ""
    if s.improved and not s.improving:
        others = f", while {', '.join(s.improved)} improved"
    text = f"{s.component} has stalled: {stands(s)}; {movement(s)}{others}.{forecast_of(s)}{because(s)}"
    if s.cause is not None:
        return text
    group = HEADS.get(s.component)
    if group is None:
        return (
            f"{text} No cause was measured. Is the part of the model that this loss trains frozen, detached or missing "
            f"from the optimizer? Are its targets right? If neither, try a higher learning rate for that part (a "
            f"parameter group of its own, 10 times the rate of the rest), or overall.{range_of_others(s)}"
        )
    return (
        f"{text} No cause was measured. Is {group} frozen, detached or missing from the optimizer? Are its targets "
        f"right? If neither, try differential learning rates, get_parameter_groups(model, lr, head_lr_multiplier=10), "
        f"so that {group} learns faster, or a higher learning rate overall.{range_of_others(s)}"
    )


def flat(s: Situation) -> str:
    """A component that no longer improves, too high; no other improves either, or it is known to be no stall."""
    if s.improving:
        others = f"{', '.join(s.improving)} still {'improves' if len(s.improving) == 1 else 'improve'}"
    else:
        others = "no other component improves either" if s.others else "there is no other component to compare with"
    where = "where its usual end is not known" if s.range is None else "above where it should end"
    text = f"{s.component} is flat {where}: {stands(s)}; {movement(s)}; {others}.{forecast_of(s)}{because(s)}"
    if s.cause is not None:
        return text
    if s.range is None:
        return f"{text} Is this as low as it can get? If you know its range, give it with the option typical."
    return (
        f"{text} If the results are not good enough, try a higher learning rate overall, or look at the data."
        f"{range_of_others(s)}"
    )


def diverging(s: Situation) -> str:
    """A component that rises after it had fallen."""
    where = f"{stands(s)}, well above its lowest"
    if s.blocked is not None and (s.blocked.since is None or s.blocked.since <= s.since):
        before = "" if s.blocked.since is None else f", and go back to a checkpoint before {s.axis} {s.blocked.since}"
        return (
            f"{s.component} rises: {where}, since about {s.axis} {s.since}. Cause: {blocked(s.blocked)} It does not "
            f"learn, and what moves it comes from elsewhere: put that right{before}."
        )
    text = f"{s.component} is diverging: {where}, rising since about {s.axis} {s.since}."
    also = "" if s.blocked is None else f" Besides, {blocked(s.blocked)}"
    return (
        f"{text} Lower the learning rate, clip gradients, and go back to a checkpoint before {s.axis} {s.since}.{also}"
    )


def non_finite(component: str, value: float, step: int, axis: str, first: bool) -> str:
    """A component that is NaN or infinite."""
    kind = "NaN" if value != value else "infinite"
    text = f"{component} is {kind} at {axis} {step}."
    if first:
        return f"{text} Look at the learning rate, at mixed precision, and at the first batches (degenerate boxes)."
    return (
        f"{text} The weights are probably lost: go back to a checkpoint, lower the learning rate or clip gradients; "
        f"with mixed precision, check that the loss is computed in float32."
    )


def dominating(s: Situation) -> str:
    """A component that makes up most of the total."""
    todo = "give it a smaller weight, or look at why it is so high."
    if s.blocked is not None:
        todo = f"its weight is not what is wrong: {blocked(s.blocked)}"
    return (
        f"{s.component} dominates: {100 * s.share:.0f} % of the total; {stands(s)}. The shared layers train for it "
        f"almost alone; {todo}"
    )


def zero(
    component: str, since: int, steps: int, axis: str, before: float | None = None, cause: Measured | None = None
) -> str:
    """A component that is exactly zero for long.

    Args:
        component: Its name.
        since: Step since which it is.
        steps: How many these are.
        axis: What they count.
        before: What it had come down to by then, or None.
        cause: That its targets are empty, where that was measured.
    """
    said = f"{component} has been exactly zero for {steps} {axis}s, since {axis} {since}"
    if before is not None:
        return f"{said}. It had come down to {before:.2g} before: there is nothing left to learn from it."
    if cause is not None:
        return f"{said}: nothing is learnt from it. Cause: {blocked(cause)}"
    return f"{said}: nothing is learnt from it. Its targets may be missing (no positive samples), or its weight is 0."


def missing(component: str, since: int, steps: int, axis: str) -> str:
    """A component that no longer comes."""
    return (
        f"{component} has not been reported for {steps} {axis}s, since {axis} {since}: "
        f"is that part of the model switched off?"
    )


def new(component: str, step: int, axis: str) -> str:
    """A component that first appears in mid-run."""
    return (
        f"{component} appears for the first time at {axis} {step}; the total is not comparable with what it was before."
    )


def oscillating(s: Situation) -> str:
    """A component that swings around its trend."""
    text = f"{s.component} swings slowly up and down around its trend, more than its noise explains: {stands(s)}."
    if s.blocked is not None:
        return f"{text} It is not its own learning that swings: {blocked(s.blocked)}"
    return f"{text} A lower learning rate, or less momentum, usually calms it."


def sum_factor(total: float, parts: float, ratio: float) -> str:
    """A total that is a constant multiple of the sum."""
    text = f"The total ({total:.4g}) is {ratio:.4g} times the sum of the components ({parts:.4g}), at every step."
    inverse = 1 / ratio if ratio else 0.0
    if inverse > 1.5 and abs(inverse - round(inverse)) < 0.01:
        n = round(inverse)
        return (
            f"{text} 1/{n} looks like gradient accumulation over {n} batches, or a mean over {n} ranks (world size), "
            f"applied to the total only."
        )
    if ratio > 1.5 and abs(ratio - round(ratio)) < 0.01:
        n = round(ratio)
        return (
            f"{text} {n} looks like a sum over {n} ranks (world size) or accumulated batches in the total, or "
            f"components divided by {n}."
        )
    return f"{text} A weight seems to be applied to one of the two only."


def sum_difference(smallest: float, widest: float, smoothed: bool) -> str:
    """A total that differs from the sum by no constant factor."""
    text = f"The total is {smallest:.3g} to {widest:.3g} times the sum of the components."
    if smoothed:
        return (
            f"{text} The values look smoothed (medians or running averages do not add up); log raw values to be sure."
        )
    return (
        f"{text} A term of the total is missing from the components (regularisation?), some components carry weights, "
        f"or the values are smoothed."
    )


def forecast(level: float, fall: float, error: float, remaining: float) -> tuple[float, float]:
    """Level after `remaining` updates at a fall of `fall` per update in ln(loss), and the best case of its bounds."""
    return level * exp(-fall * remaining), level * exp(-max(0.0, fall + error) * remaining)


WORDS: Final = {
    "stalled": stalled,
    "flat": flat,
    "diverging": diverging,
    "dominating": dominating,
    "oscillating": oscillating,
}
"""Words by state."""
TITLES: Final = {
    "stalled": "{} has stalled",
    "flat": "{} is flat",
    "diverging": "{} is diverging",
    "non_finite": "{} is not finite",
    "dominating": "{} dominates the total",
    "zero": "{} is exactly zero",
    "missing": "{} is no longer reported",
    "new": "{} is new in mid-run",
    "sum_mismatch": "The {} is not the sum of the components",
    "oscillating": "{} oscillates",
}


def title(state: str, component: str) -> str:
    """One line for an alert."""
    return TITLES[state].format(component)


def hardest(component: str, batches: Mapping[str, Any]) -> str:
    """On which images a loss was highest in the last epoch, as a sentence; "" where nothing is known."""
    known = [str(image) for _, _, images in batches.get(component) or () for image in images]
    ids = list(dict.fromkeys(known))[:IMAGES]
    return f" It is highest on images {', '.join(ids)} (losslog show --hard)." if ids else ""
