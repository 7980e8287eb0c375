"""From curves to findings: who has stalled while the others improve, who dominates, who is zero or gone.

- The only place where components are compared with each other; runs when a cell is complete, not at every update.
- What was said is remembered in the component (``raised``), so that a state is told once per episode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import expm1
from typing import Final

from . import advice
from .advice import Rate, Situation
from .clock import Clock
from .component import Component
from .finding import Finding, Severity, Verdict
from .scene import Scene
from .settings import CAP, CAP_HALVED, CAP_LEARNT, HALVED, LEARNT, SMALL_SHARE, Settings

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
    """Compares the components of one scene.

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

    def judge(self, scene: Scene, due: Sequence[Component], news: list[Finding]) -> None:
        """Add what is new about the components whose cell was completed, and about missing ones.

        Args:
            scene: Where the run stands.
            due: Components whose cell was completed.
            news: Findings are appended here.
        """
        for component in due:
            component.seen = scene.updates
        if len(due) < len(scene.components):
            self._missing(scene, news)
        for component in due:
            if (
                component.flat_checks
                or component.level.diverging is not None
                or component.zero_cells
                or component.oscillating is not None
                or component.raised
            ):
                self._judge_one(scene, component, news)
            if component.index % scene.clock.cells_per_level == 0:
                self._dominating(scene, component, news)

    def _judge_one(self, scene: Scene, component: Component, news: list[Finding]) -> None:
        component.raised.pop("missing", None)
        self._zero(scene, component, news)
        if component.bad_since is not None:
            return
        if component.level.diverging is None:
            component.raised.pop("diverging", None)
        else:
            since = self._step_at(scene, component, component.level.diverging)
            self._tell(scene, component, "diverging", "warning", since, news)
        if component.oscillating is not None:
            since = self._step_at(scene, component, component.oscillating)
            self._tell(scene, component, "oscillating", "info", since, news)
        else:
            component.raised.pop("oscillating", None)
        self._flat(scene, component, news)

    def _flat(self, scene: Scene, component: Component, news: list[Finding]) -> None:
        if not component.flat_checks and component.last_flat is not None:
            rest = scene.clock.unit or scene.clock.warmup
            lower = component.stand < MOVED * component.told_level
            if lower and component.updates - component.last_flat >= rest:
                component.raised.pop("stalled", None)
                component.raised.pop("flat", None)
        state = self.state(scene, component) if component.flat else ""
        if state == "stalled" or (state == "flat" and "stalled" not in component.raised):
            level: Severity = "warning" if state == "stalled" else "info"
            if state not in component.raised:
                component.told_level = component.stand
            self._tell(scene, component, state, level, self._flat_since(scene, component), news)

    def state(self, scene: Scene, component: Component) -> str:
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
            if self._good_enough(scene, component):
                return "converged"
            needed = 2 if self.settings.quiet else 1
            return "stalled" if len(self.improving_others(scene, component)) >= needed else "flat"
        if component.oscillating is not None:
            return "oscillating"
        if component.improving:
            return "improving"
        return "unclear" if component.checked and component.updates >= scene.clock.warmup else "warming up"

    def _good_enough(self, scene: Scene, component: Component) -> bool:
        """Whether a flat curve has converged, rather than stalled."""
        if component.level.level is None:
            return True
        level, peak = component.standing or 0.0, component.level.peak
        fallen = 1 - level / peak if peak > 0 else 0.0
        if component.typical is not None:
            high = component.typical[1]
            cap = CAP_LEARNT if fallen >= LEARNT else CAP_HALVED if fallen >= HALVED else CAP
            return level <= cap * high
        return fallen >= HALVED or self.share(scene, component) < SMALL_SHARE

    @staticmethod
    def improving_others(scene: Scene, component: Component) -> list[str]:
        """Names of the other components that improve and are not flat."""
        return [
            other.name
            for other in scene.components.values()
            if other is not component and other.improving and not other.flat_checks and other.bad_since is None
        ]

    @staticmethod
    def share(scene: Scene, component: Component) -> float:
        """Share of the sum of levels, 0 to 1."""
        total = sum(other.level.level or 0.0 for other in scene.components.values() if "missing" not in other.raised)
        return (component.level.level or 0.0) / total if total > 0 else 0.0

    def _dominating(self, scene: Scene, component: Component, news: list[Finding]) -> None:
        if component.updates < scene.clock.warmup or len(scene.components) < FEW:
            return
        if component.level.level is None or component.bad_since is not None:
            return
        wanted = component.typical
        high = wanted is not None and component.level.level > wanted[1]
        share = self.share(scene, component)
        if share > (DOMINATES_HIGH if high else DOMINATES):
            serious = share > DOMINATES and (high or wanted is None) and not component.improving
            self._tell(scene, component, "dominating", "warning" if serious else "info", scene.step, news)
        elif share < 0.9 * DOMINATES_HIGH:
            component.raised.pop("dominating", None)

    def _zero(self, scene: Scene, component: Component, news: list[Finding]) -> None:
        updates = component.zero_cells * scene.clock.cell
        if not component.zero_cells:
            component.raised.pop("zero", None)
        elif updates >= self.long(scene.clock) and "zero" not in component.raised:
            since = self._step_at(scene, component, component.updates - round(updates) + 1)
            component.raised["zero"] = since
            text = advice.zero(component.name, since, round(updates * scene.clock.stride), scene.axis)
            news.append(Finding(component.name, "zero", "warning", scene.step, since, text))

    def _missing(self, scene: Scene, news: list[Finding]) -> None:
        limit = self.long(scene.clock) + scene.clock.cell
        for component in scene.components.values():
            gone = scene.updates - component.seen
            if gone <= limit or "missing" in component.raised:
                continue
            since = scene.step - round(gone * scene.clock.stride)
            component.raised["missing"] = since
            text = advice.missing(component.name, since, scene.step - since, scene.axis)
            news.append(Finding(component.name, "missing", "info", scene.step, since, text))

    def _tell(
        self, scene: Scene, component: Component, state: str, level: Severity, since: int, news: list[Finding]
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
        text = words(self._situation(scene, component, since))
        news.append(Finding(component.name, state, level, scene.step, since, text))

    @staticmethod
    def _step_at(scene: Scene, component: Component, update: int) -> int:
        """Step of the component's update number `update` (from 1)."""
        return max(component.first_step, scene.step - round((component.updates - update) * scene.clock.stride))

    def _flat_since(self, scene: Scene, component: Component) -> int:
        if component.flat_start is None:
            return scene.step
        return self._step_at(scene, component, component.flat_start + 1)

    @staticmethod
    def _rate(scene: Scene, component: Component) -> Rate | None:
        """Change in % per epoch, or per 1000 steps where no epoch is known."""
        if component.rate is None:
            return None
        clock = scene.clock
        span, per = (1000 / clock.stride, "1000 steps") if clock.epoch is None else (clock.epoch, "epoch")
        fall, error = component.rate, component.rate_error
        change, low, high = (100 * expm1(-value * span) for value in (fall, fall + error, fall - error))
        return Rate(change, low, high, per)

    def _situation(self, scene: Scene, component: Component, since: int) -> Situation:
        clock, level = scene.clock, component.standing or 0.0
        end = None
        if clock.plan is not None and clock.planned_steps is not None and component.rate is not None:
            remaining = clock.plan - scene.updates
            if remaining > 0:
                likely, best = advice.forecast(level, component.rate, component.rate_error, remaining)
                end = (round(clock.planned_steps), likely, best)
        return Situation(
            component=component.name,
            level=level,
            peak=component.level.peak,
            range=component.typical,
            share=self.share(scene, component),
            rate=self._rate(scene, component),
            window=round(component.span * clock.stride),
            since=since,
            step=scene.step,
            end=end,
            improving=self.improving_others(scene, component),
            others=len(scene.components) - 1,
            cut=scene.lr_cut,
            axis=scene.axis,
        )

    def verdict(self, scene: Scene, component: Component) -> Verdict:
        """The present state of one component, for a table."""
        state = self.state(scene, component)
        since = self._since(scene, component, state)
        rate = self._rate(scene, component)
        situation = self._situation(scene, component, since)
        return Verdict(
            component=component.name,
            state=state,
            severity=SEVERITY.get(state, "info"),
            level=component.standing,
            range=situation.range,
            rate=None if rate is None else rate.change,
            rate_low=None if rate is None else rate.low,
            rate_high=None if rate is None else rate.high,
            per="1000 steps" if scene.clock.epoch is None else "epoch",
            share=None if component.level.level is None else situation.share,
            step=scene.step,
            since=since,
            text=advice.verdict(state, situation, component.level.level is not None),
        )

    def _since(self, scene: Scene, component: Component, state: str) -> int:
        if state in component.raised:
            return component.raised[state]
        if state == "converged":
            return self._flat_since(scene, component)
        if state == "non_finite" and component.bad_since is not None:
            return self._step_at(scene, component, component.bad_since + 1)
        return component.first_step
