"""How far each loss has come down, and what it counts in the total: to tell what is learnt from what is broken.

Plain data, fed with every step; constant memory for a fixed set of components.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from statistics import median
from typing import Any, Final

FIRST: Final = 20
"""Steps of which the mean is where a loss began."""
LEARNT: Final = 1e-3
"""Part of its beginning at which a loss has nothing left to teach."""
NEAR: Final = 0.1
"""Part of its beginning from which a loss may well come to exactly zero."""
NEWEST: Final = 5
"""Values other than zero of which the median is where it was last: one batch says little."""
STAYS: Final = 20
"""Steps in a row with nothing to learn from after which it stays so."""


class Course:
    """Of all losses of one run."""

    def __init__(self) -> None:
        self._first: dict[str, list[float]] = {}  # sum and number of its first values
        self._last: dict[str, list[float]] = {}  # its last values that were not zero
        self._low: dict[str, int] = {}  # steps in a row at which it was next to nothing
        self._now: Mapping[str, float] = {}
        self._weights: Mapping[str, float] = {}

    def take(self, losses: Mapping[str, float], weights: Mapping[str, float] | None) -> None:
        """Take one step."""
        self._now, self._weights = losses, weights or {}
        for name, value in losses.items():
            self._take(name, value)

    def _take(self, name: str, value: float) -> None:
        if value and isfinite(value):
            last = self._last.setdefault(name, [])
            last.append(abs(value))
            del last[:-NEWEST]
            first = self._first.get(name)
            if first is None:
                first = self._first[name] = [0.0, 0]
            if first[1] < FIRST:
                first[0] += abs(value)
                first[1] += 1
        self._low[name] = self._low.get(name, 0) + 1 if self._is_nothing(name, value) else 0

    def _is_nothing(self, name: str, value: float) -> bool:
        began = self._began(name)
        return bool(began) and abs(value) <= LEARNT * began

    def take_many(self, columns: Mapping[str, Sequence[float]]) -> None:
        """Take several steps at once, of losses that count as they are; by component."""
        self._now, self._weights = {name: values[-1] for name, values in columns.items()}, {}
        for name, values in columns.items():
            whole = self._first.get(name, (0.0, 0))[1] >= FIRST
            if whole and isfinite(sum(values)) and min(values) > LEARNT * self._began(name):
                last = self._last[name]
                last.extend(values[-NEWEST:])
                del last[:-NEWEST]
                self._low[name] = 0
            else:
                for value in values:
                    self._take(name, value)

    def learnt(self, component: str) -> bool:
        """Whether a loss has come down to next to nothing, and stays there."""
        return self._low.get(component, 0) >= STAYS and (
            self._now.get(component) != 0 or self.before_zero(component) is not None
        )

    def nothing(self, component: str) -> float | None:
        """What there is to learn from it at this step, if that is next to nothing of what it began with; or None."""
        value = self._now.get(component)
        return abs(value) if value is not None and self._is_nothing(component, value) else None

    def before_zero(self, component: str) -> float | None:
        """Where it was before it was zero, where it had come down a long way by then; or None."""
        last, began = self._last.get(component), self._began(component)
        value = median(last) if last else None
        return value if value is not None and began and value <= NEAR * began else None

    def weightless(self, component: str) -> bool:
        """Whether it counts nothing in the total at this step."""
        return self._weights.get(component) == 0

    def _began(self, component: str) -> float:
        total, count = self._first.get(component, (0.0, 0))
        return total / count if count else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Plain data from which `load_state_dict` restores exactly, from the next step on."""
        return {
            "first": {name: list(each) for name, each in self._first.items()},
            "last": {name: list(each) for name, each in self._last.items()},
            "low": dict(self._low),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._first = {name: list(each) for name, each in state["first"].items()}
        self._last = {name: list(each) for name, each in state["last"].items()}
        self._low = dict(state.get("low", {}))
