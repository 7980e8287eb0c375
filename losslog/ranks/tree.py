"""Who hands over to whom, where there are many ranks: blocks of ranks to their first, and so on up to the logging rank.

No thread, no I/O. Contract:

- Every rank works it out by itself, from the number of ranks alone, so nothing need be agreed on.
- Up to `FLAT` ranks hand over to the logging rank itself. Beyond, nobody hears more than a few dozen others.
- What is handed over goes through the one store of all ranks, so it does not matter who is on whose node; launchers
  number the ranks of a node one after another, so a block is a node, two small ones, or a part of a large one.
"""

from __future__ import annotations

import os
from typing import Final

FLAT: Final = 64
FANOUT: Final = 16
QUICK: Final = 128  # ranks up to which everybody speaks at each turn
SLOWEST: Final = 4.0  # seconds


class Tree:
    """The ranks of a run; the logging rank is 0.

    Args:
        size: how many there are; up to `FLAT` are one block, more have blocks of `FANOUT`, if nobody says otherwise.

    Attributes:
        levels: how many times what a rank hands over is joined on the way.
        every: seconds between two words of a rank; 0 is at each turn.
    """

    def __init__(self, size: int) -> None:
        said = os.environ.get("LOSSLOG_FANOUT", "")
        self.size = size
        self._width = FANOUT if size > FLAT else max(size, 2)
        if said.isdigit() and int(said) > 1:
            self._width = int(said)
        self.levels = 0
        while self._width ** (self.levels + 1) < size:
            self.levels += 1
        self.every = min(SLOWEST, size / 2000) if size > QUICK else 0.0

    def height(self, rank: int) -> int:
        """Of how many levels of blocks a rank is the first; 0 is one that joins nobody."""
        height, block = 0, self._width
        while rank % block == 0 and height <= self.levels:
            height, block = height + 1, block * self._width
        return height

    def above(self, rank: int) -> list[int]:
        """Whom a rank hands over to, and to whom if that one is not there, and so on; the last is 0."""
        found, block = [], self._width
        while rank:
            first = rank - rank % block
            if first != rank:
                found.append(first)
                rank = first
            block *= self._width
        return found

    def below(self, rank: int) -> list[int]:
        """Those who hand over to a rank."""
        step = 1
        found: list[int] = []
        for _ in range(self.height(rank)):
            found += range(rank + step, min(rank + step * self._width, self.size), step)
            step *= self._width
        return found

    def joined_by(self, rank: int) -> range:
        """The ranks whose values reach the logging rank through this one, itself among them."""
        block = 1
        while rank % (block * self._width) == 0 and block < self.size:
            block *= self._width
        return range(rank, min(rank + block, self.size))

    def named(self, rank: int) -> str:
        """A rank in words, with those that it joins."""
        joined = self.joined_by(rank)
        return f"rank {rank}" if len(joined) == 1 else f"rank {rank}, which joins ranks {rank} to {joined[-1]},"
