"""What an adapter hears from torch: what goes backward, which optimizers step, and what modules give.

Training thread. Contract:

- The total is what goes backward, the rates are those that a step was taken with.
- Where a framework names the components of step after step, modules and gradients are looked at in the first steps of
  an epoch only; a step that it names none of ends that.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Collection, Sequence
from typing import Any, Final

from losslog.compat.opening import together
from losslog.compat.quiet import Notes, Quiet
from losslog.compat.window import Window
from losslog.instrument.family import Family
from losslog.instrument.listeners import Listener, meter
from losslog.instrument.observer import Observer
from losslog.instrument.outputs import Output
from losslog.instrument.passes import EpochFinder
from losslog.instrument.readings import Reading
from losslog.instrument.roots import Root
from losslog.instrument.series import rates
from losslog.instrument.stepper import Heard, Stepper
from losslog.run import SAMPLE, Run

ENOUGH: Final = 20  # steps in a row whose components the framework has named


class Ears(Observer):
    """Hears one training.

    Args:
        run: where it is logged.
        optimizers: whose rates are logged; None: of all that step.

    Attributes:
        window: what waits for a step.
        stepped: whether an optimizer has stepped since the last record.
        names: of the components that the framework has named last; empty where it names none.
    """

    def __init__(self, run: Run, optimizers: Sequence[Any] | None) -> None:
        super().__init__(Notes(lambda: run), EpochFinder())
        self.called = self._called  # type: ignore[method-assign,assignment]
        self._thread = threading.get_ident()
        self.logbook.made = run
        self.finder.told = True
        self.silence = Quiet(self.logbook)
        self.window = Window()
        self.stepped = self._plain = False
        self.names: Collection[str] = ()
        self._named = self._taken = 0  # steps in a row that the framework named; all
        self._seen: list[tuple[Stepper, Reading]] = []
        self._optimizers = optimizers
        self._mine = None if optimizers is None else {id(each) for each in optimizers}
        self._rates: dict[int, tuple[Any, Any]] = {}
        for each in optimizers or ():
            self.steppers.add(each)
        self.discovery.start()

    @property
    def optimizers(self) -> list[Any]:
        """Those that have stepped."""
        return [each for each, _ in self._rates.values()]

    def take(self) -> Reading | None:
        """What the step was made of."""
        self.stepped, seen = False, self._seen
        self._seen = []
        self._named = self._named + 1 if self.window.named else 0
        self._plain = self._named >= ENOUGH and not (self.reaching.visiting or self.discovery.looking)
        named, several = self.window.named, len(seen) > 1
        found = self.window.take([(self.series.name_of(stepper) if several else "", its) for stepper, its in seen])
        self.names = (found.keys or ()) if named and found is not None else ()
        return found

    def lr(self) -> Any:
        """The rates that the optimizers stepped with last; those that were named first in their order."""
        known = self._rates
        return together(
            [known.get(id(each)) or (each, rates(each)) for each in self._optimizers or ()] or [*known.values()]
        )

    def before_epoch_end(self) -> Any:
        """The next epoch's first steps are looked at again."""
        self._plain, self._named = False, min(self._named, ENOUGH - 2)
        return super().before_epoch_end()

    def trains(self, optimizer: Any) -> bool:
        """Every optimizer."""
        return True

    def follows(self) -> bool:
        """The thread of the framework's loop."""
        return threading.get_ident() == self._thread

    def may_feed(self, heard: Heard, stepper: Stepper) -> bool:
        """Any pass."""
        return True

    def drives(self, stepper: Stepper, family: Family) -> bool:
        """Where no backward pass was heard the framework has to tell."""
        return False

    def _called(self, *args: Any) -> None:
        """A watched module was called; without gradients that may be validation."""
        if not self._plain or not sys.modules["torch"].is_grad_enabled():
            self.sightings.called(*args)

    def zeroed(self, owner: Any) -> None:
        """Gradients were set to zero."""
        if not self._plain:
            super().zeroed(owner)

    def backward_begins(self, root: Root) -> None:
        """A backward pass begins."""
        if not self._plain:
            super().backward_begins(root)

    def backward_ends(self, root: Root) -> None:
        """A backward pass has ended: it is part of the total."""
        if not self._plain:
            super().backward_ends(root)
        if not self.closed and root.thread == self._thread:
            self.window.backward(root)

    def step_ends(self, optimizer: Any) -> None:
        """An optimizer has stepped."""
        mine = self._mine is None or id(optimizer) in self._mine
        if not mine or self.closed or not self.follows():
            return
        if not self._plain:
            super().step_ends(optimizer)
        elif meter.owner is self:
            self.run.spent(meter.stop())
        elif self._taken % SAMPLE == 5:
            meter.start(self)
        self._taken += 1
        self._rates[id(optimizer)] = (optimizer, rates(optimizer))
        self.stepped = True

    train_called = Listener.train_called  # the framework says what an epoch is

    def scaler_ends(self, optimizer: Any, scaler: Any) -> None:
        """A step that a GradScaler left out is one to the framework, or its batches are of the next."""

    def _record(self, stepper: Stepper, reading: Reading, outputs: list[Output], own: Collection[str]) -> None:
        keys = reading.keys
        for each in outputs:
            names = each.names
            each.family.keys = (
                names if names is keys else tuple(name for name in dict.fromkeys(names) if name in (keys or ()))
            )
        if self.discovery.looking:
            self.discovery.stepped(stepper, explained=bool(keys) or self.window.named)
        self._seen.append((stepper, reading))
