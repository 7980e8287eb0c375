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
import operator
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache, reduce
from typing import Any, Final, NamedTuple

from losslog.runtime.notices import Once
from losslog.values.losses import Losses
from losslog.values.snapshot import EXACT

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


def losses_of(means: dict[str, float]) -> Losses:
    """Means by component as losses; a scalar's stands under ""."""
    return means[""] if means.keys() == {""} else means


class EpochMeans:
    """Running sums of an epoch.

    Attributes:
        batches: how many batches were added.
        mixed: whether dict and scalar batches met.
    """

    def __init__(self) -> None:
        self.batches = 0
        self.mixed = False
        self._sums: dict[str, float] = {}  # of scalars under ""
        self._counts: dict[str, int] = {}
        self._weights: dict[str, float] = {}  # sums of weight - 1
        # Of the steps with the most passes: how many those are, and of each component's weight the sum and count.
        self._longest = 1
        self._full: dict[str, tuple[float, int]] = {}
        self._alone: dict[str, tuple[float, float, int]] = {}  # scalars made of one: value, weight - 1, count
        self._total = 0.0
        self._given = False

    def add(
        self, whole: Whole, n: int = 1, weights: Mapping[str, float] | None = None, alone: Alone | None = None
    ) -> None:
        """Add one batch.

        Args:
            whole: its losses and total.
            n: how many forward passes the values are means of; all of them count.
            weights: of components in the total, of those that are not 1.
            alone: what a scalar is made of, where that is known; it counts where the epoch has components.
        """
        losses, total, given = whole
        self.batches += n
        for name, weight in weights.items() if weights else ():
            self._weights[name] = self._weights.get(name, 0.0) + (weight - 1.0) * n
        if n > 1:
            self._add_full(n, _weights_of_a_pass(losses, weights or {}, n))
        self._total += total * n
        self._given = self._given or given
        sums, counts = self._sums, self._counts
        for name, value in losses.items() if isinstance(losses, dict) else (("", losses),):
            sums[name] = sums.get(name, 0.0) + value * n
            counts[name] = counts.get(name, 0) + n
        if alone is not None:
            self._add_alone(alone.name, (alone.value * n, (alone.weight - 1.0) * n, n))
        self._look()

    def add_all(self, columns: Mapping[str, Sequence[float]], totals: Sequence[float], given: bool) -> None:
        """Add batches whose losses are all dicts of the same names, given by name: as `add` does, one by one."""
        self.batches += len(totals)
        self._total = reduce(operator.add, totals, self._total)
        self._given = self._given or given
        for name, values in columns.items():
            self._sums[name] = reduce(operator.add, values, self._sums.get(name, 0.0))
            self._counts[name] = self._counts.get(name, 0) + len(values)
        self._look()

    def _add_full(self, n: int, weights: Mapping[str, Sequence[Any]]) -> None:
        """Weights, by component their sum and count, of steps with that many passes."""
        if n > self._longest:
            self._longest, self._full = n, {}
        for name, (weight, count) in weights.items() if n == self._longest > 1 else ():
            its = self._full.get(name, (0.0, 0))
            self._full[name] = its[0] + weight, its[1] + count

    def _look(self) -> None:
        scalars = self._counts.get("", 0)
        self.mixed = scalars > 0 and len(self._sums) > 1 and scalars > sum(each[2] for each in self._alone.values())

    def _add_alone(self, name: str, more: Sequence[Any]) -> None:
        value, weight, count = self._alone.get(name, (0.0, 0.0, 0))
        self._alone[name] = value + more[0], weight + more[1], count + more[2]

    def sums(self) -> dict[str, Any]:
        """The running sums as plain data, for `merge` on another rank."""
        return {"batches": self.batches, "sums": self._sums.copy(), "counts": self._counts.copy(),
                "weights": self._weights.copy(), "longest": self._longest, "full": self._full.copy(),
                "total": self._total, "given": self._given, "alone": self._alone.copy()}  # fmt: skip

    def merge(self, other: Mapping[str, Any]) -> None:
        """Add what `sums` gave on another rank: means are then over all batches of both."""
        self.batches += other["batches"]
        self._total += other["total"]
        self._given = self._given or other["given"]
        for name, value in other["weights"].items():
            self._weights[name] = self._weights.get(name, 0.0) + value
        self._add_full(other["longest"], other["full"])
        for name, value in other["sums"].items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + other["counts"][name]
        for name, its in other["alone"].items():
            self._add_alone(name, its)

    def result(self) -> tuple[Losses | None, float | None]:
        """(means, total); (None, None) where there were no batches."""
        if not self.batches:
            return None, None
        scalars = "" in self._sums
        means = {name: value / count for name, (value, _, count) in self._whole().items()}
        return losses_of(means), self._total / self.batches if self._given or scalars else sum(means.values())

    def _whole(self) -> dict[str, tuple[float, float, int]]:
        """Of each component the sums of value and weight - 1, and the count; of scalars that stay some under ""."""
        found = {name: (value, self._weights.get(name, 0.0), self._counts[name]) for name, value in self._sums.items()}
        if len(found) == 1 and "" in found and len(self._alone) < 2:
            return found
        found.pop("", None)
        for name, (value, weight, count) in self._alone.items():
            its = found.get(name, (0.0, 0.0, 0))
            found[name] = its[0] + value, its[1] + weight, its[2] + count
        return found

    def weights(self) -> dict[str, float] | None:
        """Means of the components' weights, of those that were not always 1; None where there is none."""
        found = self._whole().items()
        return {name: 1.0 + more / count for name, (_, more, count) in found if more or name in self._weights} or None

    def weights_of_a_pass(self) -> dict[str, float]:
        """The same for one forward pass, as in a validation: a loop that accumulates may divide by nothing.

        Steps with fewer passes than others (a rest) are left out: they are divided by more than they have.
        """
        if self._longest == 1:
            return self.weights() or {}
        found = {name: weight / count for name, (weight, count) in self._full.items()}
        return {name: weight for name, weight in found.items() if abs(weight - 1.0) > EXACT}


def _weights_of_a_pass(losses: Losses, weights: Mapping[str, float], n: int) -> dict[str, tuple[float, int]]:
    """The weights that components of a step with several passes have in one of them, each with a count of 1.

    The passes seem to add up undivided where a component counts once for each, and none once in all.
    """
    if not isinstance(losses, dict):
        return {}
    added = any(abs(each - n) <= TOLERANCE for each in weights.values()) and losses.keys() <= weights.keys()
    return {name: (weights.get(name, 1.0) / (n if added else 1), 1) for name in losses}
