"""Parts that are trained and frozen by turns: what a switched-off ``requires_grad`` proves.

On the thread that trains; plain data. Contract:

- A part that was trained for an epoch, or for more than 8 steps, and is switched off is lost at that step.
- One that was trained for less must stay frozen for longer than it ever did, and for 8 steps; one that another part is
  thawed for must stay so for longer than either lasted. After long turns that is never said with a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from losslog.instrument.parts import Part
from losslog.instrument.suspicions import HOPELESS

SHORT: Final = 8
"""Steps: who takes turns may be trained, or frozen, for so many."""


class Turns:
    """The parts of one model."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[bool, int]] = {}  # whether it may train, and since when that was seen
        self._trained: dict[str, int] = {}  # steps, until it was frozen
        self._longest: dict[str, int] = {}  # turn of either kind
        self._swapped: set[str] = set()  # frozen as others were thawed

    def look(self, parts: Mapping[str, Part], step: int) -> None:
        """See at a step which parts may train."""
        turned = {}
        for name, part in parts.items():
            trains = part.trainable > 0
            was, since = self._since.setdefault(name, (trains, step))
            if was is not trains:
                turned[name] = trains
                self._since[name] = trains, step
                self._longest[name] = max(step - since, self._longest.get(name, 0))
                self._trained[name] = 0 if trains else step - since
        for name, trains in turned.items():
            (self._swapped.add if not trains and any(turned.values()) else self._swapped.discard)(name)

    def needed(self, parts: Iterable[str], steps_per_epoch: int | None) -> tuple[int, bool]:
        """For how many further steps these frozen parts must stay so, and whether that would be a fault."""
        needed, fault = 0, True
        for name in parts:
            longest = self._longest.get(name, 0)
            if name in self._swapped:
                fault = fault and longest < HOPELESS
                needed = max(needed, SHORT, longest if longest < HOPELESS else 0)
            elif self._trained.get(name, 0) <= min(SHORT, (steps_per_epoch or SHORT + 1) - 1):
                needed = max(needed, SHORT, min(longest, HOPELESS))
        return needed, fault
