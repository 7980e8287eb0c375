from __future__ import annotations

import json

import pytest
from losslog_plateau.learning_rate import Cut, LearningRate


def taken(*rates: float | dict[str, float]) -> tuple[LearningRate, list[str | None]]:
    lr = LearningRate()
    return lr, [lr.take(step, rate) for step, rate in enumerate(rates)]


def test_halving_is_a_cut_and_doubling_a_rise() -> None:
    assert taken(0.1, 0.05, 0.1)[1] == [None, "cut", "rise"]


def test_slow_decay_is_none() -> None:
    assert not any(taken(*[0.1 * 0.97**i for i in range(60)])[1])


def test_one_group_is_enough() -> None:
    assert taken({"a": 0.1, "b": 0.1}, {"a": 0.1, "b": 1.0})[1] == [None, "rise"]


def test_a_rise_of_one_group_outweighs_a_cut_of_another() -> None:
    assert taken({"a": 0.1, "b": 0.1}, {"a": 0.01, "b": 1.0})[1] == [None, "rise"]


def test_change_of_the_groups_counts_as_a_rise() -> None:
    assert taken({"a": 0.1}, {"a": 0.1, "b": 0.1})[1] == [None, "rise"]


def test_cut_names_its_step_and_rates() -> None:
    assert taken(0.1, 0.1, 0.01)[0].cut() == Cut(2, "", 0.1, 0.01, True)


def test_cut_names_its_group() -> None:
    assert taken({"mask_head": 0.1}, {"mask_head": 0.01})[0].cut() == Cut(1, "mask_head", 0.1, 0.01, True)


def test_slow_decay_is_told_as_such() -> None:
    cut = taken(*[0.1 * 0.9**i for i in range(12)])[0].cut()
    assert cut is not None
    assert (cut.step, cut.at_once) == (7, False)


def test_rate_that_came_back_is_no_cut() -> None:
    assert taken(0.1, 0.01, 0.1)[0].cut() is None


@pytest.mark.parametrize(("rates", "rising"), [((0.1, 0.2), True), ((0.1, 0.2, 0.2), False), ((0.2, 0.1, 0.15), False)])
def test_rising_means_a_new_highest(rates: tuple[float, ...], rising: bool) -> None:
    assert taken(*rates)[0].rising is rising


def test_rate_of_zero_is_no_jump() -> None:
    assert taken(0.0, 0.1)[1] == [None, None]


def test_state_survives_json() -> None:
    lr, other = taken(0.1, 0.01)[0], LearningRate()
    other.load_state_dict(json.loads(json.dumps(lr.state_dict())))
    assert other.cut() == lr.cut() is not None
