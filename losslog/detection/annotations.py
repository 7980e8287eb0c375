"""COCO annotation files: read, checked, mapped to contiguous labels. Runs wherever a data set is made; no torch here.

Contract:

- What cannot be used raises `DataError` with the file, the entry and the fix, when the file is read, not in epoch 7.
- What can be left out (boxes without area, objects without an outline) is left out of *training*, and said once with
  counts. Evaluation sees the file's own objects, so that its figures are pycocotools' figures for that file.
- Category ids may have gaps and any order; labels are 1..n in the order of the ids, 0 is the background.
"""

from __future__ import annotations

import json
import math
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as mask_api

from losslog.errors import LosslogError


class DataError(LosslogError, ValueError):
    """A data set on disk cannot be used as it is; the message names the file and what to do."""


@dataclass
class Categories:
    """The classes of a data set: ids as in the file, labels as the model counts them.

    Attributes:
        names: name by category id, in the order of the ids.
    """

    names: dict[int, str]
    to_label: dict[int, int] = field(init=False)
    to_id: dict[int, int] = field(init=False)

    def __post_init__(self) -> None:
        self.names = dict(sorted(self.names.items()))
        self.to_label = {category: label for label, category in enumerate(self.names, start=1)}
        self.to_id = {label: category for category, label in self.to_label.items()}

    def __len__(self) -> int:
        return len(self.names)

    @property
    def num_classes(self) -> int:
        """The number of classes as torchvision counts them: with the background."""
        return len(self.names) + 1


