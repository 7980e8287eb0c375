"""Making one loss stand still on purpose: a lesson, and a test of what watches losses. Plain functions.

Contract:

- Only the mask branch stops learning; it goes on computing its loss, and the other four losses train as before.
"""

from __future__ import annotations

from typing import Any

from torch import nn


def stall_mask_branch(model: Any) -> None:
    """Freezes a Mask R-CNN's mask head and predictor, and detaches the features they see.

    The mask loss then changes no weight at all, neither in the branch nor in the backbone.

    Args:
        model: torchvision's `MaskRCNN`.

    Raises:
        ValueError: the model has no mask branch.
    """
    heads: Any = getattr(model, "roi_heads", None)
    if getattr(heads, "mask_head", None) is None:
        raise ValueError(f"{type(model).__name__} has no mask branch to stall")
    for module in (heads.mask_head, heads.mask_predictor):
        for parameter in module.parameters():
            parameter.requires_grad_(False)
            parameter.grad = None  # an optimizer with momentum would go on moving it
    heads.mask_roi_pool.register_forward_pre_hook(_detach)


def _detach(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    features, *rest = inputs
    return ({name: value.detach() for name, value in features.items()}, *rest)
