"""Outlines of objects: every form a COCO ``segmentation`` has, read, checked and drawn. Plain functions on numpy.

Contract:

- Whatever an outline says, drawing it takes memory in proportion to the image. pycocotools walks along every edge in
  steps of a fifth of a pixel; a polygon far outside is therefore cut to the image first, and one whose edges would
  still take more steps than the image has pixels is filled by Pillow.
- Polygons that stay within one image size around the image are pycocotools' own, to the pixel.
- A compressed RLE is decoded here before pycocotools sees it, which would read and write beyond a bad one.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from pycocotools import mask as mask_api

from losslog.detection.fields import NUMBERS, number, whole

Points = npt.NDArray[np.float64]  # x, y, x, y, ...
Rle = dict[str, Any]  # {"size": [height, width], "counts": bytes}
STEPS: Final = 1_000_000  # along edges that are always affordable: 16 MB
_FAR: Final = 1e12  # differences of coordinates stay finite
_TOGETHER: Final = 64  # polygons drawn before they are merged
_MANY: Final = 200  # RLEs whose areas pycocotools counts in one go: it puts their number into 8 bits
_CHUNK: Final = 20_000  # run lengths checked in one go


def is_regular(part: Any) -> bool:
    """Whether a polygon is what COCO says: a flat list of at least three points, all numbers and finite."""
    try:
        return (
            type(part) is list
            and len(part) >= 6
            and not len(part) % 2
            and set(map(type, part)) <= NUMBERS
            and math.isfinite(sum(part))
        )
    except OverflowError:  # a whole number beyond a float's range
        return False


def polygons(value: Sequence[Any]) -> Iterator[list[Any]]:
    """The polygons of a ``segmentation`` list as flat lists: also a flat list, lists of points, and lists deeper still.

    What is in them is not looked at; see `coordinates`.
    """
    if not any(isinstance(part, list | tuple) for part in value):
        if value:
            yield list(value)
        return
    if len(value) >= 3 and all(isinstance(part, list) and len(part) == 2 and _flat(part) for part in value):
        yield [coordinate for point in value for coordinate in point]
        return
    for part in value:
        if isinstance(part, list):
            yield from polygons(part)
        else:
            yield [part]  # a number beside lists: no polygon


def _flat(part: list[Any]) -> bool:
    return not any(isinstance(item, list | dict) for item in part)


def coordinates(part: list[Any]) -> tuple[array[float] | None, str]:
    """A polygon's coordinates, or None and what is wrong with it; text with numbers is told, too.

    Returns:
        Coordinates and a remark, both may be empty: ``(None, "")`` is not a list of numbers at all.
    """
    remark = ""
    if set(map(type, part)) <= NUMBERS:
        try:
            found = array("d", part)
        except OverflowError:
            return None, "polygons with a coordinate that is not finite"
    else:
        read = [number(item) for item in part]
        if any(item is None for item in read):
            return None, ""
        found, remark = array("d", read), "numbers written as text"
    if not math.isfinite(sum(found)) and not all(map(math.isfinite, found)):
        return None, "polygons with a coordinate that is not finite"
    if len(found) % 2:
        return None, "polygons with an odd number of coordinates"
    if len(found) < 6:
        return None, "lines and points among the polygons"
    return found, remark


def read_rle(value: dict[str, Any]) -> tuple[tuple[int, int], bytes | str, bool]:
    """An RLE's size ``(height, width)``, its compressed counts, and whether numbers were written as text.

    The counts are not yet checked: `check_counts` does many at once.

    Raises:
        ValueError: names the field that cannot be used.
    """
    size, counts = value.get("size"), value.get("counts")
    read = [whole(item) for item in size] if isinstance(size, list) and len(size) == 2 else [None]
    if any(item is None or item < 1 for item in read):
        raise ValueError(f"segmentation.size is {size!r:.60}, not [height, width]")
    height, width = int(read[0] or 0), int(read[1] or 0)
    as_text = isinstance(size, list) and any(isinstance(item, str) for item in size)
    if isinstance(counts, str | bytes):
        return (height, width), counts, as_text
    if not isinstance(counts, list):
        raise ValueError(f"segmentation.counts is a {type(counts).__name__}, neither a list nor a text")
    kinds = set(map(type, counts))
    runs = counts if kinds <= {int} else [whole(item) for item in counts]
    if any(run is None or run < 0 for run in runs):
        raise ValueError("segmentation.counts has something that is no run length")
    if sum(runs) != height * width:
        raise ValueError(f"segmentation.counts adds up to {sum(runs)}, its size to {height} x {width} pixels")
    if height * width >= 2**31:
        raise ValueError(f"segmentation.size is {height} x {width}: more pixels than an RLE can count")
    packed = mask_api.frPyObjects({"size": [height, width], "counts": runs}, height, width)["counts"]
    return (height, width), packed, as_text or str in kinds


def check_counts(texts: Sequence[bytes], pixels: Sequence[int]) -> int | None:
    """The position of the first compressed RLE that is garbled or does not add up to its image, or None.

    Args:
        texts: compressed counts.
        pixels: height x width of each.
    """
    for start in range(0, len(texts), _CHUNK):
        bad = _first_bad(texts[start : start + _CHUNK], np.array(pixels[start : start + _CHUNK], np.int64))
        if bad is not None:
            return start + bad
    return None


def _first_bad(texts: Sequence[bytes], pixels: npt.NDArray[np.int64]) -> int | None:
    lengths = np.array([len(text) for text in texts])
    owner = np.repeat(np.arange(len(texts)), lengths)
    chars = np.frombuffer(b"".join(texts), np.uint8).astype(np.int64) - 48
    bad = np.zeros(len(texts), bool)
    bad[lengths == 0] = True
    bad[owner[(chars < 0) | (chars > 63)]] = True
    # A number ends at each character without the bit 32; it holds five bits a character, the first the lowest.
    last = (chars & 32) == 0
    ends = np.flatnonzero(last)
    whole_texts = lengths > 0
    bad[whole_texts] |= ~last[np.cumsum(lengths)[whole_texts] - 1]
    starts = np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends
    if bad.any() or not len(ends):
        found = np.flatnonzero(bad)
        return int(found[0]) if len(found) else None
    place = np.arange(len(chars)) - np.repeat(starts, ends - starts + 1)
    if (place > 6).any():  # 35 bits: no run of an image is as long
        return int(owner[place > 6][0])
    number_of = np.repeat(np.arange(len(ends)), ends - starts + 1)
    values = np.bincount(number_of, (chars & 31) * 32.0**place, len(ends)).astype(np.int64)
    negative = (chars[ends] & 16) != 0
    values -= np.where(negative, 32 ** (place[ends] + 1), 0)
    # From the fourth on, a number is the difference to the last but one.
    of = owner[ends]
    index = np.arange(len(ends)) - np.searchsorted(of, of)
    runs = values.copy()
    for parity in (0, 1):
        chosen = (index % 2 == parity) & (index > 0)
        sums = np.cumsum(values[chosen])
        owners = of[chosen]
        first = np.searchsorted(owners, owners)
        runs[chosen] = sums - np.where(first > 0, sums[first - 1], 0)
    bad[of[runs < 0]] = True
    bad |= np.bincount(of, runs, len(texts)).astype(np.int64) != pixels
    found = np.flatnonzero(bad)
    return int(found[0]) if len(found) else None


def draw(parts: Sequence[Points], height: int, width: int) -> Rle:
    """Polygons as one RLE.

    Args:
        parts: coordinates, as from `coordinates`.
        height: image height in pixels.
        width: image width in pixels.
    """
    merged: list[Rle] = []
    for start in range(0, len(parts), _TOGETHER):
        drawn = [rle for part in parts[start : start + _TOGETHER] for rle in _draw_one(part, height, width)]
        merged = [mask_api.merge([*merged, *drawn])] if merged or drawn else []
    return merged[0] if merged else mask_api.encode(np.zeros((height, width), np.uint8, order="F"))


def decode(rle: Rle) -> npt.NDArray[np.uint8]:
    """An RLE as a mask ``[height, width]`` of 0 and 1."""
    mask: npt.NDArray[np.uint8] = mask_api.decode(rle)
    return mask


def areas_of(rles: Sequence[Rle]) -> list[int]:
    """How many pixels each of some checked RLEs covers."""
    found: list[int] = []
    for start in range(0, len(rles), _MANY):
        found += mask_api.area(list(rles[start : start + _MANY])).tolist()
    return found


def of_box(box: Sequence[float], height: int, width: int) -> Points:
    """A COCO box, cut to the image, as a polygon."""
    x1, y1 = max(0.0, float(box[0])), max(0.0, float(box[1]))
    x2, y2 = min(float(width), float(box[0] + box[2])), min(float(height), float(box[1] + box[3]))
    return np.array([x1, y1, x2, y1, x2, y2, x1, y2])


def is_modest(part: Points, height: int, width: int) -> bool:
    """Whether pycocotools itself may draw a polygon: it stays near the image and takes few steps along its edges."""
    points = part.reshape(-1, 2)
    size = np.array([width, height])
    if (points < -size).any() or (points > 2 * size).any():
        return False
    edges = np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1)
    return bool(5 * edges.sum() + len(points) <= max(STEPS, height * width))


def _draw_one(part: Points, height: int, width: int) -> list[Rle]:
    if not is_modest(part, height, width):
        size = np.array([width, height])
        points = np.clip(part.reshape(-1, 2), -_FAR, _FAR)
        if (points < -size).any() or (points > 2 * size).any():
            points = _cut(points, width, height)
        if len(points) < 3:
            return []
        part = points.ravel()
        if not is_modest(part, height, width):
            canvas = Image.new("L", (width, height))
            ImageDraw.Draw(canvas).polygon(part.tolist(), fill=1)
            return [mask_api.encode(np.asfortranarray(np.asarray(canvas)))]
    found: list[Rle] = mask_api.frPyObjects([part.tolist()], height, width)
    return found


def _cut(points: Points, width: int, height: int) -> Points:
    """The part of a polygon in the image and one pixel around it, cut at one border after the other."""
    for axis, limit, sign in ((0, -1.0, 1), (0, width + 1.0, -1), (1, -1.0, 1), (1, height + 1.0, -1)):
        if len(points) < 3:
            break
        here, there = points, np.roll(points, -1, axis=0)
        inside, inside_there = sign * (here[:, axis] - limit) >= 0, sign * (there[:, axis] - limit) >= 0
        crossing = inside != inside_there
        with np.errstate(all="ignore"):
            along = (limit - here[:, axis]) / (there[:, axis] - here[:, axis])
            cut = here + np.clip(along, 0, 1)[:, None] * (there - here)
        cut[:, axis] = limit
        # Each point in turn, if inside, and after it the crossing of the edge that leaves it.
        both = np.stack([here, cut], axis=1).reshape(-1, 2)
        points = both[np.stack([inside, crossing], axis=1).ravel()]
    return points
