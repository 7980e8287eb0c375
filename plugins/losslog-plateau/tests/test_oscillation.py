from __future__ import annotations

import math
import random

import numpy as np
import pytest
from losslog_plateau.oscillation import CELLS, is_oscillating, without_quadratic


def cells(swing: float, noise: float = 0.05, period: float = 10.0) -> list[tuple[float, float, int]]:
    draw = random.Random(0)
    count = 25
    return [
        (swing * math.sin(2 * math.pi * i / period) + draw.gauss(0, noise / 5), noise**2 * (count - 1), count)
        for i in range(CELLS)
    ]


def test_residuals_are_those_of_polyfit() -> None:
    draw = random.Random(1)
    values = [draw.gauss(0, 1) for _ in range(24)]
    x = np.arange(24)
    oracle = np.array(values) - np.polyval(np.polyfit(x, values, 2), x)
    assert without_quadratic(values) == pytest.approx(oracle)


def test_slow_swing_oscillates() -> None:
    assert is_oscillating(cells(0.5))


def test_small_swing_does_not() -> None:
    assert not is_oscillating(cells(0.1))


def test_swing_within_the_noise_does_not() -> None:
    assert not is_oscillating(cells(0.4, noise=3.0))


def test_fast_swing_does_not() -> None:
    assert not is_oscillating(cells(0.5, period=2.5))


def test_too_few_cells_do_not() -> None:
    assert not is_oscillating(cells(0.5)[1:])
