"""What the usual names of losses mean: the kind of loss, and where it ends, if that can be said at all.

Plain data and look-ups.

- A range is given only where the value means the same in every run: the two-stage detectors' losses, unweighted. It is
  that of small data sets; whether a component above it has stalled is for its own course and the others' to say.
- Losses with a floor of their own (soft targets, distribution focal loss, KL and commitment terms) have none, nor have
  weighted sums and IoU losses, whose end depends on the data.
- One name means different losses in different models: ``loss_mask`` has its range only beside no loss of a detector
  that computes it in another way.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import log
from typing import Final

Range = tuple[float, float]

BCE: Final = "binary cross entropy"
CE: Final = "cross entropy"
FOCAL: Final = "focal loss"
L1: Final = "smooth L1"
IOU: Final = "IoU loss"
DFL: Final = "distribution focal loss"
WEIGHTED: Final = "weighted binary cross entropy"
SOFT: Final = "binary cross entropy with soft targets"
DICE: Final = "Dice loss"
KL: Final = "KL divergence"
COMMITMENT: Final = "commitment term"

CHANCE: Final = log(2)
"""Binary cross entropy of a coin."""
CHANCE_WIDTH: Final = 0.03


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a loss by its name.

    Attributes:
        kind: Kind of loss.
        range: Typical final values (low, high), or None.
    """

    kind: str
    range: Range | None = None


NAMES: Final[Mapping[str, Known]] = {
    # torchvision: Faster, Mask and Keypoint R-CNN; RetinaNet, FCOS, SSD
    "loss_objectness": Known(BCE, (0.02, 0.08)),
    "loss_rpn_box_reg": Known(L1, (0.03, 0.10)),
    "loss_classifier": Known(CE, (0.05, 0.15)),
    "loss_box_reg": Known(L1, (0.04, 0.12)),
    "loss_mask": Known(BCE, (0.08, 0.20)),
    "loss_keypoint": Known(CE),
    "classification": Known(FOCAL),
    "bbox_regression": Known(L1),
    "bbox_ctrness": Known(SOFT),
    # detectron2 and mmdet
    "loss_rpn_cls": Known(BCE, (0.02, 0.08)),
    "loss_rpn_loc": Known(L1, (0.03, 0.10)),
    "loss_rpn_bbox": Known(L1, (0.03, 0.10)),
    "loss_cls": Known(CE),
    "loss_bbox": Known(L1),
    "loss_iou": Known(IOU),
    "loss_sem_seg": Known(CE),
    "loss_seg": Known(CE),
    "loss_centerness": Known(SOFT),
    "loss_fcos_cls": Known(FOCAL),
    "loss_fcos_loc": Known(IOU),
    "loss_fcos_ctr": Known(SOFT),
    "loss_qfl": Known(SOFT),
    "loss_dfl": Known(DFL),
    "loss_obj": Known(SOFT),
    "loss_conf": Known(WEIGHTED),
    "loss_xy": Known(SOFT),
    "loss_wh": Known(L1),
    "loss_l1": Known(L1),
    "loss_dice": Known(DICE),
    # YOLO
    "box_loss": Known(IOU),
    "cls_loss": Known(SOFT),
    "obj_loss": Known(SOFT),
    "seg_loss": Known(WEIGHTED),
    "dfl_loss": Known(DFL),
    "pose_loss": Known(L1),
    "kobj_loss": Known(WEIGHTED),
    # DETR and its kin
    "loss_ce": Known(CE),
    "loss_giou": Known(IOU),
    "loss_vfl": Known(SOFT),
    "loss_fgl": Known(DFL),
    "loss_ddf": Known(KL),
    # elsewhere
    "kl": Known(KL),
    "kl_loss": Known(KL),
    "loss_kl": Known(KL),
    "kld": Known(KL),
    "commit_loss": Known(COMMITMENT),
    "commitment_loss": Known(COMMITMENT),
    "vq_loss": Known(COMMITMENT),
    "codebook_loss": Known(COMMITMENT),
    "loss_bce": Known(BCE),
    "bce_loss": Known(BCE),
    "bce": Known(BCE),
}
TYPICAL: Final[Mapping[str, Range]] = {
    name: NAMES[name].range or (0.0, 0.0)
    for name in ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask")
}
"""Typical final values of torchvision's Mask R-CNN losses: (low, high)."""
HEADS: Final[Mapping[str, str]] = {
    "loss_mask": "mask_head",
    "loss_classifier": "box_head",
    "loss_box_reg": "box_head",
    "loss_objectness": "rpn",
    "loss_rpn_box_reg": "rpn",
    "loss_keypoint": "keypoint_head",
}
"""Parameter group that a torchvision loss component trains, as `losslog.detection.get_parameter_groups` names it."""
FLOORED: Final = frozenset({SOFT, DFL, KL, COMMITMENT})
"""Kinds that end at a floor of their own, not at zero."""
TWO_STAGE: Final = frozenset(
    {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_rpn_cls", "loss_rpn_loc", "loss_rpn_bbox"}
)
"""Losses that only a detector with proposals has."""
OTHER_MASKS: Final = frozenset({"loss_cls", "loss_ce", "loss_bbox", "loss_dice", "loss_giou", "loss_centerness"})
"""Beside one of these, and without proposals, ``loss_mask`` is no plain binary cross entropy."""

# Layers, stages, copies: train/box_loss, d0.loss_cls, s1.loss_bbox, dn_loss_bbox, enc_loss_cls, loss_ce_3.
_BEFORE: Final = re.compile(r"^(?:.*[/.])?(?:(?:enc|dn|aux|dense)\d*_)*(?=.)")
_AFTER: Final = re.compile(r"(?:_(?:stage|dn|aux|enc|dn)?_?\d+|_(?:dn|enc|aux|un))+$")


def known(name: str, names: Collection[str] = ()) -> Known | None:
    """What is known of a loss.

    Args:
        name: Its name.
        names: Names of all losses of the run, this one among them.
    """
    plain = _plain(name)
    found = NAMES.get(plain)
    if found is None or found.range is None:
        return found
    if plain == "loss_mask":
        beside = {_plain(each) for each in names}
        if beside & OTHER_MASKS and not beside & TWO_STAGE:
            return Known(FOCAL)
    return found


def _plain(name: str) -> str:
    return _AFTER.sub("", _BEFORE.sub("", name.lower()))
