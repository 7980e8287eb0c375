"""Epoch means, exact and without cost to the training thread.

Drain thread. Contract:

- A component's mean is the plain mean over the batches that had it, summed in order: what a hand-written loop computes.
- The total is the sum of these means, or the mean of the totals where the loop gave them.
- Where dict and scalar batches mix, the dict is the epoch's losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from losslog.values.losses import Losses


class EpochMeans:
    """Running sums since the last `reset`.

    Attributes:
        batches: how many batches were added.
        mixed: whether dict and scalar batches met.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin a new epoch."""
        self.batches = 0
        self.mixed = False
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._scalar = (0.0, 0)
        self._total = (0.0, 0)
        self._given = False

    def add(self, losses: Losses, total: float, given: bool, n: int = 1) -> None:
        """Add one batch.

        Args:
            losses: components, or one float.
            total: the batch's total.
            given: whether the loop gave that total itself.
            n: how many forward passes the values are means of; all of them count.
        """
        self.batches += n
        self._total = (self._total[0] + total * n, self._total[1] + n)
        self._given = self._given or given
        if isinstance(losses, dict):
            sums, counts = self._sums, self._counts
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value * n
                counts[name] = counts.get(name, 0) + n
        else:
            self._scalar = (self._scalar[0] + losses * n, self._scalar[1] + n)
        self.mixed = self._scalar[1] > 0 and bool(self._sums)

    def sums(self) -> dict[str, Any]:
        """The running sums as plain data, for `merge` on another rank."""
        return {"batches": self.batches, "sums": dict(self._sums), "counts": dict(self._counts),
                "scalar": list(self._scalar), "total": list(self._total), "given": self._given}  # fmt: skip

    def merge(self, other: Mapping[str, Any]) -> None:
        """Add what `sums` gave on another rank: means are then over all batches of both."""
        self.batches += other["batches"]
        self._given = self._given or other["given"]
        for name, value in other["sums"].items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + other["counts"][name]
        self._scalar = (self._scalar[0] + other["scalar"][0], self._scalar[1] + other["scalar"][1])
        self._total = (self._total[0] + other["total"][0], self._total[1] + other["total"][1])

    def result(self) -> tuple[Losses | None, float | None]:
        """(means, total); (None, None) where there were no batches."""
        if not self.batches:
            return None, None
        losses: Losses
        if self._sums:
            losses = {name: self._sums[name] / self._counts[name] for name in self._sums}
            total = sum(losses.values())
        else:
            losses = total = self._scalar[0] / self._scalar[1]
        if self._given:
            total = self._total[0] / self._total[1]
        return losses, total
