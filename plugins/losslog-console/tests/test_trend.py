"""What stands behind a component's value on a terminal; and all components in the line of progress."""

from __future__ import annotations

import math

import pytest
from losslog_console.blocks import Blocks
from losslog_console.progress import Progress
from losslog_console.trend import KEPT, Trend
from losslog_console.words import shortened, unprefixed

LOSSES = {f"loss_{name}": 0.5 for name in ("box_reg", "classifier", "mask", "objectness", "rpn_box_reg")}


def grown(*values: float) -> Trend:
    trend = Trend()
    for epoch, value in enumerate(values, start=1):
        trend.add(epoch, {"a": value, "b": 1.0}, None)
    return trend


def test_change_and_curve_stand_behind_the_value() -> None:
    lines = Blocks(True, 4, 80).epoch(3, 20, {"a": 0.3, "b": 1.0}, None, None, grown(1.0, 0.5, 0.3).told(80, True))
    assert lines[2].split() == ["Total:", "1.3000", "▼", "13.3", "%", "⠡⡀"]
    assert lines[3].split()[:5] == ["a:", "0.3000", "▼", "40.0", "%"]
    assert lines[3].index("▼") == lines[2].index("▼")


def test_a_pipe_gets_the_block_as_users_write_it() -> None:
    assert grown(1.0, 0.5).told(None, True) == {}
    assert grown(1.0, 0.5).told(40, True) == {}
    assert grown(1.0).told(80, True) == {}


def test_odd_values_are_told_without_a_change() -> None:
    told = grown(1.0, math.nan).told(80, False)
    assert "%" not in told["a"]
    assert "+0.0 %" in told["b"]
    assert "%" not in grown(0.0, 1.0).told(80, False)["a"]
    assert "x1e+06" in grown(1e-3, 1e3).told(80, False)["a"]


def test_a_resume_takes_back_and_memory_is_bounded() -> None:
    trend = grown(*[1.0] * 5, 9.0)
    trend.rewind(5)
    assert "▲   0.0 %" in trend.told(80, True)["a"]
    many = grown(*[1.0] * 5000)
    assert len(many.told(80, True)["a"]) < 60
    assert all(len(kept) <= KEPT for kept in vars(many)["_means"].values())


def test_a_scalar_has_its_own() -> None:
    trend = Trend()
    for epoch, value in enumerate((1.0, 0.5), start=1):
        trend.add(epoch, value, None)
    assert "▼  50.0 %" in Blocks(True, 4, 80).epoch(2, 20, 0.5, None, None, trend.told(80, True))[1]


@pytest.mark.parametrize("width", [72, 80, 92, 120, 160])
def test_all_five_losses_are_in_the_line(width: int) -> None:
    state = Progress()
    state.batch(0, 1, 0.0)
    line = state.lines(LOSSES, None, True, 4, width, lambda text: text.plain)[1]
    assert line.count("0.5") == 5
    assert line.startswith("total 2.5")
    assert len(line) < width
    assert "…" not in line


def test_what_does_not_fit_takes_turns() -> None:
    many = {f"loss_{place:02}": float(place) for place in range(40)}
    seen: set[str] = set()
    for at in range(0, 60, 3):
        state = Progress()
        state.batch(0, 1, float(at))
        line = state.lines(many, None, True, 4, 80, lambda text: text.plain)[1]
        assert line.startswith("total ")
        seen |= set(line.split()[2::2])
    assert len(seen) == 40


def test_names_are_cut_and_told_apart() -> None:
    assert unprefixed(["total", "loss_a", "loss_b"]) == ["total", "a", "b"]
    assert len(set(shortened(["total", "aaaa1", "aaaa2", "aaaa3"], 10))) == 4


@pytest.mark.parametrize("braille", [True, False])
def test_nothing_is_said_to_fall_by_nothing(braille: bool) -> None:
    told = grown(0.4, 0.4 * (1 - 1e-9)).told(80, braille)["a"]
    assert "0.0 %" in told
    assert "-" not in told
    assert "▼" not in told


def test_alerts_stay_in_a_line_of_their_own() -> None:
    state = Progress()
    state.batch(0, 1, 0.0)
    shown = lambda: state.lines(LOSSES, None, True, 4, 60, lambda text: text.plain)  # noqa: E731
    state.alert("info", "loss_mask is flat", "step 3")
    assert len(shown()) == 2
    state.alert("warning", "loss_mask has stalled", "step 419")
    assert shown()[2] == "! loss_mask has stalled (step 419)"
    state.alert("error", "loss_box_reg is not finite\x1b[2J, and this goes on for long", "")
    line = shown()[2]
    assert line.startswith("! 2 alerts, the last: loss_box_reg is not finite")
    assert "\x1b" not in line
    assert len(line) < 60


def test_a_loader_tells_the_length_of_the_first_epoch() -> None:
    state = Progress()
    state.batch(0, 1, 0.0)
    state.loaded("x")
    assert state.where() == "Epoch 1 [1]"
    state.loaded(6)
    assert state.where() == "Epoch 1 [1/6]"
    state.epoch_end(1.0)
    state.loaded(9)  # what was seen is better than what was said
    state.batch(1, 2, 2.0)
    assert state.where() == "Epoch 2 [1/1]"
