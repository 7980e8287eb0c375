from __future__ import annotations

import json

import pytest
from losslog_plateau.learning_rate import LearningRate


def taken(*rates: float | dict[str, float]) -> tuple[LearningRate, list[bool]]:
    lr = LearningRate()
    return lr, [lr.take(step, rate) for step, rate in enumerate(rates)]


def test_halving_is_a_jump() -> None:
    assert taken(0.1, 0.05)[1] == [False, True]


def test_slow_decay_is_none() -> None:
    assert not any(taken(*[0.1 * 0.97**i for i in range(60)])[1])


def test_one_group_is_enough() -> None:
    assert taken({"a": 0.1, "b": 0.1}, {"a": 0.1, "b": 1.0})[1] == [False, True]


def test_change_of_the_groups_is_a_jump() -> None:
    assert taken({"a": 0.1}, {"a": 0.1, "b": 0.1})[1] == [False, True]


def test_cut_names_its_step_and_rates() -> None:
    words = taken(0.1, 0.1, 0.01)[0].cut("step")
    assert words == "the learning rate was cut at step 2 (highest 0.1, now 0.01)"


def test_cut_names_its_group() -> None:
    assert "of mask_head was cut" in str(taken({"mask_head": 0.1}, {"mask_head": 0.01})[0].cut("step"))


def test_slow_decay_is_told_as_such() -> None:
    assert "has come down from 0.1" in str(taken(*[0.1 * 0.9**i for i in range(12)])[0].cut("step"))


def test_rate_that_came_back_is_no_cut() -> None:
    assert taken(0.1, 0.01, 0.1)[0].cut("step") is None


@pytest.mark.parametrize(("rates", "rising"), [((0.1, 0.2), True), ((0.1, 0.2, 0.2), False), ((0.2, 0.1, 0.15), False)])
def test_rising_means_a_new_highest(rates: tuple[float, ...], rising: bool) -> None:
    assert taken(*rates)[0].rising is rising


def test_rate_of_zero_is_no_jump() -> None:
    assert taken(0.0, 0.1)[1] == [False, False]


def test_state_survives_json() -> None:
    lr, other = taken(0.1, 0.01)[0], LearningRate()
    other.load_state_dict(json.loads(json.dumps(lr.state_dict())))
    assert other.cut("step") == lr.cut("step")
