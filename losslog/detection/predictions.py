"""`images_of`: what a model gives and what it should give, as `losslog.Run.log_images` takes it. Training thread.

Contract:

- Tensors may be on any device, arrays and lists do too; nothing of the caller's is changed.
- Masks become run lengths, to the pixel; a mask of probabilities is cut at ``threshold``.
- Mistakes are named as `losslog.detection.mistakes` names them, from boxes matched at an overlap of .5.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from losslog.detection.evaluated import MOST, SURE
from losslog.detection.matching import Seen, match
from losslog.detection.mistakes import box_overlaps, classify
from losslog.runtime.notices import Once

_NAMES: Final = ("labels", "class_labels", "label_ids")
_once: Final = Once()
MATCHED: Final = 1000  # predictions of an image that are matched, and twice as many as there are objects
_SIZES: Final = ("orig_size", "original_size", "size")


def images_of(
    predictions: Sequence[Mapping[str, Any]],
    targets: Sequence[Mapping[str, Any]] | None = None,
    paths: Sequence[str | os.PathLike[str]] | None = None,
    *,
    names: Mapping[int, str] | Sequence[str] | None = None,
    sizes: Sequence[Sequence[int]] | None = None,
    score: float = SURE,
    threshold: float = 0.5,
) -> list[dict[str, Any]]:
    """Images for `losslog.Run.log_images`.

    Args:
        predictions: one an image: ``boxes`` (x1, y1, x2, y2 in pixels), ``labels``, ``scores`` and perhaps ``masks``,
            as torchvision's models give them, torchmetrics takes them, and transformers' post-processing gives them
            (also ``segmentation`` with ``segments_info``).
        targets: likewise, without scores; ``image_id`` names the image. Also DETR's: ``class_labels``, and boxes as
            centre and size in parts of ``orig_size``. Objects with ``iscrowd`` take any number of predictions.
        paths: the files.
        names: of the classes, by label.
        sizes: ``(height, width)`` of each image. None: that of its target (``orig_size``, ``size``), of its masks or of
            its file.
        score: predictions below it are matched, but neither shown nor mistakes; those whose box is not finite are
            left out. At most 30 are shown.
        threshold: a pixel belongs to a mask from this probability on.

    Raises:
        TypeError, ValueError: something is missing or does not fit; the message names it.
    """
    for what, given in (("targets", targets), ("paths", paths), ("sizes", sizes)):
        if given is not None and len(given) != len(predictions):
            raise ValueError(f"images_of: {len(given)} {what} for {len(predictions)} predictions")
    found = []
    for place, prediction in enumerate(predictions):
        target = None if targets is None else targets[place]
        path = None if paths is None else paths[place]
        size = None if sizes is None else sizes[place]
        found.append(_image(place, prediction, target, path, size, names, score, threshold))
    return found


def _image(
    place: int, prediction: Mapping[str, Any], target: Mapping[str, Any] | None, path: Any, size: Any, names: Any,
    score: float, threshold: float,
) -> dict[str, Any]:  # fmt: skip
    where = [f"predictions[{place}]", f"targets[{place}]"]
    for name, each in zip(where, (prediction, target or {}), strict=True):
        if not isinstance(each, Mapping):
            raise TypeError(f"images_of: {name} must be a dict, got {type(each).__name__}")
    height, width = _size(size, (prediction, target or {}), path, where[0])
    guessed = things(prediction, where[0], height, width, threshold, scored=True)
    truth = [] if target is None else things(target, where[1], height, width, threshold, scored=False)
    crowd = _crowds(target, where[1], len(truth))
    given = len(guessed)
    guessed = [each for each in guessed if np.isfinite(each["box"]).all() and np.isfinite(each["score"])]
    if lost := given - len(guessed):
        _once("images_of: %d boxes or scores of %s are not finite: such are left out", lost, where[0], key="finite")
    guessed = sorted(guessed, key=lambda each: -each["score"])[: max(MATCHED, 2 * len(truth))]
    image: dict[str, Any] = {
        "id": identity({**prediction, **(target or {})}, place),
        "path": path,
        "width": width,
        "height": height,
    }
    if target is None:
        sure = [each for each in guessed if each["score"] >= score]
    else:
        sure, told = _judged(guessed, truth, crowd, score)
        image |= told
    if len(sure) > MOST:
        image["left_out"] = {"objects": len(sure) - MOST}
    truth = [each for each, many in zip(truth, crowd, strict=True) if not many]
    for thing in (*sure[:MOST], *truth):
        label = thing.pop("category_id")
        thing["label"] = named(names, label)
        thing.pop("bbox")
    return image | {"truth": truth, "predictions": sure[:MOST]}


def _crowds(target: Mapping[str, Any] | None, name: str, count: int) -> npt.NDArray[np.bool_]:
    given = None if target is None else target.get("iscrowd")
    crowd = np.zeros(count, bool) if given is None else array(given).reshape(-1).astype(bool)
    if len(crowd) != count:
        raise ValueError(f"images_of: {name} has {len(crowd)} iscrowd and {count} labels")
    return crowd


def _judged(
    guessed: list[dict[str, Any]], truth: list[dict[str, Any]], crowd: npt.NDArray[np.bool_], score: float
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Name what is wrong with each of them; those that are sure and no crowd's, and what is told of the image."""
    none = np.empty(0)
    seen = Seen(None, truth, guessed, crowd, none.astype(np.int64), none.astype(np.int64), none)
    found, given = (np.array([each["bbox"] for each in some], np.float64).reshape(-1, 4) for some in (guessed, truth))
    table = box_overlaps(found, given, crowd)
    match(seen, table)
    classify(seen, table)
    ignored, sure = seen.ignored, []
    for place, thing in enumerate(guessed):
        if thing["score"] >= score and not ignored[place]:
            sure.append(thing)
            kind = seen.kinds[place]
            thing |= {"mistake": kind} if kind else {"iou": float(seen.overlap[place])}
    for thing, missed in zip(truth, seen.missed, strict=True):
        if missed:
            thing["mistake"] = "missed"
    kinds = [thing["mistake"] for thing in (*truth, *sure) if "mistake" in thing]
    overlaps = [thing["iou"] for thing in sure if "iou" in thing]
    return sure, {
        "missed": sum(seen.missed), "extra": sum(kind != "missed" for kind in kinds),
        "iou": sum(overlaps) / len(overlaps) if overlaps else None,
        "mistakes": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
    }  # fmt: skip


