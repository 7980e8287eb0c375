"""From curves to findings: who has stalled while the others improve, who dominates, who is zero or gone.

- The only place where components are compared with each other; runs when a cell is complete, not at every update.
- What was said is remembered in the component (``raised``), so that a state is told once per episode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import expm1
from typing import TYPE_CHECKING, Final

from . import advice
from .advice import Rate, Situation
from .clock import Clock
from .component import Component
from .finding import Finding, Severity, Verdict
from .settings import CAP, CAP_HALVED, CAP_LEARNT, HALVED, LEARNT, SMALL_SHARE, Settings

if TYPE_CHECKING:
    from .watcher import Watcher

LONG_STEPS: Final = 100
LONG_EPOCHS: Final = 3
"""With one value per epoch: this many of them are long."""
DOMINATES: Final = 0.85
DOMINATES_HIGH: Final = 0.6
"""Share that is too much for a component above its typical range."""
MOVED: Final = 0.9
"""A new episode of flatness needs a unit without it, and a level below this part of the last one."""
FEW: Final = 3
"""With fewer components a large share says nothing."""
SEVERITY: Final[Mapping[str, Severity]] = {
    "stalled": "warning",
    "diverging": "warning",
    "zero": "warning",
    "non_finite": "error",
}
"""Severity of a state in a verdict; the others are "info"."""


class Judge:
    """Compares the components of one watcher.

    Args:
        settings: The test's settings.
        ranges: Typical final values by component.
    """

    def __init__(self, settings: Settings, ranges: Mapping[str, tuple[float, float]]) -> None:
        self.settings = settings
        self.ranges = ranges

    @staticmethod
    def long(clock: Clock) -> float:
        """Updates after which an absence, or a row of zeros, is long."""
        if clock.per_epoch_feed:
            return LONG_EPOCHS
        return max(LONG_STEPS / clock.stride, clock.level_span)

    def judge(self, watcher: Watcher, due: Sequence[Component], news: list[Finding]) -> None:
        """Add what is new about the components whose cell was completed, and about missing ones.

        Args:
            watcher: The watcher.
            due: Components whose cell was completed.
            news: Findings are appended here.
        """
        for component in due:
            component.seen = watcher.updates
        if len(due) < len(watcher.components):
            self._missing(watcher, news)
        for component in due:
            if (
                component.flat_checks
                or component.level.diverging is not None
                or component.zero_cells
                or component.oscillating is not None
                or component.raised
            ):
                self._judge_one(watcher, component, news)
            if component.index % watcher.clock.cells_per_level == 0:
                self._dominating(watcher, component, news)

    def _judge_one(self, watcher: Watcher, component: Component, news: list[Finding]) -> None:
        component.raised.pop("missing", None)
        self._zero(watcher, component, news)
        if component.bad_since is not None:
            return
        if component.level.diverging is None:
            component.raised.pop("diverging", None)
        else:
            since = self._step_at(watcher, component, component.level.diverging)
            self._tell(watcher, component, "diverging", "warning", since, news)
        if component.oscillating is not None:
            since = self._step_at(watcher, component, component.oscillating)
            self._tell(watcher, component, "oscillating", "info", since, news)
        else:
            component.raised.pop("oscillating", None)
        self._flat(watcher, component, news)

    def _flat(self, watcher: Watcher, component: Component, news: list[Finding]) -> None:
        if not component.flat_checks and component.last_flat is not None:
            rest = watcher.clock.unit or watcher.clock.warmup
            lower = component.stand < MOVED * component.told_level
            if lower and component.updates - component.last_flat >= rest:
                component.raised.pop("stalled", None)
                component.raised.pop("flat", None)
        state = self.state(watcher, component) if component.flat else ""
        if state == "stalled" or (state == "flat" and "stalled" not in component.raised):
            level: Severity = "warning" if state == "stalled" else "info"
            if state not in component.raised:
                component.told_level = component.stand
            self._tell(watcher, component, state, level, self._flat_since(watcher, component), news)

    def state(self, watcher: Watcher, component: Component) -> str:
        """The state of one component, among all."""
        if component.bad_since is not None:
            return "non_finite"
        if "missing" in component.raised:
            return "missing"
        if "zero" in component.raised:
            return "zero"
        if component.level.diverging is not None:
            return "diverging"
        if component.flat:
            if self._good_enough(watcher, component):
                return "converged"
            needed = 2 if self.settings.quiet else 1
            return "stalled" if len(self.improving_others(watcher, component)) >= needed else "flat"
        if component.oscillating is not None:
            return "oscillating"
        if component.improving:
            return "improving"
        return "unclear" if component.checked and component.updates >= watcher.clock.warmup else "warming up"

    def _good_enough(self, watcher: Watcher, component: Component) -> bool:
        """Whether a flat curve has converged, rather than stalled."""
        if component.level.level is None:
            return True
        level, peak = component.standing or 0.0, component.level.peak
        fallen = 1 - level / peak if peak > 0 else 0.0
        if component.typical is not None:
            high = component.typical[1]
            cap = CAP_LEARNT if fallen >= LEARNT else CAP_HALVED if fallen >= HALVED else CAP
            return level <= cap * high
        return fallen >= HALVED or self.share(watcher, component) < SMALL_SHARE

    @staticmethod
    def improving_others(watcher: Watcher, component: Component) -> list[str]:
        """Names of the other components that improve and are not flat."""
        return [
            other.name
            for other in watcher.components.values()
            if other is not component and other.improving and not other.flat_checks and other.bad_since is None
        ]

    @staticmethod
    def share(watcher: Watcher, component: Component) -> float:
        """Share of the sum of levels, 0 to 1."""
        total = sum(other.level.level or 0.0 for other in watcher.components.values() if "missing" not in other.raised)
        return (component.level.level or 0.0) / total if total > 0 else 0.0

    def _dominating(self, watcher: Watcher, component: Component, news: list[Finding]) -> None:
        if component.updates < watcher.clock.warmup or len(watcher.components) < FEW:
            return
        if component.level.level is None or component.bad_since is not None:
            return
        wanted = component.typical
        high = wanted is not None and component.level.level > wanted[1]
        share = self.share(watcher, component)
        if share > (DOMINATES_HIGH if high else DOMINATES):
            serious = share > DOMINATES and (high or wanted is None) and not component.improving
            self._tell(watcher, component, "dominating", "warning" if serious else "info", watcher.step, news)
        elif share < 0.9 * DOMINATES_HIGH:
            component.raised.pop("dominating", None)

    def _zero(self, watcher: Watcher, component: Component, news: list[Finding]) -> None:
        updates = component.zero_cells * watcher.clock.cell
        if not component.zero_cells:
            component.raised.pop("zero", None)
        elif updates >= self.long(watcher.clock) and "zero" not in component.raised:
            since = self._step_at(watcher, component, component.updates - round(updates) + 1)
            component.raised["zero"] = since
            text = advice.zero(component.name, since, round(updates * watcher.clock.stride), watcher.axis)
            news.append(Finding(component.name, "zero", "warning", watcher.step, since, text))

    def _missing(self, watcher: Watcher, news: list[Finding]) -> None:
        limit = self.long(watcher.clock) + watcher.clock.cell
        for component in watcher.components.values():
            gone = watcher.updates - component.seen
            if gone <= limit or "missing" in component.raised:
                continue
            since = watcher.step - round(gone * watcher.clock.stride)
            component.raised["missing"] = since
            text = advice.missing(component.name, since, watcher.step - since, watcher.axis)
            news.append(Finding(component.name, "missing", "info", watcher.step, since, text))

    def _tell(
        self, watcher: Watcher, component: Component, state: str, level: Severity, since: int, news: list[Finding]
    ) -> None:
        """Add a finding unless it was told in this episode."""
        if state in component.raised:
            return
        component.raised[state] = since
        words = {
            "stalled": advice.stalled,
            "flat": advice.flat,
            "diverging": advice.diverging,
            "dominating": advice.dominating,
            "oscillating": advice.oscillating,
        }[state]
        text = words(self._situation(watcher, component, since))
        news.append(Finding(component.name, state, level, watcher.step, since, text))

    @staticmethod
    def _step_at(watcher: Watcher, component: Component, update: int) -> int:
        """Step of the component's update number `update` (from 1)."""
        return max(component.first_step, watcher.step - round((component.updates - update) * watcher.clock.stride))

    def _flat_since(self, watcher: Watcher, component: Component) -> int:
        if component.flat_start is None:
            return watcher.step
        return self._step_at(watcher, component, component.flat_start + 1)

    @staticmethod
    def _rate(watcher: Watcher, component: Component) -> Rate | None:
        """Change in % per epoch, or per 1000 steps where no epoch is known."""
        if component.rate is None:
            return None
        clock = watcher.clock
        span, per = (1000 / clock.stride, "1000 steps") if clock.epoch is None else (clock.epoch, "epoch")
        fall, error = component.rate, component.rate_error
        change, low, high = (100 * expm1(-value * span) for value in (fall, fall + error, fall - error))
        return Rate(change, low, high, per)

    def _situation(self, watcher: Watcher, component: Component, since: int) -> Situation:
        clock, level = watcher.clock, component.standing or 0.0
        end = None
        if clock.plan is not None and clock.planned_steps is not None and component.rate is not None:
            remaining = clock.plan - watcher.updates
            if remaining > 0:
                likely, best = advice.forecast(level, component.rate, component.rate_error, remaining)
                end = (round(clock.planned_steps), likely, best)
        return Situation(
            component=component.name,
            level=level,
            peak=component.level.peak,
            range=component.typical,
            share=self.share(watcher, component),
            rate=self._rate(watcher, component),
            window=round(component.span * clock.stride),
            since=since,
            step=watcher.step,
            end=end,
            improving=self.improving_others(watcher, component),
            others=len(watcher.components) - 1,
            cut=watcher.lr_cut,
            axis=watcher.axis,
        )

    def verdict(self, watcher: Watcher, component: Component) -> Verdict:
        """The present state of one component, for a table."""
        state = self.state(watcher, component)
        since = self._since(watcher, component, state)
        rate = self._rate(watcher, component)
        situation = self._situation(watcher, component, since)
        return Verdict(
            component=component.name,
            state=state,
            severity=SEVERITY.get(state, "info"),
            level=component.standing,
            range=situation.range,
            rate=None if rate is None else rate.change,
            rate_low=None if rate is None else rate.low,
            rate_high=None if rate is None else rate.high,
            per="1000 steps" if watcher.clock.epoch is None else "epoch",
            share=None if component.level.level is None else situation.share,
            step=watcher.step,
            since=since,
            text=advice.verdict(state, situation, component.level.level is not None),
        )

    def _since(self, watcher: Watcher, component: Component, state: str) -> int:
        if state in component.raised:
            return component.raised[state]
        if state == "converged":
            return self._flat_since(watcher, component)
        if state == "non_finite" and component.bad_since is not None:
            return self._step_at(watcher, component, component.bad_since + 1)
        return component.first_step
