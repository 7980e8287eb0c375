from __future__ import annotations

import json
import math
import random

import pytest
from losslog_plateau.clock import Clock
from losslog_plateau.level import Level

CLOCK = Clock(2000, 100)


def feed(level: Level, values: list[float], start: int = 0, typical: tuple[float, float] | None = None) -> list[int]:
    """Cells at which it diverged."""
    found = []
    for at, value in enumerate(values, start):
        level.take(math.log(value), value, (at + 1) * 25, CLOCK, typical)
        if level.diverging is not None:
            found.append(at)
    return found


FALL = [1.0 * 0.97**i for i in range(40)]


def test_level_is_the_mean_of_an_epoch() -> None:
    level = Level()
    feed(level, [9.0, 1.0, 2.0, 3.0, 4.0])
    assert level.level == 2.5


def test_peak_is_the_highest_level() -> None:
    level = Level()
    feed(level, [1.0, 1.0, 1.0, 1.0, 9.0, 1.0, 1.0, 1.0, 1.0])
    assert level.peak == 3.0


def test_rise_after_a_fall_diverges() -> None:
    assert feed(Level(), FALL + [FALL[-1] * 1.05**i for i in range(20)])


def test_falling_curve_does_not_diverge() -> None:
    assert not feed(Level(), FALL)


def test_early_hump_does_not_diverge() -> None:
    assert not feed(Level(), [1.0, 0.6, 0.4, 0.4, 0.4, 0.5, 0.7, 0.9, *[0.9 * 0.98**i for i in range(40)]])


def test_rise_without_any_fall_does_not_diverge() -> None:
    assert not feed(Level(), [1.01**i for i in range(60)])


def test_rise_within_the_noise_does_not_diverge() -> None:
    draw = random.Random(0)
    values = [math.exp(-0.02 * i + draw.gauss(0, 0.4)) for i in range(40)]
    values += [values[-1] * 1.4 * math.exp(draw.gauss(0, 0.4)) for _ in range(8)]
    assert not feed(Level(), values)


def test_doubling_is_needed_within_the_typical_range() -> None:
    values = FALL + [FALL[-1] * 1.5] * 12
    assert feed(Level(), values)
    assert not feed(Level(), values, typical=(0.1, 0.9))


def test_below_the_typical_range_nothing_diverges() -> None:
    assert not feed(Level(), FALL + [FALL[-1] * 5] * 12, typical=(2.0, 3.0))


def test_state_survives_json() -> None:
    level, other = Level(), Level()
    feed(level, FALL)
    other.load_state_dict(json.loads(json.dumps(level.state_dict())))
    rise = [FALL[-1] * 1.05**i for i in range(20)]
    assert feed(level, rise, start=40) == feed(other, rise, start=40) != []
    assert other.level == pytest.approx(level.level, abs=0)


@pytest.mark.parametrize("spike", [[40.0], [40.0, 9.0, 3.0], [1.0, 60.0, 20.0]])
def test_an_early_spike_is_in_no_later_excess(spike: list[float]) -> None:
    level = Level()
    feed(level, [*spike, *[1.0] * 30])
    assert level.excess == 0


def test_excess_is_that_of_now() -> None:
    level = Level()
    feed(level, [1.0, 3.0] * 20 + [1.0] * 60)
    assert level.excess == 0


def test_a_late_spike_moves_no_excess() -> None:
    level = Level()
    feed(level, [1.0] * 40 + [80.0])
    assert level.excess == 0
