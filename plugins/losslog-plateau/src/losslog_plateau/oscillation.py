"""Does a component swing up and down around its trend?

- Pure arithmetic on the newest 24 cells; called only where the ``oscillating`` option is on.
- At info level: measured recall and false alarms are in ``docs/plateau.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

CELLS: Final = 24
VARIANCE_RATIO: Final = 4.0
LAG_CORRELATION: Final = 0.35
DEVIATION: Final = 0.16


def is_oscillating(cells: Sequence[tuple[float, float, int]]) -> bool:
    """Whether the newest cells swing far more than their noise, and slowly.

    Args:
        cells: For each cell the mean of ln(loss), the sum of squared deviations from it, and the count of values.
    """
    n = len(cells)
    if n < CELLS:
        return False
    rest = without_quadratic([cell[0] for cell in cells])
    variance = sum(value * value for value in rest) / (n - 3)
    if variance < DEVIATION * DEVIATION:
        return False
    lag = sum(a * b for a, b in pairwise(rest)) / sum(value * value for value in rest)
    if lag <= LAG_CORRELATION:
        return False
    freedom = sum(count - 1 for _, _, count in cells)
    if freedom <= 0:  # one value per cell: nothing to compare with but the cells themselves
        return True
    within = sum(squares for _, squares, _ in cells) / freedom
    noise = within * sum(1.0 / count for _, _, count in cells) / n
    return variance > VARIANCE_RATIO * noise


def without_quadratic(values: Sequence[float]) -> list[float]:
    """Residuals of a least squares parabola through equally spaced values.

    Args:
        values: At least three values.
    """
    n = len(values)
    centre = (n - 1) / 2
    x = [i - centre for i in range(n)]
    mean_square = sum(value * value for value in x) / n
    curve = [value * value - mean_square for value in x]  # orthogonal to 1 and to x
    mean = sum(values) / n
    slope = sum(a * b for a, b in zip(x, values, strict=True)) / sum(value * value for value in x)
    bend = sum(a * b for a, b in zip(curve, values, strict=True)) / sum(value * value for value in curve)
    return [v - mean - slope * a - bend * c for v, a, c in zip(values, x, curve, strict=True)]
