"""Whether two curves part for good, and where: the test behind ``losslog compare``.

No thread, no I/O. Contract:

- Both curves are cut into `BLOCKS` equal blocks of the common range; each block has the logarithm of the ratio of the
  two means, and its standard error from the scatter inside the block.
- There is a lasting gap where the last `LAST` blocks agree on its sign (one may not), and their mean is at least
  `LEAST`, at least `SURE` standard errors, and at least `CLEAR` times what the blocks before the gap scatter by.
- It begins with the first block from which on every `WINDOW` blocks stand out by `STANDS_OUT` standard errors.
- What is not found is not said to be equal: the rates of false alarms and of misses are in the docs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Final

BLOCKS: Final = 20
FEWEST: Final = 5  # values in a block of either run
LAST: Final = 5  # blocks at the end that tell whether there is a gap
LEAST: Final = 0.10  # of the logarithm there: 10 %
SURE: Final = 3.0  # standard errors there
CLEAR: Final = 2.5  # times what the blocks before the gap differ by
WINDOW: Final = 3
STANDS_OUT: Final = 2.0  # standard errors of a window of blocks
Point = tuple[float, float]  # x, value


@dataclass(frozen=True)
class Gap:
    """Two curves that part for good.

    Attributes:
        x: where the first block of the lasting gap begins.
        width: of a block, which is how well `x` is known.
        change: of the second curve against the first over the last blocks; 0.5 is 50 % more.
    """

    x: float
    width: float
    change: float


def lasting(one: Sequence[Point], two: Sequence[Point], start: float, end: float) -> Gap | None:
    """The lasting gap between two curves over ``start <= x < end``, or None.

    Args:
        one: (x, value) in the order of x.
        two: likewise.
        start: where to begin, e.g. the first x at which they are not equal to the last bit.
        end: where the shorter one ends.
    """
    count = blocks_in(one, two, start, end)
    if count < 2 * LAST:
        return None
    width = (end - start) / count
    parted = [_ratio(_within(one, start + block * width, width), _within(two, start + block * width, width))
              for block in range(count)]  # fmt: skip
    if any(each is None for each in parted[-LAST:]):
        return None
    ratios = [each or (0.0, math.inf) for each in parted]
    last, error = _mean(ratios[-LAST:])
    agree = sum(ratio * last > 0 for ratio, _ in ratios[-LAST:])
    if abs(last) < LEAST or abs(last) < SURE * error or agree < LAST - 1:
        return None
    first = _onset(ratios, math.copysign(1.0, last))
    before = [ratio for ratio, _ in ratios[:first]]
    if len(before) >= LAST and abs(last) < CLEAR * stdev(before):
        return None
    return Gap(start + first * width, width, math.expm1(last))


def why_not(one: Sequence[Point], two: Sequence[Point], start: float, end: float) -> str:
    """Why the test says nothing of two curves; "" where it does.

    Args:
        one: (x, value) in the order of x.
        two: likewise.
        start: as for `lasting`.
        end: likewise.
    """
    count = blocks_in(one, two, start, end)
    if count < 2 * LAST:
        return f"too few values to tell, it takes {2 * LAST * FEWEST}"
    last = end - LAST * (end - start) / count
    if any(value <= 0 for each in (one, two) for x, value in each if last <= x < end):
        return "not told of values that are not above zero"
    return ""


def _onset(ratios: Sequence[tuple[float, float]], sign: float) -> int:
    """The first block from which on the gap, over any `WINDOW` blocks, stands out."""
    first = len(ratios) - LAST
    while first > 0:
        level, error = _mean(ratios[first - 1 : first - 1 + WINDOW])
        if level * sign < STANDS_OUT * error:
            break
        first -= 1
    while first < len(ratios) - LAST and ratios[first][0] * sign < ratios[first][1]:
        first += 1  # what stands out in a window may begin in its middle
    return first


def _mean(ratios: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The mean of some blocks, and its standard error."""
    return fmean(ratio for ratio, _ in ratios), math.hypot(*(error for _, error in ratios)) / len(ratios)


def blocks_in(one: Sequence[Point], two: Sequence[Point], start: float, end: float) -> int:
    """How many blocks the common range gives: `BLOCKS`, fewer where there are few values."""
    fewest = min(sum(start <= x < end for x, _ in each) for each in (one, two))
    return min(BLOCKS, fewest // FEWEST)


def _within(points: Sequence[Point], start: float, width: float) -> list[float]:
    return [value for x, value in points if start <= x < start + width]


def _ratio(one: Sequence[float], two: Sequence[float]) -> tuple[float, float] | None:
    """The logarithm of the ratio of the means, and its standard error; None where a mean is not positive."""
    if not one or not two:
        return None
    a, b = fmean(one), fmean(two)
    if not (a > 0 and b > 0 and math.isfinite(a) and math.isfinite(b)):
        return None
    return math.log(b / a), math.hypot(_error(one) / a, _error(two) / b)


def _error(values: Sequence[float]) -> float:
    """The standard error of a mean."""
    if len(values) < 2:
        return math.inf
    middle = fmean(values)
    return math.sqrt(sum((each - middle) ** 2 for each in values) / (len(values) - 1) / len(values))
