"""Says what of a model's trainable parts no optimizer moves: those in no group, and those with a learning rate of 0.

On the thread that trains, for `losslog.instrument.reached`. Contract:

- Where optimizers may not be known yet, nothing is said before they have stepped.
- A learning rate is 0 for a part when it was so at several steps and no warm-up's start; for all of them only where it
  never was anything else, since schedules end at 0.
- What is left out on purpose from the start is information, said once: what was frozen at the first look, was never
  trainable in the steps of a short turn after it, and is in no optimizer that has yet to step.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Final

from losslog.instrument.parts import Part
from losslog.instrument.reach import FROZEN, Reach, frozen, frozen_told
from losslog.instrument.suspicions import FIRST, SELDOM, Suspicions

RATES: Final = 3
"""Further steps at which a learning rate must be 0: schedules pass through it."""


class Groups:
    """Looks at the optimizers' groups for one run.

    Args:
        suspects: what is suspected, so that the next steps are looked at.
        alert: says something.
        certain: whether there can be no other optimizers.
    """

    def __init__(self, suspects: Suspicions, alert: Callable[..., None], *, certain: bool) -> None:
        self._suspects, self._alert, self._certain = suspects, alert, certain
        self._said: set[tuple[str, str]] = set()
        self._seen: dict[str, tuple[int, int]] = {}  # epoch and step in which a component was seen first
        self._epoch = 0
        self._moves = False
        self._frozen: list[str] | None = None  # parts, when this began; those of which that is still to be said
        self._began = 0

    def look(
        self, losses: Mapping[str, Reach], parts: Mapping[str, Part], ever: Container[str], epoch: int, step: int,
        idle: Container[str] = (), turn: int = 0,
    ) -> None:  # fmt: skip
        """Judge the groups at one step.

        Args:
            losses: What each trains.
            parts: From `Parts.summary`, with the optimizers.
            ever: Names of parts that were trainable once.
            epoch: From 1.
            step: Global step.
            idle: Names of parts that an optimizer has which has not stepped yet.
            turn: Steps that a short turn may last.
        """
        self._epoch = epoch
        self._tell(losses, parts, step)
        if self._frozen is None:
            self._frozen, self._began = frozen(parts), step
        if self._frozen:
            self._tell_frozen(ever, idle, step, turn)
        for name in losses:
            self._seen.setdefault(name, (epoch, step))

    def _tell(self, found: Mapping[str, Reach], parts: Mapping[str, Part], step: int) -> None:
        trained = {
            name: [component for component in by if found[component].certain] for name, part in parts.items()
            if part.trainable and (by := [component for component, each in found.items() if name in each.tensors])
        }  # fmt: skip
        outside = {name: by for name, by in trained.items() if parts[name].outside == parts[name].trainable}
        moved = [name for name in trained if name not in outside and parts[name].still < parts[name].trainable]
        if outside and self._sees_all(found, step):
            if len(outside) < len(trained) - len(outside):
                for name, by in outside.items():
                    self._tell_group(name, by, step, f"{name} is in no optimizer group", "not_in_optimizer")
            elif ("outside", "") not in self._said:
                self._said.add(("outside", ""))
                self._said.update(("not_in_optimizer", name) for name in outside)
                text = f"Only {', '.join(moved) or 'nothing'} is in an optimizer's groups; {', '.join(outside)} is not."
                self._alert("parts that no optimizer moves", text, "info", None, "not_moved", {"parts": [*outside]})
        self._moves = self._moves or bool(moved)  # a schedule may end at 0 for all
        for name, by in trained.items():
            still = parts[name].still == parts[name].trainable and self._seen_before(by or found, step, SELDOM)
            if not still or not (moved or not self._moves):  # no warm-up's start
                self._suspects.drop(("lr", name))
            elif ("lr_zero", name) not in self._said and self._suspects.holds(("lr", name), step, RATES) is not None:
                if moved:
                    self._tell_group(name, by, step, f"the learning rate of {name} is 0", "lr_zero")
                elif ("lr_zero", "") not in self._said:
                    self._said.update(("lr_zero", each) for each in ("", *trained))
                    text = f"The learning rate is 0 in all groups, at step {step} as at the first: nothing is trained."
                    evidence = {"parts": [*trained], "losses": [*found], "step": step}
                    self._alert("the learning rate is 0", text, "warning", None, "lr_zero", evidence)

    def _sees_all(self, found: Mapping[str, Reach], step: int) -> bool:
        """Whether all optimizers are known: those of a loop seen from outside once they have stepped."""
        return self._certain or self._seen_before(found, step, FIRST)

    def _seen_before(self, names: Iterable[str], step: int, steps: int) -> bool:
        """Whether these losses were seen in an earlier epoch, or so many steps ago."""
        seen = [self._seen.get(name, (self._epoch, step)) for name in names]
        return all(epoch != self._epoch or step - first >= steps for epoch, first in seen)

    def _tell_group(self, part: str, by: list[str], step: int, title: str, cause: str) -> None:
        if (cause, part) in self._said:
            return
        self._said.add((cause, part))
        words = title.removeprefix("the ")
        said = title if words == title else f"The {words}"
        text = f"{said}: {', '.join(by) or 'losses'} would train it, and nothing moves its parameters."
        evidence = {"part": part, "losses": by, "step": step}
        self._alert(title, text, "warning", by[0] if len(by) == 1 else None, cause, evidence)

    def _tell_frozen(self, ever: Container[str], idle: Container[str], step: int, turn: int) -> None:
        assert self._frozen is not None
        self._frozen = [each for each in self._frozen if each not in ever]
        still = [each for each in self._frozen if each not in idle]
        if not still:
            self._suspects.drop(FROZEN)
        elif not turn or self._suspects.holds(FROZEN, step, turn, seen=True) is not None:
            self._frozen = [each for each in self._frozen if each in idle]
            title, text = frozen_told(still, self._began)
            self._alert(title, text, "info", None, "frozen", {"parts": still}, f"frozen/{','.join(still)}")
