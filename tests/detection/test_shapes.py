from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_api

from losslog.detection import CocoDataset, write_shapes


def test_the_same_seed_writes_the_same_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_shapes(tmp_path / name, train=3, val=2, image_size=48, seed=5)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 7
    assert all((tmp_path / "a" / each).read_bytes() == (tmp_path / "b" / each).read_bytes() for each in files)


def test_seeds_and_splits_differ(tmp_path: Path) -> None:
    folders = [write_shapes(tmp_path / str(seed), train=2, val=2, image_size=48, seed=seed) for seed in (0, 1)]
    images = {path.read_bytes() for folder in folders for path in (folder / "images").iterdir()}
    assert len(images) == 8


def test_boxes_areas_and_masks_agree(shapes: Path) -> None:
    content = json.loads((shapes / "annotations_train.json").read_text())
    assert len(content["annotations"]) >= len(content["images"]) == 12
    for annotation in content["annotations"]:
        mask = mask_api.decode(annotation["segmentation"])
        rows, columns = np.nonzero(mask)
        x, y = columns.min(), rows.min()
        assert annotation["bbox"] == [x, y, columns.max() + 1 - x, rows.max() + 1 - y]
        assert annotation["area"] == mask.sum()


def test_every_image_has_objects_that_are_large_enough(shapes: Path) -> None:
    dataset = CocoDataset(shapes / "images", shapes / "annotations_train.json")
    targets = [dataset[index][1] for index in range(len(dataset))]
    assert min(len(target["boxes"]) for target in targets) >= 1
    assert min(float(target["area"].min()) for target in targets) > 20
