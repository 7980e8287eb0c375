"""Means over losses that are there, and what a validation weighs.

No thread, no I/O. Contract:

- The mean of a component is over those that had it.
- A validation's total weighs components as training does, where nothing says what it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from losslog.values.losses import Losses
from losslog.values.totals import TOTAL_NAMES, losses_of


def weighted(losses: Losses | None, weights: Mapping[str, float] | None, trained: Losses | None) -> Losses | None:
    """Losses of a validation with their total as training weighs them.

    They are left as they are where something among them says what the total is, or one of those trained is missing.
    """
    if not weights or not isinstance(losses, dict) or not isinstance(trained, dict):
        return losses
    if losses.keys() & set(TOTAL_NAMES) or not trained.keys() <= losses.keys():
        return losses
    return losses | {TOTAL_NAMES[0]: sum(value * weights.get(name, 1.0) for name, value in losses.items())}


def by_component(several: Iterable[Losses]) -> dict[str, list[float]]:
    """The values of each component, in order; of scalars, where there are no dicts, under ""."""
    found: dict[str, list[float]] = {}
    scalars = []
    for losses in several:
        if isinstance(losses, dict):
            for name, value in losses.items():
                found.setdefault(name, []).append(value)
        else:
            scalars.append(losses)
    return found or {"": scalars}


def mean_of(several: Iterable[Losses]) -> Losses:
    """The mean of losses: of each component over those that had it, or of scalars."""
    return losses_of({name: sum(values) / len(values) for name, values in by_component(several).items()})
