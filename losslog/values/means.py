"""The means of an epoch: of each component, of its weight, and of the total.

No thread, no I/O. Contract:

- A component's mean is over the batches that had it, each as often as it had forward passes; sums go on other ranks.
- Components are weighted in a validation as in one forward pass of training.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from losslog.values.losses import Losses
from losslog.values.snapshot import EXACT
from losslog.values.totals import TOLERANCE, Alone, Whole, losses_of


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
        # Of scalars made of one: sums of value, weight - 1, count.
        self._alone: dict[str, tuple[float, float, int]] = {}
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
