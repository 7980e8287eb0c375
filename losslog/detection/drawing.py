"""Images with what is in them and what a model found, drawn: the one place that does it, for every backend.

Any thread; reads pictures, writes nothing. Pillow and numpy, no torch. Contract:

- What is drawn is what a record of ``on_images`` has. A picture that cannot be read is a grey ground and a line, and a
  mask that is garbled is none: neither is an error.
- A class has the same colour in truth and predictions, in every epoch and backend. What is wrong has a red frame.
- Only formats that hold pixels and nothing else are opened, scaled down while they are decoded where they can be.
- What has more pixels than `MOST` is not decoded, and no file is decoded twice in a row.
"""

from __future__ import annotations

import functools
import io
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from losslog.detection.chips import WRONG, colours, font_for, write
from losslog.detection.images import TURNS, to_rgb
from losslog.detection.rle import sampled
from losslog.journal.files import buffered
from losslog.runtime.containment import attempt, one_line
from losslog.runtime.notices import Once

SIDE: Final = 256  # pixels of a picture on a sheet
WIDEST: Final = 1600  # of a sheet, where one tile is no wider
FORMATS: Final = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")  # none that runs a program (EPS does)
MOST: Final = 1 << 26  # pixels that are decoded
CAPTION: Final = 18
GAP: Final = 6
_MASK: Final = 115  # parts in 256 of a mask's colour over the picture
_GROUND: Final = (250, 250, 250)
_NOTHING: Final = (190, 190, 190)
_KEYS: Final = ("truth", "predictions")
_ACROSS: Final = (
    Image.Transpose.TRANSPOSE,
    Image.Transpose.ROTATE_270,
    Image.Transpose.TRANSVERSE,
    Image.Transpose.ROTATE_90,
)  # what makes width of height

_said = Once()  # of the process
Pixels = npt.NDArray[np.uint8]


