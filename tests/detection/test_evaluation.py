from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as mask_api
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from losslog.detection import CocoDataset, CocoEvaluator
from losslog.detection.evaluation import SUMMARY

NAMES = [name for name, *_ in SUMMARY]
DATA = Path(__file__).parents[3] / "shared" / "data"


def noisy_detections(dataset: CocoDataset, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    """Ground truth moved by some pixels, with some wrong labels, doubles and random scores."""
    random = torch.Generator().manual_seed(seed)
    outputs = []
    for _, target in (dataset[index] for index in range(len(dataset))):
        count = len(target["boxes"])
        take = torch.arange(count).repeat(2)[: count + count // 2]
        shift = torch.randint(-3, 4, (len(take), 2), generator=random)
        labels = target["labels"][take].clone()
        wrong = torch.rand(len(take), generator=random) < 0.1
        labels[wrong] = 1 + labels[wrong] % len(dataset.categories)
        masks = torch.stack(
            [torch.roll(target["masks"][i], tuple(s.tolist()), (1, 0)) for i, s in zip(take, shift, strict=True)]
        )
        outputs.append(
            {
                "boxes": target["boxes"][take] + shift.repeat(1, 2),
                "labels": labels,
                "scores": torch.rand(len(take), generator=random),
                "masks": masks[:, None].float(),
            }
        )
    return outputs


def by_hand(path: Path, dataset: CocoDataset, outputs: list[dict[str, torch.Tensor]], kind: str) -> COCOeval:
    """What a user of pycocotools writes."""
    results: list[dict[str, Any]] = []
    for entry, output in zip(dataset.entries, outputs, strict=True):
        for index in range(len(output["boxes"])):
            x1, y1, x2, y2 = output["boxes"][index].tolist()
            result: dict[str, Any] = {
                "image_id": entry["id"],
                "category_id": dataset.categories.to_id[int(output["labels"][index])],
                "score": float(output["scores"][index]),
            }
            if kind == "bbox":
                result["bbox"] = [x1, y1, x2 - x1, y2 - y1]
            else:
                binary = (output["masks"][index, 0] > 0.5).numpy().astype(np.uint8)
                result["segmentation"] = mask_api.encode(np.asfortranarray(binary))
            results.append(result)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        scorer = COCOeval(truth, truth.loadRes(results), kind)
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    return scorer


def check_equal_by_hand(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = folder / "annotations_val.json"
    dataset = CocoDataset(folder / "images", path)
    outputs = noisy_detections(dataset)
    evaluator = dataset.evaluator()
    for entry, output in zip(dataset.entries, outputs, strict=True):
        evaluator.update([{"image_id": entry["id"]}], [output])
    metrics = evaluator.compute()
    assert capsys.readouterr().out == ""
    assert set(metrics) == {"bbox", "segm"}
    for kind, figures in metrics.items():
        scorer = by_hand(path, dataset, outputs, kind)
        expected = {name: value for name, value in zip(NAMES, scorer.stats, strict=True) if value > -1}
        assert {name: value for name, value in figures.items() if name != "classes"} == expected
        assert 0.05 < figures["AP"] < 1
        for position, name in enumerate(dataset.categories.names.values()):
            precision = scorer.eval["precision"][:, :, position, 0, -1]
            assert figures["classes"][name] == precision[precision > -1].mean()


def test_figures_are_pycocotools_own(shapes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_equal_by_hand(shapes, capsys)


@pytest.mark.parametrize("name", ["fruitsnuts", "nuclei"])
def test_figures_are_pycocotools_own_on_real_images(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not (DATA / name).is_dir():
        pytest.skip(f"no real images in ../shared/data/{name}")
    content = json.loads((DATA / name / "annotations_val.json").read_text())
    content["images"] = content["images"][:8]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] in kept]
    (tmp_path / "annotations_val.json").write_text(json.dumps(content))
    (tmp_path / "images").symlink_to((DATA / name / "images").resolve())
    check_equal_by_hand(tmp_path, capsys)


def test_perfect_detections_score_one(shapes: Path) -> None:
    dataset = CocoDataset(shapes / "images", shapes / "annotations_val.json")
    evaluator = dataset.evaluator()
    for _, target in (dataset[index] for index in range(len(dataset))):
        output = {**target, "scores": torch.ones(len(target["labels"])), "masks": target["masks"][:, None].float()}
        evaluator.update([target], [output])
    metrics = evaluator.compute()
    assert metrics["bbox"]["AP"] == pytest.approx(1)
    assert metrics["segm"]["AP"] == pytest.approx(1)


def nothing(height: int, width: int) -> dict[str, torch.Tensor]:
    return {
        "boxes": torch.zeros(0, 4),
        "labels": torch.zeros(0, dtype=torch.int64),
        "scores": torch.zeros(0),
        "masks": torch.zeros(0, 1, height, width),
    }


def test_no_detections_score_zero_and_missing_sizes_are_left_out(shapes: Path) -> None:
    dataset = CocoDataset(shapes / "images", shapes / "annotations_val.json")
    evaluator = dataset.evaluator()
    for entry in dataset.entries:
        evaluator.update([{"image_id": entry["id"]}], [nothing(64, 64)])
    metrics = evaluator.compute()
    for kind in ("bbox", "segm"):
        figures = dict(metrics[kind])
        assert set(figures.pop("classes").values()) == {0.0}
        assert "APl" not in figures  # no object is larger than 96 x 96 pixels
        assert figures["AP"] == 0.0
        assert set(figures.values()) == {0.0}


def test_a_model_without_masks_is_scored_on_boxes_alone(shapes: Path) -> None:
    dataset = CocoDataset(shapes / "images", shapes / "annotations_val.json")
    evaluator = dataset.evaluator()
    output = nothing(64, 64)
    del output["masks"]
    evaluator.update([{"image_id": 1}], [output])
    assert set(evaluator.compute()) == {"bbox"}


def test_only_the_images_seen_are_scored(shapes: Path) -> None:
    dataset = CocoDataset(shapes / "images", shapes / "annotations_val.json")
    target = dataset[0][1]
    evaluator = dataset.evaluator()
    output = {**target, "scores": torch.ones(len(target["labels"])), "masks": target["masks"][:, None].float()}
    evaluator.update([target], [output])
    assert evaluator.compute()["bbox"]["AP"] == pytest.approx(1)


def test_an_annotation_with_the_id_zero_is_not_lost(shapes: Path) -> None:
    content = json.loads((shapes / "annotations_val.json").read_text())
    for annotation in content["annotations"]:
        annotation["id"] -= 1
    dataset = CocoDataset(shapes / "images", shapes / "annotations_val.json")
    evaluator = CocoEvaluator(CocoEvaluator.index(content), dataset.categories)
    for _, target in (dataset[index] for index in range(len(dataset))):
        output = {**target, "scores": torch.ones(len(target["labels"])), "masks": target["masks"][:, None].float()}
        evaluator.update([target], [output])
    assert evaluator.compute()["bbox"]["AP"] == pytest.approx(1)
