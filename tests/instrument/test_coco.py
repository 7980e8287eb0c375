"""What is picked up when pycocotools summarizes."""

import contextlib
import io

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from losslog.instrument import coco


def ground_truth(keypoints=False):
    truth = COCO()
    annotations = [
        {"id": n, "image_id": 1, "category_id": c, "bbox": [10 * n, 10, 40, 40], "area": 1600, "iscrowd": 0}
        for n, c in ((1, 3), (2, 7))
    ]
    if keypoints:
        points = np.tile([20, 20, 2], 17).tolist()
        annotations = [{**each, "keypoints": points, "num_keypoints": 17} for each in annotations]
    truth.dataset = {"images": [{"id": 1, "width": 99, "height": 99}], "annotations": annotations, "info": {}}
    truth.dataset["categories"] = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}]
    truth.createIndex()
    return truth


def evaluated(truth, kind="bbox", **params):
    rows = [{**each, "score": 0.9} for each in truth.dataset["annotations"] if each["category_id"] == 3]
    evaluator = COCOeval(truth, truth.loadRes(rows), kind)
    for name, value in params.items():
        setattr(evaluator.params, name, value)
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    return evaluator


@pytest.fixture(autouse=True)
def quiet():
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def test_boxes_with_classes():
    evaluator = evaluated(ground_truth())
    found = coco.figures(evaluator)
    assert found["AP"] == evaluator.stats[0] == pytest.approx(0.5)
    assert found["classes"] == {"cat": pytest.approx(1.0), "dog": 0.0}
    assert "APs" not in found  # there are no small objects: pycocotools says -1


def test_keypoints_have_other_figures():
    evaluator = evaluated(ground_truth(keypoints=True), "keypoints")
    found = coco.figures(evaluator)
    assert found["AR"] == evaluator.stats[5]
    assert "AR1" not in found


def test_other_limits_on_detections():
    evaluator = evaluated(ground_truth(), maxDets=[1, 10, 300])
    assert evaluator.stats[0] == -1
    found = coco.figures(evaluator)
    assert found["AP"] == pytest.approx(0.5)
    assert "AR300" in found


def test_one_class_of_several_is_not_an_evaluation():
    assert coco.figures(evaluated(ground_truth(), catIds=[3])) is None


def test_a_class_agnostic_evaluation_has_no_classes():
    assert "classes" not in coco.figures(evaluated(ground_truth(), useCats=0))


def test_evaluations_become_records_of_their_epoch(two, data, watch, read):
    optimizer = torch.optim.SGD(two.parameters(), lr=0.1)
    run = watch(two, optimizer)

    def train():
        for batch in data[0]:
            optimizer.zero_grad()
            sum(two(batch).values()).backward()
            optimizer.step()

    evaluated(ground_truth())  # before training: the point before epoch 1
    train()
    truth = ground_truth()
    evaluated(truth)
    evaluated(truth, catIds=[7])
    train()
    evaluated(truth)
    evaluated(ground_truth())  # another data set
    run.close()
    assert [(each["epoch"], each["split"]) for each in read(run, "on_eval")] == [
        (0, "val"),
        (1, "val"),
        (2, "val"),
        (2, "val2"),
    ]
    order = [hook for hook in read(run) if hook not in ("on_batch_losses", "on_metrics", "on_images")]
    assert order == ["on_run_start", "on_eval", "on_eval", "on_epoch_end", "on_eval", "on_eval", "on_epoch_end",
                     "on_run_end"]  # fmt: skip
