"""From curves to findings: who has stalled while the others improve, who dominates, who is zero or gone.

- Runs when a cell is complete, not at every update.
- What was said is remembered in the component (``raised``), so that a state is told once per episode.
- While the length of an epoch is still to be learnt, nothing is said of flatness, divergence and shares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Final

from . import advice, outlook
from .causes import blocked_by
from .clock import Clock
from .component import Component
from .finding import Finding, Severity, Verdict
from .known import Range, known
from .scene import Scene
from .settings import Settings
from .situation import evidence_of
from .standing import SEVERITY, flat_since, has_stopped, outcome_of, rate_of, share_of, situation_of, state_of

LONG_STEPS: Final = 100
LONG_EPOCHS: Final = 3
"""With one value per epoch: this many of them are long."""
NEW_EPOCHS: Final = 2
NEW_STEPS: Final = 20
"""After so many epochs and steps a component that comes is new."""
DOMINATES: Final = 0.85
DOMINATES_HIGH: Final = 0.6
"""Share that is too much for a component above its typical range."""
MOVED: Final = 0.9
"""A new episode of flatness needs a unit without it, and a level below this part of the last one."""
FEW: Final = 3
"""With fewer components a large share says nothing."""


class Judge:
    """Compares the components of one run.

    Args:
        settings: The test's settings.
        ranges: Typical final values by component; None is what is known by name.
    """

    def __init__(self, settings: Settings, ranges: Mapping[str, Range] | None) -> None:
        self.settings = settings
        self.ranges = ranges

    def range_of(self, name: str, names: Sequence[str]) -> Range | None:
        """Typical final values of a component, or None.

        Args:
            name: Its name.
            names: Names of all components.
        """
        if self.ranges is not None:
            return self.ranges.get(name)
        found = known(name, names)
        return None if found is None else found.range

    @staticmethod
    def long(clock: Clock) -> float:
        """Steps after which an absence, or a row of zeros, is long."""
        return LONG_EPOCHS if clock.per_epoch_feed else max(LONG_STEPS, clock.level_span, 3 * clock.stride)

    def settled(self, clock: Clock) -> float:
        """Steps after which the components of a run are known: two epochs, where those are fewer than are long."""
        return min(self.long(clock), max(NEW_EPOCHS * (clock.epoch or inf), NEW_STEPS, 3 * clock.stride))

    def judge(self, scene: Scene, due: Sequence[Component], news: list[Finding]) -> None:
        """Add what is new about the components whose cell was completed, and about missing ones.

        Args:
            scene: Where the run stands.
            due: Components whose cell was completed.
            news: Findings are appended here.
        """
        if len(due) < len(scene.components):
            self._missing(scene, news)
        for component in due:
            if (
                component.flat_checks
                or component.level.diverging is not None
                or component.zero_cells
                or component.oscillating is not None
                or component.raised
                or component.name in scene.untrained
            ):
                self._judge_one(scene, component, news)
            if component.index % scene.clock.cells_per_level == 0 and not scene.held:
                self._dominating(scene, component, news)

    def came(self, scene: Scene, component: Component, names: Sequence[str], before: int, news: list[Finding]) -> None:
        """Say that a component is new, unless it takes turns with others.

        Args:
            scene: Where the run stands.
            component: That came at this step.
            names: Of all that came at it.
            before: The step before.
            news: Findings are appended here.
        """
        others = [each for each in scene.components.values() if each is not component]
        gone = any(each.now > before and each.name not in names for each in others)
        first = min((each.begin for each in others), default=scene.step)
        if not gone and scene.step - first >= self.settled(scene.clock):
            text = advice.new(component.name, scene.step, scene.axis)
            news.append(Finding(component.name, "new", "info", scene.step, scene.step, text))

    def _judge_one(self, scene: Scene, component: Component, news: list[Finding]) -> None:
        component.raised.pop("missing", None)
        self._zero(scene, component, news)
        if component.bad_since is not None:
            return
        if component.level.diverging is None:
            component.raised.pop("diverging", None)
        elif not scene.held:
            since = component.begin + component.level.diverging - 1
            self._tell(scene, component, "diverging", "warning", since, news)
        if component.oscillating is not None:
            self._tell(scene, component, "oscillating", "info", component.oscillating - 1, news)
        else:
            component.raised.pop("oscillating", None)
        if not scene.held:
            self._flat(scene, component, news)

    def _flat(self, scene: Scene, component: Component, news: list[Finding]) -> None:
        if not component.flat_checks and component.last_flat is not None and not scene.rates.rising:
            rest = scene.clock.unit or scene.clock.warmup
            lower = component.stand < MOVED * component.told_level
            if lower and component.now - component.last_flat >= rest:
                component.raised.pop("stalled", None)
                component.raised.pop("flat", None)
        state = state_of(scene, self.settings, component) if has_stopped(scene, self.settings, component) else ""
        if state == "stalled" or (state == "flat" and "stalled" not in component.raised):
            if state not in component.raised:
                component.told_level = component.stand
            self._tell(scene, component, state, SEVERITY.get(state, "info"), flat_since(scene, component), news)

    def _dominating(self, scene: Scene, component: Component, news: list[Finding]) -> None:
        if component.elapsed < scene.clock.warmup or len(scene.components) < FEW:
            return
        if component.level.level is None or component.bad_since is not None or component.name in scene.untrained:
            return  # what trains nothing pulls at nothing
        high = component.typical is not None and component.level.level > component.typical[1]
        share = share_of(scene, component)
        if share > (DOMINATES_HIGH if high else DOMINATES):
            serious = share > DOMINATES and high and not component.improving
            self._tell(scene, component, "dominating", "warning" if serious else "info", scene.step, news)
        elif share < 0.9 * DOMINATES_HIGH:
            component.raised.pop("dominating", None)

    def _zero(self, scene: Scene, component: Component, news: list[Finding]) -> None:
        steps = component.zero_cells * scene.clock.cell
        if not component.zero_cells:
            component.raised.pop("zero", None)
        elif steps >= self.long(scene.clock) and "zero" not in component.raised:
            since = component.begin if component.zero_from is None else component.zero_from
            component.raised["zero"] = since
            before = scene.measured.course.before_zero(component.name)
            cause = blocked_by(scene, self.settings, component)
            cause = None if cause is None or cause.name != "no_targets" or before is not None else cause
            text = advice.zero(component.name, since, scene.step + 1 - since, scene.axis, before, cause)
            level: Severity = "warning" if before is None else "info"
            name, evidence = (None, {}) if cause is None else (cause.name, dict(cause.evidence))
            news.append(Finding(component.name, "zero", level, scene.step, since, text, name, evidence))

    def _missing(self, scene: Scene, news: list[Finding]) -> None:
        limit = self.long(scene.clock) + scene.clock.cell
        for component in scene.components.values():
            since = component.now - 1
            if scene.step - since <= limit or "missing" in component.raised:
                continue
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
        situation = situation_of(scene, self.settings, component, since)
        text = advice.WORDS[state](situation)
        cause = situation.cause if state in ("stalled", "flat") else situation.blocked
        name, evidence = None if cause is None else cause.name, evidence_of(situation, cause)
        news.append(Finding(component.name, state, level, scene.step, since, text, name, evidence))

    def verdict(self, scene: Scene, component: Component) -> Verdict:
        """The present state of one component, for a table."""
        state = outcome_of(scene, self.settings, component)
        since = self._since(scene, component, state)
        situation, rate = situation_of(scene, self.settings, component, since), rate_of(scene, component)
        why = self._traced(scene, since) if state == "non_finite" else ""
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
            text=outlook.verdict(state, situation, component.standing is not None, why),
            outlook=outlook.outlook(state, situation, component.standing, why),
        )

    @staticmethod
    def _traced(scene: Scene, since: int) -> str:
        """Where a loss that is not finite came from, in words; "" where nobody looked."""
        bad = [each.bad_since for each in scene.components.values() if each.bad_since is not None]
        return scene.measured.traced(min(bad, default=since), since)

    def _since(self, scene: Scene, component: Component, state: str) -> int:
        if state in component.raised:
            return component.raised[state]
        if state in ("converged", "flat", "stalled"):
            return flat_since(scene, component)
        if state == "non_finite" and component.bad_since is not None:
            return component.bad_since
        return component.begin
