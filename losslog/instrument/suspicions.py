"""When the graph is looked at again, and what is suspected until enough looks agree.

Plain data, for the thread that trains. Contract:

- Within an epoch a look comes again after 16 steps, then ever more seldom, at least every 1,000 steps.
- A suspicion holds when the looks at the next steps agree: half an epoch's, from 4 to 16. One that would be seen to end
  needs no looks but one, so many steps later. One that did not hold needs four times as many the next time, and what
  comes and goes is suspected no more.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final

FIRST: Final = 16
"""Steps after an epoch's first look at which the next one comes: by then all optimizers should have stepped."""
SELDOM: Final = 1000
FEW: Final = 4
HOPELESS: Final = 300


class Looks:
    """When the next look is due.

    Attributes:
        next: the step from which on it is, in any case.
    """

    def __init__(self) -> None:
        self._gap, self.next = FIRST, 0

    def due(self, step: int, *, fresh: bool) -> bool:
        """Whether to look at a step; ``fresh`` where an epoch begins."""
        if not fresh and step < self.next:
            return False
        if not fresh:
            self._gap = min(2 * self._gap, SELDOM)
        self.next = step + self._gap
        return True

    def soon(self) -> None:
        """Something was claimed: see soon whether it still holds."""
        self.next, self._gap = self.next - self._gap + FIRST, FIRST


class Suspicions:
    """What is suspected.

    Attributes:
        agreeing: further looks that must agree.
        since: what is suspected: the step it was seen at first, how many looks agreed since, and the step of the next.
    """

    def __init__(self) -> None:
        self.agreeing = FIRST
        self.since: dict[Hashable, list[int]] = {}
        self._needed: dict[Hashable, int] = {}

    def due(self, step: int) -> bool:
        """Whether a step is to be looked at for them."""
        return any(step >= each[2] for each in self.since.values())

    def planned(self, steps: int) -> None:
        """An epoch has so many steps."""
        self.agreeing = min(FIRST, max(FEW, steps // 2 - 1))

    def holds(self, what: Hashable, step: int, needed: int | None = None, *, seen: bool = False) -> int | None:
        """It is so at a step; gives the step it was seen at first, once enough agree.

        Args:
            what: What is suspected.
            step: Global step.
            needed: How many looks must agree; else as many as usual.
            seen: Whether it would be seen to end: then steps are counted, not looks.
        """
        least = max(needed or 0, self._needed.get(what, 0)) or self.agreeing
        if least > HOPELESS:
            self.since.pop(what, None)
            return None
        since = self.since.setdefault(what, [step, 0, step])
        since[1] += step > since[0]
        since[2] = since[0] + least if seen else step
        return self.since.pop(what)[0] if (step - since[0] if seen else since[1]) >= least else None

    def returned(self, what: Hashable) -> bool:
        """Whether it was suspected before, and was not so."""
        return what in self._needed

    def refuted(self, *several: Hashable) -> None:
        """It is not so."""
        for what in several:
            if self.since.pop(what, None) is not None:
                self._needed[what] = 4 * self._needed.get(what, self.agreeing)

    def drop(self, *several: Hashable) -> None:
        """It can no longer be told, or was said otherwise."""
        for what in several:
            self.since.pop(what, None)
