"""What a detector gets wrong, by kind, and the average precision that each kind costs. Training thread.

Six kinds, their thresholds and what mends each are those of D. Bolya, S. Foley, J. Hays and J. Hoffman, TIDE: A General
Toolbox for Identifying Object Detection Errors (ECCV 2020, arXiv:2008.08115): Cls, Loc, Both, Dupe, Bkg, Miss. A
seventh, of masks whose boxes are right, is ours. Contract:

- A detection that is no match is of one kind; an object is missed where nothing matched it, nor was meant for it.
- The cost of a kind is AP at an overlap of .5 with it mended, less AP as it is: COCO's AP, of 101 points of recall, the
  mean over classes that have an object.
- An object that has a match keeps it: a detection that was meant for it goes where its kind is mended. Of all that
  were meant for a free one, of either kind, only the best becomes its match.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from losslog.detection.matching import THRESHOLD, Numbers, Seen

GROUND: Final = 0.1  # below this overlap a detection is meant for no object
WRONG_CLASS: Final = "wrong_class"
LOCALISATION: Final = "localisation"
BOTH: Final = "both"
DUPLICATE: Final = "duplicate"
EXTRA: Final = "extra"
MISSED: Final = "missed"
POOR_MASK: Final = "poor_mask"
KINDS: Final = (WRONG_CLASS, LOCALISATION, BOTH, DUPLICATE, EXTRA, MISSED)
_MOVED: Final = (WRONG_CLASS, LOCALISATION)  # what becomes a match where it is mended
_RECALLS: Final = np.linspace(0, 1, 101)


def box_overlaps(found: Numbers, truth: Numbers, crowd: npt.NDArray[np.bool_] | None = None) -> Numbers:
    """Overlap of each box with each other; boxes are x, y, width, height.

    With a crowd it is the part of the box found that lies in it, as COCO has it.
    """
    with np.errstate(invalid="ignore"):
        return _overlaps(found, truth, crowd)


def _overlaps(found: Numbers, truth: Numbers, crowd: npt.NDArray[np.bool_] | None) -> Numbers:
    low = np.maximum(found[:, None, :2], truth[None, :, :2])
    high = np.minimum((found[:, :2] + found[:, 2:])[:, None], (truth[:, :2] + truth[:, 2:])[None])
    inside = np.clip(high - low, 0, None).prod(axis=2)
    alone = found[:, 2:].prod(axis=1)[:, None]
    union = alone + truth[:, 2:].prod(axis=1)[None] - inside
    if crowd is not None:
        union = np.where(crowd[None], alone, union)
    found_overlaps: Numbers = np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)
    return np.nan_to_num(found_overlaps, nan=0.0, posinf=0.0)  # of a box that is not finite


def classify(seen: Seen, table: Numbers) -> None:
    """Say of each detection that is no match what is wrong with it, and which objects are missed.

    Args:
        seen: gets ``kinds``, ``aims`` and ``missed``.
        table: overlap of each detection with each of the truth, of whatever class.
    """
    seen.kinds, seen.aims = [None] * len(seen.found), [-1] * len(seen.found)
    seen.missed = [bool(each < 0 and not crowd) for each, crowd in zip(seen.taken, seen.crowd, strict=True)]
    labels = [None if crowd else each["category_id"] for each, crowd in zip(seen.truth, seen.crowd, strict=True)]
    for place in np.flatnonzero(seen.match < 0).tolist():
        kind, aim = _kind(table[place].tolist(), labels, seen.found[place]["category_id"])
        seen.kinds[place], seen.aims[place] = kind, aim
        if kind in _MOVED:
            seen.missed[aim] = False


def _kind(row: list[float], labels: Sequence[Any], label: Any) -> tuple[str, int]:
    """What is wrong, and with which object; labels of crowds are None."""
    own, its, other, another = -1.0, -1, -1.0, -1
    for place, value in enumerate(row):
        if labels[place] == label:
            if value > own:
                own, its = value, place
        elif labels[place] is not None and value > other:
            other, another = value, place
    if max(own, other) <= GROUND:
        return EXTRA, -1
    if GROUND <= own < THRESHOLD:
        return LOCALISATION, its
    if other >= THRESHOLD:
        return WRONG_CLASS, another
    if own >= THRESHOLD:
        return DUPLICATE, its
    return BOTH, another


class Table:
    """All detections of an evaluation that count, and how many objects there are.

    Args:
        images: classified.
    """

    def __init__(self, images: Sequence[Seen]) -> None:
        self.rows: list[tuple[int, int]] = []  # image, place
        labels, scores, hits, kinds = [], [], [], []
        self.objects: dict[Any, int] = {}
        self.lost: dict[Any, int] = {}  # objects missed
        for number, seen in enumerate(images):
            ignored = seen.ignored
            for place, each in enumerate(seen.found):
                if not ignored[place]:
                    self.rows.append((number, place))
                    labels.append(each["category_id"])
                    scores.append(each["score"])
                    hits.append(seen.match[place] >= 0)
                    kinds.append(seen.kinds[place])
            for place, each in enumerate(seen.truth):
                if not seen.crowd[place]:
                    label = each["category_id"]
                    self.objects[label] = self.objects.get(label, 0) + 1
                    self.lost[label] = self.lost.get(label, 0) + seen.missed[place]
        self.images = images
        self.labels, self.scores = np.array(labels), np.array(scores, np.float64)
        self.hits, self.kinds = np.array(hits, bool), kinds

    def ap(self) -> float:
        """AP at an overlap of .5, as it is."""
        return average_precision(self.labels, self.scores, self.hits, self.objects)

    def mended(self, kinds: Collection[str], poor: Mapping[tuple[int, int], int] | None = None) -> float:
        """AP with these kinds of mistakes mended.

        Args:
            kinds: some of `KINDS`.
            poor: detections (image, place) that become the match of an object, given by its place.
        """
        labels, hits = self.labels.copy(), self.hits.copy()
        keep = np.array([each is None or each not in kinds for each in self.kinds], bool)
        best: dict[tuple[int, int], int] = {}  # by object, the row that becomes its match
        mended = []
        for row, (number, place) in enumerate(self.rows):
            aim = (poor or {}).get((number, place), -1)
            if aim < 0 and self.kinds[row] in _MOVED and not poor:
                aim = self.images[number].aims[place]
            if aim >= 0:
                key = number, aim
                if key not in best or self.scores[row] > self.scores[best[key]]:
                    best[key] = row
                if poor or self.kinds[row] in kinds:
                    mended.append((row, key))
        for row, (number, aim) in mended:
            keep[row] = best[number, aim] == row and self.images[number].taken[aim] < 0
            if keep[row]:
                hits[row], labels[row] = True, self.images[number].truth[aim]["category_id"]
        objects = self.objects
        if MISSED in kinds:
            objects = {label: count - self.lost[label] for label, count in objects.items()}
        return average_precision(labels[keep], self.scores[keep], hits[keep], objects)

    def counts(self) -> dict[str, int]:
        """How many of each kind."""
        found = {kind: self.kinds.count(kind) for kind in KINDS}
        return found | {MISSED: sum(self.lost.values())}

    def costs(self) -> dict[str, float]:
        """The AP that each kind costs."""
        now = self.ap()
        return {kind: self.mended({kind}) - now for kind in KINDS}


def average_precision(
    labels: npt.NDArray[Any], scores: Numbers, hits: npt.NDArray[np.bool_], objects: Mapping[Any, int]
) -> float:
    """COCO's AP of detections that are matched already: 0 where no class has an object."""
    found = []
    for label, count in objects.items():
        if count <= 0:
            continue
        mine = np.flatnonzero(labels == label) if len(labels) else np.empty(0, np.int64)
        right = hits[mine][np.argsort(-scores[mine], kind="mergesort")]
        true, false = np.cumsum(right), np.cumsum(~right)
        precision = true / np.maximum(true + false, np.spacing(1))
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        places = np.searchsorted(true / count, _RECALLS, side="left")
        found.append(float(np.append(precision, 0.0)[np.minimum(places, len(precision))].mean()))
    return float(np.mean(found)) if found else 0.0
