"""Parts that are trained and frozen by turns: what a switched-off ``requires_grad`` proves.

On the thread that trains; plain data. Contract:

- A part that was trained for more than an epoch (at least 100, at most 300 steps) and is switched off is lost at that
  step. One that was trained for less may take turns: until it has been frozen for twice as long as any turn so far
  that is information. After a turn of up to 8 steps, less than an epoch, nothing is said until it was frozen for as
  long as any, and for 8 steps.
- One that another part is thawed for must stay so for longer than either lasted. After long turns that is never said
  with a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from losslog.instrument.parts import Part
from losslog.instrument.suspicions import HOPELESS

SHORT: Final = 8
"""Steps: who takes turns may be trained, or frozen, for so many, and nothing is said of it."""
LONG: Final = 100
"""Steps that turns may last where an epoch has fewer."""


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

    def needed(self, parts: Iterable[str], steps_per_epoch: int | None) -> tuple[int, bool, bool]:
        """What these frozen parts prove.

        Returns:
            For how many further steps they must stay so; whether that would be a fault; and whether nothing is to be
            said until then, since their turns are short, or others' as well.
        """
        short = short_turn(steps_per_epoch)
        most = min(HOPELESS, max(LONG, steps_per_epoch or HOPELESS))
        needed, fault, quiet = 0, True, False
        for name in parts:
            longest, trained = self._longest.get(name, 0), self._trained.get(name, 0)
            quiet = quiet or name in self._swapped or trained <= short
            if name in self._swapped:
                fault = fault and longest < HOPELESS
                needed = max(needed, SHORT, longest if longest < HOPELESS else 0)
            elif trained <= short:
                needed = max(needed, SHORT, min(longest, HOPELESS))
            elif trained <= most:
                needed = max(needed, SHORT, min(2 * longest, most))
        return needed, fault, quiet


def short_turn(steps_per_epoch: int | None) -> int:
    """Steps that a turn may last of which nothing is said: less than an epoch."""
    return min(SHORT, (steps_per_epoch or SHORT + 1) - 1)
