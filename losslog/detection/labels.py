"""A sheet of the first training images as the model gets them: after augmentation, with the targets that go with them.

Training thread, before the first step; pixels go into the run folder as thumbnails. Contract:

- Images are taken as the loader gave them: tensors ``[3, H, W]`` or a batch of them, 0 to 1, 0 to 255, or normalised
  (then each is spread over what it has).
- Nothing of the batch is changed or kept.
- What cannot be right in many of the boxes and masks is an alert too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from losslog.detection.drawing import Pixels
from losslog.detection.faults import faults
from losslog.detection.predictions import array, identity, named, things
from losslog.detection.thumbnails import FOLDER, write
from losslog.values.pictures import OBJECTS

if TYPE_CHECKING:
    from losslog.run import Run

IMAGES: Final = 10


def log(run: Run, batches: Sequence[Any], dataset: Any = None) -> bool:
    """Log what is in these batches.

    Args:
        run: where to log.
        batches: ``(images, targets)`` each, or dicts of ``pixel_values`` and ``labels``.
        dataset: names the classes, where it can.

    Returns:
        Whether there was something to log.

    Raises:
        OSError: the run folder cannot be written to.
        TypeError, ValueError: a target is none.
    """
    found: list[dict[str, Any]] = []
    names = names_of(dataset)
    for picture, target in (pair for batch in batches for pair in pairs(batch)):
        if len(found) < IMAGES:
            found.append(_image(run, len(found), picture, target, names))
    if found:
        told = faults(found)
        for image in found:
            image["truth"] = [each for each in image["truth"] if np.isfinite(each["box"]).all()]
        run.log_images("train", found, name="labels")
        for each in told:
            text = f"{each.text} The first images are drawn as train labels."
            run.alert(f"Targets: {each.title}", text, key=f"targets/{each.kind}", source="losslog")
    return bool(found)


def pairs(batch: Any) -> list[tuple[Any, Mapping[str, Any]]]:
    """Images and targets of a detection batch; [] where it is another kind."""
    if isinstance(batch, Mapping):
        images, targets = batch.get("pixel_values"), batch.get("labels")
    elif isinstance(batch, list | tuple) and len(batch) == 2:
        images, targets = batch
    else:
        return []
    if images is None or not isinstance(targets, list | tuple) or not targets:
        return []
    known = all(isinstance(each, Mapping) and ("boxes" in each or "masks" in each) for each in targets)
    return list(zip(images, targets, strict=False)) if known else []


def _image(run: Run, place: int, picture: Any, target: Mapping[str, Any], names: Any) -> dict[str, Any]:
    pixels = to_pixels(array(picture))
    height, width = pixels.shape[:2]
    target, left_out = _cut(target)
    truth = things(target, f"targets[{place}]", height, width, 0.5, scored=False)
    for thing in truth:
        thing["label"] = named(names, thing.pop("category_id"))
        thing.pop("bbox")
    small = f"{FOLDER}/labels_{place:02d}.jpg"
    write(pixels, run.dir, small)
    image = {"id": identity(target, place), "thumbnail": small, "width": width, "height": height, "truth": truth}
    return image | ({"left_out": {"objects": left_out}} if left_out else {})


def _cut(target: Mapping[str, Any]) -> tuple[Mapping[str, Any], int]:
    """A target with as many objects as a record takes, before anything is made of its masks; and how many had to go."""
    many = max((len(target[key]) for key in ("boxes", "masks") if target.get(key) is not None), default=0)
    if many <= OBJECTS:
        return target, 0
    cut = {key: value[:OBJECTS] if hasattr(value, "__len__") and not isinstance(value, str) and len(value) == many
           else value for key, value in target.items()}  # fmt: skip
    return cut, many - OBJECTS


def to_pixels(values: Any) -> Pixels:
    """An image of any of these kinds as 8-bit RGB, ``[H, W, 3]``.

    Raises:
        ValueError: it has no such shape.
    """
    if values.ndim == 2:
        values = values[None]
    if values.ndim != 3 or not values.size:
        raise ValueError(f"an image of shape {values.shape}: pass [3, height, width]")
    if values.shape[2] not in (1, 3, 4) or values.shape[0] < values.shape[2]:
        values = values.transpose(1, 2, 0)
    values = values[..., :3] if values.shape[2] >= 3 else values[..., :1].repeat(3, axis=2)
    if values.dtype == np.uint8:
        return np.ascontiguousarray(values)
    values = np.nan_to_num(values.astype(np.float32))
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1.001:
        values = values * 255
    elif low < 0 or high > 255.5:
        values = (values - low) * (255 / max(high - low, 1e-9))
    found: Pixels = np.clip(values, 0, 255).round().astype(np.uint8)
    return found


def names_of(dataset: Any) -> dict[int, str] | None:
    """Class names by label, from what data sets have: losslog's categories, pycocotools' index, a list of classes."""
    for _ in range(5):  # wrappers
        if dataset is None:
            return None
        categories: Any = getattr(dataset, "categories", None)
        if hasattr(categories, "to_id"):
            return {label: str(categories.names[key]) for label, key in categories.to_id.items()}
        known = getattr(getattr(dataset, "coco", None), "cats", None)
        if isinstance(known, Mapping):
            return {label: str(each.get("name", label)) for label, each in known.items()}
        classes = getattr(dataset, "classes", None)
        if isinstance(classes, list | tuple):
            return {label: str(each) for label, each in enumerate(classes)}
        dataset = getattr(dataset, "dataset", getattr(dataset, "_dataset", None))
    return None
