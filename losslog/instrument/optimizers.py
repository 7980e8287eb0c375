"""Optimizers that are known, and which backward passes feed each of them.

Training thread. Contract:

- Passes wait until the optimizer steps, or until its gradients are cleared, by whatever means.
- No gradient is looked at that another thread may be writing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import get_ident
from typing import Any, Final

from losslog.instrument.roots import elsewhere
from losslog.instrument.stepper import Heard, Stepper

MANY: Final = 1000  # passes that wait for one optimizer
CROWD: Final = 16  # optimizers from which on one probe each has to do


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
            for each in self.alive:
                for heard in each.waiting:
                    heard.elsewhere = True
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
        gone = [each for each in gone if not (each.taken or each.elsewhere)]
        lost = [each for each in gone if not any(o.inside or each in o.waiting for o in each.feeds)]
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

    def take(
        self, stepper: Stepper, ours: Callable[[Heard, Stepper], bool], inside: Sequence[Heard]
    ) -> tuple[list[Heard], bool]:
        """The passes that a step is made of, and whether another optimizer has stepped with them already.

        Args:
            stepper: that steps.
            ours: whether a pass that fed nobody known may have fed it.
            inside: a pass that runs now.
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
        for each in inside if not found else ():
            if each.taken:
                _joins(stepper, each.feeds)
                return [], True
            each.feeds.append(stepper)
            found = [each]
        for each in found:
            each.taken = True
        return found, False


def _become_partners(steppers: Sequence[Stepper]) -> None:
    for each in steppers:
        each.partners.update(other for other in steppers if other is not each)


def _joins(stepper: Stepper, feeds: list[Stepper]) -> None:
    """One more has stepped within a pass; there may be hundreds, one for each parameter, in each pass."""
    if stepper not in feeds[0].partners and stepper is not feeds[0]:
        for other in feeds:
            other.partners.add(stepper)
        stepper.partners.update(feeds)
    feeds.append(stepper)
