"""How far each loss has come down, and what it counts in the total: to tell what is learnt from what is broken.

Plain data, fed with every step; constant memory for a fixed set of components.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Final

FIRST: Final = 20
"""Steps of which the mean is where a loss began."""
LEARNT: Final = 1e-3
"""Part of its beginning at which a loss has nothing left to teach."""
NEAR: Final = 0.1
"""Part of its beginning from which a loss may well come to exactly zero."""


class Course:
    """Of all losses of one run."""

    def __init__(self) -> None:
        self._first: dict[str, list[float]] = {}  # sum and number of its first values
        self._last: dict[str, float] = {}  # its last value that was not zero
        self._now: Mapping[str, float] = {}
        self._weights: Mapping[str, float] = {}

    def take(self, losses: Mapping[str, float], weights: Mapping[str, float] | None) -> None:
        """Take one step."""
        self._now, self._weights = losses, weights or {}
        for name, value in losses.items():
            self._take(name, value)

    def _take(self, name: str, value: float) -> None:
        if value and isfinite(value):
            self._last[name] = abs(value)
            first = self._first.get(name)
            if first is None:
                first = self._first[name] = [0.0, 0]
            if first[1] < FIRST:
                first[0] += abs(value)
                first[1] += 1

    def take_many(self, columns: Mapping[str, Sequence[float]]) -> None:
        """Take several steps at once, of losses that count as they are; by component."""
        self._now, self._weights = {name: values[-1] for name, values in columns.items()}, {}
        for name, values in columns.items():
            if self._first.get(name, (0.0, 0))[1] < FIRST:
                for value in values:
                    self._take(name, value)
            else:
                self._take(name, next((value for value in reversed(values) if value and isfinite(value)), 0.0))

    def learnt(self, component: str) -> float | None:
        """The level of a loss that has come down to next to nothing, or None."""
        value, began = self._now.get(component), self._began(component)
        return abs(value) if value is not None and began and abs(value) <= LEARNT * began else None

    def before_zero(self, component: str) -> float | None:
        """Its last value that was not zero, where it had come down a long way by then; or None."""
        value, began = self._last.get(component), self._began(component)
        return value if value is not None and began and value <= NEAR * began else None

    def weightless(self, component: str) -> bool:
        """Whether it counts nothing in the total at this step."""
        return self._weights.get(component) == 0

    def _began(self, component: str) -> float:
        total, count = self._first.get(component, (0.0, 0))
        return total / count if count else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Plain data from which `load_state_dict` restores exactly, from the next step on."""
        return {"first": {name: list(each) for name, each in self._first.items()}, "last": dict(self._last)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._first = {name: list(each) for name, each in state["first"].items()}
        self._last = dict(state["last"])
