"""Outputs and backward passes that no optimizer stepped with: skipped batches, validation, metrics.

Training thread. Contract:

- An output that no backward pass came to is a skipped batch where it shares its pass over data with training, else
  validation, or where that goes over the data that is trained on neither. Of
  a model that no backward pass ever comes to, what it calls losses are metrics.
- Passes whose gradients were thrown away, or that no step followed, count in the epoch's mean alone. Where the same
  batch is computed once more (a second look of SAM's) they do not count.
- Passes for different losses of one forward, whose gradients were put together by hand (PCGrad), are one step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from losslog.instrument.datapass import Pass
from losslog.instrument.logbook import Logbook
from losslog.instrument.outputs import Output
from losslog.instrument.passes import EpochFinder
from losslog.instrument.readings import Computed, Reading, averaged
from losslog.instrument.rests import Rests
from losslog.instrument.roots import Root
from losslog.instrument.skipping import finite
from losslog.instrument.steady import nodes_behind
from losslog.instrument.stepper import Heard, Stepper
from losslog.instrument.window import Window, averages
from losslog.runtime.notices import Once
from losslog.values.snapshot import EXACT, resolve


def _gradients_of(stepper: Stepper) -> list[tuple[int, int]]:
    """What changes when somebody sets gradients by hand."""
    return [(-1, -1) if each.grad is None else (id(each.grad), each.grad._version) for each in stepper.probes]


def _stretched(reading: Reading, factor: float) -> Reading:
    """The same with a total, and weights, that are so many times as large."""
    values, weights = reading.values, reading.weights

    def compute() -> list[float]:
        found = resolve(values)
        return [*found[:-1], found[-1] * factor] if reading.has_total or reading.keys is None else found

    if weights is None:
        return reading._replace(values=Computed(compute))
    own, names = weights, reading.keys or ()

    def weigh() -> dict[str, float]:
        plain = own()
        found = {name: plain.get(name, 1.0) * factor for name in names}
        return {name: each for name, each in found.items() if abs(each - 1.0) > EXACT}

    return reading._replace(values=Computed(compute), weights=weigh)


class Leftovers:
    """Sorts them for one observer.

    Args:
        owner: the observer.
        logbook: where they go.
        finder: knows the training passes of the open epoch.

    Attributes:
        again: passes whose gradients were thrown away; perhaps their batch is only computed once more.
    """

    def __init__(self, owner: Any, logbook: Logbook, finder: EpochFinder) -> None:
        self._owner, self._logbook, self._finder = owner, logbook, finder
        self.again: list[Heard] = []
        self._gradients: list[Any] = []
        self._once = Once()

    def dropped(self, heard: Sequence[Heard]) -> None:
        """Gradients of backward passes were thrown away before a step."""
        self.again += heard

    def computes(self, *, new_batch: bool, same: bool = False) -> None:
        """The loop trains on; on a new batch, or the one at hand once more; ``same``: on what it has computed."""
        if self.again:
            again = [each for each in self.again if not (same and each.root.kept)]
            self.again = [each for each in self.again if each not in again]
            if again and new_batch:
                self._unstepped_heard(again)

    def begins(self, root: Root, pending: Sequence[Output]) -> None:
        """A backward pass begins.

        Gradients that are gone by then may have gone before its batch was computed; and passes whose losses it comes to
        once more are no part of a step.
        """
        newest = max((each.number for each in pending), default=-1)
        for each in [*self.again]:
            its = [output for output, _, _ in each.root.reached]
            if its and not each.root.kept and newest > max(output.number for output in its):
                self.again.remove(each)
                if self._finder.before is None or its[0].batch != self._owner.sightings.batch:
                    self._unstepped_heard([each])
        numbers = {number for each in self.again for number, _ in each.root.marks}
        if numbers and root.node is not None:
            behind = nodes_behind([root.node], numbers)
            self.again = [each for each in self.again if not any(number in behind for number, _ in each.root.marks)]

    def ended(self) -> None:
        """A backward pass has ended, after others whose gradients were thrown away."""
        self._gradients = [_gradients_of(each) for each in self.again[-1].feeds]

    def put_together(self, stepper: Stepper, heard: list[Heard]) -> list[Heard]:
        """The passes of a step, with those that were made for other losses of the same forward."""
        mine, outputs = [], {output for each in heard for output, _, _ in each.root.reached}
        known = {(output, index) for each in heard for output, index, _ in each.root.reached}
        for each in self.again:
            its = {(output, index) for output, index, _ in each.root.reached}
            one = each.root.kept or not outputs.isdisjoint(output for output, _ in its)
            if stepper in each.feeds and one and known.isdisjoint(its):
                mine.append(each)
                known |= its
        if not mine:
            return heard
        self.again = [each for each in self.again if each not in mine]
        for each in mine:
            each.taken = True
        if self._gradients and _gradients_of(stepper) not in self._gradients:
            self._once(
                "zero_grad() is called between backward passes of one forward, and gradients are then set by hand: "
                "all %d passes of a step are in its total", len(mine) + len(heard), key="by hand"
            )  # fmt: skip
            return [*mine, *heard]
        self._once(
            "zero_grad() is called between backward passes of one forward: the gradients of the first are thrown away, "
            "and the total is what the last was called on. Call zero_grad() before the first", key="thrown away"
        )  # fmt: skip
        return heard

    def cleared(self, stepper: Stepper) -> list[Heard]:
        """The passes of a step whose gradients were set to zero before it: it is their step all the same."""
        mine = [each for each in self.again if stepper in each.feeds]
        self.again = [each for each in self.again if each not in mine]
        for each in mine:
            each.taken = True
        return mine

    def by_other_means(self, pending: Iterable[Output], stepper: Stepper) -> list[Output]:
        """The outputs of a step whose gradients no backward pass gave: those over the same data as the last one."""
        mine = [
            each for each in pending
            if not each.reached and not each.family.ready_made and self._owner.drives(stepper, each.family)
        ]  # fmt: skip
        return [each for each in mine if each.driver is mine[-1].driver]

    def unreached(
        self, outputs: Sequence[Output], drivers: list[Pass | None], stepper: Stepper, others: bool, told: bool
    ) -> list[Output]:
        """A step was taken without these outputs.

        Args:
            outputs: those no backward pass has come to.
            drivers: the step's passes over data.
            stepper: whose step.
            others: whether other optimizers may still make backward passes through them.
            told: whether backward passes were heard.

        Returns:
            Those that wait on.
        """
        late = outputs
        if others:
            late = [each for each in outputs if each in stepper.unreached]
            stepper.unreached = list(outputs)
        self.never_backward(late, drivers, told=told)
        return [each for each in outputs if each not in late]

    def never_backward(self, outputs: Iterable[Output], drivers: list[Pass | None], *, told: bool = False) -> None:
        """No backward pass will come to these."""
        trained = [*drivers, *self._finder.current]
        beside: dict[str, list[tuple[Any, int]]] = {}
        for each in outputs:
            family = each.family
            if each.driver is not None and each.driver not in trained:
                if self._logbook.trained and family.keys is not None:
                    if any(one is not None and each.driver.same_data(one) for one in trained):
                        self._logbook.trained_on()
                    else:
                        self._owner.sightings.validating.unfollowed(each)
            elif family.keys is not None or not told:
                if not family.ready_made:
                    self.unstepped([each], counted=False)
            else:
                family.unreached += 1
                if family.unreached > 1 and each.named:  # what it calls a loss is none here
                    for index, name in enumerate(each.names):
                        beside.setdefault(f"{family.name}.{name}", []).append((each.values, index))
        found = averages(beside)
        if found is not None and self._logbook.made is not None:
            self._logbook.made.log_later(*found, step=self._logbook.made.next_step)

    def unstepped(self, outputs: list[Output], *, counted: bool) -> None:
        """Outputs were not followed by a step."""
        if outputs and (self._logbook.trained or counted or not all(map(finite, outputs))):
            self._logbook.unstepped(averaged(outputs), counted=counted)

    def _unstepped_heard(self, heard: list[Heard], *, said: bool = True) -> None:
        reading = Window(heard, self._owner).reading((), dicts=False, rest=Rests(quiet=True))
        if self._logbook.passes > reading.n:  # of a rest each pass is divided by more than there are
            reading = _stretched(reading, self._logbook.passes / reading.n)
        counted = finite(reading)
        if counted and said:
            self._once(
                "a backward pass was followed by no step (gradients cleared, or a rest of accumulation): no batch is "
                "recorded of it, and its losses count in the epoch's means", key="unstepped"
            )  # fmt: skip
        self._logbook.unstepped(reading._replace(beside=None), counted=counted)

    def sort_out(self, *, said: bool = True) -> None:
        """Nothing more comes of what waits; not ``said`` where the loop was left amid an epoch, which has no end."""
        pending, self._owner.sightings.pending = self._owner.sightings.pending, []
        waiting = [each for stepper in self._owner.steppers.alive for each in stepper.waiting]
        lost = [each for each in dict.fromkeys([*self.again, *waiting]) if not (each.taken or each.elsewhere)]
        self.again = []
        for each in lost:
            each.taken = True
        if lost:
            self._unstepped_heard(lost, said=said)
        self.never_backward([each for each in pending if not each.reached], [])
