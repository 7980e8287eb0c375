"""What a visit measured by part of the model: gradients, updates, dead units, weights that stand still.

Plain data, in constant memory for a fixed set of parts. What is news becomes a `Notice`; what bears on a component is
proven for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from statistics import median
from typing import Any, Final

from .course import Course
from .episodes import Episodes
from .finding import Severity
from .notice import Notice, Proof
from .proofs import Proofs

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
NAMED: Final = 3
"""Parts that are named in one title."""


class ByPart:
    """All parts of one run's model.

    Args:
        proofs: What is proven, and which loss trains what.
        course: How far each loss has come down.
    """

    def __init__(self, proofs: Proofs, course: Course) -> None:
        self._proofs, self._course = proofs, course
        self._norms: dict[str, list[float]] = {}
        self._zero: dict[str, list[int]] = {}  # first step, visits
        self._small: dict[str, list[int]] = {}
        self._large: dict[str, int] = {}
        self._dead: dict[str, int] = {}  # visits in a row at which most units were
        self._episodes = Episodes()

    def take(self, step: int, metrics: Mapping[str, Any], reach: Any) -> list[Notice]:
        """Take the metrics of a visit, and what each loss trained at it."""
        norms, ratios = of(metrics, "grad_norm/"), of(metrics, "update_ratio/")
        news = self._gradients(step, norms)
        news += self._updates(step, ratios)
        news += self._units(step, of(metrics, "dead_units/"))
        news += self._standing(step, of(metrics, "unchanged/"), norms, ratios, reach)
        return news

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
                self._proofs.clear(cause, part)
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
        names = self._proofs.training(part)
        counted = [name for name in names if not self._course.weightless(name)]
        if not names or not counted:
            return "" if names else None
        levels = {name: level for name in counted if (level := self._course.nothing(name)) is not None}
        if len(levels) < len(counted):
            return None
        if not all(map(self._course.learnt, counted)):
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
                self._proofs.clear("unchanged", part)
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
        losses = self._proofs.own(part)
        data = {"part": part, "losses": losses, "step": since, **evidence}
        through = cause != "zero_gradient"  # else none of those that train it gets any
        for name in losses if through else self._proofs.training(part):
            self._proofs.prove(name, Proof(cause, since, text.partition(": ")[0], data))
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

    def state_dict(self) -> dict[str, Any]:
        """Plain data from which `load_state_dict` restores exactly."""
        return {
            "norms": self._norms, "zero": self._zero, "small": self._small, "large": self._large, "dead": self._dead,
            "episodes": self._episodes.state_dict(),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._norms = {name: list(each) for name, each in state["norms"].items()}
        self._zero = {name: list(each) for name, each in state["zero"].items()}
        self._small = {name: list(each) for name, each in state["small"].items()}
        self._large, self._dead = dict(state["large"]), dict(state.get("dead", {}))
        self._episodes.load_state_dict(state.get("episodes", {}))


def _together(step: int, found: Mapping[str, Notice]) -> list[Notice]:
    """One notice on all parts whose gradients ceased to be finite at the same visit."""
    named = ", ".join([*found][:NAMED]) + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")
    losses = sorted({name for each in found.values() for name in each.evidence["losses"]})
    text = f"The gradients of {', '.join(found)} are not finite."
    evidence = {"parts": [*found], "losses": losses, "step": step}
    return [Notice("exploding_gradient", f"the gradients of {named} explode", text, "warning", None, evidence)]


def of(metrics: Mapping[str, Any], prefix: str) -> dict[str, float]:
    """The numbers whose tags begin with a prefix, by the rest of the tag."""
    return {
        tag.removeprefix(prefix): float(value)
        for tag, value in metrics.items()
        if tag.startswith(prefix) and isinstance(value, int | float)
    }
