"""The live view's lines: at every width, height and content."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from losslog_console.board import Choice, board
from losslog_console.spark import spark
from losslog_console.watching import keys_in, press
from rich.cells import cell_len

NAMES = ["loss_box_reg", "loss_classifier", "loss_mask", "loss_objectness", "loss_rpn_box_reg"]


def row(name: str, value: float = 0.25, **more: Any) -> Any:
    known = {"share": 0.2, "change": -0.03, "val": 0.3, "curve": [1.0, 0.5, 0.25], "word": ""}
    return SimpleNamespace(name=name, value=value, **(known | more))


def view(rows: list[Any], **more: Any) -> Any:
    known = {
        "name": "demo", "folder": Path("runs/demo/20260101-000000-abcd"), "status": "running", "age": 0.4, "step": 119,
        "epoch": 5, "epochs": 20, "position": (19, 100), "left": 123.0, "scores": [("bbox_AP", 0.7, 0.72)],
        "lanes": {"mlflow": {"complete": False, "behind": 40_000}}, "alerts": [], "rows": rows,
    }  # fmt: skip
    return SimpleNamespace(**(known | more))


def drawn(live: Any, width: int = 80, height: int = 20, choice: Choice | None = None, **more: Any) -> list[str]:
    return [line.plain for line in board(live, width, height, choice or Choice(), **more)]


FULL = [*(row(name) for name in NAMES), row("total", share=None)]


@pytest.mark.parametrize("emoji", [True, False])
@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
def test_every_line_fits_and_every_component_is_there(width: int, emoji: bool) -> None:
    alert = {"level": "warning", "title": "loss_mask has stalled", "text": "x" * 500, "step": 419}
    lines = drawn(view(FULL, alerts=[alert]), width, emoji=emoji)
    assert all(cell_len(line) <= width for line in lines)
    assert emoji or all(line.isascii() for line in lines)
    shown = [line[2:8] for line in lines]
    assert all(name[:6] in shown for name in [*NAMES, "total "])


@pytest.mark.parametrize("height", range(4, 26))
def test_no_height_is_too_small(height: int) -> None:
    many = [*(row(f"loss_{place:03}") for place in range(200)), row("total")]
    lines = drawn(view(many), height=height)
    assert len(lines) <= height
    assert "of 201" in lines[-1] or height < 7


def test_what_it_says() -> None:
    lines = drawn(view(FULL), 120)
    assert lines[0] == "demo 20260101-000000-abcd  running"
    assert lines[1] == "Epoch 5/20  [19/100]  ETA 2:03  last record 0 s ago"
    assert lines[3].startswith("> loss_box_reg        0.2500   20 %   -3.0 %    0.3000 ")
    assert "bbox_AP 0.700 (best 0.720)" in lines
    assert "mlflow 39 KiB behind" in "\n".join(lines)


def test_names_and_texts_are_shown_not_obeyed() -> None:
    evil = "\x1b[2J\u202e[red]"
    alert = {"level": evil, "title": evil, "text": evil, "step": None}
    component = row(evil, math.nan, share=None, change=None, val=None, curve=[math.nan], word=evil)
    live = view([component], name=evil, alerts=[alert], lanes={evil: {"complete": True}})
    text = "\n".join(drawn(live, 200))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[red]" in text


def test_keys_sort_choose_and_hide() -> None:
    rows = [row("a", share=0.1), row("b", share=0.7), row("c", share=0.2), row("total", share=None)]
    choice = Choice()
    assert press("s", choice, rows)
    assert [line[2] for line in drawn(view(rows), choice=choice)[3:7]] == ["b", "c", "a", "t"]
    assert press("j", choice, rows)
    assert press(" ", choice, rows)
    assert [line[2] for line in drawn(view(rows), choice=choice)[3:6]] == ["b", "a", "t"]
    assert "1 hidden" in drawn(view(rows), choice=choice)[-1]
    assert press("a", choice, rows)
    assert not press("x", choice, rows)
    for _ in range(9):
        press("j", choice, rows)
    for _ in range(9):
        press(" ", choice, rows)
    assert len(choice.hidden) == 3  # the last one stays


def test_what_a_terminal_sends_becomes_keys() -> None:
    assert keys_in("ss\x1b[Aq\x1bOB ") == ["s", "s", "k", "q", "j", " "]
    assert keys_in("\x1b") == ["\x1b"]


def test_a_curve_in_a_line() -> None:
    assert spark([0.0, 1.0, 2.0, 3.0], 2) == "\u2860\u280a"
    assert spark([1.0] * 6, 3) == "\u28c0" * 3
    assert spark([], 4) == "    "
    assert spark([math.nan, 1.0, math.inf, 2.0], 2) == "\u2880\u2808"
    assert spark([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 7, braille=False) == "_.-=*^'"
    long = spark([1.0] * 5000 + [9.0] + [1.0] * 4999, 20)
    assert len(long) == 20
    assert len(set(long)) > 1  # one value of ten thousand is still seen


@pytest.mark.parametrize("braille", [True, False])
@pytest.mark.parametrize("noise", [0.0, 1e-16, 1e-9, 1e-7])
@pytest.mark.parametrize("size", [0.4, -0.4, 1e30])
def test_rounding_noise_is_flat(size: float, noise: float, braille: bool) -> None:
    values = [size * (1 + noise * (place * 7 % 5)) for place in range(300)]
    assert len(set(spark(values, 20, braille=braille))) == 1
    assert len(set(spark([size * (1 + 1e-3 * place) for place in range(300)], 20, braille=braille))) > 1


@pytest.mark.parametrize("change", [0.0, -0.0, -1e-16, -0.0004, 0.0004])
def test_no_change_has_no_minus(change: float) -> None:
    lines = "\n".join(drawn(view([row("a", change=change)]), 120))
    assert "-0.0 %" not in lines
    assert "+0.0 %" in lines


@pytest.mark.parametrize("emoji", [True, False])
@pytest.mark.parametrize("width", [40, 50, 60, 70, 80, 90, 99, 100, 140])
def test_what_an_alert_calls_it_is_there_at_every_width(width: int, emoji: bool) -> None:
    rows = [row("loss_cls", math.nan, share=None, change=None, word="non-finite"), row("loss_mask"),
            row("loss_box_regression", word="stalled since 245")]  # fmt: skip
    lines = drawn(view(rows, alerts=[]), width, emoji=emoji)
    assert "nan non-finite" in " ".join(lines[3].split()) or width >= 60
    assert "non-finite" in lines[3]
    assert all(cell_len(line) <= width for line in lines)
    assert "stalled since" in lines[5] or width < 50
    assert lines[5].endswith(("245", "…", "~"))
    assert "20 %" in lines[4]
