"""Why a component may have stopped: only what was measured, the best proof first.

Pure functions of the scene; what was not measured is left to `losslog_plateau.advice`, as a question.

- In order of proof: it trains nothing, or a part no longer; its part is in no optimizer, or has a learning rate of 0;
  its targets are empty; its weight is tiny; its gradient is zero or vanishes; the learning rate still rises; it was cut
  at the onset or before it, or a cut is planned; chance level.
- A cut after the onset is no cause: the effect came first.
- Some causes mean that a loss learns nothing, whatever its curve does: `blocked_by`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .component import Component
from .known import BCE, CHANCE, CHANCE_WIDTH, HEADS, known
from .learning_rate import Cut
from .notice import Proof
from .proofs import TOLD
from .scene import Scene
from .settings import Settings

PROOFS: Final = (
    "not_trained", "part_not_trained", "not_in_optimizer", "lr_zero", "no_targets", "zero_gradient",
)  # fmt: skip
"""Causes that make a standstill a warning even where its range is not known."""
OWN: Final = ("part_not_trained", "not_in_optimizer", "lr_zero", "unchanged")
"""Causes for which a loss learns nothing where they are of a part of its own; with a trunk that stands still it may."""
ALL: Final = ("no_targets", "zero_gradient")
"""Causes for which it learns nothing, whichever part they are of."""


@dataclass(frozen=True, slots=True)
class Cause:
    """A cause that was measured.

    Attributes:
        name: "not_trained", one of `losslog_plateau.measured.ORDER`, "lr_rising", "lr_cut", "lr_cut_planned" or
            "chance_level".
        text: What was measured, as a clause.
        evidence: The same as data.
        since: Step since which it is so, or None where that is not known.
    """

    name: str
    text: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    since: int | None = None


def cause_of(scene: Scene, component: Component, since: int) -> Cause | None:
    """The best proven cause of a standstill, or None.

    Args:
        scene: Where the run stands.
        component: The component that stands still.
        since: Step since which it does.
    """
    return (
        _not_trained(scene, component)
        or _measured(scene, component)
        or _rising(scene)
        or _cut_before(scene, since)
        or _planned(scene)
        or _chance(scene, component)
    )


def blocked_by(scene: Scene, settings: Settings, component: Component) -> Cause | None:
    """The best proven cause for which a component learns nothing, whatever its curve does; or None."""
    found, measured = _not_trained(scene, component), scene.measured
    for proof in measured.proofs.of(component.name) if found is None else ():
        if proof.cause in ALL or (proof.cause in OWN and measured.proofs.own_to(component.name, proof)):
            return _of(proof)
    found = found or _rate_of_zero(scene, component)
    if found is not None:
        return found
    zero, lasting = scene.rates.zero_since(), settings.window * (scene.clock.unit or scene.clock.warmup)
    if zero is None or scene.step - zero < lasting:  # a schedule may end at 0
        return None
    return Cause("lr_zero", _zero_words(scene, zero), {"lr": 0.0, "step": zero}, zero)


def _zero_words(scene: Scene, since: int) -> str:
    highest = max(group.highest for group in scene.rates.groups.values())
    came = f", down from {highest:.3g}" if highest else ""
    return f"the learning rate has been 0 since {scene.axis} {since}{came}: nothing is learnt at 0"


def later_cut(scene: Scene, since: int) -> Cut | None:
    """A cut of the learning rate that came after a standstill had begun, and so did not cause it."""
    cut = scene.rates.cut()
    return cut if cut is not None and cut.step > since + onset_error(scene) else None


def onset_error(scene: Scene) -> float:
    """Steps by which an onset may be off: a line is found flat from a point on that may lie a unit before."""
    return scene.clock.unit or 0.0


def cut_words(cut: Cut, axis: str) -> str:
    """A cut in words."""
    which = f" of {cut.group}" if cut.group else ""
    if cut.at_once:
        return f"the learning rate{which} was cut at {axis} {cut.step} (highest {cut.highest:.3g}, now {cut.now:.3g})"
    return (
        f"the learning rate{which} has come down from {cut.highest:.3g} to {cut.now:.3g} "
        f"and passed half of it at {axis} {cut.step}"
    )


def _not_trained(scene: Scene, component: Component) -> Cause | None:
    found = scene.untrained.get(component.name)
    if found is None:
        return None
    step, said = found
    text = said or f"it trains no parameter since {scene.axis} {step}"
    return Cause("not_trained", text, {"untrained_since": step} | ({"said": said} if said else {}), step)


def _measured(scene: Scene, component: Component) -> Cause | None:
    proof = scene.measured.proof_of(component.name)
    if proof is not None and proof.cause in TOLD:
        return _of(proof)
    rate = _rate_of_zero(scene, component)
    return rate if rate is not None or proof is None else _of(proof)


def _of(proof: Proof) -> Cause:
    return Cause(proof.cause, proof.text, proof.evidence, proof.since)


def _rate_of_zero(scene: Scene, component: Component) -> Cause | None:
    group = HEADS.get(component.name)
    found = None if group is None else scene.rates.groups.get(group)
    if found is None or found.now != 0:
        return None
    return Cause(
        "lr_zero", f"the learning rate of the parameter group {group} is 0", {"group": group, "lr": 0.0}, found.zero
    )


def _rising(scene: Scene) -> Cause | None:
    if not scene.rates.rising:
        return None
    now = max(group.now for group in scene.rates.groups.values())
    return Cause("lr_rising", f"the learning rate still rises (now {now:.3g})", {"lr": now})


def _cut_before(scene: Scene, since: int) -> Cause | None:
    cut = scene.rates.cut()
    if cut is None or later_cut(scene, since) is not None:
        return None
    evidence = {"cut_step": cut.step, "group": cut.group or None, "lr_highest": cut.highest, "lr": cut.now}
    zero = scene.rates.zero_since()
    if zero is not None and zero <= since + onset_error(scene):
        return Cause("lr_cut", _zero_words(scene, zero), evidence)
    return Cause("lr_cut", cut_words(cut, scene.axis), evidence)


def _planned(scene: Scene) -> Cause | None:
    step = scene.next_cut
    if step is None:
        return None
    text = f"a cut of the learning rate is planned at {scene.axis} {step}, where a shelf usually ends"
    return Cause("lr_cut_planned", text, {"planned_cut": step})


def _chance(scene: Scene, component: Component) -> Cause | None:
    what, level = known(component.name, scene.components.keys()), component.standing
    if what is None or what.kind != BCE or level is None or abs(level - CHANCE) > CHANCE_WIDTH:
        return None
    text = f"it stands at {CHANCE:.2f} = ln 2, chance level for a yes/no loss: it has learnt nothing yet"
    return Cause("chance_level", text, {"chance": CHANCE, "level": level})
