"""One model after the other in one script: folds, seeds, a search over settings.

Training thread. Contract:

- That a new model with a new optimizer is trained after another has ended is said once; the run goes on. That it has is
  known where the other one's optimizer is gone, or the new one, made since, has its shapes or an epoch alone.
- Optimizers that take turns, and a new optimizer over parts of the same model, are no such thing. Nor are copies of a
  model whose own optimizer, made before theirs, steps between them (meta-learning).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any, Final

from losslog.instrument.stepper import CLOCK, Stepper, parameters_of
from losslog.runtime.notices import Once

IN_A_ROW: Final = 2  # steps of the new one, where the old one could still go on


class _Trained:
    """What an optimizer trains."""

    def __init__(self, stepper: Stepper) -> None:
        parameters = parameters_of(stepper.ref())
        self.optimizer, self.since = stepper.ref, next(CLOCK)
        self.parameters = [weakref.ref(each) for each in parameters]
        self.shapes = [tuple(each.shape) for each in parameters]

    def alive(self) -> set[int]:
        """Identities of those that are there."""
        return {id(each) for reference in self.parameters if (each := reference()) is not None}


class Succession:
    """Looks at one run's steps.

    Args:
        modules: gives the modules that are known.
        alive: gives the optimizers that are there.
    """

    def __init__(self, modules: Callable[[], Iterable[Any]], alive: Callable[[], Iterable[Stepper]]) -> None:
        self._modules, self._alive = modules, alive
        self._copied: list[Any] = []  # shapes of what is trained as a whole, and in copies
        self._once = Once()
        self._now: weakref.ref[Stepper] | None = None
        self._trained: _Trained | None = None
        self._row = 0  # steps of one that may be a successor; 0: there is none
        self._began: tuple[int, int] | None = None  # step and epoch of one that may be one of another kind

    def stepped(self, stepper: Stepper, step: int, epoch: int) -> None:
        """An optimizer has stepped.

        Args:
            stepper: it.
            step: of the run.
            epoch: of the run.
        """
        if self._now is not None and self._now() is stepper:
            if self._row:
                self._row += 1
                if self._row >= IN_A_ROW:
                    self._tell(step, epoch)
            elif self._began is not None and epoch > self._began[1]:
                self._tell(*self._began)
            return
        self._began = None
        before, self._now, self._trained, self._row = self._trained, weakref.ref(stepper), _Trained(stepper), 0
        if before is None or stepper.steps or before.alive() & self._trained.alive() or self._in_one(before):
            return
        if before.shapes == self._trained.shapes and stepper.born < before.since:
            self._copied.append(before.shapes)
        if self._trained.shapes in self._copied or self._is_copy(stepper):
            return
        if before.optimizer() is None and len(before.alive()) < len(before.parameters):
            self._tell(step, epoch)
        elif before.shapes == self._trained.shapes:
            self._row = 1
        elif stepper.born > before.since:
            self._began = step, epoch

    def _is_copy(self, stepper: Stepper) -> bool:
        """Whether what is trained now has the shapes of what another optimizer steps on, without losses of its own."""
        assert self._trained is not None
        silent = [each for each in self._alive() if each is not stepper and each.ended and not each.steps]
        return any(_Trained(each).shapes == self._trained.shapes for each in silent)

    def _in_one(self, before: _Trained) -> bool:
        """Whether both train parts of one module."""
        assert self._trained is not None
        old, new = before.alive(), self._trained.alive()
        return any(
            old & own and new & own
            for module in self._modules()
            for own in [{id(each) for each in module.parameters()}]
        )

    def _tell(self, step: int, epoch: int) -> None:
        self._row, self._began = 0, None
        self._once(
            "a new model with a new optimizer is trained from step %d, epoch %d on: folds, trials or phases go on in "
            "one run here. For a run each: losslog.attach(model, optimizer, name=...) and run.close() around each",
            step, epoch,
            key="succession",
        )  # fmt: skip


class Lines:
    """Numbers optimizers: those that step together, or that have a parameter in common, have one number."""

    def __init__(self) -> None:
        self._parameters: dict[int, list[weakref.ref[Any]]] = {}
        self._last = 0

    def number_of(self, stepper: Stepper) -> int:
        """The number of an optimizer; 0 where it tells nothing of its parameters."""
        own = [one for each in (stepper, *stepper.partners) for one in parameters_of(each.ref())]
        alive = {
            number: {id(one): each for each in its if (one := each()) is not None}
            for number, its in self._parameters.items()
        }
        self._parameters = {number: [*its.values()] for number, its in alive.items() if its}
        found = next((number for number, its in alive.items() if any(id(one) in its for one in own)), None)
        if found is None and own:
            found = self._last = self._last + 1
        if found is not None:
            known = alive.get(found, {})
            self._parameters.setdefault(found, []).extend(weakref.ref(one) for one in own if id(one) not in known)
        return found or 0
