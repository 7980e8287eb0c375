"""What the total is, and what the mean is: one rule for a batch, a window, an epoch and several ranks.

No thread, no I/O. Contract:

- The total is what was given as such; else the entry `TOTAL_NAMES` names, where others stand beside it, by its name
  alone; else the sum of the components. An entry that is the total is no component.
- A component's mean is the plain mean over those that had it, summed in order: what a hand-written loop computes.
- The total of means is the sum of these means, or the mean of the totals where the loop gave them.
- Where dict and scalar losses mix, the dicts are the losses; a scalar counts as the component that it is made of, where
  that is known, and in the total.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from losslog.runtime.notices import Once
from losslog.values.losses import Losses

TOTAL_NAMES: Final = ("total", "total_loss", "loss")
TOLERANCE: Final = 1e-3  # relative; raw step values agree to 5e-6, so 1e-3 leaves room for half precision


METRIC_NAMES: Final = frozenset(("acc", "accuracy", "error", "iou", "miou", "f1", "precision", "recall", "top1", "top5",
                                 "lr", "learning_rate", "grad_norm", "class_error", "cardinality_error"))  # fmt: skip
METRIC_ENDS: Final = ("_acc", "_accuracy", "_iou", "_f1", "_lr", "_grad_norm")


@lru_cache(maxsize=4096)  # asked for each name of each record
def sounds_like_a_metric(name: str) -> bool:
    """Whether a name says that its value is no loss: of `METRIC_NAMES`, or with one of `METRIC_ENDS`."""
    low = name.lower()
    return "loss" not in low and (low in METRIC_NAMES or low.endswith(METRIC_ENDS))


def total_name(names: Collection[str]) -> str | None:
    """Which of these entries is the total of the others, or None."""
    if len(names) < 2:
        return None
    for name in TOTAL_NAMES:
        if name in names:
            return name
    return None


def total_of(losses: Losses, total: float | None = None) -> float:
    """``total`` where it is given, else the entry that is the total, else the sum; of a scalar, itself."""
    if total is not None:
        return total
    if not isinstance(losses, dict):
        return losses
    name = total_name(losses)
    return sum(losses.values()) if name is None else losses[name]


def weighted(losses: Losses | None, weights: Mapping[str, float] | None, trained: Losses | None) -> Losses | None:
    """Losses of a validation with their total as training weighs them.

    They are left as they are where something among them says what the total is, or one of those trained is missing.
    """
    if not weights or not isinstance(losses, dict) or not isinstance(trained, dict):
        return losses
    if losses.keys() & set(TOTAL_NAMES) or not trained.keys() <= losses.keys():
        return losses
    return losses | {TOTAL_NAMES[0]: sum(value * weights.get(name, 1.0) for name, value in losses.items())}


def agree(a: float, b: float) -> bool:
    """Whether two totals are the same but for rounding; two that are not finite agree when they print alike."""
    if math.isfinite(a) and math.isfinite(b):
        return abs(a - b) <= TOLERANCE * max(abs(a), abs(b), 1e-12)
    return str(a) == str(b)


class Whole(NamedTuple):
    """Losses with their total.

    Attributes:
        losses: components without the total, or one float.
        total: their total.
        given: whether the loop said what the total is; else it is their sum.
    """

    losses: Losses
    total: float
    given: bool


class Alone(NamedTuple):
    """The one component that a scalar is made of.

    Attributes:
        name: of it.
        value: its own.
        weight: how often it counts in the scalar.
    """

    name: str
    value: float
    weight: float = 1.0


def told(losses: Losses, total: float | None) -> Whole:
    """What autograd told: no name says anything."""
    parts = sum(losses.values()) if isinstance(losses, dict) else losses
    return Whole(losses, parts if total is None else total, total is not None)


class Totals:
    """Applies the rule, and says once where it may surprise.

    Args:
        once: says it.
        components: names that are losses though they sound like metrics.
    """

    def __init__(self, once: Once, components: Collection[str] = ()) -> None:
        self._once, self._components = once, components
        self._losses: set[tuple[str, ...]] = set()  # names that are losses, all of them

    def knows(self, names: Collection[str]) -> bool:
        """Whether `apart` has seen these names, and they are components, all of them."""
        return names in self._losses and total_name(names) is None

    def apart(self, losses: Losses) -> tuple[Losses, dict[str, float]]:
        """Losses, and entries beside them whose names say that they are metrics."""
        if not isinstance(losses, dict) or len(losses) < 2 or (names := tuple(losses)) in self._losses:
            return losses, {}
        metrics = {name: value for name, value in losses.items()
                   if sounds_like_a_metric(name) and name not in self._components}  # fmt: skip
        if not metrics or len(metrics) == len(losses):
            if len(self._losses) < 1000:  # names without end must not grow us
                self._losses.add(names)
            return losses, {}
        self._once("losses[%r] sounds like a metric: logged as one, not as a loss. "
                   "losslog.Run(..., components=[%r]) makes it a loss", *(next(iter(metrics)),) * 2)  # fmt: skip
        return {name: value for name, value in losses.items() if name not in metrics}, metrics

    def whole(self, losses: Losses, total: float | None = None) -> Whole:
        """What a loop gave, told apart.

        Args:
            losses: components by name, perhaps with their total among them, or one scalar.
            total: the optimised total, where the loop named it.
        """
        if not isinstance(losses, dict):
            return Whole(losses, losses if total is None else total, total is not None)
        name = total_name(losses)
        if name is not None:
            losses = losses.copy()
            own = losses.pop(name)
            total = own if total is None else total
        parts = sum(losses.values())
        if total is None:
            return Whole(losses, parts, False)
        if name is not None and agree(total, parts):
            self._once("losses[%r] is the sum of the others: taken as the total", name)
        elif name is not None and total == own:
            self._once("losses[%r] is %.6g, and the others add up to %.6g: it is taken as the total that is optimised. "
                       "Give it another name if it is a component, and pass total= if that is neither",
                       name, total, parts)  # fmt: skip
        elif not agree(total, parts):
            self._once("the total given (%.6g) is not the sum of the components (%.6g): it is kept", total, parts)
        return Whole(losses, total, True)


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


def losses_of(means: dict[str, float]) -> Losses:
    """Means by component as losses; a scalar's stands under ""."""
    return means[""] if means.keys() == {""} else means
