"""Images and a table of mistakes from an evaluation that an untouched loop made with pycocotools."""

import importlib
import json
import subprocess
import sys
import textwrap

import pytest
import torch
from PIL import Image

pytest.importorskip("pycocotools")

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from losslog.history import series
from losslog.runtime.notices import Once

CONTENT = {
    "images": [{"id": n, "file_name": f"{n}.png", "width": 80, "height": 60} for n in range(1, 4)],
    "annotations": [{"id": n, "image_id": n, "category_id": 7, "bbox": [5, 5, 30, 30], "area": 900, "iscrowd": 0,
                     "segmentation": [[5, 5, 35, 5, 35, 35, 5, 35]]} for n in range(1, 4)],
    "categories": [{"id": 7, "name": "cat"}, {"id": 9, "name": "dog"}], "info": {},
}  # fmt: skip
FOUND = [
    {"image_id": 1, "category_id": 7, "bbox": [5, 5, 30, 30], "score": 0.9},
    {"image_id": 2, "category_id": 9, "bbox": [5, 5, 30, 30], "score": 0.8},
]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    for entry in CONTENT["images"]:
        Image.new("RGB", (80, 60)).save(tmp_path / "pictures" / entry["file_name"])
    return tmp_path / "pictures"


class Pictures(torch.utils.data.Dataset):
    """Like torchvision's CocoDetection."""

    def __init__(self, root):
        self.root = root

    def __len__(self):
        return 3

    def __getitem__(self, index):
        return torch.zeros(4), index


def evaluated(content, kinds=("bbox",), **params):
    truth = COCO()
    truth.dataset = json.loads(json.dumps(content))
    truth.createIndex()
    for kind in kinds:
        evaluator = COCOeval(truth, truth.loadRes([dict(each) for each in FOUND]), kind)
        vars(evaluator.params).update(params)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()


def trained(two, data, watch, between, **options):
    optimizer = torch.optim.SGD(two.parameters(), lr=0.1)
    run = watch(two, optimizer, **options)
    for batch in data[0]:
        optimizer.zero_grad()
        sum(two(batch).values()).backward()
        optimizer.step()
    between()
    run.close()
    return run


def test_a_data_set_whose_loader_was_seen_tells_where_the_pictures_are(two, data, watch, read, folder):
    held_out = Pictures(folder)

    def between():
        list(torch.utils.data.DataLoader(held_out))
        evaluated(CONTENT)

    run = trained(two, data, watch, between)
    fixed, hardest = read(run, "on_images")
    assert (fixed["name"], hardest["name"], fixed["split"], fixed["epoch"]) == ("fixed", "hardest", "val", 1)
    assert fixed["folder"] == str(folder)
    assert all(each["turned"] is False for each in fixed["images"])  # as PIL reads them
    assert [each["path"] for each in fixed["images"]] == ["1.png", "2.png", "3.png"]
    assert [each.get("mistakes", {}) for each in fixed["images"]] == [{}, {"wrong_class": 1}, {"missed": 1}]
    assert [each["id"] for each in hardest["images"]] == [2, 3]
    found = series(run.dir)
    assert found["mistakes_count/wrong_class"] == {1: 1.0}
    assert found["mistakes_count/missed"] == {1: 1.0}
    assert found["mistakes/wrong_class"][1] > 0


def test_a_folder_that_was_named_goes_first(two, data, watch, read, folder):
    run = trained(two, data, watch, lambda: evaluated(CONTENT), images=folder)
    assert [each["folder"] for each in read(run, "on_images")] == [str(folder)] * 2


def test_without_sizes_there_is_a_table_and_no_images(two, data, watch, read):
    bare = {**CONTENT, "images": [{"id": each["id"]} for each in CONTENT["images"]]}
    run = trained(two, data, watch, lambda: evaluated(bare))
    assert read(run, "on_images") == []
    assert series(run.dir)["mistakes_count/missed"] == {1: 1.0}


@pytest.mark.parametrize(("params", "told"), [
    ({"catIds": [7]}, "it has some of the categories only (catIds)"),
    ({"areaRng": [[0, 10]] * 4}, "it has no object to find"),
    ({"useCats": 0}, "no images and no table of mistakes of this evaluation: they are told of COCOeval with useCats"),
])  # fmt: skip
def test_an_evaluation_without_images_says_why(two, data, watch, read, monkeypatch, caplog, params, told):
    for name in ("looking", "watching"):
        module = importlib.import_module(f"losslog.instrument.{name}")
        monkeypatch.setattr(module, "_said", Once())
    run = trained(two, data, watch, lambda: evaluated(CONTENT, **params))
    assert read(run, "on_images") == []
    assert told in caplog.text


def test_what_fails_in_looking_is_a_line(two, data, watch, read, monkeypatch, caplog):
    monkeypatch.setattr("losslog.instrument.looking._said", Once())
    monkeypatch.setattr("losslog.detection.evaluated.Evaluated.hardest", lambda self: 1 / 0)
    run = trained(two, data, watch, lambda: evaluated(CONTENT))
    assert read(run, "on_eval")
    assert "no images and no table of mistakes of this evaluation (ZeroDivisionError" in caplog.text


def test_losslog_run_takes_the_folder_too(folder, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        textwrap.dedent(f"""
        import json, torch
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(1, 2)).mean().backward()
            optimizer.step()
        truth = COCO()
        truth.dataset = json.loads({json.dumps(json.dumps(CONTENT))})
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(json.loads({json.dumps(json.dumps(FOUND))})), "bbox")
        evaluator.evaluate(), evaluator.accumulate(), evaluator.summarize()
        """)
    )
    line = [sys.executable, "-m", "losslog", "run", "--plugins", "console", "--dir", str(tmp_path / "runs"),
            "--images", str(folder), str(script)]  # fmt: skip
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    (journal,) = (tmp_path / "runs").glob("*/*/journal.jsonl")
    found = [json.loads(each)["data"] for each in journal.read_text().splitlines() if '"on_images"' in each]
    assert [(each["name"], each["folder"]) for each in found] == [("fixed", str(folder)), ("hardest", str(folder))]
