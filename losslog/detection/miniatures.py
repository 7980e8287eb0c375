"""Images of a run in little, for a page that draws them itself: small pictures once an image, objects at every epoch.

Any thread; reads pictures, writes nothing; no torch. Contract:

- The size is bounded by `LIMIT`: the newest epochs go first, then the first, then what is between; what does not fit is
  left out whole.
- A mask is sampled at the size of the small picture and coded as run lengths again.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from PIL import Image

from losslog.detection.chips import colours
from losslog.detection.drawing import Sheet, caption, encoded
from losslog.values.pictures import compress

SIDE: Final = 176
LIMIT: Final = 1_100_000  # characters


def miniatures(sets: Mapping[str, Sequence[Mapping[str, Any]]], limit: int = LIMIT) -> dict[str, Any]:
    """What a page needs.

    Args:
        sets: data of ``on_images`` by a name, in order, with ``path`` and ``thumbnail`` as they may be read here.
        limit: characters of JSON.

    Returns:
        ``sets`` (name: [[epoch, images]]), ``pictures`` (data addresses by key), ``labels`` and their ``colours``.
    """
    known = colours(thing["label"] for all_of in sets.values() for data in all_of for image in data.get("images") or ()
                    for key in ("truth", "predictions") for thing in image.get(key) or ())  # fmt: skip
    made: dict[str, Any] = {"sets": {name: [] for name in sets}, "pictures": {}, "labels": list(known),
                            "colours": [list(each) for each in known.values()]}  # fmt: skip
    order = [(place, name, data) for name, all_of in sets.items() for place, data in enumerate(reversed(all_of))]
    last = {name: len(all_of) - 1 for name, all_of in sets.items()}
    order.sort(key=lambda each: (0 if each[0] == 0 else 1 if each[0] == last[each[1]] else 2, each[0]))
    left = limit
    for _, name, data in order:
        images, pictures = _record(data, made)
        cost = len(json.dumps(images)) + sum(len(each) for each in pictures.values())
        if cost > left:
            continue
        left -= cost
        made["pictures"] |= pictures
        made["sets"][name].append([int(data.get("epoch") or 0), images])
    for found in made["sets"].values():
        found.sort(key=lambda each: each[0])
    made["sets"] = {name: found for name, found in made["sets"].items() if found}
    return made


def _record(data: Mapping[str, Any], made: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    found: list[dict[str, Any]] = []
    pictures: dict[str, str] = {}
    for image in data.get("images") or ():
        sheet = Sheet([image], both=False, side=SIDE)
        pixels, readable = sheet.first()
        key = f"{image.get('path') or image.get('thumbnail')}"
        if readable and key not in made["pictures"]:
            address = base64.b64encode(encoded(Image.fromarray(pixels), 70)).decode("ascii")
            pictures[key] = f"data:image/jpeg;base64,{address}"
        entry: dict[str, Any] = {"c": caption(image), "w": pixels.shape[1], "h": pixels.shape[0]}
        entry |= {"p": key} if readable else {}
        for kind, short in (("truth", "t"), ("predictions", "f")):
            entry[short] = [_thing(sheet, image, thing, pixels.shape, made) for thing in image.get(kind) or ()]
        found.append(entry)
    return found, pictures


def _thing(
    sheet: Sheet, image: Mapping[str, Any], thing: Mapping[str, Any], shape: Sequence[int], made: dict[str, Any]
) -> list[Any]:
    down, across, mask = sheet.small_mask(image, thing, shape)
    text = ""
    if mask.any():
        plane = np.zeros(tuple(shape[:2]), bool)
        plane[down, across] = mask
        flat = plane.flatten(order="F")
        edges = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
        text = compress(([0] if flat[0] else []) + np.diff(edges).tolist())
    score = round(float(thing["score"]), 2) if "score" in thing else None
    box = [round(value) for value in sheet.small_box(image, thing, shape)]
    return [box, made["labels"].index(thing["label"]), score, thing.get("mistake"), text]
