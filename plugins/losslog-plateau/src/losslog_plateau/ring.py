"""The history of one component: at most 32 block means, and straight lines through their newest parts.

Runs in whatever thread feeds the watcher.

- Constant memory: when the ring is full, neighbours are averaged pairwise and every block stands for twice as long, so
  a block is always between 1/32 and 1/16 of the time elapsed.
- Block borders stay on multiples of the block length counted from the first update, hence on epoch borders.
- Values are means of ln(loss): slopes are relative changes, and a spike of 5x weighs 1.6.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from math import exp, log
from statistics import median
from typing import Any, Final

CAPACITY: Final = 32
SUFFIXES: Final = (6, 7, 8, 9, 10, 11, 13, 16, 19, 22, 27, 32)
SMALLEST: Final = SUFFIXES[0]
SMALLEST_BEFORE: Final = 5
"""Blocks before a line from which their own slope says something."""
PART_BEFORE: Final = 4
FEWEST_BENT: Final = 16
"""Blocks from which a bend can be told: half of a full ring. Only with one value per epoch there are fewer."""
MEDIAN_ABS_DIFF: Final = 0.954
"""Median of |a - b| for independent normal a, b of unit deviation: 0.6745 * sqrt(2)."""
RISE_FLOOR: Final = 0.05
RISE_NOISE: Final = 4.8
"""A rise counts from 4 deviations of a block mean, with 20 % margin."""


@cache
def student_t(z: float, df: float) -> float:
    """Quantile of Student's t at the level at which the normal distribution has ``z``.

    Expansion in 1/df (Abramowitz and Stegun 26.7.5), good to 1 % above 4 degrees of freedom.

    Args:
        z: Normal quantile, dimensionless.
        df: Degrees of freedom, above 0.
    """
    z2 = z * z
    first = (z2 + 1) * z / 4
    second = ((5 * z2 + 16) * z2 + 3) * z / 96
    third = (((3 * z2 + 19) * z2 + 17) * z2 - 15) * z / 384
    return z + (first + (second + third / df) / df) / df


@dataclass(frozen=True, slots=True)
class Line:
    """A least squares line through neighbouring blocks.

    Attributes:
        blocks: How many blocks it spans.
        gain: Fall of ln(loss) per block; positive is an improvement.
        deviation: Standard error of ``gain``.
        bound: ``deviation`` times the t quantile: ``gain +- bound`` are the bounds.
    """

    blocks: int
    gain: float
    deviation: float
    bound: float


@dataclass(frozen=True, slots=True)
class Power:
    """A least squares line through neighbouring blocks against ln(time).

    Attributes:
        gain: Fall of ln(loss) per unit of ln(time).
        deviation: Its standard error.
        time: Mean time elapsed, in blocks.
    """

    gain: float
    deviation: float
    time: float


class BlockRing:
    """The newest block means of one component.

    Args:
        cells_per_block: Cells (the smallest blocks) averaged into one block; doubles as time goes on.
    """

    __slots__ = ("block", "cells", "cells_per_block", "means", "partial")

    def __init__(self, cells_per_block: int = 1) -> None:
        self.cells_per_block = cells_per_block
        self.means: list[float] = []
        self.partial = 0.0
        self.cells = 0
        self.block = 0  # number of the open block since step 0

    def append(self, index: int, mean: float) -> bool:
        """Take the mean of one cell.

        Args:
            index: Number of the cell since step 0; increasing, and some may be left out (cells without a value).
            mean: Mean of ln(loss) in it.

        Returns:
            Whether a block was completed.
        """
        closed = index // self.cells_per_block != self.block and self.cells > 0 and self._close()
        self.block = index // self.cells_per_block
        self.partial += mean
        self.cells += 1
        if (index + 1) % self.cells_per_block:
            return closed
        return self._close() or closed

    def _close(self) -> bool:
        """Keep the block that is over, unless most of it is missing."""
        whole = 2 * self.cells > self.cells_per_block
        if whole:
            self.means.append(self.partial / self.cells)
        self.partial, self.cells = 0.0, 0
        if len(self.means) >= CAPACITY and self.block % 2:  # the newest block ends on a border of the doubled length
            self._merge()
        return whole

    def _merge(self) -> None:
        means = self.means
        first = len(means) % 2
        self.means = [(means[i] + means[i + 1]) / 2 for i in range(first, len(means), 2)]
        self.cells_per_block *= 2
        self.block //= 2

    def clear(self) -> None:
        """Forget everything and begin again with the smallest blocks."""
        self.means = []
        self.partial, self.cells = 0.0, 0
        self.cells_per_block = 1

    def noise(self) -> tuple[float, int]:
        """Standard deviation of one block mean, blind to slow trends, and the number of differences it rests on."""
        means = self.means
        start = len(means) // 2
        diffs = [abs(means[i] - means[i - 1]) for i in range(max(1, start), len(means))]
        return (median(diffs) / MEDIAN_ABS_DIFF if diffs else 0.0), len(diffs)

    def drop_rise(self, noise: float) -> bool:
        """Drop what lies before a rise: a rise and fall in one window has slope 0 and would look like a plateau.

        Args:
            noise: Standard deviation of one block mean.

        Returns:
            Whether anything was dropped.
        """
        means = self.means
        if len(means) < 3:
            return False
        pairs = [a + b for a, b in pairwise(means)]
        top = max(pairs)
        at = pairs.index(top)
        if at == 0 or top / 2 - min(means[:at]) <= max(RISE_FLOOR, RISE_NOISE * noise):
            return False
        del means[:at]
        return True

    def lines(self, shortest: float, noise: float, n_diffs: int, z: float) -> list[Line]:
        """Lines through the newest blocks, shortest first, for every allowed length.

        Args:
            shortest: Least length, in blocks.
            noise: Standard deviation of one block mean, from neighbours: pooled with each line's own residuals.
            n_diffs: Differences ``noise`` rests on; half of them count as degrees of freedom.
            z: Normal quantile of the bounds.
        """
        found: list[Line] = []
        n = len(self.means)
        wanted = [m for m in SUFFIXES if shortest <= m < n]
        if n >= SMALLEST and n >= shortest:
            wanted.append(n)
        if not wanted:
            return found
        newest = self.means[-1]
        total = weighted = squares = 0.0
        taken = 0
        for m in wanted:
            for back in range(taken, m):  # block `back` places before the newest
                value = self.means[n - 1 - back] - newest
                total += value
                weighted += back * value
                squares += value * value
            taken = m
            found.append(_line(m, total, weighted, squares, noise, n_diffs, z))
        return found

    def bend(self, blocks: int, elapsed: float, noise: float, n_diffs: int) -> tuple[Power, Power] | None:
        """How the curve fell before its newest `blocks` blocks, and how it falls in them, against ln(time).

        A loss that goes on as it did falls by the same part whenever the time elapsed doubles, or by less and less of
        it; one that has stopped does not fall at all.

        Args:
            blocks: How many of the newest blocks.
            elapsed: Blocks since the first value.
            noise: Standard deviation of one block mean, as for `lines`.
            n_diffs: Differences ``noise`` rests on.

        Returns:
            (before, within), or None where there is too little. A quarter of the ring is "before" at least: beside
            the first few blocks, where a loss falls steeply, all others look flat.
        """
        n = len(self.means)
        if n < FEWEST_BENT:
            return None
        blocks = min(blocks, n - max(SMALLEST_BEFORE, n // PART_BEFORE))
        elapsed = max(elapsed, n)
        logs = [log(elapsed - (n - 1 - at) - 0.5) for at in range(n)]
        parts = (logs[: n - blocks], self.means[: n - blocks]), (logs[n - blocks :], self.means[n - blocks :])
        before, within = (_power(times, means, noise, n_diffs) for times, means in parts)
        return before, within

    def state_dict(self) -> dict[str, object]:
        """Plain data from which `load_state_dict` restores the ring exactly."""
        return {
            "means": list(self.means),
            "partial": self.partial,
            "cells": self.cells,
            "block": self.block,
            "cells_per_block": self.cells_per_block,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.means = [float(mean) for mean in state["means"]]
        self.partial = float(state["partial"])
        self.cells = int(state["cells"])
        self.block = int(state["block"])
        self.cells_per_block = int(state["cells_per_block"])


def _line(m: int, total: float, weighted: float, squares: float, noise: float, n_diffs: int, z: float) -> Line:
    """The line through `m` values, from their sums; the k-th before the newest has weight k in `weighted`.

    The variance of one block is pooled from what the line leaves over and from the differences of neighbours, each with
    its degrees of freedom.
    """
    spread = (m * m * m - m) / 12.0
    gain = (weighted - total * (m - 1) / 2) / spread  # weights grow into the past, so this is the fall per block
    residual = max(0.0, squares - total * total / m - gain * gain * spread)
    df = m - 2 + n_diffs / 2
    deviation = ((residual + noise * noise * n_diffs / 2) / df / spread) ** 0.5
    return Line(m, gain, deviation, student_t(z, df) * deviation)


def _power(times: list[float], means: list[float], noise: float, n_diffs: int) -> Power:
    m = len(times)
    x, y = sum(times) / m, sum(means) / m
    spread = sum((time - x) ** 2 for time in times)
    gain = -sum((time - x) * (mean - y) for time, mean in zip(times, means, strict=True)) / spread
    residual = sum((mean - y + gain * (time - x)) ** 2 for time, mean in zip(times, means, strict=True))
    variance = (residual + noise * noise * n_diffs / 2) / (m - 2 + n_diffs / 2)
    return Power(gain, (variance / spread) ** 0.5, exp(x))
