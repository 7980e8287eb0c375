"""Passes over data loaders, and the rule that finds epochs in them.

Training thread. Contract:

- A pass is one iteration over one `DataLoader`. It is over when it is exhausted or its iterator is gone (a `break`).
- A new epoch begins with an optimizer step whose batch comes from a new pass over the loader that this epoch began
  with, or from any other pass when all passes of this epoch are over.
- Where batches come from no loader, ``model.train()`` after at least one step ends the epoch, or the planned number of
  steps does.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Final

STALE: Final = 2  # forwards after a pass was over: one may be a prefetched batch, more come from somewhere else


class Pass:
    """One iteration over a loader.

    Args:
        loader: the `DataLoader`.
        iterator: what iterating it gave.

    Attributes:
        exhausted: whether it has given all its batches.
        evaluated: whether a model looked at its batches without training on them.
    """

    __slots__ = ("__weakref__", "_iterator", "_loader", "evaluated", "exhausted")

    def __init__(self, loader: Any, iterator: Any) -> None:
        self._loader = weakref.ref(loader)
        self._iterator = weakref.ref(iterator)
        self.exhausted = self.evaluated = False

    @property
    def over(self) -> bool:
        """Whether it can give no more batches."""
        return self.exhausted or self._iterator() is None

    def same_loader(self, other: Pass) -> bool:
        """Whether the other is an iteration over the same loader."""
        loader = self._loader()
        return loader is not None and loader is other._loader()


class EpochFinder:
    """Finds where epochs begin.

    Args:
        passes_per_epoch: passes over loaders that make an epoch.
        steps_per_epoch: the plan; it decides only where the data gives no sign.

    Attributes:
        told: whether the loop says itself when an epoch ends; then nothing is found any more.
        current: the training passes of the open epoch, the one it began with first.
        steps: optimizer steps in the open epoch.
    """

    def __init__(self, passes_per_epoch: int | None = None, steps_per_epoch: int | None = None) -> None:
        self._passes_per_epoch = passes_per_epoch or 1
        self._steps_per_epoch = steps_per_epoch
        self.told = False
        self.current: list[Pass] = []
        self.steps = 0
        self._passes = 1
        self._before: Pass | None = None
        self._stale = 0
        self._new = False

    def driver(self, fresh: Sequence[Pass]) -> Pass | None:
        """The pass that a training forward's batch comes from.

        Args:
            fresh: passes that gave a batch since the last training forward, in order.
        """
        live = [each for each in fresh if not each.over] or [each for each in fresh[-1:] if not each.evaluated]
        if not live:
            if self._before is not None and self._before.over:
                self._stale += 1
                if self._stale >= STALE:
                    self._before = None
            return self._before
        self._stale = 0
        known = [each for each in live if each in self.current]
        again = [each for each in live if any(each.same_loader(other) for other in self.current)]
        first = live[:1] if not self.current else live[-1:]
        self._before = (known or again or first)[0]
        return self._before

    def begins(self, drivers: Sequence[Pass | None]) -> bool:
        """Whether an optimizer step is the first of a new epoch.

        Args:
            drivers: the passes of the step's forwards, in order.
        """
        if self.told or not self.steps:
            return False
        passes = [each for each in drivers if each is not None]
        if not passes:
            return self._planned()
        main = next((each for each in passes if not each.over), passes[-1])
        if main in self.current:
            return main.over and self._stale > 0 and self._planned()
        again = bool(self.current) and main.same_loader(self.current[0])
        if not again and not (self.current and all(each.over for each in self.current)):
            return False
        self._passes += 1
        if self._passes > self._passes_per_epoch:
            return True
        self.current = [each for each in self.current if not each.over and not each.same_loader(main)]
        return False

    def _planned(self) -> bool:
        return self._steps_per_epoch is not None and self.steps >= self._steps_per_epoch

    def stepped(self, drivers: Sequence[Pass | None]) -> None:
        """An optimizer step of the open epoch was taken."""
        self.steps += 1
        if self._new:
            self.current, self._new = [], False
        for each in drivers:
            if each is not None and each not in self.current:
                self.current = [other for other in self.current if not other.same_loader(each)]
                self.current.append(each)

    @property
    def ends_with_train(self) -> bool:
        """Whether ``model.train()`` now ends the epoch: there were steps, and no loader that says it better."""
        return not self.told and self._before is None and self.steps > 0

    def ended(self) -> None:
        """The open epoch has ended."""
        self.steps = 0
        self._passes, self._new = 1, True
