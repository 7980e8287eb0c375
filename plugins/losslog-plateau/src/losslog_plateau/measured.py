"""What others measured of a run, as records carry it: reach, gradients by part, targets, weights.

Plain data, fed by the plugin. What is news of it becomes a `Notice`; what bears on a component is kept as a `Proof`,
for the alert of its standstill to quote. Constant memory for a fixed set of parts and components.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from statistics import median
from typing import Any, Final

from .course import Course
from .episodes import Episodes
from .finding import Severity
from .generalising import Generalising
from .notice import Notice, Proof

ORDER: Final = (
    "part_not_trained", "not_in_optimizer", "lr_zero", "no_targets", "tiny_weight", "zero_gradient",
    "vanishing_gradient", "unchanged",
)  # fmt: skip
"""Causes that others measure, the best proof first."""
TOLD: Final = ORDER[:3]
"""Causes that come as alerts of their own."""
TRACED: Final = "not_finite_in"
TRACES: Final = {
    "batch": "what the model was given was not finite ({})",
    "parameter": "the parameter {} was not finite before",
    "output": "it came first out of {}",
    "the loss itself": "it arose where the loss is computed of the outputs",
    "finite when repeated": "the same batch was finite when it was computed once more",
}
"""What a trace of a loss that is not finite comes to, by what it found."""
VISITS: Final = 3
"""Visits in a row (an epoch apart) that a gradient must be zero: one batch may have nothing to learn from."""
VANISHING: Final = 1e-4
"""Part of the median of the others."""
EXPLODING: Final = 1000.0
"""Times its own median so far."""
KEPT: Final = 8
LARGE: Final = 0.1
"""Update by weight that is a tenth a step."""
DEAD: Final = 0.5
"""Share of a part's units from which on most of them are dead."""
MOSTLY: Final = 0.9
"""Share from which on that is a warning."""
FEW_IMAGES: Final = 16
FEW_MASKS: Final = 4
TINY: Final = 0.01
"""Weight below which a component may hardly count, and the share of the total that is hardly any."""
STEPS: Final = 20
"""Steps in a row that a weight must be tiny."""
NAMED: Final = 3
"""Parts that are named in one title."""
MASKS: Final = ("mask", "seg")


