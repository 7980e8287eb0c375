"""Does the total equal the sum of the components?

- Only raw values add up: smoothed logs (medians of 20 steps, running averages) disagree by 2 to 35 %. A constant factor
  is reported after 5 steps, anything else after 50 and in milder words where rows are sparse.
- One finding per run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf, isfinite
from typing import Any, Final

TOLERANCE: Final = 1e-3
"""Relative difference that rounding explains: raw values agree to 5e-6."""
STEADY: Final = 0.05
"""How much a constant factor may change, as a part of what it differs from 1: a term beside the sum begins small."""
CONSTANT_AFTER: Final = 5
IRREGULAR_AFTER: Final = 50


class SumAudit:
    """Compares totals with sums.

    Attributes:
        ratio: total / sum at the first disagreement of the present row.
        since: Step of that disagreement, or None.
        found: "factor" or "difference" once reported.
    """

    __slots__ = ("constant", "count", "found", "matches", "ratio", "since", "smallest", "widest")

    def __init__(self) -> None:
        self.count = 0
        self.matches = 0
        self.ratio = 1.0
        self.smallest = self.widest = 1.0
        self.constant = True
        self.since: int | None = None
        self.found: str | None = None

    def take(self, step: int, total: float, parts: float) -> str | None:
        """Compare one step.

        Args:
            step: Global step.
            total: The total that was trained on.
            parts: Sum of the components.

        Returns:
            "factor" or "difference" when a disagreement is certain, once; else None.
        """
        if not (isfinite(total) and isfinite(parts)):
            return None
        if abs(total - parts) <= TOLERANCE * max(abs(total), 1e-12):
            if self.count:
                self.matches += 1
                if self.matches * 4 > self.count:
                    self.count = self.matches = 0
            return None
        ratio = total / parts if parts else float("inf")
        if not self.count:
            self.since, self.ratio, self.constant = step, ratio, True
            self.smallest = self.widest = ratio
        self.count += 1
        self.smallest, self.widest = min(self.smallest, ratio), max(self.widest, ratio)
        drift = min(TOLERANCE * abs(self.ratio), STEADY * abs(self.ratio - 1.0))
        self.constant = self.constant and not self.matches and abs(ratio - self.ratio) <= drift
        if self.found is not None:
            return None
        if self.constant and self.count >= CONSTANT_AFTER and isfinite(ratio):
            self.found = "factor"
        elif not self.constant and self.count >= IRREGULAR_AFTER:
            self.found = "difference"
        return self.found

    def passes(self, totals: Sequence[float | None], sums: Sequence[float]) -> bool:
        """Whether all of these agree, and none before disagreed, so that there is nothing to take."""
        return not self.count and all(
            type(total) is float and abs(total - parts) <= TOLERANCE * max(abs(total), 1e-12) < inf
            for total, parts in zip(totals, sums, strict=True)
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain data from which `load_state_dict` restores exactly."""
        return {name: getattr(self, name) for name in self.__slots__}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for name in self.__slots__:
            setattr(self, name, state[name])
