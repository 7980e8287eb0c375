"""Where one component stands among all: its state, its share, who improves while it does not.

Pure functions of the scene. The only place where components are compared with each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import expm1, hypot
from typing import Final

from . import advice
from .causes import PROOFS, blocked_by, cause_of, cut_words, later_cut
from .component import Component
from .finding import Severity
from .flatness import fall_over
from .known import FLOORED, known
from .scene import Scene
from .settings import CAP, CAP_HALVED, CAP_LEARNT, HALVED, LEARNT, SMALL_SHARE, Settings
from .situation import Rate, Situation

SEVERITY: Final[Mapping[str, Severity]] = {
    "stalled": "warning",
    "diverging": "warning",
    "zero": "warning",
    "non_finite": "error",
}
"""Severity of a state in a verdict; the others are "info"."""
BENIGN: Final = ("lr_rising", "lr_cut_planned")
"""Causes that make a standstill information: it is to end by itself."""


def state_of(scene: Scene, settings: Settings, component: Component) -> str:
    """The state of one component, among all."""
    if component.bad_since is not None:
        return "non_finite"
    for state in ("missing", "zero"):
        if state in component.raised:
            return state
    if component.level.diverging is not None and not scene.held:
        return "diverging"
    if has_stopped(scene, settings, component) and not scene.held:
        proven = _is_proven(scene, component)
        if good_enough(scene, component) and not (proven and component.typical is None):
            return "converged"
        return "stalled" if proven or _is_stall(scene, settings, component) else "flat"
    if component.oscillating is not None:
        return "oscillating"
    if component.improving:
        return "improving"
    if component.rising:
        return "rising"
    if scene.finished or (component.checked and component.elapsed >= scene.clock.warmup):
        return "unclear"
    return "warming up"


def outcome_of(scene: Scene, settings: Settings, component: Component) -> str:
    """Its state, for a table: what came to a stand only after it could learn no more has not converged."""
    state, blocked = state_of(scene, settings, component), blocked_by(scene, settings, component)
    if state != "converged" or blocked is None:
        return state
    before = component.flat_checks > 0 and blocked.since is not None and component.flat_first <= blocked.since
    return "converged" if before else "flat"


def has_stopped(scene: Scene, settings: Settings, component: Component) -> bool:
    """Whether it stands still by its curve, or is proven to train nothing for as long as a line must span."""
    if component.flat:
        return True
    found = scene.untrained.get(component.name)
    if found is None or component.level.level is None:
        return False
    return scene.step - found[0] >= settings.window * (scene.clock.unit or scene.clock.warmup)


def good_enough(scene: Scene, component: Component) -> bool:
    """Whether a flat curve has converged, rather than stalled."""
    if component.level.level is None:
        return True
    level, peak = component.standing or 0.0, component.level.peak
    fallen = 1 - level / peak if peak > 0 else 0.0
    if component.typical is not None:
        cap = CAP_LEARNT if fallen >= LEARNT else CAP_HALVED if fallen >= HALVED else CAP
        return level <= cap * component.typical[1]
    return fallen >= HALVED or share_of(scene, component) < SMALL_SHARE


def _is_proven(scene: Scene, component: Component) -> bool:
    """Whether it is proven to train nothing: that needs no range."""
    cause = cause_of(scene, component, flat_since(scene, component))
    return cause is not None and cause.name in PROOFS


def _is_stall(scene: Scene, settings: Settings, component: Component) -> bool:
    """Whether flat and too high is a warning: that needs a range to be above, and others that improve."""
    cause = cause_of(scene, component, flat_since(scene, component))
    if component.typical is None or (cause is not None and cause.name in BENIGN):
        return False
    wanted = 2 if settings.quiet else 1
    return len(improving_others(scene, component)) >= wanted or len(improved_others(scene, component)) >= wanted


def improving_others(scene: Scene, component: Component) -> list[str]:
    """Names of the other components that improve by an improvement worth having more than this one does."""
    return [
        other.name
        for other in scene.components.values()
        if other is not component
        and other.improving
        and not other.flat_checks
        and other.bad_since is None
        and other.recent - (component.rate or 0.0) >= other.least + hypot(other.recent_error, component.rate_error)
    ]


def improved_others(scene: Scene, component: Component) -> list[str]:
    """Names of those that improved along the line over which this one is flat, whatever they do now."""
    found = []
    for other in scene.components.values() if component.flat_checks and component.clock.unit is not None else ():
        if other is component or other.bad_since is not None:
            continue
        fall = fall_over(other.ring, other.clock, other.settings, float(other.elapsed), float(component.span))
        ahead = 0.0 if fall is None else fall.gain - (component.rate or 0.0)
        if fall is not None and fall.sure and ahead >= fall.least + hypot(fall.error, component.rate_error):
            found.append(other.name)
    return found


def share_of(scene: Scene, component: Component) -> float:
    """Share of the sum of levels, 0 to 1; steps at which a loss is 0, or absent, count too."""
    total = sum(_part(other) for other in scene.components.values() if "missing" not in other.raised)
    return _part(component) / total if total > 0 else 0.0


def _part(component: Component) -> float:
    return (component.level.level or 0.0) * component.level.presence


def flat_since(scene: Scene, component: Component) -> int:
    """Step from which it is flat, or proven to train nothing."""
    if component.flat_start is None and component.name in scene.untrained:
        return scene.untrained[component.name][0]
    return scene.step if component.flat_start is None else component.flat_start


def rate_of(scene: Scene, component: Component) -> Rate | None:
    """Change in % per epoch, or per 1000 steps where no epoch is known."""
    if component.rate is None:
        return None
    epoch = scene.clock.epoch
    span, per = (1000.0, "1000 steps") if epoch is None else (epoch, "epoch")
    fall, error = component.rate, component.rate_error
    change, low, high = (100 * expm1(-value * span) for value in (fall, fall + error, fall - error))
    return Rate(change, low, high, per)


def situation_of(scene: Scene, settings: Settings, component: Component, since: int) -> Situation:
    """All that the words about one component are made of."""
    clock, level = scene.clock, component.standing or 0.0
    end = None
    if clock.plan is not None and component.rate is not None and clock.plan > scene.step + 1:
        likely, best = advice.forecast(level, component.rate, component.rate_error, clock.plan - scene.step - 1)
        end = (round(clock.plan), likely, best)
    what, later = known(component.name, scene.components.keys()), later_cut(scene, since)
    return Situation(
        component=component.name,
        level=level,
        peak=component.level.peak,
        range=component.typical,
        usual=what is not None and component.typical is not None and what.range == component.typical,
        floored=what.kind if what is not None and what.kind in FLOORED else None,
        share=share_of(scene, component),
        rate=rate_of(scene, component),
        window=component.span,
        since=since,
        step=scene.step,
        epoch=clock.epoch,
        end=end,
        improving=(improving := improving_others(scene, component)),
        improved=[name for name in improved_others(scene, component) if name not in improving],
        others=len(scene.components) - 1,
        cause=cause_of(scene, component, since),
        blocked=blocked_by(scene, settings, component),
        presence=component.level.presence,
        later=None if later is None else cut_words(later, scene.axis),
        axis=scene.axis,
    )
