"""What pycocotools, or faster_coco_eval in its place, found, as plain numbers. Training thread, within ``summarize``.

Contract:

- Figures are the evaluator's own ``stats``; -1 (there is no such ground truth) is left out.
- With other ``maxDets`` than pycocotools expects its first figure is -1: it is then computed from the precision table
  as pycocotools would, over the largest of them.
- An evaluator that was given only some of the categories (loops that score class by class) gives nothing.
"""

from __future__ import annotations

from typing import Any, Final

SIZES: Final = {"small": "s", "medium": "m", "large": "l"}
KEYPOINTS: Final = {
    "keypoints": ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl"),
    "keypoints_crowd": ("AP", "AP50", "AP75", "AR", "AR50", "AR75", "APeasy", "APmedium", "APhard"),
}


def figures(evaluator: Any) -> dict[str, Any] | None:
    """Numbers by name, per-class AP under ``classes``; None where the evaluator scored a subset of the categories."""
    params = evaluator.params
    if params.useCats and set(params.catIds) != set(evaluator.cocoGt.getCatIds()):
        return None
    stats = [float(value) for value in evaluator.stats]
    rare = [float(value) for value in evaluator.all_stats[-3:]] if getattr(evaluator, "lvis_style", False) else []
    names = KEYPOINTS.get(params.iouType) or _names(params, len(stats))
    found: dict[str, Any] = dict(zip(names, stats, strict=False)) | dict(zip(("APr", "APc", "APf"), rare, strict=False))
    found.pop("", None)
    precision = evaluator.eval["precision"]
    if found["AP"] < 0:
        found["AP"] = _mean(precision[:, :, :, 0, -1])
    found = {name: value for name, value in found.items() if value > -1}
    classes = _classes(evaluator, precision) if params.useCats else {}
    return found | ({"classes": classes} if classes else {})


def _names(params: Any, count: int) -> list[str]:
    """Names of ``stats`` for boxes and masks: faster_coco_eval has as many as there are ranges of size and limits."""
    sizes = [SIZES.get(label, f"_{label}") for label in params.areaRngLbl[1:]]
    limits = [f"AR{limit}" for limit in params.maxDets]
    limits += [""] * (count - 3 - 2 * len(sizes) - len(limits))  # LVIS keeps three places, whatever the limits
    names = ["AP", "AP50", "AP75", *(f"AP{size}" for size in sizes), *limits, *(f"AR{size}" for size in sizes)]
    return names if len(names) == count else names[:3]


def _classes(evaluator: Any, precision: Any) -> dict[str, float]:
    known = evaluator.cocoGt.cats
    found = {}
    for index, category in enumerate(evaluator.params.catIds):
        value = _mean(precision[:, :, index, 0, -1])
        if value > -1:
            found[str(known.get(category, {}).get("name", category))] = value
    return found


def _mean(table: Any) -> float:
    valid = table[table > -1]
    return float(valid.mean()) if valid.size else -1.0
