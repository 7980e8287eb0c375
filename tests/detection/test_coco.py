from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_api

from losslog.detection import Categories, CocoDataset, DataError, HorizontalFlip, collate

Write = Callable[..., tuple[Path, Path]]
POLYGON = [[5, 5, 15, 5, 15, 15, 5, 15]]


def thing(**changes: Any) -> dict[str, Any]:
    return {"image_id": 1, "category_id": 7, "bbox": [5, 5, 10, 10], "segmentation": POLYGON, "iscrowd": 0} | changes


def test_labels_are_contiguous_in_the_order_of_the_ids_and_map_back(coco_folder: Write) -> None:
    dataset = CocoDataset(*coco_folder([thing(category_id=30), thing(category_id=7)]))
    assert dataset[0][1]["labels"].tolist() == [2, 1]
    assert dataset.categories.to_id == {1: 7, 2: 30}
    assert dataset.categories.names == {7: "early", 30: "late"}
    assert dataset.categories.num_classes == 3


def test_boxes_become_corners_clipped_to_the_image(coco_folder: Write) -> None:
    paths = coco_folder([thing(bbox=[-5, 20, 20, 20])])
    with pytest.warns(UserWarning, match="boxes that reach beyond their image, cut to it: 1"):
        dataset = CocoDataset(*paths)
    assert dataset[0][1]["boxes"].tolist() == [[0, 20, 15, 30]]


def test_image_is_float_channels_first(coco_folder: Write) -> None:
    image, target = CocoDataset(*coco_folder([thing()]))[1]
    assert image.shape == (3, 30, 40)
    assert image.dtype == torch.float32
    assert image.unique().tolist() == pytest.approx([20 / 255])
    assert target["image_id"] == 2


@pytest.mark.parametrize("kind", ["polygon", "compressed", "uncompressed"])
def test_every_kind_of_mask_decodes_to_the_same_pixels(coco_folder: Write, kind: str) -> None:
    expected = np.zeros((30, 40), np.uint8)
    expected[5:15, 5:15] = 1
    segmentation: Any = POLYGON
    if kind == "compressed":
        rle = mask_api.encode(np.asfortranarray(expected))
        segmentation = {"size": rle["size"], "counts": rle["counts"].decode()}
    elif kind == "uncompressed":
        counts = [5 * 30 + 5, 10, *[20, 10] * 9, 25 * 30 + 15]  # down the columns: ten runs of ten pixels, 20 apart
        segmentation = {"size": [30, 40], "counts": counts}
    mask = CocoDataset(*coco_folder([thing(segmentation=segmentation)]))[0][1]["masks"]
    assert mask.dtype == torch.uint8
    assert np.array_equal(mask[0].numpy(), expected)


def test_images_without_objects_are_items_with_empty_targets(coco_folder: Write) -> None:
    dataset = CocoDataset(*coco_folder([thing()]))
    target = dataset[1][1]
    assert len(dataset) == 2
    assert target["boxes"].shape == (0, 4)
    assert target["labels"].shape == (0,)
    assert target["masks"].shape == (0, 30, 40)


def test_crowds_are_left_to_evaluation_without_a_warning(coco_folder: Write) -> None:
    dataset = CocoDataset(*coco_folder([thing(), thing(iscrowd=1)]))
    assert len(dataset[0][1]["boxes"]) == 1


def test_degenerate_boxes_are_dropped_with_one_counted_warning(coco_folder: Write) -> None:
    flat, outside, negative = [5, 5, 0, 10], [50, 5, 10, 10], [20, 5, -10, 10]
    paths = coco_folder([thing(), *(thing(bbox=box) for box in (flat, outside, negative))])
    with pytest.warns(
        UserWarning, match=r"a box without area inside the image, left out of training: 3 \(the first: annotation 2\)"
    ) as caught:
        dataset = CocoDataset(*paths)
    assert len(caught) == 1
    assert len(dataset[0][1]["boxes"]) == 1


