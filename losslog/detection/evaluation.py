"""COCO evaluation of boxes and masks with pycocotools, without its prints. Runs on the training thread, between epochs.

Contract:

- Figures are pycocotools' own for the images that were given to `CocoEvaluator.update`.
- pycocotools' -1 (there is no such ground truth) is left out; no detections at all give 0.
- Nothing is printed, and ``sys.stdout`` is not touched: other threads may print meanwhile.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from pycocotools import coco as coco_module
from pycocotools import cocoeval as cocoeval_module
from pycocotools import mask as mask_api
from torch import Tensor

from losslog.detection.annotations import Categories
from losslog.detection.evaluated import Evaluated
from losslog.detection.outlines import of_box

# Name, from precision (AP) or recall (AR), IoU threshold or None for the mean over .50:.05:.95, area range, and the
# index into maxDets (1, 10, 100): the order of pycocotools' COCOeval.stats for boxes and masks.
SUMMARY: Final = (
    ("AP", "precision", None, "all", 2),
    ("AP50", "precision", 0.5, "all", 2),
    ("AP75", "precision", 0.75, "all", 2),
    ("APs", "precision", None, "small", 2),
    ("APm", "precision", None, "medium", 2),
    ("APl", "precision", None, "large", 2),
    ("AR1", "recall", None, "all", 0),
    ("AR10", "recall", None, "all", 1),
    ("AR100", "recall", None, "all", 2),
    ("ARs", "recall", None, "small", 2),
    ("ARm", "recall", None, "medium", 2),
    ("ARl", "recall", None, "large", 2),
)

Metrics = dict[str, dict[str, Any]]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Shadows ``print`` inside pycocotools' two modules only; redirecting stdout would silence all threads."""
    modules = (coco_module, cocoeval_module)
    for module in modules:
        vars(module)["print"] = lambda *_args, **_kwargs: None
    try:
        yield
    finally:
        for module in modules:
            vars(module).pop("print", None)


