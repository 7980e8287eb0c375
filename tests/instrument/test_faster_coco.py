"""What is picked up when faster_coco_eval summarizes, in pycocotools' place or under its own names."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("faster_coco_eval", reason="faster_coco_eval is not installed")

import numpy as np
import torch
from faster_coco_eval import COCO as FasterCOCO
from faster_coco_eval import COCOeval_faster
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from losslog.instrument import coco, signals
from losslog.instrument.listeners import Listener


def dataset(kind):
    annotations = []
    for n in range(24):
        size, x, y = (12, 48, 140)[n % 3], 15 * (n % 5), 13 * (n % 4)
        box = [x, y, size, size]
        outline = [[x, y, x + size, y, x + size, y + size, x, y + size]]
        annotations.append({"id": n + 1, "image_id": n % 6 + 1, "category_id": (3, 7)[n % 2], "bbox": box,
                            "area": size * size, "iscrowd": 0, "segmentation": outline})  # fmt: skip
    if kind.startswith("keypoints"):
        for each in annotations:
            each |= {"keypoints": np.tile([each["bbox"][0] + 5, each["bbox"][1] + 5, 2], 17).tolist(),
                     "num_keypoints": 17}  # fmt: skip
    names = [{"id": 3, "name": "cat", "frequency": "r"}, {"id": 7, "name": "dog", "frequency": "f"}]
    images = [{"id": n, "width": 300, "height": 300, "crowdIndex": 0.5} for n in range(1, 7)]
    return {"images": images, "annotations": annotations, "categories": names, "info": {}}


def detections(kind):
    """Boxes, masks or points that are somewhat off, some of the wrong class."""
    rows = []
    for n, each in enumerate(dataset(kind)["annotations"]):
        x, y, w, h = each["bbox"]
        off, wrong = n % 4, n % 7 == 3
        row = {"image_id": each["image_id"], "category_id": 10 - each["category_id"] if wrong else each["category_id"],
               "score": 0.3 + 0.02 * n}  # fmt: skip
        if kind == "bbox":
            row["bbox"] = [x + off, y, w, h]
        elif kind.startswith("keypoints"):
            row["keypoints"] = [value + (off if at % 3 == 0 else 0) for at, value in enumerate(each["keypoints"])]
        else:
            outline = [[x + off, y, x + off + w, y, x + off + w, y + h, x + off, y + h]]
            row["segmentation"] = mask.merge(mask.frPyObjects(outline, 300, 300))
        rows.append(row)
    return rows


def scored(truth, evaluator_class, kind, params=(), **options):
    if not truth.dataset:
        truth.dataset = dataset(kind)
        truth.createIndex()
    evaluator = evaluator_class(truth, truth.loadRes(detections(kind)), kind, **options)
    for name, value in dict(params).items():
        setattr(evaluator.params, name, value)
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    return evaluator


def close(found, wanted):
    classes = found.pop("classes"), wanted.pop("classes")
    assert found == pytest.approx(wanted, abs=1e-9)
    assert classes[0] == pytest.approx(classes[1], abs=1e-9)


@pytest.mark.parametrize("kind", ["bbox", "segm", "keypoints"])
@pytest.mark.parametrize("separate", [False, True])
def test_its_figures_are_those_of_pycocotools(kind, separate):
    theirs = coco.figures(scored(COCO(), COCOeval, kind))
    found = coco.figures(scored(FasterCOCO(), COCOeval_faster, kind, separate_eval=separate))
    assert 0 < found["AP"] < 1
    assert set(found["classes"]) == {"cat", "dog"}
    close(found, theirs)


def test_limits_on_detections_as_many_as_one_likes():
    evaluator = scored(FasterCOCO(), COCOeval_faster, "bbox", {"maxDets": [1, 2, 5, 300]})
    found = coco.figures(evaluator)
    wanted = evaluator.stats_as_dict
    assert [found[f"AR{limit}"] for limit in (1, 2, 5, 300)] == [wanted[f"AR_{limit}"] for limit in (1, 2, 5, 300)]
    assert (found["AP"], found["APs"], found["ARl"]) == tuple(wanted[e] for e in ("AP_all", "AP_small", "AR_large"))


def test_ranges_of_size_of_ones_own():
    ranges = {"tiny": [0, 400], "rest": [400, 1e10]}
    evaluator = scored(FasterCOCO(), COCOeval_faster, "bbox", ranges=ranges)
    found, wanted = coco.figures(evaluator), evaluator.stats_as_dict
    assert found["AP_tiny"] == wanted["AP_tiny"]
    assert found["AR_rest"] == wanted["AR_rest"]
    assert "APs" not in found


@pytest.mark.parametrize("limits", [[300], [1, 10, 300]])
def test_lvis_has_figures_for_rare_and_frequent_classes(limits):
    evaluator = scored(FasterCOCO(), COCOeval_faster, "bbox", {"maxDets": limits}, lvis_style=True)
    found, wanted = coco.figures(evaluator), evaluator.stats_as_dict
    assert (found["APr"], found["APf"]) == (wanted["APr"], wanted["APf"])
    assert "APc" not in found  # there is no class of that frequency
    assert {name for name in found if name[2:].isdigit() and name[:2] == "AR"} == {f"AR{limit}" for limit in limits}
    assert found["ARs"] == wanted["AR_small"]


def test_keypoints_in_crowds(tmp_path):
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(dataset("keypoints_crowd")))
    evaluator = scored(FasterCOCO(str(path)), COCOeval_faster, "keypoints_crowd")
    found, wanted = coco.figures(evaluator), evaluator.stats_as_dict
    assert found["AR"] == wanted["AR_all"]
    assert found["APmedium"] == wanted["AP_medium"]


def test_boundaries():
    evaluator = scored(FasterCOCO(), COCOeval_faster, "boundary")
    assert coco.figures(evaluator)["AP50"] == evaluator.stats_as_dict["AP_50"]


class Ear(Listener):
    def __init__(self):
        self.heard = []

    def summarized(self, evaluator):
        self.heard.append(coco.figures(evaluator)["AP"])


def test_each_summary_is_heard_once_and_no_longer_than_it_is_listened_to():
    ear = Ear()
    signals.listen(ear)
    try:
        evaluator = scored(FasterCOCO(), COCOeval_faster, "bbox")
        assert ear.heard == [evaluator.stats[0]]
        scored(COCO(), COCOeval, "bbox")
        assert len(ear.heard) == 2
    finally:
        signals.forget(ear)
    evaluator.summarize()
    assert len(ear.heard) == 2


IN_ITS_PLACE = """
from losslog.instrument import coco, signals
from losslog.instrument.listeners import Listener
heard = []
class Ear(Listener):
    def summarized(self, evaluator):
        heard.append(coco.figures(evaluator)["AP"])
{early}
import faster_coco_eval
faster_coco_eval.init_as_pycocotools()
{late}
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
truth = COCO()
truth.dataset = {{"images": [{{"id": 1, "width": 99, "height": 99}}], "categories": [{{"id": 1, "name": "a"}}],
                "annotations": [{{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81,
                                 "iscrowd": 0}}]}}
