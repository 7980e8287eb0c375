"""What ``losslog train --check`` shows of a data set: a summary in words, and a sheet of images with their objects.

Contract:

- Images and masks on the sheet are those that training gets: turned, scaled to 8 bits, cut to the image.
- The same data and seed give the same sheet.
"""

from __future__ import annotations

import colorsys
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from losslog.detection.findings import shown
from losslog.detection.images import load_pixels
from losslog.detection.outlines import decode

if TYPE_CHECKING:
    from losslog.detection.coco import CocoDataset

IMAGES: Final = 10
_COLUMNS: Final = 5
_SIDE: Final = 320  # pixels of an image on the sheet
_CAPTION: Final = 22
_GAP: Final = 6
_MASK: Final = 0.45  # of a mask's colour over the image
_GROUND: Final = (250, 250, 250)


def summary(name: str, dataset: CocoDataset) -> list[str]:
    """Lines about a data set: images, objects, per class, crowds, empty, put right, left out."""
    table, rows = dataset.table, dataset.usable.rows
    per_class = np.bincount(table.category[rows], minlength=len(dataset.categories) + 1)[1:]
    with_objects = sum(len(each) > 0 for each in dataset.rows)
    findings = dataset.findings
    lines = [
        f"{name:<8}{dataset.annotations}",
        f"        images {len(dataset.entries):,}, without an object {len(dataset.entries) - with_objects:,}",
        f"        objects {len(rows):,}, crowds {int(table.crowd.sum()):,}, annotations {len(table):,}",
        f"        put right {findings.count(left_out=False):,}, left out {findings.count(left_out=True):,}",
    ]
    width = max((len(shown(each, 40)) for each in dataset.categories.names.values()), default=0)
    for text, count in zip(dataset.categories.names.values(), per_class.tolist(), strict=True):
        lines.append(f"        {shown(text, 40):<{width}}  {count:>9,}")
    return lines


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
    ratio = max(min(1.0, float(dataset.sizes[index][1] / dataset.sizes[index][0])) for index in chosen)
    side = max(1, round(_SIDE * ratio))  # no wider space than the tallest needs
    tiles = [_tile(dataset, index, side) for index in chosen]
    columns = min(_COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    height = side + _CAPTION + _GAP
    sheet = Image.new("RGB", (columns * (_SIDE + _GAP) + _GAP, rows * height + _GAP), _GROUND)
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (_GAP + number % columns * (_SIDE + _GAP), _GAP + number // columns * height))
    sheet.save(path, format="PNG")
    return Path(path)


def _tile(dataset: CocoDataset, index: int, side: int) -> Image.Image:
    pixels = load_pixels(dataset.paths[index])
    height, width = pixels.shape[:2]
    scale = min(_SIDE / width, side / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR)).astype(np.float32)
    rows = dataset.rows[index].tolist()
    if dataset.masks:
        for row in rows:
            mask = Image.fromarray(decode(dataset.table.outline(row, height, width)) * 255).resize(size)
            cover = np.asarray(mask, np.float32)[..., None] / 255 * _MASK
            small = (small * (1 - cover) + np.array(_colour(dataset, row)) * cover).astype(np.float32)
    tile = Image.new("RGB", (_SIDE, side + _CAPTION), _GROUND)
    tile.paste(Image.fromarray(small.round().astype(np.uint8)))
    draw = ImageDraw.Draw(tile)
    for row in rows:
        x1, y1, x2, y2 = (float(value) * scale for value in dataset.usable.corners[row])
        colour = _colour(dataset, row)
        draw.rectangle([x1, y1, max(x1, min(x2, size[0] - 1)), max(y1, min(y2, size[1] - 1))], outline=colour, width=2)
    names = list(dataset.categories.names.values())
    for row in rows:  # over all boxes
        x1, y1 = (float(value) * scale for value in dataset.usable.corners[row][:2])
        _label(draw, (x1 + 2, max(0.0, y1 - 11)), names[int(dataset.table.category[row]) - 1], _colour(dataset, row))
    caption = f"{shown(dataset.entries[index]['file_name'], 38)}  {len(rows)} objects"
    draw.text((2, side + 4), _drawable(caption), fill=(40, 40, 40), font=_font(12))
    return tile


def _colour(dataset: CocoDataset, row: int) -> tuple[int, int, int]:
    """A class's colour: hues as far apart as they get, whatever the number of classes."""
    hue = (int(dataset.table.category[row]) * 0.61803) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.85, 0.95)
    return round(red * 255), round(green * 255), round(blue * 255)


def _label(draw: ImageDraw.ImageDraw, place: tuple[float, float], name: str, colour: tuple[int, int, int]) -> None:
    text, font = _drawable(shown(name, 20)), _font(10)
    draw.rectangle(draw.textbbox(place, text, font=font), fill=colour)
    dark = colour[0] * 0.3 + colour[1] * 0.59 + colour[2] * 0.11 > 140
    draw.text(place, text, fill=(0, 0, 0) if dark else (255, 255, 255), font=font)


def _font(size: int) -> Any:
    return ImageFont.load_default(size) if hasattr(ImageFont, "FreeTypeFont") else ImageFont.load_default()


def _drawable(text: str) -> str:
    """What Pillow's own font has: Latin letters."""
    return text.encode("latin-1", "replace").decode("latin-1")
