from __future__ import annotations

import pytest
from losslog_plateau import TYPICAL
from losslog_plateau.known import BCE, CE, DFL, FLOORED, IOU, KL, L1, NAMES, SOFT, known


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("loss_mask", BCE),
        ("loss_objectness", BCE),
        ("loss_rpn_cls", BCE),
        ("loss_rpn_loc", L1),
        ("bbox_ctrness", SOFT),
        ("loss_centerness", SOFT),
        ("loss_xy", SOFT),
        ("train/dfl_loss", DFL),
        ("loss/box_loss", IOU),
        ("loss_giou", IOU),
        ("d0.loss_cls", CE),
        ("s2.loss_bbox", L1),
        ("loss_cls_stage1", CE),
        ("loss_ce_4", CE),
        ("loss_bbox_enc", L1),
        ("dn_loss_bbox", L1),
        ("kl_loss", KL),
    ],
)
def test_kind_by_name(name: str, kind: str) -> None:
    found = known(name, [name])
    assert found is not None
    assert found.kind == kind


@pytest.mark.parametrize("name", ["loss_depth", "accuracy", "loss_mask_iou", ""])
def test_other_names_are_not_known(name: str) -> None:
    assert known(name, [name]) is None


def test_torchvisions_ranges_are_in_the_table() -> None:
    assert {name: NAMES[name].range for name in TYPICAL} == dict(TYPICAL)


def test_losses_with_a_floor_of_their_own_have_no_range() -> None:
    assert [name for name, each in NAMES.items() if each.kind in FLOORED and each.range is not None] == []


@pytest.mark.parametrize(
    ("names", "has_range"),
    [
        (["loss_mask"], True),
        (["loss_mask", "loss_classifier", "loss_objectness"], True),
        (["loss_mask", "loss_cls", "loss_bbox", "loss_rpn_cls", "loss_rpn_bbox"], True),
        (["loss_mask", "loss_cls", "loss_centerness"], False),
        (["loss_mask", "loss_ce", "loss_dice"], False),
        (["loss_mask_0", "loss_ce_0", "loss_dice_0"], False),
    ],
)
def test_loss_mask_has_its_range_only_beside_the_losses_of_a_two_stage_detector(
    names: list[str], has_range: bool
) -> None:
    found = known(names[0], names)
    assert found is not None
    assert (found.range is not None) is has_range
