"""Parts of sentences about a component: where it stands, how it moves, why.

Pure functions from numbers to words, for `advice` and `outlook`.
"""

from __future__ import annotations

from typing import Final

from .settings import HALVED
from .situation import Measured, Situation

WHOLE: Final = 0.9
"""Share of steps with a loss other than 0 from which on the others are not worth a word."""
REMEDIES: Final = {
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


def partly(s: Situation) -> str:
    """That many steps have no loss, of a level that is of the others; "" where most have."""
    return "" if s.presence >= WHOLE else f" in the {100 * s.presence:.0f} % of steps that have one other than 0"


def stands(s: Situation) -> str:
    """Where it stands, and where it should end."""
    text = f"it stands at {s.level:.3g}{partly(s)}"
    if s.range is not None:
        low, high = s.range
        times = s.level / high
        where = f"{times:.1f} times its top" if times > 1 else "within it" if s.level >= low else "below it"
        text += f" (typical final range {low:.3g}-{high:.3g}: {where})"
    elif s.floored is not None:
        text += f" (a {s.floored} has a floor of its own, so that it need not go to zero)"
    return text


def movement(s: Situation) -> str:
    """How it changes, or since when."""
    if s.rate is None:
        return f"since about {s.axis} {s.since}"
    if s.cause is not None and s.cause.name == "not_trained":  # what it looks at may still move it
        return f"it changes by {s.rate} over the last {s.window} {s.axis}s"
    return f"it changes by {s.rate} over the last {s.window} {s.axis}s, flat since about {s.axis} {s.since}"


def forecast_of(s: Situation) -> str:
    """Where it would end, as a sentence; "" where the end of the run is not known."""
    if s.end is None:
        return ""
    last, likely, best = s.end
    return f" At this rate it would be {likely:.3g} at the end of the run ({s.axis} {last}), at best {best:.3g}."


def because(s: Situation) -> str:
    """What was measured of the cause; what was ruled out."""
    if s.cause is not None:
        remedy = "" if "said" in s.cause.evidence else REMEDIES[s.cause.name]
        return f" Cause: {s.cause.text}.{remedy}"
    return "" if s.later is None else f" It began before {s.later}, so that is not the cause."


def range_of_others(s: Situation) -> str:
    """A question where a range known by name may be another data set's: the loss has learnt, and ends above it."""
    fallen = 1 - s.level / s.peak if s.peak > 0 else 0.0
    if not s.usual or s.range is None or s.level <= s.range[1] or fallen < HALVED:
        return ""
    return (
        f" Or is that range another data set's? It has fallen by {100 * fallen:.0f} % from {s.peak:.3g}: if this is as "
        f"low as it gets on yours, give your range with the option typical."
    )


def blocked(cause: Measured) -> str:
    """Why it learns nothing, in a sentence or two."""
    return f"{cause.text}.{'' if 'said' in cause.evidence else REMEDIES[cause.name]}"
