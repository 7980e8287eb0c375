"""Batches that come again without their loader: of `itertools.cycle` every round after the first.

Training thread. Contract:

- As many batches as the loader gave are a pass. They are counted: on their way to a device they become other tensors.
- A batch may be computed with several times (adversaries, two looks), as often as in the loader's own pass.
"""

from __future__ import annotations

import gc
import itertools
import sys
import weakref
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from losslog.runtime.containment import attempt
from losslog.runtime.notices import now_and_then

if TYPE_CHECKING:
    import torch

DEEP: Final = 3  # a batch as a list of dicts in a dict, or ``**batch``
WIDE: Final = 16  # entries of a dict that are looked at
_ended: Final[weakref.WeakKeyDictionary[Any, int]] = weakref.WeakKeyDictionary()  # how often loaders gave all they have


def batches_in(value: Any, deep: int = DEEP) -> Iterator[torch.Tensor]:
    """What a batch of a list is known by: the first tensor of a sequence, all of a dict: some may be constants."""
    kind: Any = getattr(sys.modules.get("torch"), "Tensor", ())  # it is the script that imports torch
    if isinstance(value, kind):
        yield value
    elif deep and isinstance(value, Mapping):
        for each in itertools.islice(value.values(), WIDE):
            yield from batches_in(each, deep - 1)
    elif deep and isinstance(value, list | tuple) and value:
        yield from batches_in(value[0], deep - 1)


def goes_round(iterator: Any, loader: Any) -> bool:
    """Whether a loader's iterator, which has given all it has, is that of an `itertools.cycle`: nobody else tells.

    It is asked for the 1st, 2nd, 4th ... time that a loader has given all: all that Python keeps track of is looked at.
    """
    _, error = attempt(_ended.__setitem__, loader, _ended.get(loader, 0) + 1)
    if error is not None or not now_and_then(_ended[loader]):
        return False
    return any(type(each) is itertools.cycle for each in gc.get_referrers(iterator))


class Rounds:
    """Counts for one `losslog.instrument.passes.EpochFinder`."""

    def __init__(self) -> None:
        self._of: Any = None
        self._uses = self._most = 0  # of a batch beyond its first, by now, and at most in this pass

    def fresh(self, data: Any) -> None:
        """A loader has given batches of this pass."""
        self._most = max(self._most, self._uses) if data is self._of else 0
        self._of, self._uses = data, 0

    def used(self, data: Any) -> Any:
        """A batch was computed with, though no loader gave one; the round that it is the first of, or None."""
        if data is self._of:
            self._uses += 1
        if not data.cycles or (data is self._of and self._uses <= self._most):
            return None
        return data.round(self._most + 1 if data is self._of else 1)
