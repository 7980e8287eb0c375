"""`images_of`: torchvision's, torchmetrics' and transformers' forms become images, to the pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_api

from losslog.detection import images_of, predictions
from losslog.detection.rle import decode
from losslog.runtime.notices import Once
from losslog.values.pictures import pictures

HEIGHT, WIDTH = 40, 60


def block(x1: int, y1: int, x2: int, y2: int) -> torch.Tensor:
    mask = torch.zeros(HEIGHT, WIDTH)
    mask[y1:y2, x1:x2] = 1
    return mask


BOXES = [[2, 2, 22, 22], [30, 10, 50, 30], [30, 10, 50, 30], [2, 30, 12, 38]]
TARGET = {"boxes": torch.tensor(BOXES[:2]).float(), "labels": torch.tensor([1, 2]), "image_id": torch.tensor([77]),
          "masks": torch.stack([block(*box) for box in BOXES[:2]]).byte()}  # fmt: skip
GIVEN = {"boxes": torch.tensor(BOXES).float(), "labels": torch.tensor([1, 1, 2, 2]),
         "scores": torch.tensor([0.9, 0.8, 0.2, 0.6]),
         "masks": 0.4 * torch.stack([block(*box) for box in BOXES])[:, None] + 0.3}  # fmt: skip


def test_torchvisions_own() -> None:
    (image,) = images_of([GIVEN], [TARGET], ["a/1.jpg"], names={1: "cat", 2: "dog"})
    assert (image["id"], image["path"], image["width"], image["height"]) == (77, "a/1.jpg", WIDTH, HEIGHT)
    assert [(each["label"], round(each["score"], 2), each.get("mistake")) for each in image["predictions"]] == [
        ("cat", 0.9, None), ("cat", 0.8, "wrong_class"), ("dog", 0.6, "extra")]  # fmt: skip
    assert [each.get("mistake") for each in image["truth"]] == [None, None]  # a wrong class has found it
    assert (image["missed"], image["extra"], image["iou"]) == (0, 2, 1.0)
    assert image["mistakes"] == {"wrong_class": 1, "extra": 1}
    for thing, box in zip(image["predictions"], (BOXES[0], BOXES[1], BOXES[3]), strict=True):
        assert np.array_equal(mask_api.decode(thing["rle"]), block(*box).numpy())
        assert np.array_equal(decode(thing["rle"]), block(*box).numpy().astype(bool))
    found, gone = pictures([image])
    assert (len(found), gone) == (1, "")


def test_nothing_of_the_callers_is_changed_and_gradients_do_not_matter() -> None:
    given = {**GIVEN, "boxes": GIVEN["boxes"].clone().requires_grad_(), "scores": GIVEN["scores"].to(torch.bfloat16)}
    keys = list(given), list(TARGET)
    images_of([given], [TARGET])
    assert (list(given), list(TARGET)) == keys
    assert given["boxes"].requires_grad


def test_arrays_bool_masks_and_no_targets() -> None:
    given = {"boxes": np.array(BOXES), "labels": [1, 1, 2, 2], "scores": [0.9, 0.8, 0.2, 0.6],
             "masks": torch.stack([block(*box) for box in BOXES]).bool()}  # fmt: skip
    (image,) = images_of([given], score=0.0)
    assert [each["label"] for each in image["predictions"]] == ["1", "1", "2", "2"]
    assert image["truth"] == []
    assert "mistakes" not in image


def test_transformers_object_detection_and_detrs_targets() -> None:
    given = {"scores": torch.tensor([0.9]), "labels": torch.tensor([1]), "boxes": torch.tensor([[2.0, 2, 22, 22]])}
    centre = torch.tensor([[12 / WIDTH, 12 / HEIGHT, 20 / WIDTH, 20 / HEIGHT]])
    target = {"class_labels": torch.tensor([1]), "boxes": centre, "orig_size": torch.tensor([HEIGHT, WIDTH]),
              "image_id": torch.tensor([5])}  # fmt: skip
    (image,) = images_of([given], [target], names=["none", "cat"])
    assert image["truth"][0]["box"] == pytest.approx([2, 2, 22, 22], abs=1e-4)
    assert (image["predictions"][0].get("mistake"), image["truth"][0]["label"]) == (None, "cat")


@pytest.mark.parametrize("binary", [False, True])
def test_transformers_instance_segmentation(binary: bool) -> None:
    ids = block(*BOXES[0]) * 1 + block(*BOXES[1]) * 2
    plan = torch.stack([ids == 1, ids == 2]).float() if binary else ids.long()
    info = [{"id": 1, "label_id": 1, "score": 0.9}, {"id": 2, "label_id": 2, "score": 0.8}]
    (image,) = images_of([{"segmentation": plan, "segments_info": info}], [TARGET])
    assert [each["box"] for each in image["predictions"]] == [[float(value) for value in box] for box in BOXES[:2]]
    assert np.array_equal(mask_api.decode(image["predictions"][1]["rle"]), block(*BOXES[1]).numpy())
    assert image["mistakes"] == {}
    empty = {"segmentation": torch.full((HEIGHT, WIDTH), -1), "segments_info": []}
    (image,) = images_of([empty], [TARGET])
    assert (image["predictions"], image["missed"]) == ([], 2)


def test_the_size_is_the_files_where_nothing_else_says_it(tmp_path: Path) -> None:
    turned = Image.new("RGB", (WIDTH, HEIGHT))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "1.jpg", exif=exif)
    given = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0), "scores": torch.zeros(0)}
    (image,) = images_of([given], paths=[tmp_path / "1.jpg"])
    assert (image["width"], image["height"]) == (HEIGHT, WIDTH)


BAD: tuple[tuple[dict[str, Any], str], ...] = (
    ({"predictions": [GIVEN], "targets": []}, "0 targets for 1 predictions"),
    ({"predictions": [[1]]}, r"predictions\[0\] must be a dict"),
    ({"predictions": [{"scores": [1]}], "sizes": [(4, 4)]}, r"predictions\[0\] has scores: it needs boxes and labels"),
    ({"predictions": [{"boxes": [[0, 0, 1, 1]], "labels": [1], "scores": [1]}]}, r"pass sizes="),
    ({"predictions": [{"boxes": [[0, 0, 1, 1]], "labels": [1]}], "sizes": [(4, 4)]}, "has no 'scores'"),
    ({"predictions": [{**GIVEN, "labels": [1]}]}, "has 4 boxes and 1 labels"),
    (
        {"predictions": [{"boxes": np.zeros((2, 5)), "labels": [1, 1], "scores": [1, 1]}], "sizes": [(4, 4)]},
        r"boxes of predictions\[0\] have the shape \[2, 5\]: pass \[N, 4\]",
    ),
    (
        {"predictions": [{"boxes": [[0, 0, 1, 1]], "labels": [1], "scores": [1]}], "paths": ["no/such.png"]},
        r"there is no file 'no/such.png' here.*pass sizes=",
    ),
    ({"predictions": [GIVEN], "sizes": [(4, 4)]}, r"the masks of predictions\[0\] are \(40, 60\)"),
)  # fmt: skip


@pytest.mark.parametrize(("arguments", "told"), BAD, ids=[each for _, each in BAD])
def test_what_does_not_fit_is_refused_by_name(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        images_of(**arguments)


def test_what_a_model_that_diverges_gives_is_left_out() -> None:
    nan = torch.tensor([[float("nan"), 1.0, 2.0, 3.0], [1.0, 2.0, 30.0, 40.0]])
    found = {"boxes": nan, "labels": torch.tensor([1, 1]), "scores": torch.tensor([0.9, float("nan")])}
    (image,) = images_of([found], [{"image_id": 1, "boxes": nan[1:], "labels": torch.tensor([1])}], sizes=[(60, 80)])
    assert image["predictions"] == []
    assert image["missed"] == 1


def test_what_is_not_finite_is_said_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(predictions, "_once", Once())
    boxes = torch.tensor([[0.0, 0.0, float("inf"), 3.0], [1.0, 2.0, 30.0, 40.0]])
    found = {"boxes": boxes, "labels": torch.tensor([1, 1]), "scores": torch.tensor([0.9, 0.8])}
    for _ in range(3):
        (image,) = images_of([found], sizes=[(60, 80)])
        assert [each["box"] for each in image["predictions"]] == [[1.0, 2.0, 30.0, 40.0]]
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("images_of: 1 boxes or scores of predictions[0] are not finite")


@pytest.mark.parametrize("text", [False, True])
def test_run_lengths_as_pycocotools_makes_them_are_masks(text: bool) -> None:
    coded = [mask_api.encode(np.asfortranarray(block(*box).numpy().astype(np.uint8))) for box in BOXES[:2]]
    if text:
        coded = [{**each, "counts": each["counts"].decode()} for each in coded]
    given = {"masks": coded, "labels": [1, 2], "scores": [0.9, 0.8]}
    (image,) = images_of([given], [{**TARGET, "masks": coded, "boxes": None}])
    assert (image["height"], image["width"]) == (HEIGHT, WIDTH)
    assert [each["box"] for each in image["predictions"]] == [list(map(float, box)) for box in BOXES[:2]]
    for thing, box in zip(image["predictions"], BOXES, strict=False):
        assert np.array_equal(decode(thing["rle"]), block(*box).numpy().astype(bool))
    assert image["mistakes"] == {}


def test_what_is_not_shown_is_matched_all_the_same() -> None:
    boxes = torch.tensor(
        [[5.0 * (n % 10), 5.0 * (n // 10), 5.0 * (n % 10) + 4, 5.0 * (n // 10) + 4] for n in range(60)]
    )
    ones = torch.ones(60, dtype=torch.int64)
    found = {"boxes": boxes, "labels": ones, "scores": torch.linspace(0.95, 0.01, 60)}
    target = {"image_id": 1, "boxes": boxes, "labels": ones}
    (image,) = images_of([found], [target], sizes=[(60, 80)])
    assert (image["missed"], image["extra"], image["mistakes"], image["iou"]) == (0, 0, {}, 1.0)
    assert len(image["predictions"]) == 30
    assert image["left_out"] == {"objects": sum(found["scores"].tolist()[place] >= 0.3 for place in range(60)) - 30}
    doubled = {key: torch.cat([value, value]) for key, value in found.items()}
    (image,) = images_of([doubled], [target], sizes=[(60, 80)], score=0.0)
    assert image["mistakes"] == {"duplicate": 60}  # those that are not shown, too
    assert pictures([image])[1] == "90 objects"


def test_a_crowd_takes_any_number_and_is_no_object() -> None:
    boxes = torch.tensor([[10.0, 10.0, 20.0, 20.0], [12.0, 10.0, 22.0, 20.0], [70.0, 50.0, 75.0, 55.0]])
    found = {"boxes": boxes, "labels": torch.ones(3), "scores": torch.tensor([0.9, 0.8, 0.7])}
    target = {"image_id": 1, "boxes": torch.tensor([[0.0, 0.0, 40.0, 40.0]]), "labels": torch.ones(1)}
    (image,) = images_of([found], [target | {"iscrowd": torch.tensor([1])}], sizes=[(60, 80)])
    assert (image["missed"], image["mistakes"], image["truth"]) == (0, {"extra": 1}, [])
    assert [each["box"][0] for each in image["predictions"]] == [70.0]
    (image,) = images_of([found], [target | {"iscrowd": [0]}], sizes=[(60, 80)])
    assert (image["missed"], len(image["truth"]), len(image["predictions"])) == (1, 1, 3)
    with pytest.raises(ValueError, match="has 2 iscrowd and 1 labels"):
        images_of([found], [target | {"iscrowd": [0, 1]}], sizes=[(60, 80)])
