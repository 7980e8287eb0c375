"""A curve in one line of characters: two values a cell, four levels, drawn in braille.

No thread, no I/O. Contract:

- The whole curve is shown: each value drawn is the mean of its part of it.
- Positive values that span more than a factor of `WIDE` are drawn by their logarithm, so that the end of a loss's fall
  is seen as well as its beginning.
- Values that are not finite leave a gap; where the stream has no braille, seven ASCII characters stand for the levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

LEFT: Final = (0x40, 0x04, 0x02, 0x01)  # dots of the left column, from the bottom
RIGHT: Final = (0x80, 0x20, 0x10, 0x08)
WIDE: Final = 3
NOISE: Final = 1e-6  # of its size; a curve that moves less is flat: that is what a float32 is rounded by
ASCII: Final = "_.-=*^'"


def spark(values: Sequence[float], width: int, *, braille: bool = True) -> str:
    """The curve in ``width`` cells.

    Args:
        values: from first to last.
        width: cells.
        braille: whether braille can be shown.
    """
    if width < 1:
        return ""
    points = resampled(values, 2 * width if braille else width)
    known = [each for each in points if math.isfinite(each)]
    if not known:
        return " " * width
    if min(known) > 0 and max(known) > WIDE * min(known):
        points = [math.log(each) if math.isfinite(each) else each for each in points]
        known = [math.log(each) for each in known]
    low, high = min(known), max(known)
    if high - low <= NOISE * max(abs(low), abs(high)):
        high = low
    levels = 4 if braille else len(ASCII)
    heights = [level_of(each, low, high, levels) for each in points]
    if not braille:
        return "".join(" " if each is None else ASCII[each] for each in heights).ljust(width)
    cells = []
    for left, right in zip(heights[::2], [*heights[1::2], None], strict=False):
        dots = (0 if left is None else LEFT[left]) | (0 if right is None else RIGHT[right])
        cells.append(chr(0x2800 + dots))
    return "".join(cells).ljust(width)


def level_of(value: float, low: float, high: float, levels: int) -> int | None:
    """Which of so many levels a value stands on, from the bottom; None for what is not finite."""
    if not math.isfinite(value):
        return None
    part = (value - low) / (high - low) if high > low else 0.0
    return min(levels - 1, int(part * levels))


def resampled(values: Sequence[float], count: int) -> list[float]:
    """At most ``count`` values: means of equal parts; NaN where a part has nothing finite."""
    if len(values) <= count:
        return list(values)
    found = []
    for place in range(count):
        part = values[
            len(values) * place // count : max(len(values) * (place + 1) // count, len(values) * place // count + 1)
        ]
        known = [each for each in part if math.isfinite(each)]
        found.append(sum(known) / len(known) if known else math.nan)
    return found
