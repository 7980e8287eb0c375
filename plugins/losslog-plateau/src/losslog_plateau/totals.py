"""Findings on the total: not finite though its parts are, or not their sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Final

from . import advice
from .audit import SumAudit
from .finding import Finding
from .reading import number
from .scene import Scene

TOTAL: Final = "total"


class Totals:
    """Watches the totals of one run."""

    def __init__(self) -> None:
        self._audit = SumAudit()
        self._bad = False

    def take(self, scene: Scene, total: float, parts: float, news: list[Finding]) -> None:
        """Take the total of one step.

        Args:
            scene: Where the run stands.
            total: The total that was trained on.
            parts: Sum of the components.
            news: Findings are appended here.
        """
        if not isfinite(total):
            if isfinite(parts) and not self._bad:
                news.append(non_finite(scene, TOTAL, total))
            self._bad = True
            return
        self._bad = False
        audit = self._audit
        kind = audit.take(scene.step, total, parts)
        if kind is None:
            return
        since = scene.step if audit.since is None else audit.since
        smoothed = scene.clock.stride > 1 or audit.smallest < 1 < audit.widest
        if kind == "factor":
            text = advice.sum_factor(total, parts, audit.ratio)
        else:
            text = advice.sum_difference(audit.smallest, audit.widest, smoothed)
        level: Final = "info" if smoothed and kind != "factor" else "warning"
        evidence = {"smallest_ratio": audit.smallest, "largest_ratio": audit.widest, "total": total, "sum": parts}
        finite = {name: value for name, value in evidence.items() if isfinite(value)}
        news.append(Finding(TOTAL, "sum_mismatch", level, scene.step, since, text, None, finite))

    def take_many(
        self, scene: Scene, steps: Sequence[int], totals: Sequence[float | None], parts: Sequence[float]
    ) -> None:
        """Take the totals of several steps; what `take` would tell of is not told."""
        if self._bad or not self._audit.passes(totals, parts):
            for step, total, part in zip(steps, totals, parts, strict=True):
                scene.step = step
                if total is not None:
                    self.take(scene, number(total), part, [])

    def state_dict(self) -> dict[str, Any]:
        """Plain data from which `load_state_dict` restores exactly."""
        return {"bad": self._bad, "audit": self._audit.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._bad = state["bad"]
        self._audit.load_state_dict(state["audit"])


def non_finite(scene: Scene, component: str, value: float) -> Finding:
    """A loss that is NaN or infinite."""
    text = advice.non_finite(component, value, scene.step, scene.axis, first=scene.updates <= 2)
    return Finding(component, "non_finite", "error", scene.step, scene.step, text)
