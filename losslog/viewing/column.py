"""One series in bounded memory: a cell for every so many steps, which keeps its lowest and highest value.

No thread, no I/O. Contract:

- A cell is ``width`` steps wide; where there would be more than ``limit`` cells, the width doubles.
- What a single step did is never lost: its value is the cell's lowest or highest, and the highest keeps its step.
- NaN and infinities stand in no cell; they are counted, and the first of them keeps its step.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from losslog.journal.records import NON_FINITE

LIMIT: Final = 1024
BAD: Final = 64  # places of values that are not finite that are remembered


class Cell(NamedTuple):
    """What is known of some neighbouring steps.

    Attributes:
        n: how many values.
        sum: of them.
        low: the lowest.
        high: the highest.
        at: the step of the highest.
    """

    n: int
    sum: float
    low: float
    high: float
    at: int


def merged(one: Cell, two: Cell) -> Cell:
    """Both in one."""
    top = one if one.high >= two.high else two
    return Cell(one.n + two.n, one.sum + two.sum, min(one.low, two.low), top.high, top.at)


class Column:
    """One series.

    Args:
        limit: most cells.

    Attributes:
        width: steps in a cell.
        cells: by ``step // width``.
        last: the last value, finite or not.
        bad: steps of values that are not finite, the first `BAD` of them.
        bad_count: how many there were.
        bad_since: the step from which on every value up to now is not finite, or None.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit = limit
        self.width = 1
        self.cells: dict[int, Cell] = {}
        self.last = math.nan
        self.bad: list[int] = []
        self.bad_count = 0
        self.bad_since: int | None = None

    def add(self, xs: Sequence[int], values: Sequence[Any]) -> None:
        """Take values of increasing steps."""
        if not values:
            return
        values = self._numbers(values)
        total = sum(values)
        if total - total != 0.0:  # something is not finite
            xs, values = self._sift(xs, values)
        else:
            self.last, self.bad_since = values[-1], None
        start, count = 0, len(xs)
        while start < count:
            place = xs[start] // self.width
            end = start + 1 if self.width == 1 else max(start + 1, bisect_left(xs, (place + 1) * self.width, start))
            part = values[start:end] if end - start < count else values
            high = max(part)
            cell = Cell(end - start, sum(part), min(part), high, xs[start + part.index(high)])
            old = self.cells.get(place)
            self.cells[place] = cell if old is None else merged(old, cell)
            if len(self.cells) > self.limit:
                self._widen()
            start = end

    def merge(self, later: Column) -> None:
        """Take what another column has of later steps."""
        while self.width < later.width:
            self._widen()
        while later.width < self.width:
            later._widen()
        for place, cell in later.cells.items():
            old = self.cells.get(place)
            self.cells[place] = cell if old is None else merged(old, cell)
        self.narrow(self.limit)
        if later.cells or later.bad_count:
            self.last = later.last
            going_on = self.bad_since is not None and not later.cells
            self.bad_since = self.bad_since if going_on else later.bad_since
        self.bad_count += later.bad_count
        self.bad += later.bad[: BAD - len(self.bad)]

    def narrow(self, limit: int) -> None:
        """Keep fewer cells from now on."""
        self.limit = limit
        while len(self.cells) > limit:
            self._widen()

    def _widen(self) -> None:
        self.width *= 2
        wider: dict[int, Cell] = {}
        for place, cell in self.cells.items():
            old = wider.get(place // 2)
            wider[place // 2] = cell if old is None else merged(old, cell)
        self.cells = wider

    def _numbers(self, values: Sequence[Any]) -> list[float]:
        try:
            if values[0] == values[-1] and values.count(values[0]) == len(values):  # a learning rate, a batch size
                return [float(values[0])] * len(values)
            return list(map(float, values))
        except (TypeError, ValueError, OverflowError):
            return [number(value) for value in values]

    def _sift(self, xs: Sequence[int], values: Sequence[float]) -> tuple[list[int], list[float]]:
        self.last = values[-1]
        kept = [(x, value) for x, value in zip(xs, values, strict=True) if math.isfinite(value)]
        wrong = [x for x, value in zip(xs, values, strict=True) if not math.isfinite(value)]
        self.bad_count += len(wrong)
        self.bad += wrong[: BAD - len(self.bad)]
        after = next((x for x in wrong if not kept or x > kept[-1][0]), None)
        if kept or self.bad_since is None:
            self.bad_since = after
        return [x for x, _ in kept], [value for _, value in kept]

    def ordered(self) -> list[tuple[int, Cell]]:
        """(first step, cell) in the order of steps."""
        return [(place * self.width, self.cells[place]) for place in sorted(self.cells)]


def number(value: Any) -> float:
    """A journal's value as a float; NaN for what is no number."""
    if isinstance(value, str):
        return NON_FINITE.get(value, math.nan)
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
