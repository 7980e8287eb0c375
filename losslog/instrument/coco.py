"""What pycocotools found, as plain numbers. Training thread, right after ``COCOeval.summarize``.

Contract:

- Figures are the evaluator's own ``stats``; -1 (there is no such ground truth) is left out.
- With other ``maxDets`` than pycocotools expects its first figure is -1: it is then computed from the precision table
  as pycocotools would, over the largest of them.
- An evaluator that was given only some of the categories (loops that score class by class) gives nothing.
"""

from __future__ import annotations

from typing import Any, Final

DETECTION: Final = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR{0}", "AR{1}", "AR{2}", "ARs", "ARm", "ARl")
KEYPOINTS: Final = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")


def figures(evaluator: Any) -> dict[str, Any] | None:
    """Numbers by name, per-class AP under ``classes``; None where the evaluator scored a subset of the categories."""
    params = evaluator.params
    if params.useCats and set(params.catIds) != set(evaluator.cocoGt.getCatIds()):
        return None
    stats = [float(value) for value in evaluator.stats]
    limits = [*params.maxDets, *params.maxDets[-1:] * 3]
    names = [name.format(*limits) for name in (KEYPOINTS if params.iouType == "keypoints" else DETECTION)]
    found: dict[str, Any] = dict(zip(names, stats, strict=False))
    precision = evaluator.eval["precision"]
    if found["AP"] < 0:
        found["AP"] = _mean(precision[:, :, :, 0, -1])
    found = {name: value for name, value in found.items() if value > -1}
    classes = _classes(evaluator, precision) if params.useCats else {}
    return found | ({"classes": classes} if classes else {})


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
