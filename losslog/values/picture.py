"""What an image is in a record, and for a plugin.

Declarations only. Contract:

- No key is ever renamed; some may come.
"""

from __future__ import annotations

from typing import TypedDict


class Rle(TypedDict):
    """A mask as COCO has it: column by column, compressed.

    Attributes:
        size: height and width.
        counts: the run lengths as pycocotools compresses them.
    """

    size: list[int]
    counts: str


class Thing(TypedDict, total=False):
    """An object in an image.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the image.
        label: the class's name.
        score: of a prediction, 0 to 1.
        rle: its mask; missing where there is none.
        mistake: what is wrong with it, e.g. ``duplicate``, or of an object of the truth ``missed``.
        iou: overlap of a prediction with the object it was matched to.
    """

    box: list[float]
    label: str
    score: float
    rle: Rle
    mistake: str
    iou: float


class Picture(TypedDict, total=False):
    """An image.

    Attributes:
        id: the data set's.
        path: the file; in the journal relative to the data folder where it lies there, to a plugin absolute, or None.
        thumbnail: a small copy in the run folder, likewise.
        width, height: in pixels; boxes and masks are of this size.
        turned: False: boxes and masks are of the pixels as the file stores them, its EXIF orientation is not applied.
        loss: the losses of this image by component, or None.
        missed: objects that no prediction found.
        extra: predictions that are no object.
        iou: mean overlap of what was matched.
        mistakes: how many of each kind.
        truth, predictions: objects.
        left_out: how many ``objects`` and ``masks`` had to go for the record's size.
    """

    id: int | str
    path: str | None
    thumbnail: str | None
    width: int
    height: int
    turned: bool
    loss: dict[str, float] | None
    missed: int
    extra: int
    iou: float
    mistakes: dict[str, int]
    truth: list[Thing]
    predictions: list[Thing]
    left_out: dict[str, int]
