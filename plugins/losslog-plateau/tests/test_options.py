from __future__ import annotations

from typing import Any

import pytest
from losslog_plateau import SENSITIVITY, PlateauPlugin
from losslog_plateau.options import filter_of, reaction_of, z_of


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("planned_steps", 0),
        ("steps_per_epoch", -1),
        ("steps_per_epoch", "50"),
        ("z", 0.0),
        ("sensitivity", "loud"),
        ("r", 2.0),
        ("window", 0),
        ("confirm", 0),
        ("watch", "loss_mask"),
        ("ignore", [1]),
        ("quiet", "yes"),
        ("oscillating", 1),
        ("on_stall", "panic"),
        ("lr_factor", 0),
        ("head_group", 3),
        ("typical", {"loss_mask": 1}),
    ],
)
def test_bad_option_is_refused_with_its_name_and_the_fix(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{option}.*: give"):
        PlateauPlugin(**{option: value})


def test_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="sensitivty"):
        PlateauPlugin(sensitivty="low")  # type: ignore[call-arg]


def test_sensitivity_names_a_z() -> None:
    assert [z_of(None, name) for name in ("low", "normal", "high")] == [
        SENSITIVITY[n] for n in ("low", "normal", "high")
    ]


def test_z_and_sensitivity_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="only one"):
        z_of(2.0, "low")


def test_watch_reports_only_these() -> None:
    chosen = filter_of(["loss_mask"], None)
    assert chosen.reports("loss_mask")
    assert not chosen.reports("loss_box_reg")


def test_ignore_beats_watch() -> None:
    assert not filter_of(["loss_mask"], ["loss_mask"]).reports("loss_mask")


@pytest.mark.parametrize(
    ("head_group", "component", "group"),
    [
        (None, "loss_mask", "mask_head"),
        (None, "loss_classifier", "box_head"),
        (None, "loss_box_reg", "box_head"),
        (None, "loss_objectness", "rpn"),
        (None, "loss_rpn_box_reg", "rpn"),
        (None, "loss_keypoint", "keypoint_head"),
        (None, "loss_depth", None),
        ("heads", "loss_depth", "heads"),
        ({"loss_depth": "depth"}, "loss_depth", "depth"),
        ({"loss_depth": "depth"}, "loss_mask", "mask_head"),
    ],
)
def test_group_of_a_component(head_group: Any, component: str, group: str | None) -> None:
    assert reaction_of("raise_head_lr", 10, head_group).group_of(component) == group
