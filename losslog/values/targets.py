"""What a batch's targets tell when its loss is not finite: which images, and what is wrong with their boxes.

`Targets.keep` runs on the training thread, `Targets.describe` on the drain thread. Contract:

- Of the last few batches boxes and labels are kept, of more of them ids, by reference: nothing is copied or waited for,
  and masks, which can take a gigabyte in so many batches, are let go.
- Targets are read only when a loss was not finite, and ids where a loss is among an epoch's highest: dicts with
  ``image_id``, ``boxes`` (N x 4, xyxy, pixels), ``labels`` and, where known, ``size`` or ``orig_size`` (height, width),
  as torchvision's and DETR's data sets have them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from losslog.runtime.containment import attempt

KEPT: Final = 32  # batches; the drain asks 0.2 s later at most, and by then a fast loop is some batches further
FIELDS: Final = ("image_id", "file_name", "boxes", "labels", "size", "orig_size")
NAMED: Final = 1024  # batches whose image ids are kept: each may turn out to be among an epoch's hardest
NAMES: Final = frozenset({"image_id", "file_name"})
SHOWN: Final = 8  # images named in one alert
WIDEST: Final = 1 << 63  # whole numbers beyond have no place in 64 bits, so not in every reader
Target = dict[str, Any]


class Targets:
    """The targets of the last batches."""

    def __init__(self) -> None:
        self._kept: deque[tuple[int, list[Target]]] = deque(maxlen=KEPT)
        self._names: deque[tuple[int, list[Any]]] = deque(maxlen=NAMED)

    def keep(self, step: int, targets: Any) -> None:
        """Remember a batch's targets for a while."""
        each = [targets] if isinstance(targets, Mapping) else targets
        if isinstance(each, list | tuple) and all(isinstance(one, Mapping) for one in each):
            found = picked(each)
            self._kept.append((step, found))
            self._names.append((step, [one.get("image_id", one.get("file_name")) for one in found]))

    def images(self, step: int) -> list[int | str]:
        """Image ids of the batch of a step; [] where nothing is known."""
        for kept, names in list(self._names):
            if kept == step:
                return attempt(_ids, names)[0] or []
        return []

    def describe(self, step: int) -> str:
        """Image ids and bad boxes of the batch of a step, as one sentence; "" where nothing is known."""
        for kept, targets in list(self._kept):
            if kept == step:
                text, error = attempt(_describe, targets)
                return text if error is None and text else ""
        return ""


def picked(targets: Iterable[Mapping[str, Any]]) -> list[Target]:
    """What is kept of targets."""
    return [{key: one[key] for key in FIELDS if key in one} for one in targets]


def _ids(names: list[Any]) -> list[int | str]:
    found = [one for name in map(_one, names) for one in (name if isinstance(name, list) else [name])]
    return [*dict.fromkeys(image_id(one) for one in found if type(one) in (int, str))]


def image_id(value: int | str) -> int | str:
    """An image's id as a record has it: a whole number of more than 64 bits becomes text."""
    if not isinstance(value, int) or -WIDEST <= value < WIDEST:
        return value
    return str(value) if value.bit_length() < 4096 else hex(value)  # Python refuses to write very long ones


def _describe(targets: list[Target]) -> str:
    words = []
    for target in targets[:SHOWN]:
        name = image_id(_one(target.get("image_id", target.get("file_name", "?"))))
        faults = _faults(target)
        words.append(f"{name} ({', '.join(faults)})" if faults else f"{name}")
    return f"Images: {'; '.join(words)}." if words else ""


def _faults(target: Mapping[str, Any]) -> list[str]:
    boxes, labels = _plain(target.get("boxes", [])), _plain(target.get("labels", []))
    size = _plain(target.get("size", target.get("orig_size"))) or [float("inf"), float("inf")]
    height, width = size[-2], size[-1]
    found = []
    for index, box in enumerate(boxes):
        x1, y1, x2, y2 = box
        if not all(abs(value) < float("inf") for value in box):
            found.append(f"box {index} is not finite: {box}")
        elif x2 < x1 or y2 < y1:
            found.append(f"box {index} has negative size: {box}")
        elif x2 == x1 or y2 == y1:
            found.append(f"box {index} has no area: {box}")
        elif x1 < 0 or y1 < 0 or x2 > width or y2 > height:
            found.append(f"box {index} lies outside the image: {box}")
    found += [f"label {label} of box {index} is not above 0" for index, label in enumerate(labels) if label < 1]
    return found[:SHOWN] + (["..."] if len(found) > SHOWN else [])


def _plain(value: Any) -> Any:
    """Tensors and arrays as lists and numbers."""
    read = getattr(value, "tolist", None)
    return value if read is None else read()


def _one(value: Any) -> Any:
    """A number, also where it came as a list of one."""
    value = _plain(value)
    return value[0] if isinstance(value, list) and len(value) == 1 else value