def test_objects_without_an_outline_are_dropped_and_counted(coco_folder: Write) -> None:
    paths = coco_folder([thing(), thing(segmentation=[]), thing(segmentation=[[1, 2, 3, 4]])])
    with (
        pytest.warns(UserWarning, match="objects without a usable outline, left out of training: 2"),
        pytest.warns(UserWarning, match="lines and points among the polygons, left out: 1"),
    ):
        dataset = CocoDataset(*paths)
    assert len(dataset[0][1]["masks"]) == 1


def test_boxes_alone_make_targets_without_masks(coco_folder: Write) -> None:
    annotation = thing()
    del annotation["segmentation"], annotation["iscrowd"]
    dataset = CocoDataset(*coco_folder([annotation]))
    assert "masks" not in dataset[0][1]
    assert dataset[0][1]["area"].tolist() == [100]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": []}, "annotation 1 has the unknown category 7"),
        ({"images": []}, "belongs to the unknown image 1"),
        ({"categories": [{"id": 7}]}, r"categories\[0\] has no 'name'"),
        ({"annotations": [{"id": 1, "image_id": 1, "category_id": 7}]}, r"annotations\[0\] has no 'bbox'"),
        ({"annotations": [thing(id=4), thing(id=4)]}, "id 4 occurs more than once"),
        ({"annotations": [thing(id=4, bbox=[1, 2])]}, r"annotation 4: bbox: \[1, 2\] is not \[x, y, width, height\]"),
        ({"annotations": "none"}, "its 'annotations' is no list"),
    ],
)
def test_what_is_wrong_in_a_file_is_said(coco_folder: Write, changes: dict[str, Any], message: str) -> None:
    paths = coco_folder([thing()], changes)
    with pytest.raises(DataError, match=message):
        CocoDataset(*paths)


@pytest.mark.parametrize(("text", "message"), [("{", "not valid JSON"), ("[]", "a list, not an object")])
def test_a_file_that_is_not_coco_is_refused(coco_folder: Write, text: str, message: str) -> None:
    folder, path = coco_folder([])
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        CocoDataset(folder, path)


def test_missing_images_are_counted_and_the_first_is_named(coco_folder: Write) -> None:
    folder, path = coco_folder([thing()])
    (folder / "2.png").unlink()
    with pytest.raises(DataError, match=r"1 of 2 images .* the first is 2\.png"):
        CocoDataset(folder, path)


def test_an_image_of_another_size_is_named(coco_folder: Write) -> None:
    folder, path = coco_folder([thing()])
    content = json.loads(path.read_text())
    content["images"][0]["width"] = 41
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"1\.png is 40 x 30 pixels, its annotations say 41 x 30"):
        CocoDataset(folder, path)


def test_sizes_left_out_are_read_from_the_images(coco_folder: Write) -> None:
    folder, path = coco_folder([thing()])
    content = json.loads(path.read_text())
    del content["images"][0]["width"]
    path.write_text(json.dumps(content))
    assert CocoDataset(folder, path)[0][1]["masks"].shape == (1, 30, 40)


def test_a_validation_set_with_other_classes_is_refused(coco_folder: Write) -> None:
    paths = coco_folder([thing()])
    with pytest.raises(DataError, match=r"category 30 \('late'\), unknown to the training annotations"):
        CocoDataset(*paths, categories=Categories({7: "early"}))
    with pytest.raises(DataError, match="calls category 7 'early'; the training annotations call it 'dog'"):
        CocoDataset(*paths, categories=Categories({7: "dog", 30: "late"}))


def test_flip_moves_boxes_and_masks_together(coco_folder: Write) -> None:
    dataset = CocoDataset(*coco_folder([thing()]), transform=HorizontalFlip(p=1.0))
    target = dataset[0][1]
    assert target["boxes"].tolist() == [[25, 5, 35, 15]]
    assert target["masks"][0, 5:15, 25:35].all()
    assert target["masks"].sum() == 100


def test_collate_keeps_images_of_different_sizes_apart(coco_folder: Write) -> None:
    dataset = CocoDataset(*coco_folder([thing()]))
    images, targets = collate([dataset[0], dataset[1]])
    assert len(images) == len(targets) == 2
