"""What cannot be right in the boxes and masks of training images, told of many objects at once: numpy, no thread.

Contract:

- Nothing is said of a single object, but of one that is not finite; nor where another explanation is usual: boxes wider
  than their masks, boxes that leave the image by a little, masks that stand out by a pixel or two.
- Each fault is one line with the count and an image to look at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from losslog.detection.mistakes import box_overlaps
from losslog.detection.rle import around
from losslog.runtime.containment import attempt

LEAST: Final = 3  # objects that must agree
SHARE: Final = 0.25  # of all objects, likewise
FITS: Final = 0.75  # overlap from which a box is its mask's
ANOTHER: Final = 0.5  # and below which it is not
SLACK: Final = 3.0  # pixels that rounding, resizing and hand-drawn outlines may take
PART: Final = 0.05  # of a box's longer side, likewise

Numbers = npt.NDArray[np.float64]


class Fault(NamedTuple):
    """Something that is wrong with many objects.

    Attributes:
        kind: ``swapped``, ``corners``, ``outside``, ``apart``, ``parts`` or ``not_finite``.
        title: what it is.
        text: how many objects, an image, and what to do.
    """

    kind: str
    title: str
    text: str


READINGS: Final[tuple[tuple[str, str, str, Callable[[Numbers], Numbers]], ...]] = (
    ("swapped", "boxes have x and y swapped", "with x and y swapped", lambda boxes: boxes[:, [1, 0, 3, 2]]),
    ("corners", "boxes are x, y, width, height", "as x, y, width, height",
     lambda boxes: np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)),
)  # fmt: skip


def faults(images: Iterable[Mapping[str, Any]]) -> list[Fault]:
    """What is wrong with the truth of images, as a record has them."""
    found = [(image, thing) for image in images for thing in image.get("truth") or ()]
    if lost := [image["id"] for image, thing in found if not np.isfinite(thing["box"]).all()]:
        text = f"In {len(lost)} of {len(found)} objects the box is not finite, e.g. in image {lost[0]}."
        return [Fault("not_finite", "boxes are not finite", text)]
    if len(found) < LEAST:
        return []
    ids = [image["id"] for image, _ in found]
    boxes = np.array([thing["box"] for _, thing in found], np.float64)
    sizes = np.array([[image["width"], image["height"]] * 2 for image, _ in found], np.float64)
    masks = [attempt(around, thing["rle"])[0] if thing.get("rle") else None for _, thing in found]
    with_mask = np.array([each is not None for each in masks])
    if (np.abs(boxes) <= 1.01).all() and sizes.min() > 16:
        return [Fault("parts", "boxes are in parts of the image",
                      f"All {len(boxes)} boxes lie between 0 and 1, e.g. those of image {ids[0]}, and the model gets "
                      "pixels if it is torchvision's: multiply them by width and height.")]  # fmt: skip
    if with_mask.sum() >= LEAST:
        around_masks = np.array([each for each in masks if each is not None], np.float64)
        own = [each for each, there in zip(ids, with_mask, strict=True) if there]
        told = _by_masks(boxes[with_mask], around_masks, own)
        if told:
            return told
    return _outside(boxes, sizes, ids)


def _by_masks(boxes: Numbers, masks: Numbers, ids: Sequence[Any]) -> list[Fault]:
    plain = _overlaps(boxes, masks)
    for kind, title, words, read in READINGS:
        other = read(boxes)
        tell = _overlaps(boxes, other) < ANOTHER  # of the others it makes no difference
        wrong = tell & (plain < ANOTHER) & (_overlaps(other, masks) >= FITS)
        if wrong.sum() >= max(LEAST, 0.5 * tell.sum()):
            return [Fault(kind, title, f"{_count(wrong, len(boxes))} the mask fits the box only {words}, e.g. in image "
                                       f"{_first(wrong, ids)}. Look where boxes are read or transformed.")]  # fmt: skip
    beyond = np.maximum(boxes[:, :2] - masks[:, :2], masks[:, 2:] - boxes[:, 2:]).max(axis=1)
    side = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    wrong = beyond > np.maximum(SLACK, PART * side)
    if wrong.sum() < max(LEAST, SHARE * len(boxes)):
        return []
    shift = ((masks[wrong] - boxes[wrong]).reshape(-1, 2, 2)).mean(axis=1)
    middle = np.median(shift, axis=0)
    alike = (np.abs(shift - middle) <= SLACK).all(axis=1).mean() > 0.5
    words = _direction(middle) if alike else f"by {np.median(beyond[wrong]):.0f} pixels in the middle"
    return [Fault("apart", "masks stand out of their boxes",
                  f"{_count(wrong, len(boxes))} the mask stands out of the box, {words}, e.g. in image "
                  f"{_first(wrong, ids)}. Does a transform move one and not the other?")]  # fmt: skip


def _outside(boxes: Numbers, sizes: Numbers, ids: Sequence[Any]) -> list[Fault]:
    slack = np.maximum(SLACK, PART * sizes)
    wrong = np.any((boxes < -slack) | (boxes > sizes + slack), axis=1)
    if wrong.sum() < max(LEAST, SHARE * len(boxes)):
        return []
    back = boxes[:, [1, 0, 3, 2]]
    fits = ((back >= -slack) & (back <= sizes + slack)).all()
    title = "boxes leave the image" + (": x and y may be swapped" if fits else "")
    more = "With x and y swapped all lie within." if fits else "Does a transform move the image and not its boxes?"
    return [Fault("outside", title, f"{_count(wrong, len(boxes))} the box leaves the image, e.g. in image "
                                    f"{_first(wrong, ids)}. {more}")]  # fmt: skip


def _overlaps(one: Numbers, other: Numbers) -> Numbers:
    """Of each with its own."""
    sizes = [np.concatenate([each[:, :2], each[:, 2:] - each[:, :2]], axis=1) for each in (one, other)]
    return np.array([box_overlaps(a[None], b[None])[0, 0] for a, b in zip(*sizes, strict=True)])


def _direction(shift: Numbers) -> str:
    across, down = (round(float(each)) for each in shift)
    words = [f"{abs(across)} pixels to the {'right' if across > 0 else 'left'}"] if abs(across) > 1 else []
    words += [f"{abs(down)} pixels {'down' if down > 0 else 'up'}"] if abs(down) > 1 else []
    return " and ".join(words) or "on all sides"


def _count(wrong: npt.NDArray[Any], of: int) -> str:
    return f"In {int(wrong.sum())} of {of} objects"


def _first(wrong: npt.NDArray[Any], ids: Sequence[Any]) -> Any:
    return ids[int(np.argmax(wrong))]
