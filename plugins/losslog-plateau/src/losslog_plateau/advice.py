"""The words: what a person needs to know about a finding, and what to do.

- Pure functions from numbers to sentences; no decision is made here.
- Losses are printed with three significant digits, rates in % per epoch (per 1000 steps where no epoch is known).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log
from typing import Final

CHANCE: Final = log(2)
"""Cross-entropy of a coin: a binary classifier that has learnt nothing."""
CHANCE_WIDTH: Final = 0.03
HEADS: Final = {
    "loss_mask": "mask_head",
    "loss_classifier": "box_head",
    "loss_box_reg": "box_head",
    "loss_objectness": "rpn",
    "loss_rpn_box_reg": "rpn",
    "loss_keypoint": "keypoint_head",
}
"""Parameter group that a torchvision loss component trains, as `losslog.detection.get_parameter_groups` names it."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Change of a loss with its bounds.

    Attributes:
        change: In % per `per`; negative is a fall.
        low: Lower bound.
        high: Upper bound.
        per: "epoch" or "1000 steps".
    """

    change: float
    low: float
    high: float
    per: str

    def __str__(self) -> str:
        """For example "-0.2 % per epoch (between -0.9 and +0.5)"."""
        return f"{self.change:+.2g} % per {self.per} (between {self.low:+.2g} and {self.high:+.2g})"


@dataclass(frozen=True, slots=True)
class Situation:
    """All that the words are made of.

    Attributes:
        component: Name of the loss.
        level: Mean loss over the last epoch or unit, or along the line where it is flat.
        peak: Highest such mean so far.
        range: Typical final values, or None.
        share: Share of the total.
        rate: Its change, or None.
        window: Steps the rate was measured over.
        since: Step at which the state began.
        step: Present step.
        end: (planned last step, forecast at it, best case), or None.
        improving: Other components that improve.
        others: How many other components there are.
        cut: Words on a cut of the learning rate, or None.
        axis: What the steps count: "step" or "epoch".
    """

    component: str
    level: float
    peak: float
    range: tuple[float, float] | None
    share: float
    rate: Rate | None
    window: int
    since: int
    step: int
    end: tuple[int, float, float] | None
    improving: Sequence[str]
    others: int
    cut: str | None
    axis: str


def _level(s: Situation) -> str:
    text = f"it stands at {s.level:.3g}"
    if s.range is not None:
        low, high = s.range
        times = s.level / high
        where = f"{times:.1f} times its top" if times > 1 else "within it" if s.level >= low else "below it"
        text += f" (typical final range {low:.3g}-{high:.3g}: {where})"
    if abs(s.level - CHANCE) <= CHANCE_WIDTH:
        text += "; 0.69 = ln 2 is chance level for a yes/no loss: it has learnt nothing yet"
    return text


def _movement(s: Situation) -> str:
    if s.rate is None:
        return f"since about {s.axis} {s.since}"
    return f"it changes by {s.rate} over the last {s.window} {s.axis}s, flat since about {s.axis} {s.since}"


def _forecast(s: Situation) -> str:
    if s.end is None:
        return ""
    last, likely, best = s.end
    return f" At this rate it would be {likely:.3g} at the end of the run ({s.axis} {last}), at best {best:.3g}."


def _names(names: Sequence[str]) -> str:
    return ", ".join(names)


def stalled(s: Situation) -> str:
    """A component that no longer improves, too high, while others do."""
    verb = "improves" if len(s.improving) == 1 else "improve"
    text = (
        f"{s.component} has stalled: {_level(s)}; {_movement(s)}, while {_names(s.improving)} still {verb}."
        f"{_forecast(s)}"
    )
    if s.cut is not None:
        return (
            f"{text} Note that {s.cut}: a cut often flattens a curve. Undo or delay the cut if the level is not good "
            f"enough; a higher head learning rate alone is not the remedy here."
        )
    group = HEADS.get(s.component)
    if group is None:
        return (
            f"{text} Try a higher learning rate for the part of the model that this loss trains (a parameter group of "
            f"its own, 10 times the rate of the rest), or overall; check that this part is not frozen or detached."
        )
    return (
        f"{text} Try differential learning rates, get_parameter_groups(model, lr, head_lr_multiplier=10), so that "
        f"{group} learns faster, or a higher learning rate overall; check that {group} is not frozen or detached and "
        f"that its targets are right."
    )


def flat(s: Situation) -> str:
    """A component that no longer improves, too high, and no other improves either."""
    others = "no other component improves either" if s.others else "there is no other component to compare with"
    text = f"{s.component} is flat above where it should end: {_level(s)}; {_movement(s)}; {others}.{_forecast(s)}"
    if s.cut is not None:
        return f"{text} Note that {s.cut}: after a cut this is usual, and the run may simply be over."
    return f"{text} If the results are not good enough, try a higher learning rate overall, or look at the data."


def diverging(s: Situation) -> str:
    """A component that rises after it had fallen."""
    return (
        f"{s.component} is diverging: {_level(s)}, well above its lowest, rising since about {s.axis} {s.since}. "
        f"Lower the learning rate, clip gradients, and go back to a checkpoint before {s.axis} {s.since}."
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
    return (
        f"{s.component} dominates: {100 * s.share:.0f} % of the total; {_level(s)}. The shared layers train for it "
        f"almost alone; give it a smaller weight, or look at why it is so high."
    )


def zero(component: str, since: int, steps: int, axis: str) -> str:
    """A component that is exactly zero for long."""
    return (
        f"{component} has been exactly zero for {steps} {axis}s, since {axis} {since}: nothing is learnt from it. "
        f"Its targets may be missing (no positive samples), or its weight is 0."
    )


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
    return (
        f"{s.component} swings slowly up and down around its trend, more than its noise explains: {_level(s)}. A lower "
        f"learning rate, or less momentum, usually calms it."
    )


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


def verdict(state: str, s: Situation, known: bool) -> str:
    """One sentence for a table.

    Args:
        state: The component's state.
        s: Its situation.
        known: Whether there is a level yet.
    """
    if not known:
        return f"{s.component}: {state}; no whole epoch seen yet."
    rate = "" if s.rate is None else f", changing by {s.rate}"
    return f"{s.component}: {state}; {_level(s)}{rate}."


TITLES: Final = {
    "stalled": "{} has stalled",
    "flat": "{} is flat above its range",
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