class GroundTruth:
    """pycocotools' index of a COCO dict, everything in it numbered from 1.

    Args:
        content: a COCO dict; it is not changed.

    Attributes:
        index: a `pycocotools.coco.COCO`.
        images: its image numbers by the ids in `content`.
        categories: its category numbers likewise.
        objects: the numbers of the images that have an object to find, crowds not counted.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.images = {image["id"]: number for number, image in enumerate(content["images"], start=1)}
        self.categories = {each["id"]: number for number, each in enumerate(content["categories"], start=1)}
        annotations = []
        for number, each in enumerate(content["annotations"], start=1):
            image = self.images[each["image_id"]]
            numbered = {**each, "id": number, "image_id": image, "category_id": self.categories[each["category_id"]]}
            if not _has_outline(each.get("segmentation")):
                entry = content["images"][image - 1]
                numbered["segmentation"] = [of_box(each["bbox"], entry["height"], entry["width"]).tolist()]
            annotations.append(numbered)
        self.objects = {each["image_id"] for each in annotations if not each.get("iscrowd")}
        with _quiet():
            self.index = coco_module.COCO()
            self.index.dataset = {
                "images": [{**image, "id": self.images[image["id"]]} for image in content["images"]],
                "annotations": annotations,
                "categories": [{**each, "id": self.categories[each["id"]]} for each in content["categories"]],
            }
            self.index.createIndex()


def _has_outline(segmentation: Any) -> bool:
    """Whether pycocotools can draw a ``segmentation``: an RLE has counts, a polygon three points (two are a box)."""
    if isinstance(segmentation, Mapping):
        return bool(segmentation.get("counts"))
    return isinstance(segmentation, list) and any(isinstance(part, list) and len(part) >= 6 for part in segmentation)


class CocoEvaluator:
    """Collects detections and scores them.

    Args:
        ground_truth: from `CocoEvaluator.index`; may be shared by several evaluators.
        categories: to turn labels into category ids and names.
        masks: whether masks are scored beside boxes, where the model gives masks.
        threshold: a pixel belongs to a mask from this probability on (torchvision's masks are probabilities).
        folder: where the images lie, for those who draw them.
    """

    def __init__(
        self, ground_truth: GroundTruth, categories: Categories, *, masks: bool = True, threshold: float = 0.5,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:  # fmt: skip
        self.folder = folder
        self._ground_truth = ground_truth
        self._numbers = {
            label: ground_truth.categories.get(category, -label) for label, category in categories.to_id.items()
        }
        self._names = {self._numbers[label]: categories.names[category] for label, category in categories.to_id.items()}
        self._masks = masks
        self._threshold = threshold
        self._image_ids: list[int] = []
        self._results: dict[str, list[dict[str, Any]]] = {"bbox": []}
        self._scorers: dict[str, Any] = {}

    @staticmethod
    def index(content: dict[str, Any]) -> GroundTruth:
        """Makes pycocotools' index of a COCO dict.

        Everything is numbered from 1 in it: pycocotools sorts ids, and reads the annotation id 0 as "no match". Where
        some objects have no outline, their box stands in for it.
        """
        return GroundTruth(content)

    def update(self, targets: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Tensor]]) -> None:
        """Adds a batch.

        Args:
            targets: with ``image_id``, one per image.
            outputs: the model's detections, one per image, in any device's memory: ``boxes`` ``[N, 4]`` (x1, y1, x2,
                y2 in pixels of the image), ``labels`` ``[N]``, ``scores`` ``[N]``, ``masks`` ``[N, 1, H, W]`` in 0..1.
        """
        for target, output in zip(targets, outputs, strict=True):
            identity = target["image_id"]
            image_id = self._ground_truth.images[identity.item() if isinstance(identity, Tensor) else identity]
            self._image_ids.append(image_id)
            boxes = output["boxes"].detach().float().cpu().clone()
            boxes[:, 2:] -= boxes[:, :2]
            rows = [
                {"image_id": image_id, "category_id": self._numbers[label], "score": score}
                for label, score in zip(output["labels"].tolist(), output["scores"].tolist(), strict=True)
            ]
            self._results["bbox"] += [{**row, "bbox": box} for row, box in zip(rows, boxes.tolist(), strict=True)]
            if self._masks and "masks" in output:
                binary = (output["masks"].detach()[:, 0] > self._threshold).byte().cpu().numpy()
                rles = mask_api.encode(np.asfortranarray(binary.transpose(1, 2, 0)))
                results = self._results.setdefault("segm", [])
                results += [{**row, "segmentation": rle} for row, rle in zip(rows, rles, strict=True)]

    def compute(self) -> Metrics:
        """Scores what was collected.

        Returns:
            ``{"bbox": {"AP": ..., ..., "classes": {name: AP}}, "segm": {...}}``; see `SUMMARY` for the names. Empty
            where none of the images seen has an object to find: crowds alone have no AP.
        """
        if not self._ground_truth.objects.intersection(self._image_ids):
            return {}
        with _quiet():
            return {kind: self._score(kind, results) for kind, results in self._results.items()}

    def looked_at(self) -> Evaluated:
        """What `compute` saw in each image: mistakes, and images worth a look."""
        return Evaluated(self._scorers, {number: image for image, number in self._ground_truth.images.items()})

    def _score(self, kind: str, results: list[dict[str, Any]]) -> dict[str, Any]:
        truth = self._ground_truth.index
        if results:
            detections = truth.loadRes(results)
        else:  # loadRes([]) raises IndexError
            detections = coco_module.COCO()
            detections.dataset = {**truth.dataset, "annotations": []}
            detections.createIndex()
        scorer = cocoeval_module.COCOeval(truth, detections, iouType=kind)
        scorer.params.imgIds = sorted(set(self._image_ids))
        scorer.evaluate()
        scorer.accumulate()
        self._scorers[kind] = scorer
        return summarize(scorer, self._names)


def summarize(scorer: Any, names: Mapping[int, str]) -> dict[str, Any]:
    """Reads the twelve COCO figures and the AP of each class off an accumulated `COCOeval`.

    Args:
        scorer: a pycocotools `COCOeval` after ``accumulate()``, default parameters.
        names: class name by category id.

    Returns:
        Figures by the names in `SUMMARY`, and ``classes``: AP by name, classes without ground truth left out.
    """
    params = scorer.params
    figures: dict[str, Any] = {}
    for name, array, iou, area, dets in SUMMARY:
        values = scorer.eval[array]  # precision [IoU, recall, class, area, dets]; recall [IoU, class, area, dets]
        if iou is not None:
            values = values[np.isclose(params.iouThrs, iou)]
        mean = _mean(values[..., params.areaRngLbl.index(area), dets])
        if mean is not None:
            figures[name] = mean
    classes = {}
    for position, category in enumerate(params.catIds):
        mean = _mean(scorer.eval["precision"][:, :, position, 0, -1])
        if mean is not None:
            classes[names[category]] = mean
    return {**figures, "classes": classes}


def _mean(values: Any) -> float | None:
    known = values[values > -1]
    return float(np.mean(known)) if known.size else None