def identity(target: Mapping[str, Any], place: int) -> Any:
    """The image's id, or its place among others where a target has none."""
    found = array(() if target.get("image_id") is None else target["image_id"]).reshape(-1)
    return found[0].item() if found.size else place


def things(
    given: Mapping[str, Any], name: str, height: int, width: int, threshold: float, *, scored: bool
) -> list[dict[str, Any]]:
    """Objects as dicts with ``box``, ``bbox``, ``category_id`` and, where there are, ``score`` and ``rle``."""
    if "segments_info" in given:
        given = _segments(given)
    labels_key = next((key for key in _NAMES if key in given), None)
    if labels_key is None or (given.get("boxes") is None and given.get("masks") is None):
        raise ValueError(f"images_of: {name} has {', '.join(given) or 'nothing'}: it needs boxes and labels")
    labels = array(given[labels_key]).reshape(-1)
    masks = None if given.get("masks") is None else _masks(given["masks"])
    boxes = _boxes(given, name, labels_key, masks, threshold, height, width)
    scores = array(given["scores"]).astype(np.float64).reshape(-1) if scored and "scores" in given else None
    if scored and scores is None:
        raise ValueError(f"images_of: {name} has no 'scores'")
    for what, each in (("boxes", boxes), ("masks", masks), ("scores", scores)):
        if each is not None and len(each) != len(labels):
            raise ValueError(f"images_of: {name} has {len(each)} {what} and {len(labels)} labels")
    if masks is not None and len(masks) and masks.shape[1:] != (height, width):
        raise ValueError(f"images_of: the masks of {name} are {masks.shape[1:]}, the image is {(height, width)}")
    rles = [] if masks is None else [_encoded(_binary(each, threshold)) for each in masks]
    found = []
    for place, label in enumerate(labels.tolist()):
        x1, y1, x2, y2 = boxes[place].tolist()
        thing: dict[str, Any] = {"box": [x1, y1, x2, y2], "bbox": [x1, y1, x2 - x1, y2 - y1], "category_id": label}
        if scores is not None:
            thing["score"] = float(scores[place])
        if rles:
            thing["rle"] = rles[place]
        found.append(thing)
    return found


