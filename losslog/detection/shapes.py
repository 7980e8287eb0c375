"""A seeded data set of coloured shapes in COCO format on disk, for the demo and for tests. PIL and numpy, no torch.

Contract:

- The same arguments give the same bytes of annotations and the same pixels; train and val use different streams.
- Layout: ``images/``, ``annotations_train.json``, ``annotations_val.json``, which is what ``losslog train`` reads.
- Areas, boxes and masks agree: all come from the object's visible pixels.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from pycocotools import mask as mask_api

CLASSES: Final = ("circle", "square", "triangle")
_SCALE: Final = 4  # shapes are drawn larger and reduced, so that borders are smooth


def write_shapes(
    folder: str | Path, *, train: int = 400, val: int = 60, image_size: int = 128, max_objects: int = 4, seed: int = 0
) -> Path:
    """Writes the data set, over an older one of the same name.

    Args:
        folder: made if it does not exist.
        train: number of training images.
        val: number of held-out images.
        image_size: side of the square images in pixels.
        max_objects: objects per image, 1 to this many.
        seed: of the random stream.

    Returns:
        The folder.
    """
    folder = Path(folder)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for stream, (split, count) in enumerate((("train", train), ("val", val))):
        random = np.random.default_rng([seed, stream])
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(1, count + 1):
            name = f"{split}_{number:05d}.png"
            pixels, objects = draw_image(random, image_size, max_objects)
            Image.fromarray(pixels).save(folder / "images" / name)
            images.append({"id": number, "file_name": name, "width": image_size, "height": image_size})
            for fields in objects:
                annotations.append({"id": len(annotations) + 1, "image_id": number, **fields})
        content = {
            "info": {"description": "coloured shapes", "seed": seed},
            "images": images,
            "annotations": annotations,
            "categories": [{"id": index, "name": name} for index, name in enumerate(CLASSES, start=1)],
        }
        (folder / f"annotations_{split}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def draw_image(
    random: np.random.Generator, size: int, max_objects: int
) -> tuple[npt.NDArray[np.uint8], list[dict[str, Any]]]:
    """Draws one image.

    Args:
        random: the stream to draw from.
        size: side in pixels.
        max_objects: 1 to this many objects; one that would cover more than a fifth of another is not drawn.

    Returns:
        Pixels ``[size, size, 3]`` and COCO annotations without ids.
    """
    base = random.uniform(40, 215, 3)
    coarse = random.uniform(-25, 25, (8, 8, 3))
    ground = np.asarray(Image.fromarray((coarse + 128).astype(np.uint8)).resize((size, size)), np.float32) - 128 + base
    pixels = ground + random.normal(0, 6, (size, size, 1))
    visible: list[tuple[int, npt.NDArray[np.bool_]]] = []
    for _ in range(int(random.integers(1, max_objects + 1))):
        category = int(random.integers(len(CLASSES)))
        cover = _draw_shape(random, CLASSES[category], size)
        colour = random.uniform(0, 255, 3)
        while np.abs(colour - base).max() < 70:
            colour = random.uniform(0, 255, 3)
        mask = cover > 0.5
        if any((mask & other).sum() > 0.2 * min(mask.sum(), other.sum()) for _, other in visible):
            continue
        shade = colour + random.normal(0, 6, (size, size, 1))
        pixels = pixels * (1 - cover[..., None]) + shade * cover[..., None]
        visible = [(kind, other & ~mask) for kind, other in visible]
        visible.append((category, mask))
    return pixels.clip(0, 255).astype(np.uint8), [_annotation(category + 1, mask) for category, mask in visible]


def _draw_shape(random: np.random.Generator, name: str, size: int) -> npt.NDArray[np.float32]:
    """Returns how much of each pixel the shape covers, float32 ``[size, size]`` in 0..1."""
    radius = random.uniform(0.09, 0.24) * size
    x, y = random.uniform(radius, size - radius, 2)
    turn = random.uniform(0, 2 * math.pi)
    canvas = Image.new("L", (size * _SCALE, size * _SCALE))
    draw = ImageDraw.Draw(canvas)
    if name == "circle":
        box = [value * _SCALE for value in (x - radius, y - radius, x + radius, y + radius)]
        draw.ellipse(box, fill=255)
    else:
        corners = 4 if name == "square" else 3
        angles = [turn + 2 * math.pi * corner / corners for corner in range(corners)]
        points = [((x + radius * math.cos(a)) * _SCALE, (y + radius * math.sin(a)) * _SCALE) for a in angles]
        draw.polygon(points, fill=255)
    cover = np.asarray(canvas.resize((size, size), Image.Resampling.BOX), dtype=np.float32)
    return (cover / 255).astype(np.float32)


def _annotation(category: int, mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    rle = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "category_id": category,
        "bbox": [float(value) for value in mask_api.toBbox(rle)],
        "area": float(mask_api.area(rle)),
        "iscrowd": 0,
        "segmentation": {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")},
    }
