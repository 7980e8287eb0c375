"""Detection on torchvision and pycocotools: COCO-format data, evaluation, Mask R-CNN, parameter groups, shapes data."""

from losslog.detection.annotations import Categories
from losslog.detection.coco import CocoDataset, HorizontalFlip, collate
from losslog.detection.evaluation import CocoEvaluator, summarize
from losslog.detection.findings import DataError
from losslog.detection.groups import get_parameter_groups
from losslog.detection.models import BACKBONES, build_maskrcnn
from losslog.detection.shapes import write_shapes
from losslog.detection.stall import stall_mask_branch
from losslog.engine.validation import validation_losses

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
    "stall_mask_branch",
    "summarize",
    "validation_losses",
    "write_shapes",
]
