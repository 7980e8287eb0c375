"""Optimizers that are known, and which backward passes feed each of them.

Training thread. Contract:

- Nothing is put on parameters: whether a pass has fed an optimizer is seen on the gradients of three of its parameters.
- Passes wait until the optimizer steps, or until its gradients are cleared, by whatever means.
- Parameters live no longer than their optimizer. No gradient is looked at that another thread may be writing.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Mapping, Sequence
from threading import get_ident
from types import MappingProxyType
from typing import Any, Final

from losslog.instrument.datapass import Pass
from losslog.instrument.ordering import Ordering
from losslog.instrument.roots import Root, elsewhere
from losslog.runtime.containment import attempt
from losslog.values.targets import Target

PROBES: Final = 3
MANY: Final = 1000  # passes that wait for one optimizer
SMALL: Final = 4096  # values of a parameter that are compared
CLOCK: Final = itertools.count(1)
CROWD: Final = 16  # optimizers from which on one probe each has to do


class Heard:
    """A backward pass as one observer sees it.

    Attributes:
        root: the pass.
        drivers: the passes over data that its batches came from, in order.
        taken: whether an optimizer has stepped with it.
        feeds: the steppers it gave gradients.
        before: gradients that were there when it began, and their versions, by stepper.
        reach: what it trains, where that was looked at.
        targets: of its batch, where no output has them.
        looked: an output whose `habit` is to learn of it, and the way to its losses.
    """

    drivers: Sequence[Pass | None] = (None,)
    taken = False
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


class Steppers:
    """The optimizers of one observer.

    Args:
        dropped: told the passes whose gradients are thrown away.

    Attributes:
        alive: those whose optimizers are there.
        loose: passes that fed no optimizer that is known.
    """

    def __init__(self, dropped: Callable[[list[Heard]], None]) -> None:
        self._dropped = dropped
        self._known: dict[int, Stepper] = {}
        self.alive: tuple[Stepper, ...] = ()
        self.loose: list[Heard] = []

    def get(self, optimizer: Any) -> Stepper | None:
        """The stepper of an optimizer, or None."""
        found = self._known.get(id(optimizer))
        return found if found is not None and found.ref() is optimizer else None

    def stepped(self, optimizer: Any) -> Stepper | None:
        """The stepper of an optimizer that has stepped in this thread, or None."""
        found = self._known.get(id(optimizer))
        if found is None or found.ref() is not optimizer:
            return None
        found.thread = get_ident()
        return found

    def _here(self) -> Sequence[Stepper]:
        """Those whose gradients may be looked at: autograd writes them without a lock, in the thread that trains."""
        if len(self.alive) < 2:
            return self.alive
        here, foreign = get_ident(), elsewhere()
        return [each for each in self.alive if each.thread == here or (each.thread is None and not foreign)]

    def add(self, optimizer: Any) -> Stepper:
        """Know an optimizer from now on."""
        found = self.get(optimizer)
        if found is None:
            found = Stepper(optimizer, few=len(self._known) >= CROWD, gone=self._forget)
            self._known[id(optimizer)] = found
            self.alive = (*self._known.values(),)
        return found

    def adopt(self, optimizer: Any) -> Stepper:
        """Know an optimizer that is stepping already: the passes that wait for others may have fed it too."""
        waiting = [each for stepper in self.alive for each in stepper.waiting if not each.taken]
        found, found.born = self.add(optimizer), 0
        if found.begun:
            found.waiting, found.begun = [*dict.fromkeys(waiting)], not waiting
        return found

    def _forget(self, stepper: Stepper) -> None:
        for key in [key for key, each in self._known.items() if each is stepper]:
            del self._known[key]
        stepper.probes = []
        self.alive = (*self._known.values(),)

    def begins(self, heard: Heard) -> None:
        """A backward pass begins."""
        for each in self.alive if len(self.alive) < 2 else self._here():
            if each.begins(heard):
                self.clear(each)

    def ends(self, heard: Heard) -> None:
        """It has ended; find out whom it fed."""
        for each in self.alive if len(self.alive) < 2 else self._here():
            if each.fed(heard):
                if len(each.waiting) >= MANY:  # it does not step any more
                    each.waiting = [other for other in each.waiting if not other.taken][-MANY:]
                each.waiting.append(heard)
                heard.feeds.append(each)
        if heard.feeds:
            heard.root.fed += (self,)
        else:
            self.loose.append(heard)
            del self.loose[:-1000]

    @property
    def unclaimed(self) -> int:
        """How many passes fed no optimizer that is known, nor one that somebody else watches."""
        return sum(not each.root.fed for each in self.loose)

    def clear(self, stepper: Stepper) -> None:
        """An optimizer's gradients were thrown away."""
        gone, stepper.waiting = stepper.waiting, []
        if stepper.inside and stepper.first is None and not all(each.taken for each in gone):
            stepper.first = gone
            return
        lost = [each for each in gone if not (each.taken or any(o.inside or each in o.waiting for o in each.feeds))]
        if lost:
            self._dropped(lost)

    def zeroed(self, owner: Any) -> None:
        """An optimizer or a module has set gradients to zero."""
        stepper = self._known.get(id(owner))
        if stepper is not None and stepper.ref() is owner:
            stepper.begun = False
            if stepper.waiting:
                self.clear(stepper)
            for each in self._here() if len(self.alive) > 1 else ():  # others over the same parameters
                if each.waiting and all(probe.grad is None for probe in each.probes):
                    self.clear(each)
        elif hasattr(owner, "parameters"):
            waiting = [each for each in self._known.values() if each.waiting]
            mine = {id(each) for each in owner.parameters()} if waiting else set()
            for each in waiting:
                if all(id(probe) in mine for probe in each.probes):
                    self.clear(each)

    def take(self, stepper: Stepper, ours: Callable[[Heard, Stepper], bool]) -> tuple[list[Heard], bool]:
        """The passes that a step is made of, and whether another optimizer has stepped with them already.

        Args:
            stepper: that steps.
            ours: whether a pass that fed nobody known may have fed it.
        """
        waiting = stepper.first or stepper.waiting
        for each in stepper.waiting if stepper.first else ():  # further evaluations, which may have fed others too
            each.taken = True
        stepper.waiting, stepper.first = [], None
        if len(waiting) > 1:  # another thread's may have run meanwhile
            here = get_ident()
            waiting = [each for each in waiting if each.root.thread == here] or waiting
        if len(waiting) == 1 and not waiting[0].taken:
            waiting[0].taken = True
            return waiting, False
        found = [each for each in waiting if not each.taken]
        if waiting and not found:
            for each in waiting:
                _become_partners(each.feeds)
            return [], True
        if not found:
            found = [each for each in self.loose if ours(each, stepper)]
            self.loose = [each for each in self.loose if each not in found]
        for each in found:
            each.taken = True
        return found, False


def _become_partners(steppers: Sequence[Stepper]) -> None:
    for each in steppers:
        each.partners.update(other for other in steppers if other is not each)