truth.createIndex()
rows = [{{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 0.9}}]
evaluator = COCOeval(truth, truth.loadRes(rows), "bbox")
evaluator.evaluate(); evaluator.accumulate(); evaluator.summarize()
assert "faster" in type(evaluator).__module__
assert [round(each, 6) for each in heard] == [1.0], heard
"""


@pytest.mark.parametrize("early", [True, False])
def test_it_is_heard_under_the_name_of_pycocotools(early):
    """Whether we listen before it is imported or afterwards."""
    listen = "signals.listen(Ear())"
    code = IN_ITS_PLACE.format(early=listen if early else "", late="" if early else listen)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_its_evaluations_become_records_of_their_epoch(two, data, watch, read):
    optimizer = torch.optim.SGD(two.parameters(), lr=0.1)
    run = watch(two, optimizer)
    truth = FasterCOCO()
    found = []
    for _ in range(2):
        for batch in data[0]:
            optimizer.zero_grad()
            sum(two(batch).values()).backward()
            optimizer.step()
        found.append(scored(truth, COCOeval_faster, "bbox").stats[0])
    run.close()
    records = read(run, "on_eval")
    assert [(each["epoch"], each["split"]) for each in records] == [(1, "val"), (2, "val")]
    assert [each["metrics"]["bbox"]["AP"] for each in records] == pytest.approx(found)


SCRIPT = """
import torch
from faster_coco_eval import COCO, COCOeval_faster

truth = COCO()
truth.dataset = {"images": [{"id": 1, "width": 99, "height": 99}], "categories": [{"id": 1, "name": "a"}],
                "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81,
                                 "iscrowd": 0}]}
truth.createIndex()
model = torch.nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
loader = torch.utils.data.DataLoader(torch.ones(8, 4), 4)
for epoch in range(2):
    for batch in loader:
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(batch), torch.ones(4, 1))
        loss.backward()
        optimizer.step()
    rows = [{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 0.9}]
    evaluator = COCOeval_faster(truth, truth.loadRes(rows), "bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
"""


def test_a_script_under_losslog_run(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, "-m", "losslog", "run", "--plugins", "", "script.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (journal,) = tmp_path.rglob("journal.jsonl")
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    evaluations = [each["data"] for each in records if each["hook"] == "on_eval"]
    assert [each["epoch"] for each in evaluations] == [1, 2]
    assert [each["metrics"]["bbox"]["AP"] for each in evaluations] == pytest.approx([1.0, 1.0])