class Sheet:
    """Images side by side: where each is, and what is drawn there.

    Args:
        images: as a record has them.
        both: truth beside predictions, where there are any; False: one picture an image.
        side: pixels of a picture.
        title: over all of them.
        pixels: pictures that are no file, by place.
    """

    def __init__(
        self, images: Sequence[Mapping[str, Any]], *, both: bool = True, side: int = SIDE, title: str = "",
        pixels: Mapping[int, Pixels] | None = None,
    ) -> None:  # fmt: skip
        self.images, self.side, self.title = images, side, title
        self.kinds = ("truth", "predictions") if both and any(each.get("predictions") for each in images) else ("",)
        self.colours = colours(thing["label"] for each in images for key in _KEYS for thing in each.get(key) or ())
        tallest = max((min(1.0, each["height"] / each["width"]) for each in images), default=1.0)
        self._tall = max(1, round(side * tallest))  # no higher than the tallest needs
        wide = side * len(self.kinds) + 2 * (len(self.kinds) - 1)
        columns = max(1, min(len(images), (WIDEST - GAP) // (wide + GAP)))
        rows = -(-len(images) // columns)
        self._top = CAPTION + GAP if title else GAP
        high = self._tall + CAPTION + GAP
        self._corners = [
            (GAP + place % columns * (wide + GAP), self._top + place // columns * high) for place in range(len(images))
        ]
        self.ground = Image.new("RGB", (columns * (wide + GAP) + GAP, max(1, self._top + rows * high)), _GROUND)
        draw = ImageDraw.Draw(self.ground)
        if title:
            self._line(draw, GAP, 4, title, 13)
        found = [small(each, side, self._tall, (pixels or {}).get(place)) for place, each in enumerate(images)]
        self._small, self._read = [each for each, _ in found], [read for _, read in found]
        for place, image in enumerate(images):
            x, y = self._corners[place]
            self._line(draw, x + 2, y + self._tall + 2, caption(image), 11)

    @staticmethod
    def _line(draw: ImageDraw.ImageDraw, x: int, y: int, words: str, size: int) -> None:
        text, type_ = font_for(words, size)
        draw.text((x, y), text, fill=(40, 40, 40), font=type_)

    def plain(self) -> Image.Image:
        """The pictures alone."""
        sheet = self.ground.copy()
        for (x, y), pixels in zip(self._corners, self._small, strict=True):
            sheet.paste(Image.fromarray(pixels), (x, y))
        return sheet

    def drawn(self) -> Image.Image:
        """Pictures with boxes, masks, labels and scores; truth on the left."""
        sheet = self.ground.copy()
        for place, image in enumerate(self.images):
            x, y = self._corners[place]
            for number, kind in enumerate(self.kinds):
                things = [*(image.get("truth") or ())] if kind != "predictions" else []
                things += image.get("predictions") or () if kind != "truth" else ()
                pane = self._pane(image, self._small[place], things)
                sheet.paste(pane, (x + number * (self.side + 2), y))
        return sheet

    def first(self) -> tuple[Pixels, bool]:
        """The first picture, small, and whether it could be read."""
        return self._small[0], self._read[0]

    def pixels(self) -> Pixels:
        """`drawn` as an array ``[height, width, 3]``."""
        return np.asarray(self.drawn())

    @staticmethod
    def encoded(picture: Image.Image) -> bytes:
        """A picture as a JPEG."""
        return encoded(picture)

    def _pane(self, image: Mapping[str, Any], pixels: Pixels, things: Sequence[Mapping[str, Any]]) -> Image.Image:
        covered = pixels.copy()
        for thing in things:
            down, across, mask = self.small_mask(image, thing, pixels.shape)
            part = covered[down, across]
            over = (
                part[mask].astype(np.uint16) * (256 - _MASK) + np.array(self.colours[thing["label"]], np.uint16) * _MASK
            )
            part[mask] = (over >> 8).astype(np.uint8)
        pane = Image.fromarray(covered)
        draw = ImageDraw.Draw(pane)
        marked = [(self.small_box(image, thing, pixels.shape), thing) for thing in things]
        for box, thing in marked:
            if thing.get("mistake"):
                wide = [max(0, box[0] - 2), max(0, box[1] - 2), box[2] + 2, box[3] + 2]
                draw.rectangle(wide, outline=WRONG, width=2)
            draw.rectangle(box, outline=self.colours[thing["label"]], width=1 if thing.get("mistake") else 2)
        words = []
        for box, thing in sorted(marked, key=lambda each: -each[1].get("score", 1.0)):
            colour = self.colours[thing["label"]]
            score = f" {thing['score']:.2f}" if "score" in thing else ""
            wrong = str(thing.get("mistake") or "").replace("_", " ")
            words.append((box, [(f"{thing['label'][:20]}{score}", colour), *([(wrong[:20], WRONG)] if wrong else [])]))
        write(pane, words)  # over all boxes
        return pane

    @staticmethod
    def small_mask(
        image: Mapping[str, Any], thing: Mapping[str, Any], shape: Sequence[int]
    ) -> tuple[slice, slice, Any]:
        """Which rows and columns of the small picture a mask may have anything in, and the mask there."""
        rle = thing.get("rle")
        rows, columns = (_places(image[key], size) for key, size in zip(("height", "width"), shape, strict=False))
        if rle is not None and list(rle["size"]) == [image["height"], image["width"]]:
            found, error = attempt(sampled, rle, rows, columns)
            if found is not None and error is None:
                return found
        return slice(0, 0), slice(0, 0), np.zeros((0, 0), bool)

    @staticmethod
    def small_box(image: Mapping[str, Any], thing: Mapping[str, Any], shape: Sequence[int]) -> list[float]:
        """A box in the small picture, cut to it."""
        most = (shape[1] - 1, shape[0] - 1) * 2
        scale = (shape[1] / image["width"], shape[0] / image["height"]) * 2
        ends = [min(max(0.0, value * by), top) for value, by, top in zip(thing["box"], scale, most, strict=True)]
        return [min(ends[0], ends[2]), min(ends[1], ends[3]), max(ends[0], ends[2]), max(ends[1], ends[3])]

    def boxes(self, kind: str) -> list[tuple[list[float], Mapping[str, Any]]]:
        """Boxes of ``truth`` or ``predictions`` in pixels of the sheet, each with what it is of."""
        found = []
        for (x, y), image, pixels in zip(self._corners, self.images, self._small, strict=True):
            for thing in image.get(kind) or ():
                x1, y1, x2, y2 = self.small_box(image, thing, pixels.shape)
                found.append(([x + x1, y + y1, x + x2, y + y2], thing))
        return found

    def mask(self, kind: str, numbers: Mapping[str, int]) -> Pixels:
        """The masks of ``truth`` or ``predictions`` as one plane of numbers by label, 0 where there is none."""
        plane = np.zeros(self.ground.size[::-1], np.uint8)
        for (x, y), image, pixels in zip(self._corners, self.images, self._small, strict=True):
            part = plane[y : y + pixels.shape[0], x : x + pixels.shape[1]]
            for thing in image.get(kind) or ():
                down, across, mask = self.small_mask(image, thing, pixels.shape)
                part[down, across][mask] = numbers[thing["label"]]
        return plane


def encoded(picture: Image.Image, quality: int = 88) -> bytes:
    """A picture as a JPEG."""
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def title_of(split: str, name: str, epoch: int | None) -> str:
    """What a sheet is called."""
    return f"{split} {name}" + ("" if epoch is None else f", epoch {epoch}")


def caption(image: Mapping[str, Any]) -> str:
    """An image in one line: its id, what is wrong, and how well what was found fits."""
    wrong = [f"{count} {kind.replace('_', ' ')}" for kind, count in (image.get("mistakes") or {}).items()]
    words = [str(image["id"])[:60], ", ".join(wrong)]
    if image.get("iou") is not None:
        words.append(f"IoU {image['iou']:.2f}")
    if image.get("loss"):
        name, value = max(image["loss"].items(), key=lambda each: each[1])
        words.append(f"{name} {value:.3g}")
    return " · ".join(each for each in words if each)


def small(
    image: Mapping[str, Any], side: int, tall: int | None = None, pixels: Pixels | None = None
) -> tuple[Pixels, bool]:
    """The picture of an image scaled to fit ``side`` x ``tall``, and whether it could be read; it is grey else."""
    scale = min(side / image["width"], (tall or side) / image["height"])
    size = (max(1, round(image["width"] * scale)), max(1, round(image["height"] * scale)))
    if pixels is not None:
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)), True
    for path in (image.get("path"), image.get("thumbnail")):
        as_it_is = image.get("turned") is False and path == image.get("path")
        found, error = attempt(opened, path, size, turn=not as_it_is) if path else (None, None)
        if found is not None:
            return found, True
        if error is not None:
            _said("the picture %s cannot be read (%s): drawn without it", path, one_line(error), key="picture")
    return np.full((size[1], size[0], 3), _NOTHING, np.uint8), False


def opened(path: str, size: tuple[int, int], *, turn: bool = True) -> Pixels:
    """A picture file, scaled to ``size``, and turned as its EXIF says where that does not give it another shape.

    Args:
        path: the file.
        size: width and height that it shall have; of the shape of the image that is meant.
        turn: False: as it is stored, where that has the shape.

    Raises:
        OSError, ValueError: it cannot be read, or is of another shape.
    """
    found = os.lstat(path)
    made = _decoded(path, size, turn, (found.st_ino, found.st_size, found.st_mtime_ns))
    if isinstance(made, BaseException):
        raise made.with_traceback(None)
    return made


@functools.lru_cache(maxsize=64)
def _decoded(path: str, size: tuple[int, int], turn: bool, _stamp: tuple[int, ...]) -> Pixels | BaseException:
    """The pixels, or why there are none: the same images come in every epoch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow, about large pictures and odd metadata
        made, error = attempt(_decode, path, size, turn)
    return made if error is None and made is not None else error or OSError(path)


def _decode(path: str, size: tuple[int, int], turn: bool) -> Pixels:
    with buffered(Path(path)) as raw, Image.open(raw, formats=_formats()) as file:
        kind = TURNS.get(int(file.getexif().get(0x0112, 1) or 1)) if file.format != "TIFF" else None
        turned = file.size[::-1] if kind in _ACROSS else file.size
        shapes = [(turned, kind), (file.size, None)]
        fitting = [each for each in (shapes if turn else shapes[::-1]) if _alike(each[0], size)]
        if not fitting:
            raise ValueError(f"{path} is {turned[0]} x {turned[1]} (width x height): another picture")
        kind = fitting[0][1]
        wanted = size[::-1] if kind in _ACROSS else size
        if not file.info.get("progressive"):  # such a JPEG is held whole, whatever is made of it
            file.draft("RGB", wanted)
        if file.width * file.height > MOST:
            raise ValueError(f"{path} has {file.width} x {file.height} pixels: {MOST} are drawn at most")
        picture = to_rgb(file).resize(wanted, Image.Resampling.BILINEAR, reducing_gap=2.0)
        return np.asarray(picture if kind is None else picture.transpose(kind))


def _alike(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return abs(one[0] * other[1] - one[1] * other[0]) <= 2 * (max(one) + max(other))


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those that this Pillow was built with."""
    Image.init()
    return tuple(each for each in FORMATS if each in Image.OPEN)


@functools.lru_cache(maxsize=256)
def _places(whole: int, size: int) -> npt.NDArray[np.int64]:
    """Which pixels of a side stand for those of the small one."""
    return ((np.arange(size) + 0.5) * (whole / size)).astype(np.int64)
