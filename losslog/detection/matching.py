"""What an evaluation found in each image: which detection is which object, as COCO decides. Training thread.

Contract:

- Overlaps are those that the evaluator has computed (pycocotools' or faster_coco_eval's); nothing is measured twice.
- A match is COCO's own at an overlap of .5: the best detection first, each takes the object that it overlaps most, and
  crowds take any number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

THRESHOLD: Final = 0.5

Numbers = npt.NDArray[np.float64]


@dataclass
class Seen:
    """One image of an evaluation.

    Attributes:
        image: the evaluator's id of it.
        truth: its annotations, crowds among them.
        found: the detections that count, by class, the best of each first.
        crowd: which of the truth are crowds.
        match: for each detection the place of its object in the truth, or -1.
        taken: for each of the truth the place of its detection, or -1.
        overlap: of each detection with its match, or 0.
    """

    image: Any
    truth: list[dict[str, Any]]
    found: list[dict[str, Any]]
    crowd: npt.NDArray[np.bool_]
    match: npt.NDArray[np.int64]
    taken: npt.NDArray[np.int64]
    overlap: Numbers
    kinds: list[str | None] = field(default_factory=list)  # of each detection, see `losslog.detection.mistakes`
    aims: list[int] = field(default_factory=list)  # of each detection that is one: the object it was meant for, or -1
    missed: list[bool] = field(default_factory=list)  # of each of the truth

    @property
    def ignored(self) -> npt.NDArray[np.bool_]:
        """Detections that are a crowd's, and count neither way."""
        if not len(self.truth):
            return np.zeros(len(self.found), bool)
        return (self.match >= 0) & self.crowd[self.match]


def seen_by(scorer: Any) -> list[Seen] | None:
    """What a `COCOeval` saw, image by image; None where it did not match by category, boxes or masks.

    Args:
        scorer: after ``evaluate()``.
    """
    params = scorer.params
    known = params.useCats and params.iouType in ("bbox", "segm") and "all" in params.areaRngLbl
    if not known or not getattr(scorer, "ious", None) or getattr(scorer, "lvis_style", False):
        return None
    truth, found = scorer.cocoGt.imgToAnns, scorer.cocoDt.imgToAnns
    most, categories = params.maxDets[-1], sorted(set(params.catIds))
    return [
        _image(image, truth.get(image, []), found.get(image, []), categories, most, scorer.ious)
        for image in dict.fromkeys(params.imgIds)
    ]


def _image(
    image: Any, truth: Sequence[Any], found: Sequence[Any], categories: Sequence[Any], most: int, overlaps: Any
) -> Seen:
    wanted = set(categories)
    own = [each for each in truth if each["category_id"] in wanted]
    crowd = np.array([bool(each.get("iscrowd")) for each in own], bool)
    seen = Seen(image, own, [], crowd, np.empty(0, np.int64), np.full(len(own), -1), np.empty(0))
    matches: list[int] = []
    values: list[float] = []
    by_class: dict[Any, list[Any]] = {}
    for each in found:
        by_class.setdefault(each["category_id"], []).append(each)
    for category in sorted(by_class.keys() & wanted):
        mine = by_class[category]
        order = np.argsort([-each["score"] for each in mine], kind="mergesort")[:most]
        places = [place for place, each in enumerate(own) if each["category_id"] == category]
        table = np.asarray(overlaps.get((image, category), ()), np.float64).reshape(len(order), -1)
        for row, value in _greedy(table, crowd[places]):
            matches.append(places[row] if row >= 0 else -1)
            values.append(value)
        seen.found += [mine[place] for place in order]
    seen.match, seen.overlap = np.array(matches, np.int64), np.array(values)
    for place, match in enumerate(matches):
        if match >= 0 and not crowd[match]:
            seen.taken[match] = place
    return seen


def _greedy(table: Numbers, crowd: npt.NDArray[np.bool_]) -> list[tuple[int, float]]:
    """For each row, best first: the column that it gets, and their overlap."""
    found: list[tuple[int, float]] = []
    crowds = crowd.tolist()
    free = [not each for each in crowds]
    for row in table.tolist() if crowds else [[]] * len(table):
        near = [(value, place) for place, value in enumerate(row) if value >= THRESHOLD]
        # An object goes before a crowd; of equals the last, as COCO takes them.
        best = max((each for each in near if free[each[1]]), default=None)
        best = best or max((each for each in near if crowds[each[1]]), default=(0.0, -1))
        if best[1] >= 0:
            free[best[1]] = False
        found.append((best[1], best[0]))
    return found


def match(seen: Seen, table: Numbers) -> None:
    """Match one image by hand: ``table`` has the overlap of each detection with each of the truth.

    The detections are taken by their scores within a class, in the order they stand in.
    """
    seen.match, seen.overlap = np.full(len(seen.found), -1), np.zeros(len(seen.found))
    seen.taken = np.full(len(seen.truth), -1)
    labels = np.array([each["category_id"] for each in seen.truth])
    for category in {each["category_id"] for each in seen.found}:
        rows = [place for place, each in enumerate(seen.found) if each["category_id"] == category]
        rows.sort(key=lambda place: -seen.found[place]["score"])
        columns = np.flatnonzero(labels == category) if len(labels) else np.empty(0, np.int64)
        for row, (column, value) in zip(rows, _greedy(table[rows][:, columns], seen.crowd[columns]), strict=True):
            if column >= 0:
                seen.match[row], seen.overlap[row] = columns[column], value
                if not seen.crowd[columns[column]]:
                    seen.taken[columns[column]] = row
