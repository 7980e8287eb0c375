"""The words: what a person needs to know about a finding, and what to do.

- Pure functions from numbers to sentences; no decision is made here.
- Losses are printed with three significant digits, rates in % per epoch (per 1000 steps where no epoch is known).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp
from typing import Any, Final

from .known import HEADS
from .settings import HALVED
from .situation import Measured, Rate, Situation

IMAGES: Final = 6  # named in an alert
WHOLE: Final = 0.9
"""Share of steps with a loss other than 0 from which on the others are not worth a word."""


def _where(s: Situation) -> str:
    return "" if s.presence >= WHOLE else f" in the {100 * s.presence:.0f} % of steps that have one other than 0"


def _level(s: Situation) -> str:
    text = f"it stands at {s.level:.3g}{_where(s)}"
    if s.range is not None:
        low, high = s.range
        times = s.level / high
        where = f"{times:.1f} times its top" if times > 1 else "within it" if s.level >= low else "below it"
        text += f" (typical final range {low:.3g}-{high:.3g}: {where})"
    elif s.floored is not None:
        text += f" (a {s.floored} has a floor of its own, so that it need not go to zero)"
    return text


def _movement(s: Situation) -> str:
    if s.rate is None:
        return f"since about {s.axis} {s.since}"
    if s.cause is not None and s.cause.name == "not_trained":  # what it looks at may still move it
        return f"it changes by {s.rate} over the last {s.window} {s.axis}s"
    return f"it changes by {s.rate} over the last {s.window} {s.axis}s, flat since about {s.axis} {s.since}"


def _forecast(s: Situation) -> str:
    if s.end is None:
        return ""
    last, likely, best = s.end
    return f" At this rate it would be {likely:.3g} at the end of the run ({s.axis} {last}), at best {best:.3g}."


def _names(names: Sequence[str]) -> str:
    return ", ".join(names)


def _because(s: Situation) -> str:
    """What was measured of the cause; what was ruled out."""
    if s.cause is not None:
        remedy = "" if "said" in s.cause.evidence else _REMEDIES[s.cause.name]
        return f" Cause: {s.cause.text}.{remedy}"
    return "" if s.later is None else f" It began before {s.later}, so that is not the cause."


def _range_of_others(s: Situation) -> str:
    """A question where a range known by name may be another data set's: the loss has learnt, and ends above it."""
    fallen = 1 - s.level / s.peak if s.peak > 0 else 0.0
    if not s.usual or s.range is None or s.level <= s.range[1] or fallen < HALVED:
        return ""
    return (
        f" Or is that range another data set's? It has fallen by {100 * fallen:.0f} % from {s.peak:.3g}: if this is as "
        f"low as it gets on yours, give your range with the option typical."
    )


_REMEDIES: Final = {
    "not_trained": " Is that part frozen, detached, or missing from the optimizer?",
    "part_not_trained": "",
    "not_in_optimizer": " Add its parameters to the optimizer.",
    "lr_zero": " Give the group a learning rate.",
    "no_targets": " Look at the annotations and the transforms.",
    "tiny_weight": " Give it a larger weight, or leave it out.",
    "zero_gradient": " Is it multiplied by 0, masked out, or cut off by a saturated or dead activation?",
    "vanishing_gradient": " Look at its activations, its initialisation and its normalisation.",
    "unchanged": "",
    "lr_cut": " A cut often flattens a curve: undo or delay it if the level is not good enough; a higher head learning "
    "rate alone is not the remedy here.",
    "lr_cut_planned": "",
    "chance_level": " Are its targets right, and does a gradient reach that part of the model?",
    "lr_rising": " A standstill in a warm-up says nothing yet.",
}


def stalled(s: Situation) -> str:
    """A component that no longer improves, too high, while others do."""
    verb = "improves" if len(s.improving) == 1 else "improve"
    others = f", while {_names(s.improving)} still {verb}" if s.improving else ""
    if s.improved and not s.improving:
        others = f", while {_names(s.improved)} improved"
    text = f"{s.component} has stalled: {_level(s)}; {_movement(s)}{others}.{_forecast(s)}{_because(s)}"
    if s.cause is not None:
        return text
    group = HEADS.get(s.component)
    if group is None:
        return (
            f"{text} No cause was measured. Is the part of the model that this loss trains frozen, detached or missing "
            f"from the optimizer? Are its targets right? If neither, try a higher learning rate for that part (a "
            f"parameter group of its own, 10 times the rate of the rest), or overall.{_range_of_others(s)}"
        )
    return (
        f"{text} No cause was measured. Is {group} frozen, detached or missing from the optimizer? Are its targets "
        f"right? If neither, try differential learning rates, get_parameter_groups(model, lr, head_lr_multiplier=10), "
        f"so that {group} learns faster, or a higher learning rate overall.{_range_of_others(s)}"
    )


