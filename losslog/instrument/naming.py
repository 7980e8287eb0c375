"""Which images a step was computed of: target dicts that name them, as a model, a criterion or a loader has them.

Training thread. Contract:

- What a model or criterion is called with goes first. What its loader gave counts where it gave just this batch: not
  where batches are fetched ahead.
- Of targets the fields that name and place objects are kept, by reference; masks and pictures are let go.
- A loop whose first batches name nothing is looked at no more.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from losslog.values.targets import NAMES, Target, picked

DEEP: Final = 2  # a batch of (images, targets), or a dict with targets, as the one argument
MOST: Final = 16  # entries of a list that are looked at
VAIN: Final = 100  # calls that name nothing


class Naming:
    """Names the images of the batch at hand, for one observer.

    Attributes:
        found: the targets of the batch at hand.
        looking: whether calls may name images.
    """

    def __init__(self) -> None:
        self.found: list[Target] = []
        self._vain = 0
        self.looking = True

    def computes(self, args: Iterable[Any], kwargs: Mapping[str, Any]) -> None:
        """A model or a criterion is called in training."""
        if self.looking:
            found = named_in(args) or (named_in(kwargs.values()) if kwargs else ())
            self._vain = 0 if found else self._vain + 1
            self.looking = self._vain < VAIN
            if found:
                self.found = picked(found)

    @property
    def at_hand(self) -> Sequence[Target]:
        """Of the batch at hand, while no losses were computed of it."""
        return self.found

    def take(self, driver: Any) -> Sequence[Target]:
        """The targets of the batch that losses were computed of.

        Args:
            driver: the `losslog.instrument.passes.Pass` that it came from, or None.
        """
        found, self.found = self.found, []
        return found or (driver.targets if driver is not None and not driver.unused else ())


def named_in(values: Iterable[Any], deep: int = DEEP) -> Sequence[Mapping[str, Any]]:
    """The first list of dicts that name their images, or one dict that does; () where there is none."""
    for each in itertools.islice(values, MOST):
        if isinstance(each, list | tuple):
            if each and isinstance(each[0], Mapping):
                if all(isinstance(one, Mapping) and not NAMES.isdisjoint(one) for one in each):
                    return each
            elif deep and (found := named_in(each, deep - 1)):
                return found
        elif isinstance(each, Mapping):
            if not NAMES.isdisjoint(each):
                return [each]
            if deep and (found := named_in(each.values(), deep - 1)):
                return found
    return ()
