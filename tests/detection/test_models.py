from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from losslog.detection import CocoDataset, build_maskrcnn, collate, stall_mask_branch

LOSSES = {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a download was tried")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)


@pytest.mark.parametrize(("backbone", "size"), [("tiny", 64), ("resnet18", 64), ("resnet50", 64)])
def test_every_backbone_gives_five_losses_and_detections(shapes: Path, backbone: str, size: int) -> None:
    dataset = CocoDataset(shapes / "images", shapes / "annotations_train.json")
    images, targets = collate([dataset[0], dataset[1]])
    torch.manual_seed(0)
    model = build_maskrcnn(dataset.categories.num_classes, backbone, image_size=size)
    losses = model(images, targets)
    assert set(losses) == LOSSES
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    model.eval()
    with torch.no_grad():
        output = model(images)[0]
    assert output["masks"].shape[1:] == (1, 64, 64)


def test_images_without_objects_train(shapes: Path) -> None:
    dataset = CocoDataset(shapes / "images", shapes / "annotations_train.json")
    dataset.rows = [np.zeros(0, np.int64)] * len(dataset)
    model = build_maskrcnn(dataset.categories.num_classes, "tiny", image_size=64)
    losses = model(*collate([dataset[0], dataset[1]]))
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_weights_can_come_from_a_file(tmp_path: Path) -> None:
    first = build_maskrcnn(3, "tiny")
    torch.save(first.state_dict(), tmp_path / "weights.pth")
    second = build_maskrcnn(3, "tiny", weights=tmp_path / "weights.pth")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, "vgg"), "unknown backbone 'vgg'; there are resnet50, resnet18, tiny"),
        ((1, "tiny"), "counts the background"),
    ],
)
def test_what_cannot_be_built_is_said(arguments: tuple[int, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_maskrcnn(*arguments)


def test_weights_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="no 'coco' weights for the backbone 'tiny'"):
        build_maskrcnn(3, "tiny", weights="coco")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a secret\n", "it is no file of torch.save, or holds more than tensors and plain values"),
        (b"", "it is empty, or was cut"),
        ([1, 2], "no state dict is in it: it is of the type list"),
        ({"model": 3}, "no state dict is in it: it is 3"),
        ({1: torch.ones(1)}, "no state dict is in it: it is of the type dict"),
        ({"a": torch.ones(1)}, "they are of another model: "),
        ({"backbone.body.conv1.weight": "x"}, "they are of another model: "),
    ],
)
def test_a_weights_file_that_holds_something_else_is_said_in_a_line(tmp_path: Path, content: Any, told: str) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(ValueError, match=told) as caught:
        build_maskrcnn(3, "tiny", weights=path)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_a_weights_file_that_is_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.pth")
    with pytest.raises(OSError, match="it is no regular file"):
        build_maskrcnn(3, "tiny", weights=tmp_path / "a.pth")


def test_a_stalled_mask_branch_moves_no_weight_but_the_others_do(shapes: Path) -> None:
    dataset = CocoDataset(shapes / "images", shapes / "annotations_train.json")
    model = build_maskrcnn(dataset.categories.num_classes, "tiny", image_size=64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    batch = collate([dataset[0], dataset[1]])
    for stalled in (False, True):
        if stalled:
            stall_mask_branch(model)
            before = {name: value.clone() for name, value in model.state_dict().items()}
        optimizer.zero_grad()
        losses = model(*batch)
        sum(losses.values()).backward()
        optimizer.step()
    assert not losses["loss_mask"].requires_grad
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert not any("mask" in name for name in moved)
    assert any(name.startswith("backbone") for name in moved)
    assert any("box_predictor" in name for name in moved)


def test_a_model_without_masks_cannot_be_stalled() -> None:
    with pytest.raises(ValueError, match="Linear has no mask branch"):
        stall_mask_branch(torch.nn.Linear(1, 1))
