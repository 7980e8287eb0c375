"""A COCO-format data set for torchvision's detection models; items are made in the loader's process.

Contract:

- ``dataset[i]`` is ``(image, target)`` as torchvision's detection models take them; a batch is two lists (`collate`).
- Every image of the annotation file is an item, also one without objects (shapes ``[0, 4]``, ``[0]``, ``[0, H, W]``).
- `CocoDataset.evaluator` makes the evaluator that `losslog.engine.evaluate` uses for a loader over this data set.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from losslog.detection.annotations import (
    Categories,
    DataError,
    categories_of,
    check_same_categories,
    decode_mask,
    read_annotations,
    usable_objects,
)
from losslog.detection.evaluation import CocoEvaluator

Target = dict[str, Any]
Transform = Callable[[Tensor, Target], tuple[Tensor, Target]]


class CocoDataset(Dataset[tuple[Tensor, Target]]):
    """Images and objects from a folder and a COCO annotation file.

    Args:
        images: folder that the file names in the annotations are relative to.
        annotations: COCO JSON file.
        categories: the training set's, for a validation set: labels then agree; None: the file's own.
        transform: called with ``(image, target)``, returns the same kinds.
        masks: whether targets have masks; None: if any annotation has a segmentation.

    Raises:
        DataError: what `read_annotations` refuses, images that are not in the folder, other categories.

    Attributes:
        categories: ids, names and labels.
        content: the annotation file as read; evaluation uses a copy.
    """

    def __init__(
        self,
        images: str | Path,
        annotations: str | Path,
        *,
        categories: Categories | None = None,
        transform: Transform | None = None,
        masks: bool | None = None,
    ) -> None:
        self.images = Path(images)
        self.annotations = Path(annotations)
        self.transform = transform
        self.content = read_annotations(annotations)
        found = categories_of(self.content)
        if categories is not None:
            check_same_categories(categories, found, annotations)
        self.categories = categories or found
        self.entries: list[dict[str, Any]] = self.content["images"]
        self._check_files()
        objects = self.content["annotations"]
        self.masks = any(entry.get("segmentation") for entry in objects) if masks is None else masks
        sizes = {entry["id"]: (int(entry["width"]), int(entry["height"])) for entry in self.entries}
        self.objects = usable_objects(objects, sizes, self.annotations, masks=self.masks)
        self._ground_truth: Any = None

    def _check_files(self) -> None:
        if not self.images.is_dir():
            raise DataError(f"no image folder {self.images}")
        present = {entry.name for entry in os.scandir(self.images)}
        missing = [
            entry["file_name"]
            for entry in self.entries
            if entry["file_name"] not in present and not (self.images / entry["file_name"]).is_file()
        ]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(self.entries)} images of {self.annotations} are not in {self.images}, "
                f"the first is {missing[0]}"
            )
        if not self.entries:
            raise DataError(f"{self.annotations} lists no images")
        for entry in self.entries:
            if "width" not in entry or "height" not in entry:
                with Image.open(self.images / entry["file_name"]) as image:
                    entry["width"], entry["height"] = image.size

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        """Loads one image and its objects.

        Returns:
            The image, float32 ``[3, H, W]`` in 0..1, and a dict with ``boxes`` float32 ``[N, 4]`` (x1, y1, x2, y2 in
            pixels), ``labels`` int64 ``[N]``, ``masks`` uint8 ``[N, H, W]``, ``area`` float32 ``[N]`` in square
            pixels, ``iscrowd`` int64 ``[N]`` (always 0: crowds are only used by evaluation), ``image_id`` int.

        Raises:
            DataError: the image cannot be read, or has another size than its annotations say.
        """
        entry = self.entries[index]
        width, height = int(entry["width"]), int(entry["height"])
        path = self.images / entry["file_name"]
        try:
            with Image.open(path) as file:
                pixels = np.array(file.convert("RGB"))
        except OSError as error:
            raise DataError(f"cannot read the image {path}: {error}") from error
        if pixels.shape[:2] != (height, width):
            actual = f"{pixels.shape[1]} x {pixels.shape[0]}"
            raise DataError(f"{path} is {actual} pixels, its annotations say {width} x {height}")
        image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float() / 255
        objects = self.objects.get(entry["id"], [])
        target: Target = {
            "boxes": torch.tensor([entry["corners"] for entry in objects], dtype=torch.float32).reshape(-1, 4),
            "labels": torch.tensor(
                [self.categories.to_label[entry["category_id"]] for entry in objects], dtype=torch.int64
            ),
            "area": torch.tensor([entry["area"] for entry in objects], dtype=torch.float32),
            "iscrowd": torch.zeros(len(objects), dtype=torch.int64),
            "image_id": entry["id"],
        }
        if self.masks:
            masks = np.zeros((len(objects), height, width), dtype=np.uint8)
            for row, annotation in enumerate(objects):
                masks[row] = decode_mask(annotation["segmentation"], height, width)
            target["masks"] = torch.from_numpy(masks)
        return self.transform(image, target) if self.transform else (image, target)

    def evaluator(self) -> CocoEvaluator:
        """Returns a fresh evaluator against all objects of the annotation file, crowds included."""
        if self._ground_truth is None:
            self._ground_truth = CocoEvaluator.index(copy.deepcopy(self.content))
        return CocoEvaluator(self._ground_truth, self.categories, masks=self.masks)


class HorizontalFlip:
    """A transform that mirrors image, boxes and masks with probability `p`, from torch's random generator."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, image: Tensor, target: Target) -> tuple[Tensor, Target]:
        """Returns the image ``[3, H, W]`` and its target, both mirrored or both as they are."""
        if torch.rand(()) >= self.p:
            return image, target
        width = image.shape[-1]
        target = dict(target)
        target["boxes"] = torch.stack(
            [
                width - target["boxes"][:, 2],
                target["boxes"][:, 1],
                width - target["boxes"][:, 0],
                target["boxes"][:, 3],
            ],
            dim=1,
        )
        if "masks" in target:
            target["masks"] = target["masks"].flip(-1)
        return image.flip(-1), target


def collate(batch: Sequence[tuple[Tensor, Target]]) -> tuple[list[Tensor], list[Target]]:
    """Joins items into the two lists a torchvision detection model takes; images keep their sizes."""
    return [image for image, _ in batch], [target for _, target in batch]
