from __future__ import annotations

import random
from math import log

import pytest
from losslog_plateau.clock import Clock
from losslog_plateau.flatness import check
from losslog_plateau.ring import BlockRing
from losslog_plateau.settings import Settings

CLOCK = Clock(2000, 100)  # unit 100 steps, cell 25


def ring_of(rate_per_unit: float, noise: float = 0.02, cells: int = 31, seed: int = 0) -> BlockRing:
    draw = random.Random(seed)
    ring = BlockRing()
    for index in range(cells):
        ring.append(index, -rate_per_unit * index * CLOCK.cell / 100 + draw.gauss(0, noise))
    return ring


def outcome(ring: BlockRing, **settings: float):
    return check(ring, CLOCK, Settings(**settings), elapsed=31 * CLOCK.cell)


def test_constant_curve_is_flat() -> None:
    found = outcome(ring_of(0.0))
    assert found is not None
    assert found.flat
    assert not found.improving


def test_falling_curve_improves() -> None:
    found = outcome(ring_of(0.1))
    assert found is not None
    assert found.improving
    assert not found.flat


@pytest.mark.parametrize(("noise", "least", "most"), [(0.01, 45, 50), (0.5, 0, 20)])
def test_noise_leads_to_silence_more_often_than_to_flatness(noise: float, least: int, most: int) -> None:
    found = [outcome(ring_of(0.0, noise=noise, seed=seed)) for seed in range(50)]
    assert least <= sum(each is not None and each.flat for each in found) <= most


def test_higher_r_calls_a_slow_fall_flat() -> None:
    ring = ring_of(0.03, noise=0.001)
    assert not outcome(ring, r=0.015).flat
    assert outcome(ring, r=0.2).flat


def test_higher_z_asks_for_more() -> None:
    ring = ring_of(0.0, noise=0.04, seed=3)
    assert outcome(ring, z=1.0).flat
    assert not outcome(ring, z=4.0).flat


def test_window_is_the_least_span_in_units() -> None:
    short, long = (outcome(ring_of(0.1), window=w).span for w in (2.0, 6.0))
    assert short >= 200
    assert long >= 600


def test_too_short_a_ring_says_nothing() -> None:
    assert check(ring_of(0.0, cells=5), CLOCK, Settings(), elapsed=125) is None


def test_rate_is_per_update() -> None:
    found = outcome(ring_of(0.1, noise=0.0))
    assert found.gain == pytest.approx(0.1 / 100)


@pytest.mark.parametrize(("gain", "flat"), [(0.0, True), (0.5, False)])
def test_without_plan_and_epoch_the_limit_refers_to_the_time_elapsed(gain: float, flat: bool) -> None:
    clock = Clock(None, None)
    ring = BlockRing()
    for index in range(31):
        ring.append(index, -gain * index / 31)
    assert check(ring, clock, Settings(), elapsed=31 * clock.cell).flat is flat


def bent(rate_before: float, noise: float, seed: int = 0) -> BlockRing:
    """Falls for half of the time, then stands still; rates are per unit."""
    draw = random.Random(seed)
    ring = BlockRing()
    for index in range(31):
        ring.append(index, -rate_before * min(index, 15) * CLOCK.cell / 100 + draw.gauss(0, noise))
    return ring


def test_stand_after_a_fall_is_flat() -> None:
    assert all(outcome(bent(0.2, 0.01, seed)).flat for seed in range(20))


def test_quiet_stretch_of_an_even_fall_is_not_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    rings = [ring_of(0.02, noise=0.02, seed=seed) for seed in range(400)]
    guarded = sum(outcome(ring).flat for ring in rings)
    monkeypatch.setattr("losslog_plateau.flatness._stopped", lambda *_: True)
    bare = sum(outcome(ring).flat for ring in rings)
    assert guarded < bare / 2


def ring_of_values(values: list[float]) -> BlockRing:
    ring = BlockRing()
    for index, value in enumerate(values):
        ring.append(index, value)
    return ring


@pytest.mark.parametrize("power", [0.07, 0.1])
def test_a_loss_that_falls_ever_more_slowly_is_not_flat(power: float) -> None:
    """A power of the time: 5 to 7 % whenever the time elapsed doubles, as on large data sets."""
    draw = random.Random(1)
    clock = Clock(31 * 25, 100)
    values = [-power * log(index + 1.0) + draw.gauss(0, 0.002) for index in range(31)]
    assert not check(ring_of_values(values), clock, Settings(r=0.02), elapsed=31 * clock.cell).flat


def test_the_same_loss_that_stops_is_flat() -> None:
    draw = random.Random(1)
    values = [-0.1 * log(min(index, 12) + 1.0) + draw.gauss(0, 0.002) for index in range(31)]
    assert outcome(ring_of_values(values)).flat


@pytest.mark.parametrize("seed", range(10))
def test_a_rise_is_never_flat(seed: int) -> None:
    found = outcome(ring_of(-0.005, noise=0.002, seed=seed), r=0.002)
    assert not found.flat
    assert found.rising


@pytest.mark.parametrize(("elapsed", "flat"), [(300.0, True), (6000.0, False)])
def test_without_a_plan_the_limit_grows_with_the_time_elapsed(elapsed: float, flat: bool) -> None:
    clock = Clock(None, 100)
    ring = BlockRing(max(1, round(elapsed / 31 / clock.cell)))
    ring.means = [-0.01 * ring.cells_per_block * clock.cell / 100 * i for i in range(31)]  # falls by 1 % per epoch
    found = check(ring, clock, Settings(), elapsed=elapsed)
    assert found is not None
    assert found.flat is flat
