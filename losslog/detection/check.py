"""What ``losslog train --check`` shows of a data set: a summary in words, and a sheet of images with their objects.

Contract:

- Images and masks on the sheet are those that training gets: turned, scaled to 8 bits, cut to the image.
- The same data and seed give the same sheet.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from losslog.detection.drawing import Sheet
from losslog.detection.faults import faults
from losslog.detection.findings import shown
from losslog.detection.images import load_pixels

if TYPE_CHECKING:
    from losslog.detection.coco import CocoDataset

IMAGES: Final = 10
LOOKED_AT: Final = 100  # images whose boxes and masks are compared
_SIDE: Final = 310  # pixels of an image on the sheet: five side by side


def summary(name: str, dataset: CocoDataset) -> list[str]:
    """Lines about a data set: images, objects, per class, crowds, empty, put right, left out."""
    table, rows = dataset.table, dataset.usable.rows
    per_class = np.bincount(table.category[rows], minlength=len(dataset.categories) + 1)[1:]
    with_objects = sum(len(each) > 0 for each in dataset.rows)
    findings = dataset.findings
    left = len(table) - len(rows) - int(table.crowd.sum())
    parts = findings.count(left_out=True) - left  # of objects that are there otherwise, or not
    lines = [
        f"{name:<8}{dataset.annotations}",
        f"        images {len(dataset.entries):,}, without an object {len(dataset.entries) - with_objects:,}",
        f"        objects {len(rows):,}, crowds {int(table.crowd.sum()):,}, annotations {len(table):,}",
        f"        put right {findings.count(left_out=False):,}, left out {left:,}"
        + (f", polygons left out {parts:,}" if parts else ""),
    ]
    width = max((len(shown(each, 40)) for each in dataset.categories.names.values()), default=0)
    for text, count in zip(dataset.categories.names.values(), per_class.tolist(), strict=True):
        lines.append(f"        {shown(text, 40):<{width}}  {count:>9,}")
    return lines


def doubts(dataset: CocoDataset, *, images: int = LOOKED_AT, seed: int = 0) -> list[str]:
    """What cannot be right in the boxes and masks of random images, a line each."""
    chosen = random.Random(seed).sample(range(len(dataset)), min(images, len(dataset)))
    named = ({**_image(dataset, each), "id": shown(dataset.entries[each]["file_name"], 60)} for each in chosen)
    return [f"{each.title}: {each.text}" for each in faults(named)]


def write_sheet(dataset: CocoDataset, path: str | Path, *, images: int = IMAGES, seed: int = 0) -> Path:
    """Draws random images with their boxes and masks side by side into one PNG file.

    Args:
        dataset: images with objects are drawn first.
        path: the file, written over.
        images: how many, at most.
        seed: of the choice.

    Returns:
        The path.

    Raises:
        DataError: an image cannot be read.
        OSError: the file cannot be written.
    """
    order = random.Random(seed).sample(range(len(dataset)), len(dataset))
    order.sort(key=lambda index: not len(dataset.rows[index]))
    chosen = order[:images]
    pixels = {place: load_pixels(dataset.paths[index]) for place, index in enumerate(chosen)}
    sheet = Sheet([_image(dataset, index) for index in chosen], side=_SIDE, pixels=pixels)
    sheet.drawn().save(path, format="PNG")
    return Path(path)


def _image(dataset: CocoDataset, index: int) -> dict[str, Any]:
    width, height = (int(side) for side in dataset.sizes[index])
    names = list(dataset.categories.names.values())
    truth = []
    for row in dataset.rows[index].tolist():
        box = [float(value) for value in dataset.usable.corners[row]]
        thing: dict[str, Any] = {"box": box, "label": names[int(dataset.table.category[row]) - 1]}
        if dataset.masks:
            thing["rle"] = dataset.table.outline(row, height, width)
        truth.append(thing)
    caption = f"{shown(dataset.entries[index]['file_name'], 38)}  {len(truth)} objects"
    return {"id": caption, "width": width, "height": height, "truth": truth}
