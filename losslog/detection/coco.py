"""A COCO-format data set for torchvision's detection models; items are made in the loader's process.

Contract:

- ``dataset[i]`` is ``(image, target)`` as torchvision's detection models take them; a batch is two lists (`collate`).
- Every image of the annotation file is an item, also one without objects (shapes ``[0, 4]``, ``[0]``, ``[0, H, W]``).
- `CocoDataset.evaluator` makes the evaluator that `losslog.engine.evaluate` uses for a loader over this data set.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from losslog.detection.annotations import (
    Categories,
    check_same_categories,
    read_annotations,
)
from losslog.detection.evaluation import CocoEvaluator, GroundTruth
from losslog.detection.findings import DataError, Findings, shown
from losslog.detection.images import Progress, check_images, load_pixels
from losslog.detection.outlines import decode
from losslog.detection.usable import select_usable

Target = dict[str, Any]
Transform = Callable[[Tensor, Target], tuple[Tensor, Target]]

_LARGE: Final = 1e9  # bytes of an image with its masks


class CocoDataset(Dataset[tuple[Tensor, Target]]):
    """Images and objects from a folder and a COCO annotation file.

    Every field and every image is checked here, once: what cannot be used is refused, what can be put right is, and
    said in one warning a kind. Pixels are 8 bits an RGB channel, turned as EXIF says.

    Args:
        images: folder that the file names in the annotations are relative to.
        annotations: COCO JSON file.
        categories: the training set's, for a validation set: labels then agree; None: the file's own.
        transform: called with ``(image, target)``, returns the same kinds.
        masks: whether targets have masks; None: if any annotation has a segmentation.
        progress: called with how many of how many images have been opened.
        decode: read the pixels of every image now, not its header alone.

    Raises:
        DataError: what `read_annotations` and `check_images` refuse, other categories.

    Warns:
        UserWarning: for each kind of thing that was put right or left out, with the count and an example; no objects.

    Attributes:
        categories: ids, names and labels.
        content: the annotations as a COCO dict of plain data, checked and repaired; made anew when it is asked for.
        findings: what was put right or left out.
    """

    def __init__(
        self,
        images: str | Path,
        annotations: str | Path,
        *,
        categories: Categories | None = None,
        transform: Transform | None = None,
        masks: bool | None = None,
        progress: Progress | None = None,
        decode: bool = False,
    ) -> None:
        self.images = Path(images)
        self.annotations = Path(annotations)
        self.transform = transform
        read = read_annotations(annotations)
        if categories is not None:
            check_same_categories(categories, read)
        self.categories = categories or read.categories
        self.findings: Findings = read.findings
        self.entries: list[dict[str, Any]] = read.images
        self.paths, self.sizes = check_images(self.images, self.entries, self.findings, progress, decode)
        self.table = read.objects
        had_outlines = bool(self.table.has_outline().any())
        self.masks = had_outlines if masks is None else masks
        self.usable = select_usable(
            read,
            self.sizes,
            masks=self.masks,
            purpose="training" if categories is None else "the validation losses",
        )
        self.rows = self._by_image()
        if not len(self.table):
            self.findings.remarks.append("no usable object among 0 annotations: the list is empty; no AP")
        elif not len(self.usable.rows):
            about = f"{len(self.table)} annotations ({int(self.table.crowd.sum())} crowds)"
            ap = "no AP" if self.table.crowd.all() else "in AP boxes stand in for outlines"
            self.findings.remarks.append(f"no usable object among {about}: nothing to train on, {ap}")
        self._weigh()
        for line in self.findings.lines():
            warnings.warn(line, UserWarning, stacklevel=2)
        self._ground_truth: GroundTruth | None = None

    def _weigh(self) -> None:
        """Says which images will take a lot of memory: pixels in float32, and one byte of each for each mask."""
        masks = np.array([len(rows) for rows in self.rows]) * self.masks
        taken = self.sizes.prod(axis=1) * (15.0 + masks)
        if large := int((taken > _LARGE).sum()):
            worst = int(np.argmax(taken))
            width, height = self.sizes[worst]
            name = f"{shown(self.paths[worst].name)} ({width} x {height}, {masks[worst]} masks)"
            self.findings.remarks.append(
                f"images that take more than {_LARGE / 1e9:.0f} GB of memory each to load: {large}, "
                f"the largest {name} {taken[worst] / 1e9:.1f} GB; smaller copies take less"
            )

    def _by_image(self) -> list[np.ndarray[Any, Any]]:
        """The rows kept of every image, in the order of the file."""
        rows = self.usable.rows
        owner = self.table.image[rows]
        order = rows[np.argsort(owner, kind="stable")]
        ends = np.cumsum(np.bincount(owner, minlength=len(self.entries)))
        return np.split(order, ends[:-1])

    @property
    def content(self) -> dict[str, Any]:
        """The annotations as a COCO dict."""
        names = self.categories.names
        ids = list(names)
        annotations = []
        for row in np.flatnonzero(self.table.box_is_finite()).tolist():
            place = int(self.table.image[row])
            width, height = (int(side) for side in self.sizes[place])
            annotation = {
                "id": self.table.ids[row],
                "image_id": self.entries[place]["id"],
                "category_id": ids[int(self.table.category[row]) - 1],
                "bbox": self.table.box[row].tolist(),
                "area": float(self.table.area[row]),
                "iscrowd": int(self.table.crowd[row]),
            }
            if (segmentation := self.table.segmentation(row, height, width)) is not None:
                annotation["segmentation"] = segmentation
            annotations.append(annotation)
        return {
            "images": [dict(entry) for entry in self.entries],
            "annotations": annotations,
            "categories": [{"id": category, "name": name} for category, name in names.items()],
        }

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        """Loads one image and its objects.

        Returns:
            The image, float32 ``[3, H, W]`` in 0..1, and a dict with ``boxes`` float32 ``[N, 4]`` (x1, y1, x2, y2 in
            pixels), ``labels`` int64 ``[N]``, ``masks`` uint8 ``[N, H, W]``, ``area`` float32 ``[N]`` in square
            pixels, ``iscrowd`` int64 ``[N]`` (always 0: crowds are only used by evaluation), ``image_id`` as in the
            file.

        Raises:
            DataError: the image cannot be read any more, or its pixels are damaged.
        """
        width, height = (int(side) for side in self.sizes[index])
        pixels = load_pixels(self.paths[index])
        if pixels.shape[:2] != (height, width):
            raise DataError(f"{shown(str(self.paths[index]), 300)} is no longer {width} x {height} pixels")
        image = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().float() / 255
        rows = self.rows[index]
        target: Target = {
            "boxes": torch.from_numpy(self.usable.corners[rows]),
            "labels": torch.from_numpy(self.table.category[rows].astype(np.int64)),
            "area": torch.from_numpy(self.table.area[rows].astype(np.float32)),
            "iscrowd": torch.zeros(len(rows), dtype=torch.int64),
            "image_id": self.entries[index]["id"],
        }
        if self.masks:
            masks = np.zeros((len(rows), height, width), dtype=np.uint8)
            for number, row in enumerate(rows):
                masks[number] = decode(self.table.outline(int(row), height, width))
            target["masks"] = torch.from_numpy(masks)
        return self.transform(image, target) if self.transform else (image, target)

    def evaluator(self) -> CocoEvaluator:
        """Returns a fresh evaluator against all objects of the annotation file, crowds included."""
        if self._ground_truth is None:
            self._ground_truth = CocoEvaluator.index(self.content)
        return CocoEvaluator(self._ground_truth, self.categories, masks=self.masks, folder=self.images)


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