def _boxes(
    given: Mapping[str, Any], name: str, labels_key: str, masks: npt.NDArray[Any] | None, threshold: float, height: int,
    width: int,
) -> npt.NDArray[np.float64]:  # fmt: skip
    if given.get("boxes") is None:
        found = [_around(_binary(mask, threshold)) for mask in (() if masks is None else masks)]
        return np.array(found, np.float64).reshape(-1, 4)
    boxes = array(given["boxes"]).astype(np.float64)
    if boxes.size and boxes.shape[-1] != 4:
        raise ValueError(f"images_of: boxes of {name} have the shape {list(boxes.shape)}: pass [N, 4], x1, y1, x2, y2")
    boxes = boxes.reshape(-1, 4)
    in_parts = boxes.size > 0 and boxes.min() >= 0 and boxes.max() <= 1 and any(key in given for key in _SIZES)
    if labels_key == "class_labels" or in_parts:  # DETR's: centre and size, in parts of the image
        centre, half = boxes[:, :2], boxes[:, 2:] / 2
        boxes = np.concatenate([centre - half, centre + half], axis=1) * [width, height, width, height]
    return boxes


def _around(mask: npt.NDArray[Any]) -> list[float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return [0.0, 0.0, 0.0, 0.0]
    return [float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)]


def _segments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Instance segmentation of transformers: one map of ids, and what each id is; or a map for each."""
    segments, plan = given["segments_info"], given.get("segmentation")
    maps = np.zeros((0, 1, 1)) if plan is None else array(plan)
    masks = maps > 0.5 if maps.ndim == 3 else np.array([maps == each["id"] for each in segments])
    return {
        "masks": masks[: len(segments)], "labels": np.array([each["label_id"] for each in segments], np.int64),
        "scores": np.array([each.get("score", 1.0) for each in segments], np.float64),
    }  # fmt: skip


def _is_coded(masks: Any) -> bool:
    """Whether masks are dicts with ``size`` and ``counts``, as pycocotools makes them."""
    some = masks if isinstance(masks, list | tuple) else ()
    return bool(some) and all(isinstance(each, Mapping) and {"size", "counts"} <= each.keys() for each in some)


def _masks(value: Any) -> npt.NDArray[Any]:
    """All masks as they are: many of large images are not copied at once. Run lengths of COCO's are decoded."""
    if _is_coded(value):
        from pycocotools import mask as mask_api

        value = mask_api.decode([dict(each) for each in value]).transpose(2, 0, 1)
    masks = array(value)
    if not masks.size:
        return np.zeros((0, 1, 1), np.uint8)
    if masks.ndim == 4 and masks.shape[1] == 1:
        masks = masks[:, 0]
    if masks.ndim != 3:
        raise ValueError(f"images_of: masks of shape {masks.shape}: pass [N, height, width]")
    return masks


def _binary(mask: npt.NDArray[Any], threshold: float) -> npt.NDArray[np.uint8]:
    return (mask > threshold if mask.dtype.kind == "f" else mask != 0).view(np.uint8)


def _encoded(mask: npt.NDArray[np.uint8]) -> dict[str, Any]:
    from pycocotools import mask as mask_api

    rle = mask_api.encode(np.asfortranarray(mask))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def _size(size: Any, dicts: Sequence[Mapping[str, Any]], path: Any, name: str) -> tuple[int, int]:
    if size is None:
        size = next((each[key] for each in reversed(dicts) for key in _SIZES if each.get(key) is not None), None)
    if size is None:
        for each in dicts:
            masks: Any = each.get("masks") if each.get("masks") is not None else each.get("segmentation")
            shape = list(masks[0]["size"] if _is_coded(masks) else getattr(masks, "shape", ()))
            if len(shape) >= 2:
                size = shape[-2:]
    if size is None and path is not None and os.path.exists(path):
        from losslog.detection.images import opened

        with opened(path) as file:
            turned = file.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            size = file.size if turned else file.size[::-1]
    if size is None:
        there = "" if path is None else f" (there is no file {os.fspath(path)!r:.200} here)"
        raise ValueError(f"images_of: nothing says how large the image of {name} is{there}: pass sizes=[(height, "
                         "width), ...], or orig_size in its target")  # fmt: skip
    height, width = (int(side) for side in array(size).reshape(-1))
    return height, width


def named(names: Any, label: Any) -> str:
    """A label's name, or the label."""
    if names is None:
        return str(label)
    if isinstance(names, Mapping):
        return str(names.get(label, names.get(str(label), label)))
    return str(names[label]) if 0 <= int(label) < len(names) else str(label)


def array(value: Any) -> npt.NDArray[Any]:
    """Any tensor, array or list as an array in this process's memory."""
    for method in ("detach", "cpu"):
        value = getattr(value, method, lambda value=value: value)()
    if str(getattr(value, "dtype", "")).endswith("bfloat16"):  # numpy has none
        value = value.float()
    return np.asarray(value)
