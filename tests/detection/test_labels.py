"""The sheet at the start of a run: training images as the model gets them, so that wrong labels are seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import losslog
from losslog.detection import CocoDataset, HorizontalFlip, collate
from losslog.detection.labels import log, names_of, pairs, to_pixels
from losslog.detection.rle import decode
from losslog.engine import train_one_epoch
from losslog.history import records

Made = Callable[..., losslog.Run]


class Model(torch.nn.Module):
    """Trains on anything."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, images: Any, targets: Any = None) -> dict[str, torch.Tensor]:
        return {"loss": (self.weight * images[0].mean()).sum()}


def trained(run: losslog.Run, loader: Any, epochs: int = 2, **options: Any) -> list[dict[str, Any]]:
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for epoch in range(1, epochs + 1):
        train_one_epoch(model, optimizer, loader, "cpu", epoch, run, **options)
        run.end_epoch(epoch)
    run.close()
    return [each.data for each in records(run.dir) if each.hook == "on_images"]


def test_they_are_the_models_own_once_a_run(shapes: Path, make_run: Made) -> None:
    data = CocoDataset(shapes / "images", shapes / "annotations_train.json", transform=HorizontalFlip(1.0))
    run = make_run()
    (sheet,) = trained(run, DataLoader(data, 2, collate_fn=collate))
    assert (sheet["split"], sheet["name"], sheet["epoch"]) == ("train", "labels", 1)
    assert len(sheet["images"]) == 10
    for place, image in enumerate(sheet["images"]):
        picture, target = data[place]
        assert image["id"] == target["image_id"]
        assert [each["label"] for each in image["truth"]] == [data.categories.names[data.categories.to_id[label]]
                                                              for label in target["labels"].tolist()]  # fmt: skip
        for thing, mask, box in zip(image["truth"], target["masks"], target["boxes"], strict=True):
            assert np.array_equal(decode(thing["rle"]), mask.numpy().astype(bool))
            assert thing["box"] == pytest.approx(box.tolist(), abs=0.01)
        with Image.open(run.dir / image["thumbnail"]) as small:  # mirrored, as the model got it
            wanted = (picture.permute(1, 2, 0).numpy() * 255).astype(int)
            assert np.abs(np.asarray(small, int) - wanted).mean() < 12
    assert "predictions" not in sheet["images"][0] or not sheet["images"][0]["predictions"]


def test_a_run_that_goes_on_and_a_small_data_set(shapes: Path, make_run: Made) -> None:
    data = CocoDataset(shapes / "images", shapes / "annotations_val.json")
    run = make_run()
    (sheet,) = trained(run, DataLoader(torch.utils.data.Subset(data, range(3)), 2, collate_fn=collate))
    assert len(sheet["images"]) == 3
    again = make_run(resume=run.dir, resume_epoch=2)
    assert len(trained(again, DataLoader(data, 2, collate_fn=collate))) == 1  # that of the beginning


def test_other_batches_are_left_alone(make_run: Made) -> None:
    class Numbers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x).mean()

    model, run = Numbers(), make_run()
    loader = DataLoader(torch.utils.data.TensorDataset(torch.ones(6, 2)), 2)
    train_one_epoch(model, torch.optim.SGD(model.parameters(), 0.1), loader, "cpu", 1, run,
                    forward=lambda model, batch: model(batch[0]))  # fmt: skip
    run.close()
    assert [each for each in records(run.dir) if each.hook == "on_images"] == []


def test_a_disk_that_refuses_is_a_line(shapes: Path, make_run: Made, caplog: pytest.LogCaptureFixture) -> None:
    data = CocoDataset(shapes / "images", shapes / "annotations_val.json")
    run = make_run()
    (run.dir / "pictures").write_text("in the way")
    assert trained(run, DataLoader(data, 2, collate_fn=collate), 1) == []
    assert "no sheet of the first training images" in caplog.text


def test_attach_takes_them_from_the_loader(shapes: Path, tmp_path: Path) -> None:
    data = CocoDataset(shapes / "images", shapes / "annotations_train.json")
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    run = losslog.attach(model, optimizer, name="t", dir=tmp_path, plugins=None)
    for _ in range(2):
        for images, targets in DataLoader(data, 3, collate_fn=collate):
            optimizer.zero_grad()
            sum(model(images, targets).values()).backward()
            optimizer.step()
    run.close()
    (sheet,) = [each.data for each in records(run.dir) if each.hook == "on_images"]
    assert (sheet["name"], [each["id"] for each in sheet["images"]]) == (
        "labels",
        [data[n][1]["image_id"] for n in range(3)],
    )
    assert {thing["label"] for each in sheet["images"] for thing in each["truth"]} <= set(
        data.categories.names.values()
    )


