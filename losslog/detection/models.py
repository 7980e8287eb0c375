"""Mask R-CNN from torchvision in three sizes. Plain functions; nothing is downloaded unless weights are asked for.

Contract:

- The result is torchvision's own `MaskRCNN`: in train mode a dict of five losses, in eval mode detections.
- ``weights=None`` means random weights everywhere, backbone included (torchvision's own default downloads it).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from torch import nn
from torchvision.models import ResNet18_Weights, ResNet50_Weights
from torchvision.models.detection import MaskRCNN, MaskRCNN_ResNet50_FPN_Weights, maskrcnn_resnet50_fpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.misc import FrozenBatchNorm2d

from losslog.detection.tiny import TinyBackbone
from losslog.runtime.containment import attempt

BACKBONES: Final = ("resnet50", "resnet18", "tiny")
_DEFAULT_SIZE: Final = {"resnet50": 800, "resnet18": 320, "tiny": 128}
_ASPECT: Final = 1333 / 800  # longest side over shortest side, as in torchvision's defaults


def group_norm(channels: int) -> nn.GroupNorm:
    """Normalisation for training from scratch: batch statistics of two images are too noisy (arXiv:1811.08883)."""
    return nn.GroupNorm(8 if channels < 256 else 32, channels)


def build_maskrcnn(
    num_classes: int,
    backbone: str = "resnet50",
    *,
    image_size: int | None = None,
    weights: str | Path | None = None,
    **options: Any,
) -> MaskRCNN:
    """Builds a Mask R-CNN.

    Args:
        num_classes: classes with the background, as torchvision counts.
        backbone: ``resnet50`` (torchvision's own model), ``resnet18`` (FPN of 128 channels, lighter heads) or
            ``tiny`` (0.6 million parameters, for CPUs and small images).
        image_size: images are scaled so that their shorter side has this many pixels; None: 800, 320 or 128.
        weights: None (random), ``imagenet`` (backbone; downloads), ``coco`` (whole model, new predictors; resnet50
            only; downloads), or a file with a state dict of the model.
        options: passed on to torchvision's `MaskRCNN`, e.g. ``box_detections_per_img=50``.

    Returns:
        The model, on the CPU.

    Raises:
        ValueError: an unknown backbone, weights it does not have, fewer than two classes, a weights file that holds
            something else.
        OSError: a weights file that cannot be read.
    """
    if backbone not in BACKBONES:
        raise ValueError(f"unknown backbone {backbone!r}; there are {', '.join(BACKBONES)}")
    if num_classes < 2:
        raise ValueError(f"num_classes counts the background too, so it is at least 2, not {num_classes}")
    short, long = sides(backbone, image_size)
    options = {"min_size": short, "max_size": long, **options}
    named = str(weights) if weights in ("imagenet", "coco") else None
    if named and (backbone == "tiny" or (backbone, named) == ("resnet18", "coco")):
        raise ValueError(f"there are no {named!r} weights for the backbone {backbone!r}")
    if backbone == "resnet50":
        model = _resnet50(num_classes, named, options)
    elif backbone == "resnet18":
        model = _resnet18(num_classes, named, options)
    else:
        model = _tiny(num_classes, options)
    if weights is not None and not named:
        _load(model, weights)
    return model


def _load(model: MaskRCNN, weights: str | Path) -> None:
    """Put a state dict of a file into the model; the whole of a checkpoint does, too."""
    from losslog.engine.checkpoint import in_words, read_tensors

    state = read_tensors(weights)
    state = state.get("model", state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise ValueError(f"no state dict is in it: it is {in_words(state)}")
    _, error = attempt(model.load_state_dict, dict(state))
    if error is not None:
        raise ValueError(f"they are of another model: {' '.join(str(error).split())[:200]}") from error


def sides(backbone: str, image_size: int | None = None) -> tuple[int, int]:
    """What the shorter side of an image is scaled to, and how long the longer one may get."""
    short = image_size or _DEFAULT_SIZE[backbone]
    return short, round(short * _ASPECT)


def _resnet50(num_classes: int, weights: str | None, options: dict[str, Any]) -> MaskRCNN:
    if weights == "coco":
        pretrained = MaskRCNN_ResNet50_FPN_Weights.DEFAULT
        model: MaskRCNN = maskrcnn_resnet50_fpn(weights=pretrained, weights_backbone=None, **options)
        model.roi_heads.box_predictor = FastRCNNPredictor(1024, num_classes)
        model.roi_heads.mask_predictor = MaskRCNNPredictor(256, 256, num_classes)
        return model
    return MaskRCNN(
        resnet_fpn_backbone(
            backbone_name="resnet50",
            weights=ResNet50_Weights.DEFAULT if weights else None,
            norm_layer=FrozenBatchNorm2d if weights else group_norm,
            trainable_layers=3 if weights else 5,
        ),
        num_classes,
        **options,
    )


def _resnet18(num_classes: int, weights: str | None, options: dict[str, Any]) -> MaskRCNN:
    body = resnet_fpn_backbone(
        backbone_name="resnet18",
        weights=ResNet18_Weights.DEFAULT if weights else None,
        norm_layer=FrozenBatchNorm2d if weights else group_norm,
        trainable_layers=3 if weights else 5,
    )
    sizes = tuple((size,) for size in (16, 32, 64, 128, 256))
    lighter = {
        "rpn_anchor_generator": AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
        "rpn_pre_nms_top_n_train": 500,
        "rpn_pre_nms_top_n_test": 300,
        "rpn_post_nms_top_n_train": 300,
        "rpn_post_nms_top_n_test": 150,
        "box_batch_size_per_image": 128,
    }
    return _with_small_heads(body, num_classes, 256, ["0", "1", "2", "3"], 256, 128, 2, {**lighter, **options})


def _tiny(num_classes: int, options: dict[str, Any]) -> MaskRCNN:
    body = TinyBackbone()
    sizes = tuple((size,) for size in body.anchor_sizes)
    lighter = {
        "rpn_anchor_generator": AnchorGenerator(sizes, ((1.0,),) * len(sizes)),  # square only: a third of the work
        "rpn_batch_size_per_image": 64,
        "rpn_pre_nms_top_n_train": 150,
        "rpn_pre_nms_top_n_test": 100,
        "rpn_post_nms_top_n_train": 80,
        "rpn_post_nms_top_n_test": 50,
        "box_batch_size_per_image": 48,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.25, 0.25],
    }
    # One sample per bin and axis instead of two: RoIAlign's backward, single-threaded on a CPU, was a third of a step.
    names = [str(level) for level in range(len(sizes))]
    return _with_small_heads(body, num_classes, body.out_channels, names, 128, 48, 1, {**lighter, **options})


def _with_small_heads(
    body: nn.Module,
    num_classes: int,
    channels: int,
    levels: list[str],
    hidden: int,
    mask: int,
    samples: int,
    options: dict[str, Any],
) -> MaskRCNN:
    box_pool = MultiScaleRoIAlign(featmap_names=levels, output_size=7, sampling_ratio=samples)
    mask_pool = MultiScaleRoIAlign(featmap_names=levels, output_size=14, sampling_ratio=samples)
    heads = {
        "box_roi_pool": box_pool,
        "box_head": TwoMLPHead(channels * 7 * 7, hidden),
        "box_predictor": FastRCNNPredictor(hidden, num_classes),
        "mask_roi_pool": mask_pool,
        "mask_head": MaskRCNNHeads(channels, (mask, mask), dilation=1),
        "mask_predictor": MaskRCNNPredictor(mask, mask, num_classes),
    }
    return MaskRCNN(body, num_classes=None, **{**heads, **options})
