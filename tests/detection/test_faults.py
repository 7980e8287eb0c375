"""Boxes and masks that cannot be right: each planted kind is told with its image, and sound data are left in peace."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import losslog
from losslog.cli import main
from losslog.detection import CocoDataset, HorizontalFlip, collate, write_shapes
from losslog.detection.faults import faults
from losslog.detection.labels import log
from losslog.detection.rle import around, decode
from losslog.history import records

DATA = Path(losslog.__file__).parents[2] / "shared" / "data"
Target = dict[str, Any]


def swapped(image: Any, target: Target) -> tuple[Any, Target]:
    return image, target | {"boxes": target["boxes"][:, [1, 0, 3, 2]]}


def corners(image: Any, target: Target) -> tuple[Any, Target]:
    boxes = target["boxes"]
    return image, target | {"boxes": torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)}


def shifted(image: Any, target: Target) -> tuple[Any, Target]:
    return image, target | {"masks": torch.roll(target["masks"], 10, dims=2)}


def image_alone(image: Any, target: Target) -> tuple[Any, Target]:
    """The picture and its masks are moved, the boxes are not."""
    return image.flip(-1), target | {"masks": target["masks"].flip(-1)}


def in_parts(image: Any, target: Target) -> tuple[Any, Target]:
    height, width = image.shape[1:]
    return image, target | {"boxes": target["boxes"] / torch.tensor([width, height, width, height])}


def without_masks(transform: Callable[..., Any]) -> Callable[..., Any]:
    def both(image: Any, target: Target) -> tuple[Any, Target]:
        image, target = transform(image, target)
        return image, {key: value for key, value in target.items() if key != "masks"}

    return both


def told(run: losslog.Run, data: CocoDataset) -> list[dict[str, Any]]:
    """Alerts of a run that begins with these images."""
    batch = next(iter(DataLoader(data, 10, collate_fn=collate)))
    log(run, [batch], data)
    run.close()
    return [each.data for each in records(run.dir) if each.hook == "on_alert"]


@pytest.mark.parametrize(
    ("transform", "kind", "words"),
    [
        (swapped, "swapped", "only with x and y swapped"),
        (corners, "corners", "only as x, y, width, height"),
        (shifted, "apart", "10 pixels to the right"),
        (image_alone, "apart", "stands out of the box"),
        (in_parts, "parts", "multiply them by width and height"),
    ],
)
@pytest.mark.parametrize("seed", [0, 7])
def test_a_planted_fault_is_an_alert_with_an_image(
    transform: Any, kind: str, words: str, seed: int, tmp_path: Path, make_run: Any
) -> None:
    folder = write_shapes(tmp_path / "data", train=20, val=1, seed=seed)
    data = CocoDataset(folder / "images", folder / "annotations_train.json", transform=transform)
    (alert,) = told(make_run(), data)
    assert (alert["key"], alert["level"]) == (f"targets/{kind}", "warning")
    assert words in alert["text"]
    known = [each["id"] for each in data.entries[:10]]
    assert any(f"image {each}." in alert["text"] or f"image {each}," in alert["text"] for each in known)


def wide(folder: Path) -> list[dict[str, Any]]:
    """Three wide images with an object at the right edge of each."""
    return [{"id": n, "width": 300, "height": 100, "truth": [{"box": [200.0 + n, 10, 290, 80], "label": "a"}]}
            for n in range(3)]  # fmt: skip


def test_boxes_without_masks_that_leave_a_wide_image(tmp_path: Path) -> None:
    images = wide(tmp_path)
    assert faults(images) == []
    for image in images:
        x1, y1, x2, y2 = image["truth"][0]["box"]
        image["truth"][0]["box"] = [y1, x1, y2, x2]
    (found,) = faults(images)
    assert (found.kind, found.title) == ("outside", "boxes leave the image: x and y may be swapped")
    assert "In 3 of 3 objects the box leaves the image, e.g. in image 0." in found.text


@pytest.mark.parametrize("seed", range(6))
def test_sound_data_are_left_in_peace(seed: int, tmp_path: Path) -> None:
    folder = write_shapes(tmp_path / "data", train=12, val=1, seed=seed)
    data = CocoDataset(folder / "images", folder / "annotations_train.json", transform=HorizontalFlip(0.5))
    assert faults(sheet(data)) == []


@pytest.mark.parametrize("name", ["fruitsnuts", "nuclei"])
def test_real_data_are_left_in_peace(name: str) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"no {name} beside the checkout")
    data = CocoDataset(DATA / name / "images", DATA / name / "annotations_train.json", transform=HorizontalFlip(0.5))
    assert faults(sheet(data, 14)) == []


def sheet(data: CocoDataset, count: int = 12) -> list[dict[str, Any]]:
    from losslog.detection.predictions import things

    found = []
    for place in range(count):
        picture, target = data[place]
        height, width = picture.shape[1:]
        truth = things(target, "", height, width, 0.5, scored=False)
        found.append({"id": target["image_id"], "width": width, "height": height, "truth": truth})
    return found


def test_usual_differences_are_no_faults(tmp_path: Path) -> None:
    """Wider boxes, a pixel or two, one object that is wrong, boxes that leave the image by a little."""
    folder = write_shapes(tmp_path / "data", train=12, val=1, seed=1)
    images = sheet(CocoDataset(folder / "images", folder / "annotations_train.json"))
    random = np.random.default_rng(0)
    for image in images:
        for thing in image["truth"]:
            x1, y1, x2, y2 = thing["box"]
            wider = random.uniform(0, 15, 4)
            thing["box"] = [x1 - wider[0] + 2, y1 - wider[1], x2 + wider[2], y2 + wider[3] - 2]
    images[0]["truth"][0]["box"] = [0.0, 0.0, 5.0, 5.0]
    assert faults(images) == []
    assert faults([]) == []


def test_the_corners_of_a_mask_are_those_of_its_pixels() -> None:
    from pycocotools import mask as mask_api

    random = np.random.default_rng(0)
    for _ in range(50):
        plane = np.zeros((17, 23), np.uint8)
        y, x = random.integers(0, 17, 2), random.integers(0, 23, 2)
        plane[min(y) : max(y) + 1, min(x) : max(x) + 1] = random.random() < 0.95
        coded = mask_api.encode(np.asfortranarray(plane))
        rows, columns = np.flatnonzero(decode(coded).any(1)), np.flatnonzero(decode(coded).any(0))
        wanted = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1] if rows.size else None
        assert around(coded) == wanted


def test_check_says_it_of_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_shapes(tmp_path / "data", train=12, val=2, seed=3)
    path = folder / "annotations_train.json"
    content = json.loads(path.read_text())
    for each in content["annotations"]:
        x, y, w, h = each["bbox"]
        each["bbox"] = [y, x, h, w]
    path.write_text(json.dumps(content))
    line = ["train", "--data", str(folder), "--check", "--sheet", str(tmp_path / "a.png")]
    assert main(line) == 0
    assert "boxes have x and y swapped: In " in capsys.readouterr().err
