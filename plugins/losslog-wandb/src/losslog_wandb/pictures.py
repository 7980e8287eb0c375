"""A sheet of images as W&B has it: the pictures, and over them boxes and masks that its page switches by class.

Runs on the plugin's lane. Contract:

- One sheet is one picture and at most two masks, whatever the number of images: files are few.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import wandb

    from losslog.detection.drawing import Sheet

KINDS: Final = ("truth", "predictions")
MOST: Final = 254  # classes a mask can tell apart


def overlaid(sheet: Sheet) -> wandb.Image:
    """The sheet."""
    import wandb

    numbers = {name: min(place, MOST) for place, name in enumerate(sheet.colours, start=1)}
    names = {number: name for name, number in numbers.items()}
    boxes: dict[str, Any] = {}
    masks: dict[str, Any] = {}
    for kind in KINDS:
        found = [_box(box, thing, numbers) for box, thing in sheet.boxes(kind)]
        if found:
            boxes[kind] = {"box_data": found, "class_labels": names}
        plane = sheet.mask(kind, numbers)
        if plane.any():
            masks[kind] = {"mask_data": plane, "class_labels": names}
    return wandb.Image(sheet.plain(), caption=sheet.title, boxes=boxes or None, masks=masks or None, file_type="jpg")


def _box(box: list[float], thing: Any, numbers: dict[str, int]) -> dict[str, Any]:
    x1, y1, x2, y2 = (float(value) for value in box)
    wrong = str(thing.get("mistake") or "").replace("_", " ")
    words = [thing["label"], f"{thing['score']:.2f}" if "score" in thing else "", wrong]
    found: dict[str, Any] = {
        "position": {"minX": x1, "minY": y1, "maxX": x2, "maxY": y2}, "domain": "pixel",
        "class_id": numbers[thing["label"]], "box_caption": " ".join(each for each in words if each),
    }  # fmt: skip
    return found | ({"scores": {"score": float(thing["score"])}} if "score" in thing else {})
