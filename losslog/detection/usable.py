"""Which objects of an annotation file a model can be trained on, once the sizes of the images are known. Numpy only.

Contract:

- What is left out is counted; crowds are left out by design. Evaluation does not ask here.
- Boxes are cut to their image in float32, as a model gets them, and thick enough that scaling keeps their sides apart.
- Polygons that cannot cover a pixel (lines, or outside the image) are forgotten, for evaluation too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from losslog.detection.annotations import Annotations
from losslog.detection.findings import DataError, shown
from losslog.detection.objects import Objects
from losslog.detection.outlines import areas_of, check_counts, draw

THINNEST: Final = 1e-3
"""Pixels. A thinner box has no area to train on: scaled in float32 its two sides would fall together."""
_TOGETHER: Final = 100_000  # polygons looked at in one go
_SMALL: Final = 2.0  # square pixels; a polygon of less may miss all of them


@dataclass
class Usable:
    """What a model can be trained on.

    Attributes:
        rows: of the objects kept.
        corners: by object (not only those kept) x1, y1, x2, y2 inside the image, in pixels, float32.
        outlined: by object whether its outline can be drawn.
    """

    rows: npt.NDArray[np.int64]
    corners: npt.NDArray[np.float32]
    outlined: npt.NDArray[np.bool_]


def select_usable(
    annotations: Annotations, sizes: npt.NDArray[np.int64], *, masks: bool, purpose: str = "training"
) -> Usable:
    """Selects what a model can be trained on: no crowds, no boxes without area, no objects without an outline.

    Args:
        annotations: their findings get the counts; crowds are left out by design and not counted.
        sizes: ``(width, height)`` in pixels by image.
        masks: whether objects need an outline.
        purpose: what they are left out of, in words.

    Raises:
        DataError: an RLE is of another size than its image, or does not add up.
    """
    objects = annotations.objects
    _check_rles(annotations, sizes)
    size = sizes[objects.image].astype(np.float64).reshape(-1, 2)
    with np.errstate(all="ignore"):  # coordinates up to 1e308
        _trim_outlines(annotations, size)
    finite = objects.box_is_finite()
    box = np.where(finite[:, None], objects.box, 0.0)
    low = np.clip(box[:, :2], 0, size)
    high = np.clip(box[:, :2] + box[:, 2:], 0, size)
    corners = np.concatenate([low, high], axis=1).astype(np.float32)
    thinnest = np.maximum(THINNEST, 4 * np.finfo(np.float32).eps * size)
    sound = finite & ((corners[:, 2:] - corners[:, :2]) > thinnest).all(axis=1)
    beyond = sound & ((box[:, :2] < -1) | (box[:, :2] + box[:, 2:] > size + 1)).any(axis=1)
    _note(annotations, beyond, "boxes that reach beyond their image, cut to it")
    outlined = objects.has_outline()
    wanted = ~objects.crowd
    gone = f"left out of {purpose}"
    _note(annotations, wanted & ~finite, f"objects with a box that is not finite in float32, {gone}", True)
    _note(annotations, wanted & finite & ~sound, f"objects with a box without area inside the image, {gone}", True)
    if masks:
        _note(annotations, wanted & sound & ~outlined, f"objects without a usable outline, {gone}", True)
        wanted = wanted & outlined
    return Usable(np.flatnonzero(wanted & sound), corners, outlined)


def _note(annotations: Annotations, chosen: npt.NDArray[np.bool_], what: str, left_out: bool = False) -> None:
    if chosen.any():
        example = f"annotation {shown(annotations.objects.ids[int(np.argmax(chosen))])}"
        annotations.findings.note(what, example, count=int(chosen.sum()), left_out=left_out)


def _check_rles(annotations: Annotations, sizes: npt.NDArray[np.int64]) -> None:
    objects = annotations.objects
    if not objects.rles:
        return

    def name(row: int) -> str:
        return f"{annotations.path}: annotation {shown(objects.ids[row])}: segmentation"

    for row, (height, width) in objects.rle_sizes.items():
        if (width, height) != tuple(sizes[objects.image[row]]):
            actual = sizes[objects.image[row]]
            raise DataError(
                f"{name(row)}.size: its RLE is {height} x {width}, its image {actual[1]} x {actual[0]} (height x width)"
            )
    rows = list(objects.rles)
    bad = check_counts(
        [objects.rles[row] for row in rows], [h * w for h, w in (objects.rle_sizes[row] for row in rows)]
    )
    if bad is not None:
        height, width = objects.rle_sizes[rows[bad]]
        raise DataError(f"{name(rows[bad])}.counts: not a compressed RLE of {height} x {width} pixels")
    for start in range(0, len(rows), _TOGETHER):
        part = rows[start : start + _TOGETHER]
        areas = areas_of([{"size": list(objects.rle_sizes[row]), "counts": objects.rles[row]} for row in part])
        objects.without_rles(row for row, area in zip(part, areas, strict=True) if not area)


def _trim_outlines(annotations: Annotations, size: npt.NDArray[np.float64]) -> None:
    """Forgets polygons without area and outside their image, and counts those that reach beyond it."""
    objects = annotations.objects
    if not len(objects.ends):
        return
    owner = np.repeat(np.arange(len(objects)), np.diff(objects.parts, prepend=0))
    starts = np.concatenate(([0], objects.ends[:-1]))
    x, y = objects.points[0::2], objects.points[1::2]
    first = starts // 2
    lowest = np.stack([np.minimum.reduceat(x, first), np.minimum.reduceat(y, first)], axis=1)
    highest = np.stack([np.maximum.reduceat(x, first), np.maximum.reduceat(y, first)], axis=1)
    size = size[owner]
    outside = ((highest <= 0) | (lowest >= size)).any(axis=1)
    lines, area = _lines_and_areas(x, y, first, lowest, highest)
    flat = (highest <= lowest).any(axis=1) | lines
    there = ~outside & ~flat
    beyond = there & ((lowest < -1) | (highest > size + 1)).any(axis=1)
    thin = (area < _SMALL) | ((np.minimum(highest, size) - np.maximum(lowest, 0)) < 1).any(axis=1)
    empty = _cover_nothing(objects, size, thin, np.flatnonzero(there & (thin | beyond)))
    for chosen, what, gone in (
        (flat, "polygons without area, left out", True),
        (outside & ~flat, "polygons outside their image, left out", True),
        (empty, "polygons that cover no pixel, left out", True),
        (beyond & ~empty, "polygons that reach beyond their image, cut to it", False),
    ):
        if chosen.any():
            example = f"annotation {shown(objects.ids[int(owner[int(np.argmax(chosen))])])}"
            annotations.findings.note(what, example, count=int(chosen.sum()), left_out=gone)
    objects.without_parts(flat | outside | empty)


def _cover_nothing(objects: Objects, size: Any, thin: Any, doubtful: Any) -> npt.NDArray[np.bool_]:
    """By polygon whether it leaves no pixel where it is drawn; only what is thin or has no corner inside is drawn."""
    found = np.zeros(len(thin), bool)
    for part in doubtful.tolist():
        points, (width, height) = objects.polygon(part), size[part]
        inside = (points[0::2] > 0) & (points[0::2] < width) & (points[1::2] > 0) & (points[1::2] < height)
        if thin[part] or not inside.any():
            found[part] = not areas_of([draw([points], int(height), int(width))])[0]
    return found


def _lines_and_areas(
    x: Any, y: Any, first: Any, lowest: Any, highest: Any
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """By polygon whether all its points lie on one line (as far along as they are up, or down), and its area."""
    lengths = np.diff(first, append=len(x))
    found, area = np.zeros(len(first), bool), np.zeros(len(first))
    for start in range(0, len(first), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        points = slice(int(first[start]), int(first[start] + lengths[part].sum()))
        extent = np.maximum(highest[part] - lowest[part], 1e-300)
        along = (x[points] - np.repeat(lowest[part, 0], lengths[part])) / np.repeat(extent[:, 0], lengths[part])
        up = (y[points] - np.repeat(lowest[part, 1], lengths[part])) / np.repeat(extent[:, 1], lengths[part])
        local = first[part] - first[start]
        rising = np.maximum.reduceat(np.abs(along - up), local) < 1e-9
        falling = np.maximum.reduceat(np.abs(along + up - 1), local) < 1e-9
        found[part] = rising | falling
        turns = np.empty(len(along))
        turns[:-1] = along[:-1] * up[1:] - along[1:] * up[:-1]
        last = local + lengths[part] - 1  # from each one's last point to its first
        turns[last] = along[last] * up[local] - along[local] * up[last]
        area[part] = np.abs(np.add.reduceat(turns, local)) / 2 * extent.prod(axis=1)
    return found, area
