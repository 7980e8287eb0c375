"""Parameter groups by part of a detector, with a learning rate of their own for the heads. Plain functions.

Contract:

- Every trainable parameter is in exactly one group; frozen ones are in none; empty groups are left out.
- Groups carry a ``name``, which is what learning rates are logged by.
"""

from __future__ import annotations

from typing import Any, Final

from torch import nn

# First match wins; prefixes of torchvision's detectors (Faster, Mask and Keypoint R-CNN; RetinaNet, FCOS, SSD: "head").
_PARTS: Final = (
    ("backbone.", "backbone"),
    ("rpn.", "rpn"),
    ("roi_heads.box_", "box_head"),
    ("roi_heads.mask_", "mask_head"),
    ("roi_heads.keypoint_", "keypoint_head"),
    ("head.", "head"),
)
_WRAPPERS: Final = ("module.", "_orig_mod.")  # DistributedDataParallel, torch.compile


def part_of(name: str) -> str:
    """Returns the part of the detector a parameter belongs to, from its dotted name: backbone, rpn, box_head, ..."""
    while name.startswith(_WRAPPERS):
        name = name.partition(".")[2]
    return next((part for prefix, part in _PARTS if name.startswith(prefix)), "other")


def get_parameter_groups(model: nn.Module, lr: float, head_lr_multiplier: float = 10.0) -> list[dict[str, Any]]:
    """Splits a detector's trainable parameters into named groups for an optimizer.

    The heads (box_head, mask_head, keypoint_head, head) are usually new while backbone and RPN are pretrained, hence
    their larger rate. Parameters of other modules form the group ``other``, at `lr`.

    Args:
        model: a torchvision detector, also wrapped in DistributedDataParallel or compiled.
        lr: learning rate of backbone, rpn and other.
        head_lr_multiplier: the heads learn at ``lr * head_lr_multiplier``.

    Returns:
        Dicts with ``name``, ``params`` and ``lr``, in the order in which the parts occur in the model.

    Raises:
        ValueError: a rate that is not positive, or a model without trainable parameters.
    """
    if not lr > 0 or not head_lr_multiplier > 0:
        raise ValueError(f"lr and head_lr_multiplier must be positive, not {lr} and {head_lr_multiplier}")
    parts: dict[str, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():  # a shared parameter is listed once
        if parameter.requires_grad:
            parts.setdefault(part_of(name), []).append(parameter)
    if not parts:
        raise ValueError("the model has no trainable parameters")
    return [
        {"name": part, "params": params, "lr": lr * head_lr_multiplier if part.endswith("head") else lr}
        for part, params in parts.items()
    ]
