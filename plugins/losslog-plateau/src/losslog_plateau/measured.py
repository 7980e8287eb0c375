"""What others measured of a run, as records carry it: reach, gradients by part, targets, weights.

Plain data, fed by the plugin. What is news of it becomes a `Notice`; what bears on a component is kept as a `Proof`,
for the alert of its standstill to quote. Constant memory for a fixed set of parts and components.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Final

from .by_part import ByPart, of
from .course import Course
from .generalising import Generalising
from .notice import Notice, Proof
from .proofs import TOLD, Proofs

TRACED: Final = "not_finite_in"
TRACES: Final = {
    "batch": "what the model was given was not finite ({})",
    "parameter": "the parameter {} was not finite before",
    "output": "it came first out of {}",
    "the loss itself": "it arose where the loss is computed of the outputs",
    "finite when repeated": "the same batch was finite when it was computed once more",
}
"""What a trace of a loss that is not finite comes to, by what it found."""
KEPT: Final = 8
TINY: Final = 0.01
"""Weight below which a component may hardly count, and the share of the total that is hardly any."""
STEPS: Final = 20
"""Steps in a row that a weight must be tiny."""
FEW_IMAGES: Final = 16
FEW_MASKS: Final = 4
MASKS: Final = ("mask", "seg")


class Measured:
    """All of one run.

    Attributes:
        generalising: Validation against training.
        course: How far each loss has come down.
        proofs: What bears on each component, and what it trains.
    """

    def __init__(self) -> None:
        self._bare: list[int] = [0, 0, 0]  # images, visits, first step without a box
        self._light: dict[str, list[int]] = {}  # first step, steps
        self._traces: list[Any] = []  # step, words
        self.generalising = Generalising()
        self.course = Course()
        self.proofs = Proofs()
        self._parts = ByPart(self.proofs, self.course)

    def proof_of(self, component: str) -> Proof | None:
        """The best proof that bears on a component, or None."""
        return next(iter(self.proofs.of(component)), None)

    def alerted(self, cause: str, component: str | None, step: int, text: str, evidence: Mapping[str, Any]) -> None:
        """Somebody has told of a cause."""
        if cause == TRACED and (words := TRACES.get(str(evidence.get("what")))) is not None:
            self._traces = [
                *self._traces,
                [step, words.format(evidence.get("module") or evidence.get("where") or "the model")],
            ][-KEPT:]
        losses = [component] if component is not None else evidence.get("losses")
        for name in losses if isinstance(losses, list) and cause in TOLD else ():
            self.proofs.prove(str(name), Proof(cause, step, text.rstrip("."), {"said": text, **evidence}))

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
                self.proofs.drop(name, "tiny_weight")
                continue
            since = self._light.setdefault(name, [step, 0])
            since[1] += 1
            if since[1] == STEPS:
                share = 100 * part / total if total else 0.0
                text = f"its weight in the total is {weight:.3g}: it is {share:.2g} % of what is optimised"
                data = {"weight": weight, "share": part / total if total else 0.0}
                self.proofs.prove(name, Proof("tiny_weight", since[0], text, data))
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
            self.proofs.look(reach, (detail or {}).get("parts"))
        return self._targets(step, metrics) + self._parts.take(step, metrics, reach)

    def _targets(self, step: int, metrics: Mapping[str, Any]) -> list[Notice]:
        images, boxes, masks = (metrics.get(f"targets/{each}") for each in ("images", "boxes", "masks"))
        if not isinstance(images, int | float) or not isinstance(boxes, int | float):
            return []
        if boxes:
            self._bare = [0, 0, 0]
            if not isinstance(masks, int | float) or masks or boxes < FEW_MASKS:
                self.proofs.clear("no_targets", None)
                return []
            names = [name for name in self.proofs.reach if any(each in name.lower() for each in MASKS)]
            text = f"none of the {boxes:.0f} boxes in the batches looked at has a mask with a pixel in it"
            evidence = {"images": images, "boxes": boxes, "masks": 0, "step": step}
            return self._empty(step, names, "the targets have no masks", text, evidence)
        self._bare = [self._bare[0] + int(images), self._bare[1] + 1, self._bare[2] if self._bare[1] else step]
        if self._bare[0] < FEW_IMAGES or self._bare[1] < 2:
            return []
        text = f"none of the {self._bare[0]} images in the batches looked at has a box"
        evidence = {"images": self._bare[0], "boxes": 0, "step": self._bare[2]}
        return self._empty(self._bare[2], [*self.proofs.reach], "the targets have no boxes", text, evidence)

    def _empty(
        self, step: int, names: Sequence[str], title: str, text: str, evidence: Mapping[str, Any]
    ) -> list[Notice]:
        new = not any(self.proofs.has(name, "no_targets") for name in names)
        for name in names:
            self.proofs.prove(name, Proof("no_targets", step, text, evidence))
        said = (
            f"{text[0].upper()}{text[1:]}: there is nothing to learn from. Look at the annotations and the transforms."
        )
        component = names[0] if len(names) == 1 else None
        return [Notice("no_targets", title, said, "warning", component, evidence)] if new else []

    def state_dict(self) -> dict[str, Any]:
        """Plain data from which `load_state_dict` restores exactly."""
        return self.proofs.state_dict() | self._parts.state_dict() | {
            "bare": self._bare, "light": self._light, "traces": self._traces,
            "generalising": self.generalising.state_dict(), "course": self.course.state_dict(),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.proofs.load_state_dict(state)
        self._parts.load_state_dict(state)
        self.generalising.load_state_dict(state["generalising"])
        self._bare, self._light = list(state["bare"]), {name: list(each) for name, each in state["light"].items()}
        self._traces = [list(each) for each in state.get("traces", [])]
        self.course.load_state_dict(state.get("course", {"first": {}, "last": {}}))


def reaching_nothing(metrics: Mapping[str, Any]) -> dict[str, bool]:
    """Whether each component of which that was looked at trains no parameter at all."""
    return {name: count == 0 for name, count in of(metrics, "reach/").items()}
