"""What a loop hands over as images becomes plain data of a bounded size: boxes, labels and run-length masks, no pixels.

Training thread, no I/O. Contract:

- What is no image is refused, with the path of the offender: ``images[0]['truth'][2]['box']``.
- `LIMITS` hold whatever comes; what had to go is counted in the image's ``left_out``, and told.
- A mask stays what it is, to the pixel: it is kept whole, or left out whole.
- Boxes are rounded to a hundredth of a pixel, scores and overlaps to four digits.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from losslog.runtime.containment import encodable
from losslog.runtime.notices import did_you_mean
from losslog.values.targets import image_id

IMAGES: Final = 16  # of one record
OBJECTS: Final = 100  # of truth, and of predictions, of one image
BYTES: Final = 85_000  # of a record, for each eight images
LARGEST: Final = 1 << 20  # pixels of a side
FARTHEST: Final = 1e9  # what a number may not reach
TEXT: Final = 100  # characters of a label or an id
LONGEST: Final = 1000  # characters of a path
_COUNTS: Final = re.compile(r"[0-o]+")  # what pycocotools writes: six bits a character
_ABOUT_OBJECT: Final = ("box", "label", "score", "rle", "mistake", "iou")
_ABOUT_IMAGE: Final = ("id", "path", "width", "height", "loss", "missed", "extra", "iou", "truth", "predictions",
                       "mistakes", "thumbnail", "left_out", "turned")  # fmt: skip


def pictures(images: Any) -> tuple[list[dict[str, Any]], str]:
    """Images as a record has them, and what had to go.

    Args:
        images: a list of dicts; see `losslog.values.picture.Picture`. Numbers may be tensors, arrays or numpy scalars.

    Raises:
        TypeError, ValueError: something is not what it may be; the message names it.
    """
    if isinstance(images, str | bytes | Mapping) or not isinstance(images, Sequence):
        raise TypeError(f"images must be a list of dicts, one an image, got {type(images).__name__}")
    found = [_picture(each, f"images[{place}]") for place, each in enumerate(images[:IMAGES])]
    told = [f"{len(images) - IMAGES} of {len(images)} images"] if len(images) > IMAGES else []
    _fit(found, BYTES * -(-len(found) // 8))
    for what in ("objects", "masks"):
        count = sum(each.get("left_out", {}).get(what, 0) for each in found)
        told += [f"{count} {what}"] if count else []
    return found, " and ".join(told)


def compress(runs: Sequence[int]) -> str:
    """Run lengths as text, as pycocotools has it: differences to the last but one, five bits a character."""
    text = []
    for place, run in enumerate(runs):
        rest = run - runs[place - 2] if place > 2 else run
        while True:
            bits, rest = rest & 31, rest >> 5
            more = rest != (-1 if bits & 16 else 0)
            text.append(chr(48 + bits + 32 * more))
            if not more:
                break
    return "".join(text)


def _picture(image: Any, path: str) -> dict[str, Any]:
    _check_keys(image, path, _ABOUT_IMAGE)
    for key in ("id", "width", "height"):
        if image.get(key) is None:
            raise ValueError(f"{path} has no {key!r}")
    size = [_whole(image[key], f"{path}[{key!r}]", 1, LARGEST) for key in ("height", "width")]
    found: dict[str, Any] = {"id": _name(image["id"], f"{path}['id']"), "path": _path(image.get("path"), path)}
    found |= {"width": size[1], "height": size[0]}
    if image.get("thumbnail") is not None:
        found["thumbnail"] = _path(image["thumbnail"], path)
    if image.get("loss") is not None:
        found["loss"] = _losses(image["loss"], f"{path}['loss']")
    if image.get("turned") is not None:
        if not isinstance(image["turned"], bool):
            raise TypeError(f"{path}['turned'] must be True or False, got {type(image['turned']).__name__}")
        found["turned"] = image["turned"]
    for key in ("missed", "extra"):
        if image.get(key) is not None:
            found[key] = _whole(image[key], f"{path}[{key!r}]", 0, 1 << 31)
    if image.get("iou") is not None:
        found["iou"] = _share(image["iou"], f"{path}['iou']")
    if image.get("mistakes"):
        _check_keys(image["mistakes"], f"{path}['mistakes']", None)
        found["mistakes"] = {
            _text(kind): _whole(count, f"{path}['mistakes'][{kind!r}]", 0, 1 << 31)
            for kind, count in image["mistakes"].items()
        }
    lost = 0
    for key in ("truth", "predictions"):
        things = _listed(image.get(key) or [], f"{path}[{key!r}]")
        made = [_thing(each, f"{path}[{key!r}][{place}]", size, key) for place, each in enumerate(things)]
        if len(made) > OBJECTS:
            lost += len(made) - OBJECTS
            made = sorted(made, key=lambda each: -each.get("score", 0.0))[:OBJECTS]
        found[key] = made
    before = image.get("left_out") or {}
    if lost or before:
        _check_keys(before, f"{path}['left_out']", ("objects", "masks"))
        known = {key: _whole(value, f"{path}['left_out'][{key!r}]", 0, 1 << 31) for key, value in before.items()}
        found["left_out"] = known | ({"objects": known.get("objects", 0) + lost} if lost else {})
    return found


def _thing(thing: Any, path: str, size: list[int], kind: str) -> dict[str, Any]:
    _check_keys(thing, path, _ABOUT_OBJECT)
    needed = ("box", "label", "score") if kind == "predictions" else ("box", "label")
    for key in needed:
        if thing.get(key) is None:
            raise ValueError(f"{path} has no {key!r}")
    box = [_number(each, f"{path}['box']") for each in _listed(thing["box"], f"{path}['box']")]
    if len(box) != 4:
        raise ValueError(f"{path}['box'] has {len(box)} numbers: pass x1, y1, x2, y2 in pixels")
    found: dict[str, Any] = {"box": [round(each, 2) for each in box]}
    found["label"] = _text(_name(thing["label"], f"{path}['label']"))
    for key in ("score", "iou"):
        if thing.get(key) is not None:
            found[key] = _share(thing[key], f"{path}[{key!r}]")
    if thing.get("rle") is not None:
        found["rle"] = _rle(thing["rle"], f"{path}['rle']", size)
    if thing.get("mistake"):
        found["mistake"] = _text(thing["mistake"])
    return found


def _rle(value: Any, path: str, size: list[int]) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{path} must be a COCO RLE, {{'size': [height, width], 'counts': ...}}, got "
                        f"{type(value).__name__}; losslog.detection.images_of makes them of masks")  # fmt: skip
    _check_keys(value, path, ("size", "counts"))
    own = [_whole(each, f"{path}['size']", 1, LARGEST) for each in _listed(value.get("size") or [], f"{path}['size']")]
    if own != size:
        raise ValueError(f"{path}['size'] is {own}, the image's height and width are {size}")
    counts = value.get("counts")
    if isinstance(counts, bytes):
        counts = counts.decode("ascii", "replace")
    elif counts is not None and not isinstance(counts, str):
        runs = [_whole(each, f"{path}['counts']", 0, 1 << 40) for each in _listed(counts, f"{path}['counts']")]
        if sum(runs) != size[0] * size[1]:
            raise ValueError(f"{path}['counts'] adds up to {sum(runs)}, not to {size[0]} x {size[1]} pixels")
        counts = compress(runs)
    if not counts or not _COUNTS.fullmatch(counts):
        raise ValueError(f"{path}['counts'] is no COCO run lengths: pass what pycocotools.mask.encode gives")
    return {"size": size, "counts": counts}


def _fit(images: list[dict[str, Any]], limit: int) -> None:
    """Leave out masks, then objects, of the lowest scores first and of the truth last, until the record fits."""
    size = sum(len(json.dumps(each)) for each in images)
    if size <= limit:
        return
    size += 50 * len(images)  # for what will be said of them
    order = [(thing.get("score", 2.0), image, key, thing)
             for image in images for key in ("truth", "predictions") for thing in image[key]]  # fmt: skip
    order.sort(key=lambda each: each[0])
    for what in ("masks", "objects"):
        for _, image, key, thing in order:
            if size <= limit:
                return
            if what == "masks":
                gone = thing.pop("rle", None)
                if gone is None:
                    continue
            else:
                gone = thing
                image[key] = [each for each in image[key] if each is not thing]
            size -= len(json.dumps(gone)) + (9 if what == "masks" else 2)  # with its key or comma
            lost = image.setdefault("left_out", {})
            lost[what] = lost.get(what, 0) + 1


def _check_keys(value: Any, path: str, known: tuple[str, ...] | None) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{path} must be a dict, got {type(value).__name__}")
    for key in value:
        if not isinstance(key, str):
            raise TypeError(f"{path}: keys must be strings, got {key!r:.60}")
        if known is not None and key not in known:
            raise ValueError(f"{path} has no {key!r:.60}{did_you_mean(key, known)}: there are {', '.join(known)}")


def _plain(value: Any, method: str) -> Any:
    """Of a tensor, an array or a numpy scalar what ``item`` or ``tolist`` gives."""
    read = getattr(value, method, None)
    return value if read is None else read()


def _listed(value: Any, path: str) -> list[Any]:
    found = _plain(value, "tolist")
    if isinstance(found, str | bytes) or not isinstance(found, Sequence):
        raise TypeError(f"{path} must be a list, got {type(value).__name__}")
    return list(found)


def _number(value: Any, path: str) -> float:
    found = _plain(value, "item")
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise TypeError(f"{path} must be a number, got {type(value).__name__}")
    if not abs(found) < FARTHEST:
        shown = f"{found:g}" if isinstance(found, float) else hex(found)[:20] if abs(found) > 1e18 else f"{found}"
        raise ValueError(f"{path} is {shown}: pass a number between -{FARTHEST:,.0f} and {FARTHEST:,.0f}")
    return float(found)


def _share(value: Any, path: str) -> float:
    found = _number(value, path)
    if not -1e-6 <= found <= 1 + 1e-6:
        raise ValueError(f"{path} is {found:g}: pass a number from 0 to 1")
    return round(min(1.0, max(0.0, found)), 4)


def _whole(value: Any, path: str, least: int, most: int) -> int:
    found = _number(value, path)
    if found != int(found) or not least <= found <= most:
        raise ValueError(f"{path} is {found:g}: pass a whole number from {least} to {most:,}")
    return int(found)


def _losses(value: Any, path: str) -> dict[str, float]:
    named = value if isinstance(value, Mapping) else {"loss": value}
    found = {}
    for name, each in named.items():
        plain = _plain(each, "item")
        if isinstance(plain, bool) or not isinstance(plain, int | float):
            raise TypeError(f"{path}[{name!r:.60}] must be a number, got {type(each).__name__}")
        if math.isfinite(plain):  # an alert tells of the others
            found[_text(name)] = float(f"{plain:.6g}")
    return found


def _name(value: Any, path: str) -> int | str:
    found = _plain(value, "item")
    if isinstance(found, bool) or not isinstance(found, int | str):
        raise TypeError(f"{path} must be a text or a whole number, got {type(value).__name__}")
    found = image_id(found)
    return found if isinstance(found, int) else _text(found)


def _text(value: Any) -> str:
    text = encodable(str(value))
    return text if len(text) <= TEXT else text[: TEXT - 3] + "..."


def _path(value: Any, path: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{path}['path'] must be a path, got {type(value).__name__}")
    text = encodable(os.fsdecode(value))
    if len(text) > LONGEST:
        raise ValueError(f"{path}['path'] has {len(text)} characters: more than {LONGEST}")
    return text
