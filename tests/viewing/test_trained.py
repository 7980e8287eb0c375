"""The table of what each loss trains: what a journal may hold is shown or left out, never raised at."""

from __future__ import annotations

from typing import Any

import pytest

from losslog.journal.metrics import trained
from losslog.viewing.trained import MOST, table

PART = {"tensors": 12, "trainable": 12, "size": 100, "lr": [0.01], "outside": 0}


def test_components_by_parts_with_learning_rates() -> None:
    parts = {
        "backbone": PART | {"lr": [0.001, 0.01]}, "mask_head": PART | {"trainable": 0, "lr": []},
        "rpn": PART | {"outside": 12, "lr": []},
    }  # fmt: skip
    found = table({"step": 3, "reach": {"loss_mask": {"backbone": 12}, "loss_objectness": {"rpn": 4}}, "parts": parts})
    assert [line.split() for line in found] == [
        ["tensors", "trained", "backbone", "mask_head", "rpn"],
        ["loss_mask", "12", "-", "-"],
        ["loss_objectness", "-", "-", "4"],
        ["of", "12", "12", "12"],
        ["lr", "0.001/0.01", "frozen", "none"],
    ]
    assert len({len(line) for line in found}) == 1


def test_shares_of_the_gradient_stand_beside() -> None:
    trains = trained({}, {"step": 3, "detail": {"reach": {"a": {"p": 1}, "b": {"p": 2}}, "parts": {"p": PART}}})
    trains = trained(trains, {"step": 7, "metrics": {"grad_share/a": 0.254, "grad_share/b": float("nan"), "x": 1.0}})
    found = [line.split() for line in table(trains)]
    assert (found[0][-1], found[1][-2:], found[2][-1]) == ("gradient", ["25", "%"], "-")
    again = trained(trains, {"step": 9, "detail": {"reach": {"a": {"p": 1}}, "parts": {"p": PART}}})
    assert (again["step"], again["shared_at"], [*again["shares"]]) == (9, 7, ["a", "b"])
    assert trained(again, {"step": 10, "metrics": {"lr": 1.0}}) is again


def test_more_parts_than_fit() -> None:
    parts = {f"p{number}": PART for number in range(MOST + 5)}
    assert all(line.rstrip().endswith("...") for line in table({"reach": {"a": {}}, "parts": parts}))


@pytest.mark.parametrize("trains", [None, {}, {"reach": 1, "parts": 2}, {"reach": {"a": 1}, "parts": {"b": 2}},
                                    {"reach": {"a": {"b": "x"}}, "parts": {"b": {"lr": ["x"]}}}])  # fmt: skip
def test_what_does_not_fit_is_left_out(trains: Any) -> None:
    assert isinstance(table(trains), list)
