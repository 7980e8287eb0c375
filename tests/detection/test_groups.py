from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models.detection import keypointrcnn_resnet50_fpn, retinanet_resnet50_fpn

from losslog.detection import build_maskrcnn, get_parameter_groups


def names(model: nn.Module, **options: float) -> dict[str, float]:
    return {group["name"]: group["lr"] for group in get_parameter_groups(model, 0.01, **options)}


def test_mask_rcnn_groups_and_rates() -> None:
    model = build_maskrcnn(3, "tiny")
    assert names(model) == pytest.approx({"backbone": 0.01, "rpn": 0.01, "box_head": 0.1, "mask_head": 0.1})
    assert names(model, head_lr_multiplier=2.0)["mask_head"] == 0.02


@pytest.mark.parametrize("wrap", [lambda model: model, nn.DataParallel], ids=["plain", "wrapped"])
def test_every_trainable_parameter_is_in_exactly_one_group(wrap: type[nn.Module]) -> None:
    model = wrap(build_maskrcnn(3, "tiny"))
    frozen = next(model.parameters()).requires_grad_(False)
    grouped = [id(parameter) for group in get_parameter_groups(model, 0.01) for parameter in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert id(frozen) not in grouped


def test_a_shared_parameter_is_grouped_once() -> None:
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    model["head"].weight = model["backbone"].weight
    groups = {group["name"]: len(group["params"]) for group in get_parameter_groups(model, 0.01)}
    assert groups == {"backbone": 2, "head": 1}


def test_other_detectors() -> None:
    with torch.device("meta"):
        keypoints = keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None)
        retina = retinanet_resnet50_fpn(weights=None, weights_backbone=None)
    assert set(names(keypoints)) == {"backbone", "rpn", "box_head", "keypoint_head"}
    assert names(retina) == pytest.approx({"backbone": 0.01, "head": 0.1})


def test_modules_of_any_model_go_to_other() -> None:
    assert names(nn.Sequential(nn.Linear(2, 2))) == {"other": 0.01}


@pytest.mark.parametrize(("lr", "multiplier"), [(0.0, 10.0), (0.1, -1.0), (float("nan"), 1.0)])
def test_rates_must_be_positive(lr: float, multiplier: float) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        get_parameter_groups(nn.Linear(2, 2), lr, multiplier)


def test_a_frozen_model_is_refused() -> None:
    with pytest.raises(ValueError, match="no trainable parameters"):
        get_parameter_groups(nn.Linear(2, 2).requires_grad_(False), 0.1)


def test_groups_work_in_an_optimizer() -> None:
    optimizer = torch.optim.SGD(get_parameter_groups(build_maskrcnn(3, "tiny"), 0.01), lr=0.01)
    assert [group["name"] for group in optimizer.param_groups] == ["backbone", "rpn", "box_head", "mask_head"]
