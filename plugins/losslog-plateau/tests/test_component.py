from __future__ import annotations

import json
import math
import random

import pytest
from losslog_plateau.clock import Clock
from losslog_plateau.component import CELL, NON_FINITE, Component
from losslog_plateau.settings import Settings


def component(per_epoch: int = 40, planned: int | None = 2000, **settings: bool) -> Component:
    return Component("loss_mask", Clock(planned, per_epoch), Settings(**settings), 0)


def feed(target: Component, values: list[float]) -> list[int]:
    events = []
    for value in values:
        events.append(target.add(value, target.now + 1))
        if events[-1] & CELL:
            target.close_cell()
    return events


def test_cells_end_on_epoch_borders() -> None:
    events = feed(component(per_epoch=25), [1.0] * 100)
    ends = [at + 1 for at, event in enumerate(events) if event & CELL]
    assert {25, 50, 75, 100} <= set(ends)
    assert len(ends) == 16


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_is_told_on_its_value_and_once(value: float) -> None:
    assert [event & NON_FINITE for event in feed(component(), [1.0, value, value, 1.0, value])] == [0, 2, 0, 0, 0]


def test_non_finite_values_are_not_fed() -> None:
    target = component()
    feed(target, [2.0, math.nan, 2.0, math.inf] * 20)
    assert target.level.level == 2.0


def test_component_recovers_after_an_epoch_of_finite_values() -> None:
    target = component()
    feed(target, [1.0] * 10 + [math.nan] + [1.0] * 9)
    assert target.bad_since == 10
    feed(target, [1.0] * 40)
    assert target.bad_since is None


def test_zeros_count_as_steps_and_not_as_values() -> None:
    target = component()
    feed(target, [0.0, 4.0] * 40)
    assert target.level.level == 4.0
    assert target.elapsed == 80


def test_negative_values_are_left_out() -> None:
    target = component()
    feed(target, [-1.0, 4.0] * 40)
    assert target.level.level == 4.0
    assert target.zero_cells == 0


def test_cells_of_zeros_are_counted_in_a_row() -> None:
    target = component()
    feed(target, [0.0] * 30)
    assert target.zero_cells == 3
    feed(target, [1.0] + [0.0] * 9)
    assert target.zero_cells == 0


def test_two_checks_in_a_row_must_agree() -> None:
    target = component()
    states = []
    for _ in range(60):
        feed(target, [1.0] * 10)
        states.append((target.flat_checks, target.flat))
    assert (1, False) in states
    assert all(flat == (checks >= 2 and at >= 49) for at, (checks, flat) in enumerate(states))


def test_a_changed_learning_rate_empties_the_line_and_keeps_the_peak() -> None:
    target = component()
    feed(target, [3.0] * 400)
    target.forget_line()
    assert target.ring.means == []
    assert target.level.peak == pytest.approx(3.0)


def test_a_plateau_in_the_warmup_of_the_learning_rate_says_nothing() -> None:
    early, late = component(), component()
    feed(early, [1.0] * 800)
    late.settle()
    feed(late, [1.0] * 400)
    late.settle()
    feed(late, [1.0] * 400)
    assert early.flat
    assert not late.flat


def test_oscillation_is_looked_for_only_where_asked() -> None:
    values = [math.exp(0.5 * math.sin(i / 20)) for i in range(1500)]
    on, off = component(oscillating=True), component()
    feed(on, values)
    feed(off, values)
    assert on.oscillating is not None
    assert off.oscillating is None


@pytest.mark.parametrize("oscillating", [False, True])
def test_state_is_below_two_kilobytes_and_does_not_grow(oscillating: bool) -> None:
    target = component(per_epoch=50, planned=None, oscillating=oscillating)
    draw = random.Random(0)
    sizes = []
    for _ in range(20):
        feed(target, [draw.lognormvariate(0, 0.5) for _ in range(1000)])
        sizes.append(len(json.dumps(target.state_dict(), separators=(",", ":"))))
    assert max(sizes) <= 2048 + 1024 * oscillating


def test_state_survives_json() -> None:
    draw = random.Random(0)
    values = [draw.lognormvariate(-i / 3000, 0.4) for i in range(3000)]
    target, other = component(oscillating=True), component(oscillating=True)
    feed(target, values[:1234])
    other.load_state_dict(json.loads(json.dumps(target.state_dict())))
    feed(target, values[1234:])
    feed(other, values[1234:])
    assert other.state_dict() == target.state_dict()
