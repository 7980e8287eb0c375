"""How far apart rows lie: in a sparse log (a row every 20 steps, or two an epoch) each stands for several steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

UPDATES: Final = 8
"""Updates from which the distance of rows is learnt: the second longest gap between them."""


class Stride:
    """Learns it from the first rows of one run."""

    def __init__(self) -> None:
        self._gaps: list[int] = []

    def learn(self, update: int, gap: int) -> int | None:
        """Take a row.

        Args:
            update: Its number, from 1.
            gap: Steps since the row before.

        Returns:
            The distance of rows, where that can be said anew.
        """
        if update == 1 or gap < 1:
            return None
        self._gaps.append(gap)
        return sorted(self._gaps)[-2:][0] if len(self._gaps) in (1, UPDATES - 1) else None

    def state(self) -> list[int]:
        """Plain data from which `load` restores exactly."""
        return list(self._gaps)

    def load(self, state: Sequence[int]) -> None:
        """Restore what `state` gave."""
        self._gaps = list(state)