class Measured:
    """All of one run.

    Attributes:
        generalising: Validation against training.
        course: How far each loss has come down.
    """

    def __init__(self) -> None:
        self._proofs: dict[str, dict[str, Proof]] = {}
        self._reach: dict[str, list[str]] = {}  # parts that each component trains
        self._norms: dict[str, list[float]] = {}
        self._zero: dict[str, list[int]] = {}  # first step, visits
        self._small: dict[str, list[int]] = {}
        self._large: dict[str, int] = {}
        self._dead: dict[str, int] = {}  # visits in a row at which most units were
        self._bare: list[int] = [0, 0, 0]  # images, visits, first step without a box
        self._light: dict[str, list[int]] = {}  # first step, steps
        self._traces: list[Any] = []  # step, words
        self._episodes = Episodes()
        self.generalising = Generalising()
        self.course = Course()

    def proof_of(self, component: str) -> Proof | None:
        """The best proof that bears on a component, or None."""
        return next(iter(self.proofs_of(component)), None)

    def proofs_of(self, component: str) -> list[Proof]:
        """All that bear on a component, the best first."""
        found = self._proofs.get(component, {})
        return [found[cause] for cause in ORDER if cause in found]

    def own_to(self, component: str, proof: Proof) -> bool:
        """Whether a proof is of a part that no other loss trains, nor trained; or of no part at all."""
        part = proof.evidence.get("part")
        parts = _lost(proof) or ([] if part is None else [str(part)])
        others = [set(its) for name, its in self._reach.items() if name != component]
        for name, proofs in self._proofs.items():
            if name != component and "part_not_trained" in proofs:
                others.append(set(_lost(proofs["part_not_trained"])))
        return not parts or any(not any(part in its for its in others) for part in parts)

    def alerted(self, cause: str, component: str | None, step: int, text: str, evidence: Mapping[str, Any]) -> None:
        """Somebody has told of a cause."""
        if cause == TRACED and (words := TRACES.get(str(evidence.get("what")))) is not None:
            self._traces = [
                *self._traces,
                [step, words.format(evidence.get("module") or evidence.get("where") or "the model")],
            ][-KEPT:]
        losses = [component] if component is not None else evidence.get("losses")
        for name in losses if isinstance(losses, list) and cause in TOLD else ():
            self._prove(str(name), Proof(cause, step, text.rstrip("."), {"said": text, **evidence}))

    def traced(self, first: int, since: int) -> str:
        """Where a loss that is not finite since a step came from, or "".

        Args:
            first: Step since which any loss is not.
            since: Step since which it is not.
        """
        return next((words for step, words in reversed(self._traces) if first <= step <= since), "")

    def weighed(self, step: int, losses: Mapping[str, float], weights: Mapping[str, float] | None) -> list[Notice]:
        """Take the losses of a step, and how often they count in the total."""
        self.course.take(losses, weights)
        if not weights:
            if self._light:
                self._light.clear()
            return []
        parts = {name: abs(weights.get(name, 1.0) * value) for name, value in losses.items() if isfinite(value)}
        total, news = sum(parts.values()), []
        for name, part in parts.items():
            weight = weights.get(name, 1.0)
            if abs(weight) > TINY or part > TINY * total:
                self._light.pop(name, None)
                self._proofs.get(name, {}).pop("tiny_weight", None)
                continue
            since = self._light.setdefault(name, [step, 0])
            since[1] += 1
            if since[1] == STEPS:
                share = 100 * part / total if total else 0.0
                text = f"its weight in the total is {weight:.3g}: it is {share:.2g} % of what is optimised"
                data = {"weight": weight, "share": part / total if total else 0.0}
                self._prove(name, Proof("tiny_weight", since[0], text, data))
                said = f"{name}: {text}. Is that meant? Nothing much is learnt for it."
                news.append(Notice("tiny_weight", f"{name} hardly counts", said, "info", name, data))
        return news

    def weighed_many(self, columns: Mapping[str, Sequence[float]]) -> None:
        """Take the losses of several steps, all of which count once; by component."""
        self.course.take_many(columns)
        self._light.clear()

    def metrics(self, step: int, metrics: Mapping[str, Any], detail: Mapping[str, Any] | None) -> list[Notice]:
        """Take the metrics of a visit."""
        reach = (detail or {}).get("reach")
        if isinstance(reach, Mapping):
            self._reach |= {name: list(parts) for name, parts in reach.items() if isinstance(parts, Mapping) and parts}
            self._mended(reach, (detail or {}).get("parts"))
        news = self._targets(step, metrics)
        norms = _of(metrics, "grad_norm/")
        news += self._gradients(step, norms)
        news += self._updates(step, _of(metrics, "update_ratio/"))
        news += self._units(step, _of(metrics, "dead_units/"))
        news += self._standing(step, _of(metrics, "unchanged/"), norms, _of(metrics, "update_ratio/"), reach)
        return news

    def _mended(self, reach: Mapping[str, Any], parts: Any) -> None:
        """Drop the proofs of what is so no longer."""
        parts = parts if isinstance(parts, Mapping) else {}
        for name, proofs in self._proofs.items():
            lost = _lost(proofs["part_not_trained"]) if "part_not_trained" in proofs else []
            trains = found if isinstance(found := reach.get(name), Mapping) else {}
            if lost and all(map([*trains].count, lost)):
                del proofs["part_not_trained"]
            for cause in ("lr_zero", "not_in_optimizer"):
                if cause in proofs and any(_is_mended(cause, parts.get(part)) for part in _about_parts(proofs[cause])):
                    del proofs[cause]

    def _targets(self, step: int, metrics: Mapping[str, Any]) -> list[Notice]:
        images, boxes, masks = (metrics.get(f"targets/{each}") for each in ("images", "boxes", "masks"))
        if not isinstance(images, int | float) or not isinstance(boxes, int | float):
            return []
        if boxes:
            self._bare = [0, 0, 0]
            if not isinstance(masks, int | float) or masks or boxes < FEW_MASKS:
                self._clear("no_targets", None)
                return []
            names = [name for name in self._reach if any(each in name.lower() for each in MASKS)]
            text = f"none of the {boxes:.0f} boxes in the batches looked at has a mask with a pixel in it"
            evidence = {"images": images, "boxes": boxes, "masks": 0, "step": step}
            return self._empty(step, names, "the targets have no masks", text, evidence)
        self._bare = [self._bare[0] + int(images), self._bare[1] + 1, self._bare[2] if self._bare[1] else step]
        if self._bare[0] < FEW_IMAGES or self._bare[1] < 2:
            return []
        text = f"none of the {self._bare[0]} images in the batches looked at has a box"
        evidence = {"images": self._bare[0], "boxes": 0, "step": self._bare[2]}
        return self._empty(self._bare[2], [*self._reach], "the targets have no boxes", text, evidence)

    def _empty(
        self, step: int, names: Sequence[str], title: str, text: str, evidence: Mapping[str, Any]
    ) -> list[Notice]:
        new = not any("no_targets" in self._proofs.get(name, {}) for name in names)
        for name in names:
            self._prove(name, Proof("no_targets", step, text, evidence))
        said = (
            f"{text[0].upper()}{text[1:]}: there is nothing to learn from. Look at the annotations and the transforms."
        )
        component = names[0] if len(names) == 1 else None
        return [Notice("no_targets", title, said, "warning", component, evidence)] if new else []

    def _gradients(self, step: int, norms: Mapping[str, float]) -> list[Notice]:
        news: list[Notice] = []
        broken: dict[str, Notice] = {}
        for part, norm in norms.items():
            others = [value for name, value in norms.items() if name != part and isfinite(value)]
            usual = median(others) if others else 0.0
            before = self._norms.setdefault(part, [])
            if not isfinite(norm):
                found = self._about(part, "exploding_gradient", step, f"the gradient of {part} is {norm}")
                if self._episodes.begins("exploding_gradient", part):
                    broken[part] = found
                continue
            news += self._faint(step, part, norm, usual)
            if len(before) >= VISITS and norm > EXPLODING * max(median(before), 1e-12):
                text = f"the gradient of {part} is {norm:.3g}, {norm / max(median(before), 1e-12):.0f} times its usual"
                found = self._about(part, "exploding_gradient", step, text, norm=norm, usual=median(before))
                if self._episodes.begins("exploding_gradient", part):
                    news.append(found)
            else:
                self._episodes.rests("exploding_gradient", part)
            if norm >= VANISHING * usual:  # one that was next to nothing is no measure
                before.append(norm)
                del before[:-KEPT]
        return news + (_together(step, broken) if len(broken) > 1 else [*broken.values()])

    def _faint(self, step: int, part: str, norm: float, usual: float) -> list[Notice]:
        """A gradient that is zero, or next to nothing, beside those of the others."""
        news = []
        part_of = f", {norm / usual:.1g} of that of the other parts" if usual else ""
        words = f"{norm:.2g}{part_of}" if norm else "exactly 0"
        zero = norm == 0 < usual
        small = not zero and norm < VANISHING * usual
        if (zero or small) and (why := self._nothing_left(part)) is not None:
            if why and self._episodes.begins("learnt", part):
                text = f"the gradient of {part} is {words}, since {why}: there is nothing left to learn from it"
                news.append(self._about(part, "learnt", step, text, level="info", norm=norm, others=usual))
            zero = small = False
        for counts, holds, needed, cause in (
            (self._zero, zero, VISITS, "zero_gradient"),
            (self._small, small, 2, "vanishing_gradient"),
        ):
            if not holds:
                counts.pop(part, None)
                self._clear(cause, part)
                self._episodes.rests(cause, part)
                continue
            seen = counts.setdefault(part, [step, 0])
            seen[1] += 1
            if seen[1] >= needed:
                text = f"the gradient of {part} is {words} since step {seen[0]}"
                found = self._about(part, cause, seen[0], text, norm=norm, others=usual)
                if self._episodes.begins(cause, part):
                    news.append(found)
        return news

    def _nothing_left(self, part: str) -> str | None:
        """Why nothing comes from the losses that train a part: where they stand.

        "" where their weight is 0, or where they are next to nothing now and it is not known that they stay there:
        some batches have nothing to learn from, and of targets that have ceased to come others tell. None where they
        could teach something.
        """
        names = self._training(part)
        counted = [name for name in names if not self.course.weightless(name)]
        if not names or not counted:
            return "" if names else None
        levels = {name: level for name in counted if (level := self.course.nothing(name)) is not None}
        if len(levels) < len(counted):
            return None
        if not all(map(self.course.learnt, counted)):
            return ""
        return ", ".join(f"{name} is at {level:.2g}" if level else f"{name} is 0" for name, level in levels.items())

    def _updates(self, step: int, ratios: Mapping[str, float]) -> list[Notice]:
        news = []
        for part, ratio in ratios.items():
            count = self._large.get(part, 0) + 1 if ratio > LARGE else 0
            self._large[part] = count
            if not count:
                self._episodes.rests("large_update", part)
            elif count >= VISITS and self._episodes.begins("large_update", part):
                text = (
                    f"{part} moves by {100 * ratio:.0f} % of its weights' size in one step, at {VISITS} visits in a row"
                )
                news.append(self._about(part, "large_update", step, text, level="info", ratio=ratio))
        return news

    def _units(self, step: int, shares: Mapping[str, float]) -> list[Notice]:
        news = []
        for part, share in shares.items():
            self._dead[part] = self._dead.get(part, 0) + 1 if share > DEAD else 0
            if not self._dead[part]:
                self._episodes.rests("dead_units", part)
            elif self._dead[part] >= VISITS and self._episodes.begins("dead_units", part):
                text = (
                    f"{100 * share:.0f} % of the units of {part} that end in a ReLU were zero for all they were shown, "
                    f"at {VISITS} visits in a row: they learn nothing. Lower the learning rate, or look at the "
                    f"initialisation and the normalisation of its inputs"
                )
                level: Severity = "warning" if share > MOSTLY else "info"
                news.append(self._about(part, "dead_units", step, text, level=level, share=share))
        return news

    def _standing(
        self,
        step: int,
        shares: Mapping[str, float],
        norms: Mapping[str, float],
        ratios: Mapping[str, float],
        reach: Any,
    ) -> list[Notice]:
        news = []
        reached = reach if isinstance(reach, Mapping) else {}
        for part, share in shares.items():
            bare = part not in norms and any(isinstance(its, Mapping) and part in its for its in reached.values())
            if share < 1 or not (norms.get(part) or bare):
                self._clear("unchanged", part)
                self._episodes.rests("unchanged", part)
                continue
            text = (
                f"no parameter of {part} has changed for an epoch: losses reach it, and it had no gradient when the "
                f"optimizer stepped. Is it set to zero between backward and step?"
                if bare
                else f"no parameter of {part} has changed for an epoch: steps move it, and it is written back to what "
                f"it was. Is a state loaded, or copied, into it in the loop?"
                if ratios.get(part)
                else f"no parameter of {part} has changed for an epoch, though an optimizer moves it and it has a "
                f"gradient: are the steps too small for its precision, or is it written back?"
            )
            found = self._about(part, "unchanged", step, text)
            if self._episodes.begins("unchanged", part):
                news.append(found)
        return news

    def _about(
        self, part: str, cause: str, since: int, text: str, level: Severity = "warning", **evidence: float
    ) -> Notice:
        """A notice on a part, and proofs for the losses that train it, and it more than other parts."""
        losses = self._own(part)
        data = {"part": part, "losses": losses, "step": since, **evidence}
        for name in self._training(part) if cause == "zero_gradient" else losses:  # none of them gets through there
            self._prove(name, Proof(cause, since, text.partition(": ")[0], data))
        title = {
            "zero_gradient": "the gradient of {} is zero",
            "vanishing_gradient": "the gradient of {} vanishes",
            "exploding_gradient": "the gradient of {} explodes",
            "learnt": "nothing is left to learn for {}",
            "dead_units": "most units of {} are dead",
            "large_update": "{} moves by more than a tenth a step",
            "unchanged": "the parameters of {} do not change",
        }[cause].format(part)
        finite = {key: each for key, each in data.items() if not isinstance(each, float) or isfinite(each)}
        component = losses[0] if len(losses) == 1 else None
        said = text if text.startswith(part) else f"{text[0].upper()}{text[1:]}"
        said = said if said.endswith("?") else f"{said}."
        return Notice(cause, title, said, level, component, finite)

    def _own(self, part: str) -> list[str]:
        """Losses for which a part is their own: which train it, where not all of several do."""
        found = self._training(part)
        return found if len(found) < len(self._reach) or len(found) == 1 else []

    def _training(self, part: str) -> list[str]:
        return [name for name, parts in self._reach.items() if part in parts]

    def _prove(self, component: str, proof: Proof) -> None:
        self._proofs.setdefault(component, {}).setdefault(proof.cause, proof)

    def _clear(self, cause: str, part: str | None) -> None:
        """A cause holds no more."""
        for proofs in self._proofs.values():
            found = proofs.get(cause)
            if found is not None and (part is None or found.evidence.get("part") == part):
                del proofs[cause]

    def state_dict(self) -> dict[str, Any]:
        """Plain data from which `load_state_dict` restores exactly."""
        return {
            "proofs": {
                name: [[each.cause, each.since, each.text, dict(each.evidence)] for each in proofs.values()]
                for name, proofs in self._proofs.items()
            },
            "reach": self._reach, "norms": self._norms, "zero": self._zero, "small": self._small,
            "large": self._large, "dead": self._dead, "bare": self._bare, "light": self._light,
            "generalising": self.generalising.state_dict(), "episodes": self._episodes.state_dict(),
            "course": self.course.state_dict(), "traces": self._traces,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._proofs = {
            name: {cause: Proof(cause, since, text, data) for cause, since, text, data in proofs}
            for name, proofs in state["proofs"].items()
        }
        self._reach, self._norms = dict(state["reach"]), {name: list(each) for name, each in state["norms"].items()}
        self._zero = {name: list(each) for name, each in state["zero"].items()}
        self._small = {name: list(each) for name, each in state["small"].items()}
        self.generalising.load_state_dict(state["generalising"])
        self._large, self._bare = dict(state["large"]), list(state["bare"])
        self._dead = dict(state.get("dead", {}))
        self._light = {name: list(each) for name, each in state["light"].items()}
        self._traces = [list(each) for each in state.get("traces", [])]
        self._episodes.load_state_dict(state.get("episodes", {}))
        self.course.load_state_dict(state.get("course", {"first": {}, "last": {}}))


def _together(step: int, found: Mapping[str, Notice]) -> list[Notice]:
    """One notice on all parts whose gradients ceased to be finite at the same visit."""
    named = ", ".join([*found][:NAMED]) + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")
    losses = sorted({name for each in found.values() for name in each.evidence["losses"]})
    text = f"The gradients of {', '.join(found)} are not finite."
    evidence = {"parts": [*found], "losses": losses, "step": step}
    return [Notice("exploding_gradient", f"the gradients of {named} explode", text, "warning", None, evidence)]


def _is_mended(cause: str, part: Any) -> bool:
    """Whether the record of a part says that it is so no longer."""
    if not isinstance(part, Mapping):
        return False
    rates = part.get("lr")
    return isinstance(rates, list) and any(rates) if cause == "lr_zero" else not part.get("outside")


def _about_parts(proof: Proof) -> list[str]:
    """The part that a proof is of, or all where it is of everything."""
    parts = proof.evidence.get("parts")
    return [str(part) for part in parts] if isinstance(parts, list) else [str(proof.evidence.get("part"))]


def _lost(proof: Proof) -> list[str]:
    """The parts that a loss trains no more, as its proof has them."""
    lost = proof.evidence.get("lost")
    return [str(part) for part in lost] if isinstance(lost, list | Mapping) else []


def reaching_nothing(metrics: Mapping[str, Any]) -> dict[str, bool]:
    """Whether each component of which that was looked at trains no parameter at all."""
    return {name: count == 0 for name, count in _of(metrics, "reach/").items()}


def _of(metrics: Mapping[str, Any], prefix: str) -> dict[str, float]:
    return {
        tag.removeprefix(prefix): float(value)
        for tag, value in metrics.items()
        if tag.startswith(prefix) and isinstance(value, int | float)
    }
