"""From COCO's evaluators to images worth a look and a table of mistakes. Training thread, between epochs.

Contract:

- Boxes decide what is a mistake, where boxes were evaluated; masks where they alone were, and which masks are poor.
- Everything is read off what the evaluators have: no model runs, no picture is opened.
- Hardness is what was missed, and what was wrong by its score; of equals the first by id.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from losslog.detection.matching import THRESHOLD, Numbers, Seen, seen_by
from losslog.detection.mistakes import POOR_MASK, Table, box_overlaps, classify
from losslog.runtime.notices import Once
from losslog.values.pictures import FARTHEST

LIBRARIES: Final = ("pycocotools.mask", "faster_coco_eval.core.mask")
FIXED: Final = 8
HARDEST: Final = 8
SURE: Final = 0.3  # predictions from this score on are shown
MOST: Final = 30  # predictions shown of an image

_said = Once()  # of the process


class Evaluated:
    """One evaluation, looked at.

    Args:
        scorers: evaluators after ``evaluate()``, by ``bbox`` and ``segm``.
        ids: the data set's id of an image by the evaluator's, where they differ.

    Attributes:
        images: all of them, by id; empty where the evaluators cannot tell.
    """

    def __init__(self, scorers: Mapping[str, Any], ids: Mapping[Any, Any] | None = None) -> None:
        self._ids = ids or {}
        scorer: Any = scorers.get("bbox") or scorers.get("segm")
        found = None if scorer is None else seen_by(scorer)
        self.images: list[Seen] = sorted(found or (), key=lambda seen: _order(self._id(seen)))
        self._scorer, self._masks = scorer, scorers.get("segm")
        self._outlines: dict[Any, Any] = {}  # segmentation by a detection's id
        self._poor: list[tuple[Seen, int, int, float]] = []  # image, detection, object, overlap of their masks
        for seen in self.images:
            classify(seen, self._overlaps(seen))
        if self._masks is not None and self.images:
            self._pair(self._masks)

    @property
    def sized(self) -> bool:
        """Whether it is known how large the images are."""
        known = {} if self._scorer is None else self._scorer.cocoGt.imgs
        return bool(self.images) and all(
            known.get(seen.image, {}).get(key) for seen in self.images for key in ("width", "height")
        )

    def _id(self, seen: Seen) -> Any:
        return self._ids.get(seen.image, seen.image)

    def _overlaps(self, seen: Seen) -> Numbers:
        if not seen.found or not seen.truth or not (seen.match < 0).any():
            return np.zeros((len(seen.found), len(seen.truth)))
        if self._scorer.params.iouType == "bbox":
            found, truth = (np.array([each["bbox"] for each in some], np.float64) for some in (seen.found, seen.truth))
            return box_overlaps(found, truth)
        found_rles = [each["segmentation"] for each in seen.found]
        truth_rles = [self._scorer.cocoGt.annToRLE(each) for each in seen.truth]
        return np.asarray(_overlap(found_rles, truth_rles, [0] * len(truth_rles)), np.float64)

    def _pair(self, masks: Any) -> None:
        """Find the mask of each detection, and those that are poor though their box is right."""
        known = masks.cocoDt.anns
        same = self._scorer is masks
        for seen in self.images:
            for place, each in enumerate(seen.found):
                twin = known.get(each["id"])
                if twin is None or any(twin[key] != each[key] for key in ("image_id", "category_id", "score")):
                    continue
                self._outlines[each["id"]] = twin.get("segmentation")
                match = int(seen.match[place])
                if same or match < 0 or seen.crowd[match]:
                    continue
                overlap = self._mask_overlap(masks, seen, twin, match)
                if overlap is not None and overlap < THRESHOLD:
                    self._poor.append((seen, place, match, overlap))

    def _mask_overlap(self, masks: Any, seen: Seen, twin: Mapping[str, Any], match: int) -> float | None:
        outline, truth = twin.get("segmentation"), seen.truth[match]
        if not isinstance(outline, Mapping) or not truth.get("segmentation"):
            return None
        return float(_overlap([outline], [masks.cocoGt.annToRLE(truth)], [0])[0][0])

    def metrics(self, split: str = "val") -> dict[str, float]:
        """``mistakes/<kind>``: the AP that each kind costs; ``mistakes_count/<kind>``: how many there are."""
        if not any(not crowd for seen in self.images for crowd in seen.crowd):
            return {}
        suffix = "" if split == "val" else f"_{split}"
        table = Table(self.images)
        costs, counts = table.costs(), table.counts()
        if self._masks is not None and self._scorer is not self._masks:
            costs[POOR_MASK], counts[POOR_MASK] = self._poor_cost(), len(self._poor)
        found = {f"mistakes{suffix}/{kind}": round(cost, 6) for kind, cost in costs.items()}
        return found | {f"mistakes_count{suffix}/{kind}": float(count) for kind, count in counts.items()}

    def _poor_cost(self) -> float:
        """What masks that are poor in boxes that are right cost the AP of masks."""
        if not self._poor:
            return 0.0
        by_mask = {seen.image: seen for seen in seen_by(self._masks) or ()}
        images = list(by_mask.values())
        for seen in images:  # which mistakes there are makes no difference
            seen.kinds, seen.missed = [None] * len(seen.found), [False] * len(seen.truth)
        number = {image: place for place, image in enumerate(by_mask)}
        aims: dict[tuple[int, int], int] = {}
        for seen, place, match, _ in self._poor:
            other = by_mask[seen.image]
            row = next((at for at, each in enumerate(other.found) if each["id"] == seen.found[place]["id"]), None)
            if row is not None:
                aims[number[seen.image], row] = match
        table = Table(images)
        return table.mended((), aims) - table.ap()

    def fixed(self, wanted: int | Sequence[Any] = FIXED) -> list[dict[str, Any]]:
        """The first images by id, or those with these ids, as `losslog.Run.log_images` takes them."""
        if isinstance(wanted, int):
            chosen = self.images[:wanted]
        else:
            by_id = {self._id(seen): seen for seen in self.images}
            chosen = [by_id[each] for each in wanted if each in by_id]
        return [self._picture(seen) for seen in chosen]

    def hardest(self, most: int = HARDEST) -> list[dict[str, Any]]:
        """The images with most that is wrong, the hardest first; those without a mistake are left out."""
        poor: dict[int, int] = {}
        for seen, *_ in self._poor:
            poor[id(seen)] = poor.get(id(seen), 0) + 1
        ranked = [(hardness(seen) + 0.5 * poor.get(id(seen), 0), seen) for seen in self.images]
        ranked.sort(key=lambda each: -each[0])  # a stable sort: of equals the first by id
        return [self._picture(seen) for value, seen in ranked[:most] if value > 0]

    def _picture(self, seen: Seen) -> dict[str, Any]:
        entry = self._scorer.cocoGt.imgs[seen.image]
        names = {key: str(each.get("name", key)) for key, each in self._scorer.cocoGt.cats.items()}
        height, width = int(entry["height"]), int(entry["width"])
        bad = {place: value for other, place, _, value in self._poor if other is seen}
        truth = []
        for place, each in enumerate(seen.truth):
            if not seen.crowd[place] and _drawable(each):
                thing = self._thing(each, names, height, width)
                truth.append(thing | ({"mistake": "missed"} if seen.missed[place] else {}))
        found: list[dict[str, Any]] = []
        ignored = seen.ignored
        order = sorted(range(len(seen.found)), key=lambda place: -seen.found[place]["score"])
        for place in order:
            each = seen.found[place]
            if each["score"] < SURE or ignored[place]:
                continue
            if not _drawable(each):
                _said("a prediction with the box %s and the score %s is not drawn: boxes must be finite and below 1e9, "
                      "scores from 0 to 1", each["bbox"], each["score"], key="odd")  # fmt: skip
            else:
                thing = self._thing(each, names, height, width) if len(found) < MOST else {}
                thing["score"] = float(each["score"])
                kind = POOR_MASK if place in bad else seen.kinds[place]
                thing |= {"mistake": kind} if kind else {}
                found.append(
                    thing | ({"iou": bad.get(place, float(seen.overlap[place]))} if seen.match[place] >= 0 else {})
                )
        kinds = [each["mistake"] for each in (*truth, *found) if "mistake" in each]
        overlaps = [each["iou"] for each in found if "iou" in each]
        return {
            "id": _plain(self._id(seen)), "path": entry.get("file_name"), "width": width, "height": height,
            "missed": sum(seen.missed), "extra": sum(kind not in ("missed", POOR_MASK) for kind in kinds),
            "iou": sum(overlaps) / len(overlaps) if overlaps else None,
            "mistakes": {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
            "truth": truth, "predictions": found[:MOST],
            "left_out": {"objects": len(found) - MOST} if len(found) > MOST else None,
        }  # fmt: skip

    def _thing(self, each: Mapping[str, Any], names: Mapping[Any, str], height: int, width: int) -> dict[str, Any]:
        x, y, w, h = (float(value) for value in each["bbox"])
        thing: dict[str, Any] = {"box": [x, y, x + w, y + h], "label": names.get(each["category_id"], "?")}
        outline = self._outlines.get(each["id"]) if "score" in each else each.get("segmentation")
        if self._masks is not None and outline:
            rle = outline if "score" in each else self._masks.cocoGt.annToRLE(each)
            if isinstance(rle, Mapping) and list(rle["size"]) == [height, width]:
                thing["rle"] = {"size": [height, width], "counts": rle["counts"]}
        return thing


def _overlap(found: Any, truth: Any, crowd: Any) -> Any:
    """Overlaps of masks, of whichever library is there."""
    name = next(each for each in LIBRARIES if each in sys.modules or importlib.util.find_spec(each.partition(".")[0]))
    return importlib.import_module(name).iou(found, truth, crowd)


def hardness(seen: Seen) -> float:
    """How much is wrong in an image."""
    wrong = sum(each["score"] for each, kind in zip(seen.found, seen.kinds, strict=True) if kind)
    unfound = sum(1 for match, crowd in zip(seen.taken, seen.crowd, strict=True) if match < 0 and not crowd)
    return float(wrong + unfound)


def _drawable(each: Mapping[str, Any]) -> bool:
    """Whether a record takes it."""
    x, y, w, h = (float(value) for value in each["bbox"])
    return all(abs(value) < FARTHEST for value in (x, y, x + w, y + h)) and 0 <= each.get("score", 0) <= 1


def _plain(value: Any) -> int | str:
    read = getattr(value, "item", None)
    found = value if read is None else read()
    return found if isinstance(found, int) and not isinstance(found, bool) else str(found)


def _order(identity: Any) -> tuple[bool, Any]:
    plain = _plain(identity)
    return isinstance(plain, str), plain