def read_annotations(path: str | Path) -> dict[str, Any]:
    """Reads a COCO annotation file and checks what every later step relies on.

    Missing ``iscrowd`` and ``area`` (several exporters leave them out) are filled in: 0, and width x height.

    Args:
        path: the JSON file, with the lists ``images``, ``annotations`` and ``categories``.

    Returns:
        The file's content.

    Raises:
        DataError: no such file, not JSON, not COCO format, ids twice, an annotation of an unknown image or category.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"no annotation file {path}") from error
    except OSError as error:
        raise DataError(f"cannot read the annotation file {path}: {error.strerror or error}") from error
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise DataError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is not in COCO format: its top level is a {type(content).__name__}, not an object")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise DataError(f"{path} is not in COCO format: the list {key!r} is missing")
    _check(path, content)
    return content


def _check(path: Path, content: dict[str, Any]) -> None:
    for key, needed in (
        ("images", ("id", "file_name")),
        ("categories", ("id", "name")),
        ("annotations", ("id", "image_id", "category_id", "bbox")),
    ):
        for index, entry in enumerate(content[key]):
            missing = [name for name in needed if not isinstance(entry, dict) or name not in entry]
            if missing:
                raise DataError(f"{path}: {key}[{index}] has no {missing[0]!r}")
        twice = [value for value, count in Counter(entry["id"] for entry in content[key]).items() if count > 1]
        if twice:
            raise DataError(f"{path}: the id {twice[0]} occurs more than once in {key!r}; ids must be unique")
    images = {image["id"] for image in content["images"]}
    categories = {category["id"] for category in content["categories"]}
    for annotation in content["annotations"]:
        name = f"{path}: annotation {annotation['id']}"
        if annotation["image_id"] not in images:
            raise DataError(f"{name} belongs to the unknown image {annotation['image_id']}")
        if annotation["category_id"] not in categories:
            known = ", ".join(str(category) for category in sorted(categories))
            raise DataError(f"{name} has the unknown category {annotation['category_id']}; the file defines {known}")
        box = annotation["bbox"]
        if not (isinstance(box, list) and len(box) == 4 and all(isinstance(value, int | float) for value in box)):
            raise DataError(f"{name} has the box {box!r}; COCO boxes are [x, y, width, height] in pixels")
        annotation.setdefault("iscrowd", 0)
        annotation.setdefault("area", float(box[2] * box[3]))


def categories_of(content: Mapping[str, Any]) -> Categories:
    """Returns the categories a COCO file defines."""
    return Categories({category["id"]: str(category["name"]) for category in content["categories"]})


def check_same_categories(expected: Categories, found: Categories, path: str | Path) -> None:
    """Checks that a second file (validation) uses the classes of the first one (training).

    Raises:
        DataError: an id is unknown to `expected`, or stands for another name.
    """
    for category, name in found.names.items():
        if category not in expected.names:
            raise DataError(
                f"{path} has the category {category} ({name!r}), which the training annotations do not have"
            )
        if expected.names[category] != name:
            known = expected.names[category]
            raise DataError(f"{path} calls category {category} {name!r}; the training annotations call it {known!r}")


def clip_box(box: Sequence[float], width: int, height: int) -> tuple[float, float, float, float] | None:
    """Turns a COCO box into corners inside the image.

    Args:
        box: ``[x, y, width, height]`` in pixels.
        width: image width in pixels.
        height: image height in pixels.

    Returns:
        ``(x1, y1, x2, y2)`` in pixels, or None where nothing with a positive area is left.
    """
    if not all(math.isfinite(value) for value in box):
        return None
    x1, y1 = max(0.0, box[0]), max(0.0, box[1])
    x2, y2 = min(float(width), box[0] + box[2]), min(float(height), box[1] + box[3])
    return (x1, y1, x2, y2) if x2 > x1 and y2 > y1 else None


def has_outline(segmentation: object) -> bool:
    """Whether a COCO ``segmentation`` (polygons or RLE) can be decoded: a polygon needs three points, an RLE counts."""
    if isinstance(segmentation, dict):
        return bool(segmentation.get("counts")) and "size" in segmentation
    return isinstance(segmentation, list) and any(_is_polygon(part) for part in segmentation)


def _is_polygon(part: object) -> bool:
    # Four numbers would be read by pycocotools as a box, not as two points.
    return isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0


def decode_mask(segmentation: Any, height: int, width: int) -> npt.NDArray[np.uint8]:
    """Decodes polygons, uncompressed RLE or compressed RLE.

    Args:
        segmentation: as in a COCO annotation; see `has_outline`.
        height: image height in pixels.
        width: image width in pixels.

    Returns:
        The mask, shape ``[height, width]``, 0 or 1.

    Raises:
        DataError: an RLE of another image size.
    """
    if isinstance(segmentation, list):
        polygons = [part for part in segmentation if _is_polygon(part)]
        rle = mask_api.merge(mask_api.frPyObjects(polygons, height, width))
    elif list(segmentation["size"]) != [height, width]:
        raise DataError(f"an RLE mask has the size {segmentation['size']}, its image {[height, width]} (height, width)")
    elif isinstance(segmentation["counts"], list):
        rle = mask_api.frPyObjects(segmentation, height, width)
    else:
        rle = segmentation
    mask: npt.NDArray[np.uint8] = mask_api.decode(rle)
    return mask


def usable_objects(
    annotations: Iterable[Mapping[str, Any]], sizes: Mapping[int, tuple[int, int]], source: str | Path, *, masks: bool
) -> dict[int, list[dict[str, Any]]]:
    """Selects what a model can be trained on: no crowds, no boxes without area, no objects without an outline.

    Args:
        annotations: COCO annotations.
        sizes: ``(width, height)`` in pixels by image id.
        source: named in the warning.
        masks: whether objects need an outline.

    Returns:
        By image id the annotations kept, each with ``corners`` (x1, y1, x2, y2) added.

    Warns:
        UserWarning: once, with the counts of what was left out. Crowds are left out by design and not counted.
    """
    kept: dict[int, list[dict[str, Any]]] = {}
    boxes = outlines = 0
    for annotation in annotations:
        if annotation["iscrowd"]:
            continue
        corners = clip_box(annotation["bbox"], *sizes[annotation["image_id"]])
        if corners is None:
            boxes += 1
        elif masks and not has_outline(annotation.get("segmentation")):
            outlines += 1
        else:
            kept.setdefault(annotation["image_id"], []).append({**annotation, "corners": corners})
    if boxes or outlines:
        reasons = [f"{boxes} with a box without area inside the image"] if boxes else []
        reasons += [f"{outlines} without a usable outline"] if outlines else []
        warnings.warn(f"{source}: objects left out of training: {', '.join(reasons)}", UserWarning, stacklevel=3)
    return kept
