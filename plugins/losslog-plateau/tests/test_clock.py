from __future__ import annotations

import pytest
from losslog_plateau.clock import Clock


@pytest.mark.parametrize(
    ("planned", "per_epoch", "unit"),
    [(2000, 50, 100), (None, 50, 50), (2000, None, 100), (None, None, None), (1200, 100, 100), (1200, 600, 150)],
)
def test_unit_is_a_twentieth_of_the_plan_and_an_epoch_at_least_but_an_eighth_at_most(
    planned: int | None, per_epoch: int | None, unit: float | None
) -> None:
    assert Clock(planned, per_epoch).unit == unit


@pytest.mark.parametrize(("per_epoch", "cell"), [(1, 1), (6, 6), (10, 5), (25, 6.25), (100, 25), (400, 100)])
def test_cell_is_a_quarter_of_an_epoch_where_that_is_long_enough(per_epoch: int, cell: float) -> None:
    assert Clock(None, per_epoch).cell == cell


def test_cell_is_shorter_where_an_epoch_is_most_of_the_run() -> None:
    assert Clock(10_000, 10_000).cell <= 10_000 / 20


def test_lengths_are_steps_however_far_apart_rows_lie() -> None:
    dense, sparse = Clock(2000, 100), Clock(2000, 100, stride=20)
    assert (sparse.unit, sparse.min_window, sparse.warmup) == (dense.unit, dense.min_window, dense.warmup)


@pytest.mark.parametrize("stride", [20, 50, 99, 100, 5000])
def test_no_cell_is_shorter_than_the_distance_of_rows(stride: int) -> None:
    for clock in (
        Clock(2000, 100, stride),
        Clock(None, 100, stride),
        Clock(2000, None, stride),
        Clock(None, None, stride),
    ):
        assert clock.cell >= stride


def test_one_value_per_epoch_has_no_least_number_of_steps() -> None:
    clock = Clock(20, 1)
    assert clock.min_window == 0
    assert clock.warmup == 5


def test_warmup_lasts_300_steps_at_least() -> None:
    assert Clock(1000, 25).warmup == 300
    assert Clock(6000, 25).warmup == 1500


def test_without_plan_and_epoch_the_first_alarm_waits_500_rows() -> None:
    assert Clock(None, None).warmup == 500
    assert Clock(None, None, stride=20).warmup == 10_000
