from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest
from losslog_plateau.ring import CAPACITY, BlockRing, student_t
from scipy import stats


def filled(values: list[float]) -> BlockRing:
    ring = BlockRing()
    for index, value in enumerate(values):
        ring.append(index, value)
    return ring


@pytest.mark.parametrize("z", [1.28, 1.64, 2.0, 2.5])
@pytest.mark.parametrize("df", [5, 8, 14, 30, 100])
def test_t_quantile_is_good_to_one_percent(z: float, df: float) -> None:
    assert student_t(z, df) == pytest.approx(stats.t.ppf(stats.norm.cdf(z), df), rel=0.01)


@pytest.mark.parametrize("m", [6, 9, 16, 31])
def test_line_is_that_of_linregress(m: int) -> None:
    draw = random.Random(m)
    values = [1 - 0.05 * i + draw.gauss(0, 0.1) for i in range(m)]
    line = filled(values).lines(m, noise=0.0, n_diffs=0, z=1.64)[-1]
    oracle = stats.linregress(np.arange(m), values)
    assert line.gain == pytest.approx(-oracle.slope)
    assert line.bound == pytest.approx(oracle.stderr * student_t(1.64, m - 2))


def test_lines_are_suffixes_of_the_ring() -> None:
    draw = random.Random(1)
    values = [draw.gauss(0, 1) for _ in range(20)]
    for line in filled(values).lines(6, noise=0.0, n_diffs=0, z=1.64):
        newest = values[-line.blocks :]
        assert line.gain == pytest.approx(-stats.linregress(np.arange(line.blocks), newest).slope)


def test_variance_is_pooled_from_residuals_and_differences() -> None:
    draw = random.Random(2)
    values = [draw.gauss(0, 0.1) for _ in range(10)]
    alone = filled(values).lines(10, noise=0.0, n_diffs=0, z=2.0)[-1]
    pooled = filled(values).lines(10, noise=0.5, n_diffs=8, z=2.0)[-1]
    spread = (1000 - 10) / 12
    expected = (alone.deviation**2 * 8 * spread + 0.5**2 * 4) / (8 + 4) / spread
    assert pooled.deviation == pytest.approx(expected**0.5)
    assert pooled.bound == pytest.approx(pooled.deviation * student_t(2.0, 12))


def test_bend_is_the_fall_against_the_logarithm_of_time_before_and_within() -> None:
    draw = random.Random(3)
    values = [draw.gauss(0, 0.1) - 0.3 * math.log(i + 0.5) for i in range(20)]
    bend = filled(values).bend(12, elapsed=20.0, noise=0.0, n_diffs=0)
    assert bend is not None
    times = np.log(np.arange(20) + 0.5)
    for part, power in ((slice(0, 8), bend[0]), (slice(8, 20), bend[1])):
        line = stats.linregress(times[part], values[part])
        assert (power.gain, power.deviation) == pytest.approx((-line.slope, line.stderr))


def test_a_quarter_of_the_ring_lies_before_a_bend() -> None:
    values = [1.0 - i for i in range(24)]
    whole, most = (filled(values).bend(blocks, elapsed=24.0, noise=0.0, n_diffs=0) for blocks in (24, 18))
    assert whole == most
    assert filled(values[:9]).bend(6, elapsed=9.0, noise=0.0, n_diffs=0) is None


def test_cells_without_a_value_leave_their_block_out_where_they_are_most_of_it() -> None:
    ring = BlockRing(4)
    for index in (0, 1, 2, 4, 8, 9, 10, 11):
        ring.append(index, float(index))
    assert ring.means == [1.0, 9.5]


def test_a_block_whose_last_cell_is_missing_is_kept() -> None:
    ring = BlockRing(4)
    assert [ring.append(index, 1.0) for index in (0, 1, 2, 5)] == [False, False, False, True]


def test_full_ring_is_merged_pairwise() -> None:
    ring = filled([float(i) for i in range(CAPACITY)])
    assert ring.cells_per_block == 2
    assert ring.means == [2 * i + 0.5 for i in range(CAPACITY // 2)]


def test_ring_never_grows() -> None:
    ring = BlockRing()
    for index in range(100_000):
        ring.append(index, 0.0)
        assert len(ring.means) <= CAPACITY + 1


def test_blocks_end_on_multiples_of_their_length() -> None:
    ring = BlockRing()
    for index in range(1, 5000):  # an odd start: the ring was emptied inside a block
        if ring.append(index, 0.0):
            assert (index + 1) % ring.cells_per_block == 0 or ring.cells == 0


def test_block_is_a_thirtysecond_to_a_sixteenth_of_the_time() -> None:
    ring = BlockRing()
    for index in range(4096):
        ring.append(index, 0.0)
        if index > CAPACITY:
            assert 1 / 33 <= ring.cells_per_block / (index + 1) <= 1 / 15


def test_noise_is_blind_to_a_trend() -> None:
    draw = np.random.default_rng(0)
    found = [filled(list(-0.01 * np.arange(31) + draw.normal(0, 0.2, 31))).noise()[0] for _ in range(300)]
    assert np.median(found) == pytest.approx(0.2, rel=0.1)


def test_rise_is_dropped() -> None:
    ring = filled([0.0, 0.5, 1.0, 1.5, 1.4, 1.2, 1.0, 0.8, 0.6, 0.4])
    assert ring.drop_rise(noise=0.05)
    assert max(ring.means) == ring.means[0] == 1.5


def test_bump_within_the_noise_is_kept() -> None:
    ring = filled([0.0, 0.1, 0.2, 0.1, 0.0, -0.1])
    assert not ring.drop_rise(noise=0.1)


def test_state_survives_json() -> None:
    ring, other = filled([0.1 * i for i in range(45)]), BlockRing()
    other.load_state_dict(json.loads(json.dumps(ring.state_dict())))
    for index in range(45, 200):
        assert ring.append(index, 1 / index) == other.append(index, 1 / index)
    assert ring.means == other.means
