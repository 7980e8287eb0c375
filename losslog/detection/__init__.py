"""Detection on torchvision and pycocotools: COCO-format data, evaluation, Mask R-CNN, shapes data, images.

A name is imported when it is asked for: who draws in a tracker's process needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from losslog.detection.annotations import Categories
    from losslog.detection.coco import CocoDataset, HorizontalFlip, collate
    from losslog.detection.evaluation import CocoEvaluator, summarize
    from losslog.detection.findings import DataError
    from losslog.detection.groups import get_parameter_groups
    from losslog.detection.models import BACKBONES, build_maskrcnn
    from losslog.detection.predictions import images_of
    from losslog.detection.shapes import write_shapes
    from losslog.detection.stall import stall_mask_branch
    from losslog.engine.validation import validation_losses

_HOMES = {
    "losslog.detection.annotations": ("Categories",),
    "losslog.detection.coco": ("CocoDataset", "HorizontalFlip", "collate"),
    "losslog.detection.evaluation": ("CocoEvaluator", "summarize"),
    "losslog.detection.findings": ("DataError",),
    "losslog.detection.groups": ("get_parameter_groups",),
    "losslog.detection.models": ("BACKBONES", "build_maskrcnn"),
    "losslog.detection.predictions": ("images_of",),
    "losslog.detection.shapes": ("write_shapes",),
    "losslog.detection.stall": ("stall_mask_branch",),
    "losslog.engine.validation": ("validation_losses",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BACKBONES",
    "Categories",
    "CocoDataset",
    "CocoEvaluator",
    "DataError",
    "HorizontalFlip",
    "build_maskrcnn",
    "collate",
    "get_parameter_groups",
    "images_of",
    "stall_mask_branch",
    "summarize",
    "validation_losses",
    "write_shapes",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(_HOME_OF[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
