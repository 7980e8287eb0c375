"""The engine's evaluation logs images and a table of mistakes; what it stores is what the model gave."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import losslog
from losslog.detection import CocoDataset, collate
from losslog.detection.rle import decode
from losslog.engine import evaluate
from losslog.history import records, series

Made = Callable[..., losslog.Run]


class Guesses(torch.nn.Module):
    """Gives the truth of each image, a little off, and one object too many."""

    def __init__(self, dataset: CocoDataset) -> None:
        super().__init__()
        self.targets = [target for _, target in dataset]
        self.given: list[dict[str, torch.Tensor]] = []

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        found = []
        for _ in images:
            target = self.targets[len(self.given)]
            boxes = torch.cat([target["boxes"], torch.tensor([[0.0, 0.0, 5.0, 5.0]])])
            masks = torch.cat([target["masks"], torch.zeros_like(target["masks"][:1])])[:, None].float()
            masks[-1, 0, :5, :5] = 0.9
            labels = torch.cat([target["labels"], torch.tensor([1])])
            scores = torch.linspace(0.9, 0.5, len(boxes))
            self.given.append({"boxes": boxes, "labels": labels, "scores": scores, "masks": masks})
            found.append(self.given[-1])
        return found


@pytest.fixture
def evaluated(shapes: Path, make_run: Made) -> tuple[losslog.Run, Guesses, CocoDataset]:
    data = CocoDataset(shapes / "images", shapes / "annotations_val.json")
    model = Guesses(data)
    run = make_run()
    run.log_batch({"a": 1.0})
    evaluate(model, DataLoader(data, 2, collate_fn=collate), "cpu", run=run)
    run.close()
    return run, model, data


def told(run: losslog.Run) -> dict[str, dict[str, Any]]:
    return {each.data["name"]: each.data for each in records(run.dir) if each.hook == "on_images"}


def test_masks_in_the_journal_are_the_models_to_the_pixel(evaluated: Any) -> None:
    run, model, data = evaluated
    fixed = told(run)["fixed"]
    by_id = {entry["id"]: place for place, entry in enumerate(data.entries)}
    count = 0
    for image in fixed["images"]:
        place = by_id[image["id"]]
        target, output = model.targets[place], model.given[place]
        assert [each["label"] for each in image["truth"]] == [data.categories.names[data.categories.to_id[label]]
                                                              for label in target["labels"].tolist()]  # fmt: skip
        for thing, mask in zip(image["truth"], target["masks"], strict=True):
            assert np.array_equal(decode(thing["rle"]), mask.numpy().astype(bool))
        order = output["scores"].argsort(descending=True).tolist()
        for thing, row in zip(image["predictions"], order, strict=True):
            assert np.array_equal(decode(thing["rle"]), output["masks"][row, 0].numpy() > 0.5)
            assert thing["box"] == pytest.approx(output["boxes"][row].tolist(), abs=0.01)
            count += 1
    assert count > 10
    assert fixed["folder"] == str(data.images.absolute())
    assert [each["path"] for each in fixed["images"]] == [data.entries[by_id[each["id"]]]["file_name"]
                                                          for each in fixed["images"]]  # fmt: skip


def test_the_extra_ones_are_what_costs(evaluated: Any) -> None:
    run, model, _ = evaluated
    curves = series(run.dir)
    assert curves["mistakes_count/extra"][1] == len(model.given)
    assert curves["mistakes_count/missed"][1] == 0
    assert curves["mistakes/extra"][1] >= 0
    hardest = told(run)["hardest"]["images"]
    assert all(each["mistakes"] == {"extra": 1} for each in hardest)


def test_which_images_and_whether_any_can_be_chosen(shapes: Path, make_run: Made) -> None:
    data = CocoDataset(shapes / "images", shapes / "annotations_val.json")
    ids = [entry["id"] for entry in data.entries]
    for images, wanted in ((2, ids[:2]), ([ids[3], ids[1]], [ids[3], ids[1]]), (0, None)):
        run = make_run()
        run.log_batch({"a": 1.0})
        evaluate(Guesses(data), DataLoader(data, 2, collate_fn=collate), "cpu", run=run, images=images)
        run.close()
        found = told(run).get("fixed")
        assert (None if found is None else [each["id"] for each in found["images"]]) == wanted
        assert "mistakes/extra" in series(run.dir)


def test_what_fails_in_looking_at_images_is_a_line_and_no_end(
    shapes: Path, make_run: Made, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = CocoDataset(shapes / "images", shapes / "annotations_val.json")
    monkeypatch.setattr("losslog.detection.evaluated.Evaluated.metrics", lambda *_: 1 / 0)
    run = make_run()
    run.log_batch({"a": 1.0})
    metrics = evaluate(Guesses(data), DataLoader(data, 2, collate_fn=collate), "cpu", run=run)
    run.close()
    assert metrics["bbox"]["AP"] > 0
    assert "no images and no table of mistakes (ZeroDivisionError" in caplog.text


def test_who_draws_needs_no_torch() -> None:
    script = (
        "import sys, losslog.detection.drawing, losslog.detection\n"
        "print([each for each in ('torch', 'torchvision', 'pycocotools') if each in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