def flat(s: Situation) -> str:
    """A component that no longer improves, too high; no other improves either, or it is known to be no stall."""
    if s.improving:
        others = f"{_names(s.improving)} still {'improves' if len(s.improving) == 1 else 'improve'}"
    else:
        others = "no other component improves either" if s.others else "there is no other component to compare with"
    where = "where its usual end is not known" if s.range is None else "above where it should end"
    text = f"{s.component} is flat {where}: {_level(s)}; {_movement(s)}; {others}.{_forecast(s)}{_because(s)}"
    if s.cause is not None:
        return text
    if s.range is None:
        return f"{text} Is this as low as it can get? If you know its range, give it with the option typical."
    return (
        f"{text} If the results are not good enough, try a higher learning rate overall, or look at the data."
        f"{_range_of_others(s)}"
    )


def diverging(s: Situation) -> str:
    """A component that rises after it had fallen."""
    where = f"{_level(s)}, well above its lowest"
    if s.blocked is not None and (s.blocked.since is None or s.blocked.since <= s.since):
        before = "" if s.blocked.since is None else f", and go back to a checkpoint before {s.axis} {s.blocked.since}"
        return (
            f"{s.component} rises: {where}, since about {s.axis} {s.since}. Cause: {_blocked(s.blocked)} It does not "
            f"learn, and what moves it comes from elsewhere: put that right{before}."
        )
    text = f"{s.component} is diverging: {where}, rising since about {s.axis} {s.since}."
    also = "" if s.blocked is None else f" Besides, {_blocked(s.blocked)}"
    return (
        f"{text} Lower the learning rate, clip gradients, and go back to a checkpoint before {s.axis} {s.since}.{also}"
    )


def _blocked(cause: Measured) -> str:
    """Why it learns nothing, in a sentence or two."""
    return f"{cause.text}.{'' if 'said' in cause.evidence else _REMEDIES[cause.name]}"


def _briefly(s: Situation) -> str:
    """The same for the end of a line; "" where nothing keeps it from learning."""
    if s.blocked is None:
        return ""
    head = s.blocked.text.partition(": ")[0]
    text = head if len(head.split()) > 1 else s.blocked.text
    return f": {text.removeprefix(f'{s.component} ').partition(', though')[0]}"


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
        todo = f"its weight is not what is wrong: {_blocked(s.blocked)}"
    return (
        f"{s.component} dominates: {100 * s.share:.0f} % of the total; {_level(s)}. The shared layers train for it "
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
        return f"{said}: nothing is learnt from it. Cause: {_blocked(cause)}"
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
    text = f"{s.component} swings slowly up and down around its trend, more than its noise explains: {_level(s)}."
    if s.blocked is not None:
        return f"{text} It is not its own learning that swings: {_blocked(s.blocked)}"
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
    measured = "" if s.blocked is None else f" Measured: {_blocked(s.blocked)}"
    return f"{s.component}: {state}; {_level(s)}{rate}.{measured}"


def outlook(state: str, s: Situation, level: float | None, why: str = "") -> str:
    """What came of a component, in a few words; ``why``: as for `verdict`."""
    whole = s.epoch is not None and s.epoch > 1
    since = f"epoch {int(s.since / s.epoch) + 1}" if whole and s.epoch else f"{s.axis} {s.since}"
    at, briefly = "" if level is None else f" at {level:.3g}{_where(s)}", _briefly(s)
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


GONE: Final = {
    "non_finite": "not finite since {}: lower the learning rate or clip gradients",
    "zero": "exactly zero since {}",
    "missing": "no longer reported since {}",
}
"""What is said of a component in these states: where it stood before means nothing now."""


def _per(rate: Rate) -> str:
    return "an epoch" if rate.per == "epoch" else f"per {rate.per}"


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
