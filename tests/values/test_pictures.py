"""The door for images: what may be one, what it becomes, and what is left out of too much."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from losslog.values.pictures import BYTES, IMAGES, OBJECTS, compress, pictures


def image(**changes: Any) -> dict[str, Any]:
    thing = {"box": [1, 2.004, 3, 4.5], "label": "cat"}
    return {"id": 7, "path": "a/7.jpg", "width": 40, "height": 30, "truth": [thing],
            "predictions": [{**thing, "score": 0.123456}], **changes}  # fmt: skip


def test_what_comes_out_is_plain_and_rounded() -> None:
    (found,), gone = pictures(
        [image(id="x", loss={"mask": 0.5}, iou=0.75, mistakes={"extra": 1}, path=Path("a/7.jpg"))]
    )
    assert gone == ""
    assert found["path"] in ("a/7.jpg", "a\\7.jpg")
    assert found["truth"] == [{"box": [1.0, 2.0, 3.0, 4.5], "label": "cat"}]
    assert found["predictions"][0]["score"] == 0.1235
    assert (found["loss"], found["iou"], found["mistakes"]) == ({"mask": 0.5}, 0.75, {"extra": 1})
    assert json.loads(json.dumps(found)) == found


def test_tensors_arrays_and_numpy_scalars_are_read() -> None:
    np = pytest.importorskip("numpy")
    thing = {"box": np.array([1, 2, 3, 4], np.float32), "label": np.int64(3), "score": np.float32(0.5)}
    (found,), _ = pictures([image(id=np.int64(5), width=np.int32(40), predictions=[thing])])
    assert (found["id"], found["width"]) == (5, 40)
    assert found["predictions"] == [{"box": [1.0, 2.0, 3.0, 4.0], "label": "3", "score": 0.5}]


BOX = {"box": [0, 0, 1, 1], "label": "a"}
RLE = {"size": [30, 40], "counts": "P1"}
BAD: tuple[tuple[Any, str], ...] = (
    ({"a": 1}, "images must be a list"), ("x", "images must be a list"), ([3], r"images\[0\] must be a dict"),
    ([image(id=None)], r"images\[0\] has no 'id'"), ([image(width=0)], r"\['width'\] is 0"),
    ([image(height=1.5)], r"\['height'\] is 1.5"), ([image(), image(boxes=1)], r"images\[1\] has no 'boxes'"),
    ([image(pth="x")], r"did you mean 'path'"), ([image(path=3)], r"\['path'\] must be a path"),
    ([image(truth=[{"label": "a"}])], r"\['truth'\]\[0\] has no 'box'"),
    ([image(truth=[{**BOX, "box": [1, 2, 3]}])], "has 3 numbers: pass x1, y1, x2, y2"),
    ([image(truth=[{**BOX, "box": [1, 2, 3, math.nan]}])], r"\['box'\] is nan"),
    ([image(truth=[{**BOX, "box": [1, 2, 3, "4"]}])], r"\['box'\] must be a number, got str"),
    ([image(predictions=[BOX])], r"\['predictions'\]\[0\] has no 'score'"),
    ([image(predictions=[{**BOX, "score": 1.5}])], r"\['score'\] is 1.5: pass a number from 0 to 1"),
    ([image(truth=[{**BOX, "bbox": 1}])], r"did you mean 'box'"),
    ([image(truth=[{**BOX, "rle": "x"}])], "must be a COCO RLE.*images_of"),
    ([image(truth=[{**BOX, "rle": {**RLE, "size": [40, 30]}}])], r"is \[40, 30\], the image's height and width are"),
    ([image(truth=[{**BOX, "rle": {**RLE, "counts": "a b"}}])], "is no COCO run lengths"),
    ([image(truth=[{**BOX, "rle": {**RLE, "counts": [3, 4]}}])], "adds up to 7, not to 30 x 40 pixels"),
    ([image(loss={"a": "high"})], r"\['loss'\]\['a'\] must be a number"),
    ([image(truth=5)], r"\['truth'\] must be a list"),
)  # fmt: skip


@pytest.mark.parametrize(("images", "told"), BAD, ids=[each for _, each in BAD])
def test_what_is_no_image_is_refused_by_name(images: Any, told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        pictures(images)


def test_run_lengths_in_any_form_are_pycocotools_own() -> None:
    np = pytest.importorskip("numpy")
    mask_api = pytest.importorskip("pycocotools.mask")
    random = np.random.default_rng(0)
    for _ in range(60):
        height, width = random.integers(1, 70, 2).tolist()
        mask = np.asfortranarray(random.random((height, width)) < random.random(), np.uint8)
        flat = mask.flatten(order="F")
        edges = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
        runs = ([0] if flat[0] else []) + np.diff(edges).tolist()
        wanted = mask_api.encode(mask)["counts"]
        assert compress(runs) == wanted.decode()
        for counts in (wanted, wanted.decode(), runs):
            thing = {**BOX, "rle": {"size": [height, width], "counts": counts}}
            (found,), _ = pictures([image(width=width, height=height, truth=[thing])])
            assert np.array_equal(mask_api.decode(found["truth"][0]["rle"]), mask)


def crowded(objects: int, length: int) -> dict[str, Any]:
    rle = {"size": [30, 40], "counts": "0" * length}
    things = [{**BOX, "score": place / objects, "rle": rle} for place in range(objects)]
    return image(truth=[{**BOX, "rle": rle}], predictions=things)


def test_what_is_too_much_is_left_out_and_counted() -> None:
    found, gone = pictures([image(id=number) for number in range(20)])
    assert [each["id"] for each in found] == list(range(IMAGES))
    assert gone == "4 of 20 images"
    (found_one,), gone = pictures([crowded(130, 5)])
    assert [each["score"] for each in found_one["predictions"][:2]] == [round(129 / 130, 4), round(128 / 130, 4)]
    assert len(found_one["predictions"]) == OBJECTS
    assert (found_one["left_out"], gone) == ({"objects": 30}, "30 objects")


def test_a_record_stays_below_its_size_and_the_best_keep_their_masks() -> None:
    found, gone = pictures([crowded(40, 900) for _ in range(8)])
    assert BYTES - 1000 < len(json.dumps(found)) <= BYTES
    kept = [thing["score"] for each in found for thing in each["predictions"] if "rle" in thing]
    lost = [thing["score"] for each in found for thing in each["predictions"] if "rle" not in thing]
    assert max(lost) <= min(kept)
    assert all("rle" in each["truth"][0] for each in found)
    assert gone == f"{len(lost)} masks"
    assert sum(each["left_out"]["masks"] for each in found) == len(lost)
    long = [{**BOX, "label": "x" * 300, "score": 0.5} for _ in range(100)]
    found, gone = pictures([image(truth=[], predictions=long) for _ in range(16)])
    assert len(json.dumps(found)) <= 2 * BYTES
    assert gone.endswith("objects")


def test_losses_that_are_not_finite_are_left_to_the_alert() -> None:
    (found,), _ = pictures([image(loss={"a": math.nan, "b": 1})])
    assert found["loss"] == {"b": 1.0}


@pytest.mark.parametrize("value", [1e9, -1e12, float("inf"), float("nan"), 10**12, 10**400])
def test_a_number_out_of_range_is_told_the_range(value: float) -> None:
    image = {"id": 1, "width": 9, "height": 9, "truth": [{"box": [0, 0, 1, value], "label": "a"}]}
    with pytest.raises(ValueError, match="pass a number between -1,000,000,000 and 1,000,000,000"):
        pictures([image])
