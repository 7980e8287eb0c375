"""COCO evaluation of boxes and masks with pycocotools, without its prints. Runs on the training thread, between epochs.

Contract:

- Figures are pycocotools' own for the images that were given to `CocoEvaluator.update`.
- pycocotools' -1 (there is no such ground truth) is left out; no detections at all give 0.
- Nothing is printed, and ``sys.stdout`` is not touched: other threads may print meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from pycocotools import coco as coco_module
from pycocotools import cocoeval as cocoeval_module
from pycocotools import mask as mask_api
from torch import Tensor

from losslog.detection.annotations import Categories, has_outline

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


class CocoEvaluator:
    """Collects detections and scores them.

    Args:
        ground_truth: from `CocoEvaluator.index`; may be shared by several evaluators.
        categories: to turn labels into category ids and names.
        masks: whether masks are scored beside boxes, where the model gives masks.
        threshold: a pixel belongs to a mask from this probability on (torchvision's masks are probabilities).
    """

    def __init__(
        self, ground_truth: Any, categories: Categories, *, masks: bool = True, threshold: float = 0.5
    ) -> None:
        self._ground_truth = ground_truth
        self._categories = categories
        self._masks = masks
        self._threshold = threshold
        self._image_ids: list[int] = []
        self._results: dict[str, list[dict[str, Any]]] = {"bbox": []}

    @staticmethod
    def index(content: dict[str, Any]) -> Any:
        """Makes pycocotools' index of a COCO dict, which it keeps and changes: hand in a copy.

        An annotation with the id 0 would count as unmatched in pycocotools (it stores ids and reads 0 as "none"), so
        all are numbered anew where there is one. Where some objects have no outline, their box stands in for it.
        """
        annotations = content["annotations"]
        if any(annotation["id"] == 0 for annotation in annotations):
            for number, annotation in enumerate(annotations, start=1):
                annotation["id"] = number
        for annotation in annotations:
            if not has_outline(annotation.get("segmentation")):
                x, y, width, height = annotation["bbox"]
                corners = [x, y, x + width, y, x + width, y + height, x, y + height]
                annotation["segmentation"] = [[float(value) for value in corners]]
        with _quiet():
            index = coco_module.COCO()
            index.dataset = content
            index.createIndex()
        return index

    def update(self, targets: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Tensor]]) -> None:
        """Adds a batch.

        Args:
            targets: with ``image_id``, one per image.
            outputs: the model's detections, one per image, in any device's memory: ``boxes`` ``[N, 4]`` (x1, y1, x2,
                y2 in pixels of the image), ``labels`` ``[N]``, ``scores`` ``[N]``, ``masks`` ``[N, 1, H, W]`` in 0..1.
        """
        for target, output in zip(targets, outputs, strict=True):
            image_id = int(target["image_id"])
            self._image_ids.append(image_id)
            boxes = output["boxes"].detach().float().cpu().clone()
            boxes[:, 2:] -= boxes[:, :2]
            rows = [
                {"image_id": image_id, "category_id": self._categories.to_id[label], "score": score}
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
            ``{"bbox": {"AP": ..., ..., "classes": {name: AP}}, "segm": {...}}``; see `SUMMARY` for the names.
        """
        with _quiet():
            return {kind: self._score(kind, results) for kind, results in self._results.items()}

    def _score(self, kind: str, results: list[dict[str, Any]]) -> dict[str, Any]:
        if results:
            detections = self._ground_truth.loadRes(results)
        else:  # loadRes([]) raises IndexError
            detections = coco_module.COCO()
            detections.dataset = {**self._ground_truth.dataset, "annotations": []}
            detections.createIndex()
        scorer = cocoeval_module.COCOeval(self._ground_truth, detections, iouType=kind)
        scorer.params.imgIds = sorted(set(self._image_ids))
        scorer.evaluate()
        scorer.accumulate()
        return summarize(scorer, self._categories.names)


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
