from __future__ import annotations

import pytest
from losslog_plateau.clock import Clock


@pytest.mark.parametrize(
    ("planned", "per_epoch", "unit"), [(2000, 50, 100), (None, 50, 50), (2000, None, 100), (None, None, None)]
)
def test_unit_is_a_twentieth_of_the_plan_else_the_epoch(
    planned: int | None, per_epoch: int | None, unit: float | None
) -> None:
    assert Clock(planned, per_epoch).unit == unit


@pytest.mark.parametrize(("per_epoch", "cell"), [(1, 1), (6, 6), (10, 5), (25, 6.25), (100, 25), (400, 100)])
def test_cell_is_a_quarter_of_an_epoch_where_that_is_long_enough(per_epoch: int, cell: float) -> None:
    assert Clock(None, per_epoch).cell == cell


def test_cell_is_shorter_where_an_epoch_is_most_of_the_run() -> None:
    assert Clock(10_000, 10_000).cell <= 10_000 / 20


def test_rows_of_a_sparse_log_stand_for_their_steps() -> None:
    dense, sparse = Clock(2000, 100), Clock(2000, 100, stride=20)
    assert sparse.unit == dense.unit / 20
    assert sparse.min_window == dense.min_window / 20
    assert sparse.warmup == dense.warmup / 20


def test_one_value_per_epoch_has_no_least_number_of_steps() -> None:
    clock = Clock(20, 1)
    assert clock.min_window == 0
    assert clock.warmup == 5


def test_warmup_lasts_300_steps_at_least() -> None:
    assert Clock(600, 25).warmup == 300
    assert Clock(6000, 25).warmup == 1500


def test_without_plan_and_epoch_the_first_alarm_waits_500_steps() -> None:
    assert Clock(None, None).warmup == 500
