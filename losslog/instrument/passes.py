"""The rule that finds epochs in passes over data loaders.

Training thread. Contract:

- A new epoch begins with an optimizer step whose batch comes from a new pass over the loader that this epoch began
  with, or from any other pass when all passes of this epoch are over.
- Rounds of an `itertools.cycle` over a loader are passes; with a planned number of steps that decides there.
- On a loader that gives more batches than it says there are, the planned number of steps ends an epoch, or
  ``model.train()`` after an evaluation.
- Where batches come from no loader, an epoch ends when a batch comes again, at ``model.train()`` after an evaluation or
  after two steps, or after the planned number of steps.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Final

from losslog.instrument.datapass import Pass
from losslog.instrument.rounds import Rounds, batches_in
from losslog.instrument.wholes import nothing
from losslog.runtime.notices import Once

ROUND: Final = 2  # steps after which a batch that is seen again begins a new round
MOST_SEEN: Final = 100_000  # batches of a list that are recognised
FEW: Final = 16  # tensors of one batch
STALE: Final = 2  # forwards after a pass was over: one may be a prefetched batch, more come from somewhere else
NOTHING: Final = (nothing, 0, 0)


class EpochFinder:
    """Finds where epochs begin.

    Args:
        passes_per_epoch: passes over loaders that make an epoch.
        steps_per_epoch: the plan; it decides only where the data gives no sign.

    Attributes:
        told: whether the loop says itself when an epoch ends; then nothing is found any more.
        current: the training passes of the open epoch, the one it began with first.
        before: the pass that the last training forward's batch came from.
        steps: optimizer steps in the open epoch.
    """

    def __init__(self, passes_per_epoch: int | None = None, steps_per_epoch: int | None = None) -> None:
        self._passes_per_epoch = passes_per_epoch or 1
        self._steps_per_epoch = steps_per_epoch
        self.told = False
        self._rounds = Rounds()
        self.current: list[Pass] = []
        self.steps = self._steps_then = self._stale = 0
        self._passes = 1
        self.before: Pass | None = None
        self._new = self._turned = self._before_each = self._came_round = False
        self._taken = 0  # steps since the beginning
        self._seen: dict[int, tuple[Any, int, int]] = {}  # a weak reference, a version, and the step it was seen at
        self._earlier = self._seen  # in the epoch before
        self._newest: Any = nothing  # gives the batch that was new last
        self._once = Once()
        self._any = self._comes_again = False  # whether an epoch has ended; whether a batch came more than once

    @property
    def lost(self) -> bool:
        """Whether all steps are one epoch for want of a sign: no loader ends, nor is it one pass over a list."""
        if self._any or self.told or self._steps_per_epoch is not None:
            return False
        alive = sum(ref() is not None for ref, _, _ in self._seen.values())
        return all(each.endless and not each.over for each in self.current) and (self._comes_again or alive <= STALE)

    @property
    def generated(self) -> bool:
        """Whether batches are of no loader, and none has come twice."""
        return self.before is None and not self._comes_again

    @property
    def one_batch(self) -> bool:
        """Whether all steps of the open epoch are on one batch, which no loader gave."""
        if self.before is not None or not 0 < len(self._seen) <= FEW:
            return False
        for _, _, step in self._seen.values():  # noqa: SIM110 (asked at each step)
            if step != self._taken:
                return False
        return True

    def driver(self, fresh: Sequence[Pass]) -> Pass | None:
        """The pass that a training forward's batch comes from.

        Args:
            fresh: passes that gave a batch since the last training forward, in order.
        """
        live = [each for each in fresh if not each.over] or [each for each in fresh[-1:] if not each.evaluated]
        if not live:
            if self.before is not None and self.before.unused:
                self.before.unused -= 1  # fetched ahead
            elif self.before is not None and self.before.goes_on():
                pass
            elif self.before is not None and (again := self._rounds.used(self.before)) is not None:
                self.before = again
            elif self.before is not None and self.before.over:
                self._stale += 1
                if self._stale >= STALE:
                    self.before = None
            return self.before
        self._stale = 0
        self._rounds.fresh(live[-1])
        known = [each for each in live if each in self.current]
        again = known or [each for each in live if any(each.same_loader(other) for other in self.current)]
        new = [each for each in live if not each.evaluated] or live  # a validation's loader may not be at its end
        self.before = (again or (new[-1:] if self.current else new))[0]
        self.before.unused = max(self.before.unused - 1, 0)
        return self.before

    def batch(self, tensor: Any) -> None:
        """A model is trained on this; an epoch is over when a batch comes again."""
        ref, version, step = self._seen.get(id(tensor), NOTHING)
        known = ref() is tensor and version == tensor._version
        several = known and self._newest() is tensor  # steps look at one batch
        if known and not several and len(self._seen) > 1 and self._taken - step >= ROUND:
            self._came_round = True
            self._seen = {}
        if not self._comes_again:
            self._comes_again = (known and self._taken > step) or self._earlier.get(id(tensor), NOTHING)[0]() is tensor
        self._newest = self._newest if known else weakref.ref(tensor)
        self._seen[id(tensor)] = (ref if known else weakref.ref(tensor), tensor._version, self._taken)
        if len(self._seen) > MOST_SEEN:
            self._seen = {}

    def trains_on(self, data: Pass | None, args: Sequence[Any] = ()) -> bool:
        """Whether the open epoch is trained on a pass's data; without a pass, on any of these batches."""
        if data is not None:
            return any(data.same_data(each) for each in self.current)
        return any(self._seen.get(id(each), NOTHING)[0]() is each for one in args for each in batches_in(one))

    def begins(self, drivers: Sequence[Pass | None]) -> bool:
        """Whether an optimizer step is the first of a new epoch.

        Args:
            drivers: the passes of the step's forwards, in order.
        """
        if self.told or not self.steps:
            return False
        passes = [each for each in drivers if each is not None]
        if not passes:
            return self._planned() or (self._came_round and self._steps_per_epoch is None)
        main = self._main(passes)
        if self._steps_per_epoch is not None and (main.cycles or any(each.cycles for each in self.current)):
            return self._planned()
        if main in self.current:
            if self._steps_per_epoch is not None:
                ends = main.open_ended or main.over
                if self._planned() and not ends:
                    if main.looks():
                        return True
                    self._once(
                        "steps_per_epoch=%d: the data loader gives more, and an epoch is a pass over it. For epochs of "
                        "%d steps call run.end_epoch() in the loop, or leave steps_per_epoch out",
                        *2 * (self._steps_per_epoch,),
                    )
                return self._planned() and ends
            return (self._turned and main.endless) or (self._came_round and main.over)
        again = bool(self.current) and main.same_loader(self.current[0])
        if not again and not (self.current and all(each.over for each in self.current)):
            return False
        self._passes += 1
        if self._passes > self._passes_per_epoch:
            if self._any and self._steps_per_epoch is not None and not self._planned():
                self._once("steps_per_epoch=%d: the data loader gives %d steps, and an epoch is a pass over it",
                           self._steps_per_epoch, self.steps, key="fewer")  # fmt: skip
            return True
        others = [each for each in self.current if not each.over and not each.same_loader(main)]
        self.current = [main, *others] if again else others
        return False

    def goes_on(self, driver: Pass | None) -> bool:
        """A step was taken as the last one: it counts, unless it may begin an epoch; ``driver`` as in `begins`."""
        other = self._turned or self._came_round or self._new or (driver is not None and self.current != [driver])
        if other or not 0 < self.steps < (self._steps_per_epoch or self.steps + 1):
            return False
        self.steps += 1
        self._taken += 1
        return True

    def _main(self, passes: Sequence[Pass]) -> Pass:
        """Of the passes that a step's batches come from, the one that may begin an epoch."""
        if len(passes) > 1 and self.current:
            first = self.current[0]
            passes = [each for each in passes if each is first or each.same_loader(first)] or passes
        return next((each for each in passes if not each.over), passes[-1])

    def _planned(self) -> bool:
        return self._steps_per_epoch is not None and self.steps >= self._steps_per_epoch

    def stepped(self, drivers: Sequence[Pass | None]) -> None:
        """An optimizer step of the open epoch was taken."""
        self.steps += 1
        self._taken += 1
        self._turned = self._came_round = False
        first = self.current[:1]
        if self._new:
            self.current, self._new = [], False
        for each in drivers:
            if each is not None and each not in self.current:
                self.current = [other for other in self.current if not other.same_loader(each)]
                self.current.append(each)
        if len(self.current) > 1 and first:  # the loader that began the last epoch begins this one
            self.current.sort(key=lambda each: each is not first[0] and not each.same_loader(first[0]))

    def train_called(self, *, was_training: bool, amid: bool) -> bool:
        """``model.train()`` was called; whether that ends the epoch: there were steps, and no loader says it better.

        Args:
            was_training: whether the model was in training mode already.
            amid: whether gradients wait for a step: then it is called before every batch, and says nothing.
        """
        self._before_each = self._before_each or amid
        few, self._steps_then = self.steps - self._steps_then < 2, self.steps
        if self.told or amid or not self.steps or (was_training and (few or self._before_each)):
            return False
        self._turned = True  # on an endless loader the next step begins an epoch
        return self.before is None

    def ended(self) -> None:
        """The open epoch has ended."""
        self._any, self.steps, self._steps_then = True, 0, 0
        self._earlier = self._seen
        self._seen = {key: each for key, each in self._seen.items() if each[2] == self._taken}  # of the step at hand
        self._passes, self._new = 1, True