def test_batches_of_several_kinds() -> None:
    target = {"boxes": torch.zeros(1, 4), "labels": torch.ones(1)}
    assert len(pairs((torch.zeros(2, 3, 4, 5), [target, target]))) == 2
    assert len(pairs({"pixel_values": torch.zeros(2, 3, 4, 5), "labels": [target, target]})) == 2
    for other in ((torch.zeros(2, 3), torch.zeros(2)), [1, 2, 3], {"x": 1}, ([1], [{"a": 1}]), ([], []), None):
        assert pairs(other) == []


def test_pixels_of_several_kinds() -> None:
    grey = np.full((3, 4, 6), 0.5, np.float32)
    assert (to_pixels(grey) == 128).all()
    assert to_pixels(grey).shape == (4, 6, 3)
    assert (to_pixels(grey * 200) == 100).all()
    assert (to_pixels((grey * 200).astype(np.uint8)) == 100).all()
    normalised = np.linspace(-2, 2, 72, dtype=np.float32).reshape(3, 4, 6)
    assert (to_pixels(normalised).min(), to_pixels(normalised).max()) == (0, 255)
    assert to_pixels(grey[0]).shape == to_pixels(grey[:1]).shape == (4, 6, 3)
    assert to_pixels(np.full((3, 4, 6), np.nan, np.float32)).max() == 0


def test_names_come_from_what_data_sets_have(shapes: Path) -> None:
    data = CocoDataset(shapes / "images", shapes / "annotations_val.json")
    assert names_of(torch.utils.data.Subset(data, [0])) == {1: "circle", 2: "square", 3: "triangle"}

    class Coco:
        coco = type("Index", (), {"cats": {7: {"id": 7, "name": "cat"}}})()

    class Listed:
        classes = ("none", "cat")

    assert names_of(Coco()) == {7: "cat"}
    assert names_of(Listed()) == {0: "none", 1: "cat"}
    assert names_of(object()) is None


def drawn(run: losslog.Run, image: Any, target: dict[str, Any]) -> dict[str, Any]:
    """The one image of a sheet."""
    assert log(run, [([image], [target])])
    run.close()
    ((found,),) = [each.data["images"] for each in records(run.dir) if each.hook == "on_images"]
    return dict(found)


BOX = {"boxes": torch.tensor([[5.0, 6.0, 30.0, 40.0]]), "labels": torch.tensor([1]), "image_id": 3}


@pytest.mark.parametrize("shape", [(1, 50, 60), (2, 50, 60), (3, 50, 60), (5, 50, 60), (12, 50, 60), (50, 60, 3),
                                   (50, 60, 1), (50, 60)])  # fmt: skip
def test_images_of_any_number_of_channels(shape: tuple[int, ...], make_run: Made) -> None:
    found = drawn(make_run(), torch.rand(shape), BOX)
    assert (found["id"], found["height"], found["width"]) == (3, 50, 60)


@pytest.mark.parametrize(("given", "wanted"), [(None, 0), (torch.tensor([]), 0), (torch.tensor([[7]]), 7), ("a", "a")])
def test_ids_as_people_have_them(given: Any, wanted: Any, make_run: Made) -> None:
    assert drawn(make_run(), torch.rand(3, 50, 60), BOX | {"image_id": given})["id"] == wanted


def test_boxes_in_parts_of_an_image_whose_size_is_told_are_centre_and_size(make_run: Made) -> None:
    target = BOX | {"boxes": torch.tensor([[0.5, 0.5, 0.2, 0.4]]), "size": torch.tensor([50, 60])}
    found = drawn(make_run(), torch.rand(3, 50, 60), target)
    assert found["truth"][0]["box"] == pytest.approx([24.0, 15.0, 36.0, 35.0], abs=0.01)


def test_a_box_that_is_not_finite_is_left_out_and_told(make_run: Made) -> None:
    run = make_run()
    boxes = torch.tensor([[5.0, 6.0, 30.0, 40.0], [float("nan"), 1.0, 2.0, 3.0]])
    found = drawn(run, torch.rand(3, 50, 60), BOX | {"boxes": boxes, "labels": torch.tensor([1, 2])})
    assert len(found["truth"]) == 1
    (alert,) = [each.data for each in records(run.dir) if each.hook == "on_alert"]
    assert "In 1 of 2 objects the box is not finite, e.g. in image 3." in alert["text"]


def test_of_very_many_objects_as_many_as_a_record_takes(make_run: Made) -> None:
    target = {"boxes": BOX["boxes"].repeat(2000, 1), "labels": torch.ones(2000), "masks": torch.ones(2000, 50, 60)}
    found = drawn(make_run(), torch.rand(3, 50, 60), target)
    assert len(found["truth"]) == 100
    assert found["left_out"]["objects"] == 1900
