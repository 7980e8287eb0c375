"""One optimizer, and one backward pass as an observer sees it.

Training thread. Contract:

- Nothing is put on parameters: whether a pass has fed an optimizer is seen on the gradients of three of its parameters.
- Parameters live no longer than their optimizer.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from losslog.instrument.datapass import Pass
from losslog.instrument.ordering import Ordering
from losslog.instrument.roots import Root
from losslog.runtime.containment import attempt
from losslog.values.targets import Target

PROBES: Final = 3
SMALL: Final = 4096  # values of a parameter that are compared
CLOCK: Final = itertools.count(1)


class Heard:
    """A backward pass as one observer sees it.

    Attributes:
        root: the pass.
        drivers: the passes over data that its batches came from, in order.
        taken: whether an optimizer has stepped with it.
        elsewhere: whether one that nobody watches has stepped since, perhaps with it.
        feeds: the steppers it gave gradients.
        before: gradients that were there when it began, and their versions, by stepper.
        reach: what it trains, where that was looked at.
        targets: of its batch, where no output has them.
        looked: an output whose `habit` is to learn of it, and the way to its losses.
    """

    drivers: Sequence[Pass | None] = (None,)
    taken = elsewhere = False
    before: Mapping[Stepper, tuple[list[Any], list[int]]] = MappingProxyType({})
    reach: Any = None
    targets: Sequence[Target] = ()
    looked: Any = None

    def __init__(self, root: Root) -> None:
        self.root = root
        self.feeds: list[Stepper] = []


class Stepper:
    """One optimizer.

    Args:
        optimizer: of torch, or another that steps.
        few: whether one probe has to do.
        gone: called when the optimizer is no more.

    Attributes:
        probes: some of its parameters.
        waiting: passes that fed it since its gradients were cleared.
        steps: recorded steps.
        ended: calls of its own ``step``.
        first: the passes of the first of several evaluations within one step (LBFGS).
        inside: whether it is stepping now.
        partners: steppers that step on the same passes.
        unreached: outputs that no pass had come to at its last step.
        begun: whether it had gradients when it became known, from backward passes that were not heard.
        named: whether its steps have components.
        alone: the first single loss that a step of it was made of.
        ordering: which of its steps' losses are several calls of one criterion.
        elder: the first of those made one after the other over copies of one model; itself, as long as unknown.
        born, since: when it was made, and stepped first, as `CLOCK` counts; 0: not known.
    """

    def __init__(
        self, optimizer: Any, *, few: bool = False, gone: Callable[[Stepper], None] = lambda stepper: None
    ) -> None:
        itself = weakref.ref(self)

        def forget(_: Any) -> None:
            stepper = itself()
            if stepper is not None:
                gone(stepper)

        self.ref: weakref.ref[Any] = weakref.ref(optimizer, forget)
        parameters = [each for each in parameters_of(optimizer) if each.requires_grad and each.is_leaf]
        places = sorted({0, len(parameters) // 2, len(parameters) - 1}) if len(parameters) > PROBES else None
        self.probes: list[Any] = parameters if places is None else [parameters[place] for place in places]
        if few:
            del self.probes[1:]
        self.waiting: list[Heard] = []
        self.first: list[Heard] | None = None
        self.inside = self.named = False
        self.alone: str | None = None
        self.thread: int | None = None
        self.steps = self.ended = 0
        self.unreached: list[Any] = []
        self.begun = any(each.grad is not None for each in self.probes)
        self.partners: set[Stepper] = set()
        self.ordering = Ordering()
        self.elder, self.born, self.since = self, next(CLOCK), 0

    def begins(self, heard: Heard) -> bool:
        """A backward pass begins; whether gradients of earlier ones are gone."""
        for each in self.probes:
            if each.grad is not None:
                break
        else:
            self.begun = False
            return bool(self.waiting)
        gradients = [each.grad for each in self.probes]
        its = gradients, [-1 if each is None else each._version for each in gradients]
        heard.before = {**heard.before, self: its}
        return False

    def fed(self, heard: Heard) -> bool:
        """Whether the pass that has ended gave it gradients."""
        before = heard.before.get(self)
        if before is None:
            for each in self.probes:  # noqa: SIM110 - without a generator
                if each.grad is not None:
                    return True
            return False
        for each, gradient, version in zip(self.probes, *before, strict=True):
            now = each.grad
            if now is not None and (now is not gradient or now._version != version):
                return True
        return False

    def values(self) -> list[Any]:
        """What changes when its parameters do: of small ones on the host their values, else their versions."""
        return [each.tolist() if each.is_cpu and each.numel() <= SMALL else each._version for each in self.probes]

    def owns(self, parameters: set[int]) -> bool:
        """Whether it trains any of these."""
        return any(id(each) in parameters for each in parameters_of(self.ref()))


def parameters_of(optimizer: Any) -> list[Any]:
    """What an optimizer trains; empty where that cannot be told."""
    groups = getattr(optimizer, "param_groups", None)
    if groups is None:
        return []
    found, _ = attempt(lambda: [each for group in groups for each in group["params"] if hasattr(each, "requires_grad")])
    return found or []
