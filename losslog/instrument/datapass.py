"""A pass: one iteration over one `DataLoader`.

Training thread. Contract:

- It is over when it is exhausted or its iterator is gone (a `break`). Neither loader nor iterator is kept alive.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, Final

from losslog.instrument.looking import offered, saw
from losslog.instrument.naming import named_in
from losslog.instrument.rounds import goes_round
from losslog.instrument.wholes import length, whole
from losslog.values.targets import Target, picked

NAMED: Final = 4  # batches of a loader that are asked for image ids


class Pass:
    """One iteration over a loader.

    Args:
        loader: the `DataLoader`.
        iterator: what iterating it gave.

    Attributes:
        exhausted: whether it has given all its batches.
        evaluated: whether a model looked at its batches without training on them.
        cycles: whether its batches come again without their loader.
        ahead: batches fetched before the first of them was looked at; None before that.
        given: batches it gave.
        targets: what names the images of the batch it gave last.
        unused: batches fetched that nothing was trained on yet.
    """

    __slots__ = (
        "__weakref__", "_iterator", "_length", "_loader", "_uses", "_whole", "ahead", "cycles", "evaluated",
        "exhausted", "given", "targets", "unused",
    )  # fmt: skip

    def __init__(self, loader: Any, iterator: Any) -> None:
        self._loader = weakref.ref(loader)
        self._iterator: Callable[[], Any] = weakref.ref(iterator)
        self._length = length(loader)
        self._whole = whole(loader)
        self._uses = 0  # of its batches, where no loader gives them
        self.ahead: int | None = None
        self.exhausted = self.evaluated = self.cycles = False
        self.given = self.unused = 0
        self.targets: Sequence[Target] = ()

    def gives(self, batch: Any = None) -> None:
        """It has given a batch."""
        self.given += 1
        if self.given == 1:
            offered(self._data_set(), batch)
        if self.targets or self.given <= NAMED:
            self.targets = picked(named_in((batch,)))
        self.unused += 1

    def ends(self, iterator: Any) -> None:
        """It has no more."""
        loader = self._loader()  # not asked whether it is true: that is its length, which it may not have
        self.cycles = self.cycles or (not self.exhausted and goes_round(iterator, self if loader is None else loader))
        self.exhausted = True

    def looks(self) -> bool:
        """Whether it is that of an `itertools.cycle`, looked at now."""
        self.cycles = goes_round(self._iterator(), self)
        return self.cycles

    def round(self, uses: int) -> Pass:
        """Another pass over its batches, of which no loader tells.

        Args:
            uses: how often each is computed with; once now.
        """
        found = copy(self)
        found._iterator, found._uses, found.exhausted, found.evaluated = lambda: found, uses * self.given, False, False
        found.goes_on()
        return found

    def goes_on(self) -> bool:
        """A batch is computed with that no loader gave; whether it may be one of such a pass."""
        if self._uses <= 0:
            return False
        self._uses -= 1
        self.exhausted = not self._uses
        return True

    def seen(self) -> None:
        """Remember whose batches these are, for an evaluation that names no folder."""
        saw(self._data_set())

    def looked_at(self) -> bool:
        """A model looks at a batch without training on it; whether it can be one of this pass."""
        self.ahead = self.given - 1 if self.ahead is None else self.ahead
        return not self.exhausted or self.ahead > 0

    def _data_set(self) -> Any:
        loader, iterator = self._loader(), self._iterator()  # a loader may be gone while its iterator goes on
        return getattr(iterator, "_dataset", None) if loader is None else getattr(loader, "dataset", None)

    @property
    def length(self) -> int | None:
        """How many batches its loader says it has; None where it does not, or has given more."""
        return None if self.endless else self._length

    @property
    def endless(self) -> bool:
        """Whether it has given more batches than its loader says there are."""
        return self._length is not None and self.given > self._length

    @property
    def open_ended(self) -> bool:
        """Whether nothing says how many batches there are."""
        return self._length is None or self.endless

    @property
    def over(self) -> bool:
        """Whether it can give no more batches."""
        return self.exhausted or self._iterator() is None

    def same_loader(self, other: Pass) -> bool:
        """Whether the other is an iteration over the same loader."""
        loader = self._loader()
        return loader is not None and loader is other._loader()

    def same_data(self, other: Pass) -> bool:
        """Whether both go over one loader, or each over the whole of one data set."""
        data = self._whole()
        return self.same_loader(other) or (data is not None and data is other._whole())
