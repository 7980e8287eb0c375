"""Annotation files and images as people have them: each is put right and said, or refused in one line."""

from __future__ import annotations

import copy
import gzip
import json
import os
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_api

from losslog.detection import CocoDataset, DataError

WIDTH, HEIGHT = 96, 80
SQUARE = [10.0, 10.0, 40.0, 10.0, 40.0, 40.0, 10.0, 40.0]
Content = dict[str, Any]
Change = Callable[[Content], object]


def sound() -> Content:
    images = [{"id": n, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT} for n in (1, 2)]
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 30, 30], "area": 900, "iscrowd": 0},
        {"id": 2, "image_id": 2, "category_id": 2, "bbox": [10, 10, 30, 30], "area": 900, "iscrowd": 0},
    ]
    for each in annotations:
        each["segmentation"] = [list(SQUARE)]
    categories = [{"id": 1, "name": "disc"}, {"id": 2, "name": "box"}]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in (1, 2):
        Image.new("RGB", (WIDTH, HEIGHT), (60 * number, 40, 20)).save(tmp_path / "images" / f"{number}.png")
    return tmp_path


def opened(folder: Path, content: Content | str | bytes) -> tuple[CocoDataset, list[str]]:
    """The data set, and what was said."""
    path = folder / "annotations.json"
    if isinstance(content, dict):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = CocoDataset(folder / "images", path)
    return dataset, [str(each.message).removeprefix(f"{path}: ") for each in caught]


def check_usable(dataset: CocoDataset) -> dict[str, Any]:
    """Everything training and evaluation do with a data set; the figures of perfect detections."""
    evaluator = dataset.evaluator()
    for index in range(len(dataset)):
        image, target = dataset[index]
        assert image.shape[0] == 3
        for boxes in (target["boxes"], dataset.sizes[index][0] - target["boxes"][:, [2, 1, 0, 3]]):
            assert (boxes[:, 2] > boxes[:, 0]).all()
        scaled = target["boxes"] * torch.tensor(0.37)
        assert (scaled[:, 2:] > scaled[:, :2]).all()
        masks = target["masks"] if "masks" in target else torch.zeros(len(target["boxes"]), *image.shape[1:])
        output = {
            "boxes": target["boxes"],
            "labels": target["labels"],
            "scores": torch.ones(len(target["labels"])),
            "masks": masks[:, None].float(),
        }
        evaluator.update([target], [output])
    found: dict[str, Any] = evaluator.compute()
    return found


def first(**fields: Any) -> Change:
    return lambda content: content["annotations"][0].update(copy.deepcopy(fields))


def every(**fields: Any) -> Change:
    return lambda content: [each.update(copy.deepcopy(fields)) for each in content["annotations"]]


def without(field: str) -> Change:
    return lambda content: [each.pop(field) for each in content["annotations"]]


def image(**fields: Any) -> Change:
    return lambda content: content["images"][0].update(fields)


def renamed(key: str, ids: Callable[[int], Any], references: Callable[[int], Any]) -> Change:
    """Other ids in images or categories, and in what refers to them."""

    def change(content: Content) -> None:
        for each in content[key]:
            each["id"] = ids(each["id"])
        field = {"images": "image_id", "categories": "category_id"}[key]
        for each in content["annotations"]:
            each[field] = references(each[field])

    return change


def mixed(number: int) -> Any:
    return number if number == 1 else "b"


def also(box: list[Any], segmentation: Any, **fields: Any) -> Change:
    """One more annotation."""
    entry = {"id": 3, "image_id": 1, "category_id": 1, "bbox": box, "area": 9, "iscrowd": 0} | fields
    return lambda content: content["annotations"].append({**entry, "segmentation": copy.deepcopy(segmentation)})


RLE = {"size": [HEIGHT, WIDTH], "counts": [80 * 10, 80 * 30, 80 * 56]}
PACKED = {"size": [HEIGHT, WIDTH], "counts": mask_api.frPyObjects(RLE, HEIGHT, WIDTH)["counts"].decode()}
NOTHING = {**RLE, "counts": mask_api.frPyObjects({**RLE, "counts": [80 * 96]}, HEIGHT, WIDTH)["counts"].decode()}
POINTS = [[x, y] for x, y in zip(SQUARE[::2], SQUARE[1::2], strict=True)]
MANY = [value for n in range(300_000) for value in (0.0 if n % 2 else 96.0, n % 80)]

CROWD = "iscrowd that are neither 0 nor 1, read as what they mean: 1 (annotation 1)"
NO_OUTLINE = "objects without a usable outline, left out of training: 1 (annotation 3)"

PUT_RIGHT: list[tuple[str, Change, str | None]] = [
    ("area null", every(area=None), "areas that are no area, taken from the box: 2 (the first: annotation 1)"),
    ("area text", first(area="large"), "areas that are no area, taken from the box: 1 (annotation 1)"),
    ("area negative", first(area=-5), "areas that are no area, taken from the box: 1 (annotation 1)"),
    ("area infinite", first(area=float("inf")), "areas that are no area, taken from the box: 1 (annotation 1)"),
    ("area a list", first(area=[900]), "areas that are no area, taken from the box: 1 (annotation 1)"),
    ("area as text", first(area="900.5"), "numbers written as text: 1 (annotation 1)"),
    ("area beyond float32", first(area=1e200), "areas that are no area, taken from the box: 1 (annotation 1)"),
    ("no area", without("area"), None),
    ("iscrowd null", first(iscrowd=None), CROWD),
    ("iscrowd text", first(iscrowd="0"), CROWD),
    ("iscrowd false", first(iscrowd=False), CROWD),
    ("iscrowd 0.0", first(iscrowd=0.0), CROWD),
    ("no iscrowd", without("iscrowd"), None),
    ("box as text", first(bbox=["10", "10", "30", "30"]), "numbers written as text: 1 (annotation 1)"),
    ("box beyond", first(bbox=[10, 10, 1e12, 30]), "boxes that reach beyond their image, cut to it: 1 (annotation 1)"),
    ("text image ids", renamed("images", lambda n: f"img_{n}", lambda n: f"img_{n}"), None),
    ("float image ids", renamed("images", float, lambda n: n), None),
    ("image ids of both kinds", renamed("images", mixed, mixed), None),
    ("image ids spelt as text", renamed("images", lambda n: n, str),
     'image_id spelt otherwise than the entry they mean (7, "7"): 2 (the first: annotation 1)'),
    ("image ids with zeros", renamed("images", lambda n: f"00{n}", lambda n: n),
     'image_id spelt otherwise than the entry they mean (7, "7"): 2 (the first: annotation 1)'),
    ("category ids spelt as text", renamed("categories", lambda n: n, str),
     'category_id spelt otherwise than the entry they mean (7, "7"): 2 (the first: annotation 1)'),
    ("text category ids", renamed("categories", lambda n: f"c{n}", lambda n: f"c{n}"), None),
    ("category ids of both kinds", renamed("categories", mixed, mixed),
     None),
    ("category ids from 0", renamed("categories", lambda n: n - 1, lambda n: n - 1), None),
    ("annotation ids from 0", lambda content: [each.update(id=each["id"] - 1) for each in content["annotations"]],
     None),
    ("annotation ids of both kinds", first(id="x"), None),
    ("flat polygon", every(segmentation=SQUARE),
     "outlines that are one flat list, read as the polygon they are: 2 (the first: annotation 1)"),
    ("list of points", every(segmentation=POINTS), None),
    ("list of lists of points", every(segmentation=[POINTS]), None),
    ("nested too deep", every(segmentation=[[SQUARE]]), None),
    ("polygon as text", first(segmentation=[[str(value) for value in SQUARE]]),
     "numbers written as text: 1 (annotation 1)"),
    ("line beside a polygon", first(segmentation=[[10.0, 10.0, 20.0, 10.0], SQUARE]),
     "lines and points among the polygons, left out: 1 (annotation 1)"),
    ("point beside a polygon", first(segmentation=[[1, 2], SQUARE]),
     "lines and points among the polygons, left out: 1 (annotation 1)"),
    ("odd polygon beside one", first(segmentation=[SQUARE[:7], SQUARE]),
     "polygons with an odd number of coordinates, left out: 1 (annotation 1)"),
    ("collinear polygon beside one", first(segmentation=[[10, 10, 20, 20, 30, 30], SQUARE]),
     "polygons without area, left out: 1 (annotation 1)"),
    ("nan beside a polygon", first(segmentation=[[float("nan"), *SQUARE[1:]], SQUARE]),
     "polygons with a coordinate that is not finite, left out: 1 (annotation 1)"),
    ("infinity beside a polygon", first(segmentation=[[*SQUARE[:7], float("-inf")], SQUARE]),
     "polygons with a coordinate that is not finite, left out: 1 (annotation 1)"),
    ("polygon outside beside one", first(segmentation=[[200, 200, 300, 200, 300, 300], SQUARE]),
     "polygons outside their image, left out: 1 (annotation 1)"),
    ("polygon far beyond", first(segmentation=[[10, 10, 1e9, 10, 1e9, 40, 10, 40]]),
     "polygons that reach beyond their image, cut to it: 1 (annotation 1)"),
    ("polygon beyond all numbers", first(segmentation=[[10, 10, 1e307, 10, 1e307, 40, 10, 40]]),
     "polygons that reach beyond their image, cut to it: 1 (annotation 1)"),
    ("polygon of a million points", first(segmentation=[MANY]), None),
    ("empty polygon beside one", first(segmentation=[[], SQUARE]), None),
    ("rle", first(segmentation=RLE), None),
    ("packed rle", first(segmentation=PACKED), None),
    ("rle in a list", first(segmentation=[RLE]), None),
    ("rle of text numbers", first(segmentation={"size": ["80", "96"], "counts": [str(n) for n in RLE["counts"]]}),
     "numbers written as text: 1 (annotation 1)"),
    ("rle with a size as text", first(segmentation={**PACKED, "size": [80, "96"]}),
     "numbers written as text: 1 (annotation 1)"),
    ("rle with one run as text", first(segmentation={**RLE, "counts": [str(RLE["counts"][0]), *RLE["counts"][1:]]}),
     "numbers written as text: 1 (annotation 1)"),
    ("ids null", renamed("images", lambda n: n if n == 2 else None, lambda n: n if n == 2 else None), None),
    ("ids truth values", renamed("images", lambda n: n == 1, lambda n: n == 1), None),
    ("file name absolute", lambda content: content["images"][0].update(file_name=content["folder"] + "/images/1.png"),
     None),
    ("rle of floats", first(segmentation={"size": [80.0, 96.0], "counts": [float(n) for n in RLE["counts"]]}), None),
    ("size as text", image(width="96"), "numbers written as text: 1 (the size of 1.png)"),
    ("size null", image(width=None), "images whose width or height is no size, taken from the file: 1 (1.png)"),
    ("size zero", image(width=0, height=0), "images whose width or height is no size, taken from the file: 1 (1.png)"),
    ("backslash", image(file_name="..\\images\\1.png"),
     "file names with backslashes, read as folders: 1 (..\\images\\1.png)"),
    ("category name a number", lambda content: content["categories"][0].update(name=7),
     "category names that are a number, read as text: 1 (7)"),
    ("category name empty", lambda content: content["categories"][0].update(name=" "),
     "categories with an empty name, called by their id: 1 (category 1)"),
    ("category name that a number makes twice",
     lambda content: (content["categories"][0].update(name="x (2)"), content["categories"][1].update(name="x"),
                      content["categories"].append({"id": 3, "name": "x"})),
     "categories with a name that another one has, their id is added: 1 (x)"),
    ("category name half a pair", lambda content: content["categories"][0].update(name="a\ud800"), None),
    ("two categories of one name", lambda content: content["categories"][1].update(name="disc"),
     "categories with a name that another one has, their id is added: 1 (disc)"),
    ("one object without outline", also([5, 5, 9, 9], []), NO_OUTLINE),
    ("outline null", also([5, 5, 9, 9], None), NO_OUTLINE),
    ("outline an empty object", also([5, 5, 9, 9], {}), NO_OUTLINE),
    ("box nan", also([float("nan"), 5, 9, 9], [SQUARE]),
     "objects with a box that is not finite in float32, left out of training: 1 (annotation 3)"),
    ("box infinite", also([5, 5, float("inf"), 9], [SQUARE]),
     "objects with a box that is not finite in float32, left out of training: 1 (annotation 3)"),
    ("box of endless digits", also([5, 5, 10**400, 9], [SQUARE]),
     "objects with a box that is not finite in float32, left out of training: 1 (annotation 3)"),
    ("box beyond float32", also([1e300, 1e300, 1e300, 1e300], [SQUARE]),
     "objects with a box that is not finite in float32, left out of training: 1 (annotation 3)"),
    ("box around everything", also([-1e38, -1e38, 1e38, 1e38], [SQUARE]),
     "objects with a box without area inside the image, left out of training: 1 (annotation 3)"),
    ("rle without a pixel", also([5, 5, 9, 9], {"size": [80, 96], "counts": [7680]}), NO_OUTLINE),
    ("rle with runs of none", also([5, 5, 9, 9], {"size": [80, 96], "counts": [100, 0, 7580]}), NO_OUTLINE),
    ("packed rle without a pixel", also([5, 5, 9, 9], NOTHING), NO_OUTLINE),
    ("polygon between pixels", also([5, 5, 9, 9], [[5.1, 5.1, 5.2, 5.1, 5.2, 5.2]]),
     "polygons that cover no pixel, left out: 1 (annotation 3)"),
    ("polygon around a corner", also([1, 1, 9, 9], [[-90, 10, 10, -90, -90, -90]]),
     "polygons that cover no pixel, left out: 1 (annotation 3)"),
    ("box negative", also([20, 20, -5, 9], [SQUARE]),
     "objects with a box without area inside the image, left out of training: 1 (annotation 3)"),
    ("box outside", also([200, 5, 9, 9], [SQUARE]),
     "objects with a box without area inside the image, left out of training: 1 (annotation 3)"),
    ("box degenerate in float32", also([95.9999999, 5, 9, 9], [SQUARE]),
     "objects with a box without area inside the image, left out of training: 1 (annotation 3)"),
    ("box degenerate when mirrored", also([0, 5, 1e-9, 9], [SQUARE]),
     "objects with a box without area inside the image, left out of training: 1 (annotation 3)"),
    ("extra fields of any kind", every(attributes={"image_id": 9, "bbox": None, "category_id": 1}, score=None), None),
]  # fmt: skip


@pytest.mark.parametrize(("change", "said"), [case[1:] for case in PUT_RIGHT], ids=[case[0] for case in PUT_RIGHT])
def test_what_can_be_put_right_is_and_is_said_once(folder: Path, change: Change, said: str | None) -> None:
    content = {**sound(), "folder": str(folder)}
    change(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        dataset, lines = opened(folder, content)
    assert lines[:1] == ([said] if said else [])
    assert all(target["masks"].any(dim=(1, 2)).all() for _, target in dataset)
    assert [len(rows) for rows in dataset.rows] == [1, 1]
    figures = check_usable(dataset)
    assert set(figures) == {"bbox", "segm"}
    assert figures["bbox"]["AP"] > 0


@pytest.mark.parametrize(
    "name",
    [
        "flat polygon",
        "list of points",
        "list of lists of points",
        "nested too deep",
        "polygon as text",
        "line beside a polygon",
        "collinear polygon beside one",
    ],
)
def test_an_outline_put_right_covers_the_same_pixels(folder: Path, name: str) -> None:
    plain, _ = opened(folder, sound())
    expected = plain[0][1]["masks"]
    content = sound()
    next(case[1] for case in PUT_RIGHT if case[0] == name)(content)
    assert torch.equal(opened(folder, content)[0][0][1]["masks"], expected)


@pytest.mark.parametrize("far", [200.0, 1e4, 1e9, 1e307])
def test_a_polygon_far_beyond_covers_what_lies_in_the_image(folder: Path, far: float) -> None:
    content = sound()
    content["annotations"][0]["segmentation"] = [[10, 10, far, 10, far, 40, 10, 40]]
    mask = opened(folder, content)[0][0][1]["masks"][0]
    assert mask[10:40, 10:].all()
    assert mask.sum() == 30 * 86


REFUSED: list[tuple[str, Change, str]] = [
    ("box of three", first(bbox=[1, 2, 3]), r"annotation 1: bbox: \[1, 2, 3\] is not \[x, y, width, height\]"),
    ("box of words", first(bbox=["a", 2, 3, 4]), "annotation 1: bbox: "),
    ("box of truth values", first(bbox=[True, 2, 3, 4]), "annotation 1: bbox: "),
    ("box null", first(bbox=None), "annotation 1: bbox: None is not"),
    ("box an object", first(bbox={"x": 1, "y": 2, "w": 3, "h": 4}), "annotation 1: bbox: "),
    ("no box", without("bbox"), r"annotations\[0\] has no 'bbox'"),
    ("iscrowd 2", first(iscrowd=2), "annotation 1: iscrowd: 2 is neither 0 nor 1"),
    ("iscrowd yes", first(iscrowd="yes"), "annotation 1: iscrowd: yes is neither 0 nor 1"),
    ("unknown image", first(image_id=9), "annotation 1 belongs to the unknown image 9"),
    ("unknown category", first(category_id="9"), "annotation 1 has the unknown category 9; the file defines 1, 2"),
    ("image id a list", first(image_id=[1]), r"annotation 1: image_id: \[1\] is not a text or finite number"),
    ("id an object", first(id={}), r"annotations\[0\] has the id \{\}"),
    ("id nan", first(id=float("nan")), r"annotations\[0\] has the id nan"),
    ("ids twice", first(id=2), "the id 2 occurs more than once in 'annotations'"),
    ("image ids twice", image(id=2), "the id 2 occurs more than once in 'images'"),
    ("annotation null", lambda content: content["annotations"].append(None),
     r"annotations\[2\] is None, not an object"),
    ("image a text", lambda content: content["images"].append("3.png"), r"images\[2\] is 3.png, not an object"),
    ("name null", lambda content: content["categories"][0].update(name=None),
     r"categories\[0\]: name: None is not a text"),
    ("file name a number", image(file_name=7), r"images\[0\]: file_name: 7 is not the name of a file"),
    ("file name empty", image(file_name=""), r"images\[0\]: file_name:  is not the name of a file"),
    ("file name with a zero", image(file_name="1\0.png"), r"images\[0\]: file_name: 1\?.png is not"),
    ("file name of half a pair", image(file_name="\ud800.png"), r"1 of 2 images .* the first is \?\.png"),
    ("file name a folder", image(file_name="."), r"the first is \.: it is a folder"),
    ("file name above", image(file_name="../out.png"), r"the first is \.\./out\.png; it leads out of that folder: "),
    ("file name above by backslash", image(file_name="..\\out.png"), r"the first is \.\.\\out\.png; it leads out"),
    ("file name up and down", image(file_name="a/../../out.png"), "it leads out of that folder"),
    ("file name elsewhere", lambda content: content["images"][0].update(file_name=content["folder"] + "/out.png"),
     r"out\.png; it leads out of that folder: name images relative to one folder that holds them all \(--images\)"),
    ("file name of another computer", image(file_name="/home/bob/images/1.png"),
     r"1\.png is there: take /home/bob/images/ out of the file names"),
    ("file name of Windows", image(file_name="C:\\data\\images\\1.png"),
     r"1\.png is there: take C:\\data\\images\\ out of the file names"),
    ("file name with the folder", image(file_name="images/1.png"),
     r"take images/ out of the file names or name the folder above \(--images\)"),
    ("file name in other characters", image(file_name="u\u0308.png"), "is \u00fc.png, in other Unicode characters"),
    ("file name of an address", image(file_name="http://a.org/x/1.png"), r"take http://a\.org/x/ out of"),
    ("file name with a space", image(file_name="1.png "), r"the first is 1\.png ; there is 1\.png"),
    ("id beyond all numbers", first(id=float("inf")), r"annotations\[0\] has the id inf, not a text or finite number"),
    ("image id beyond all numbers", image(id=float("-inf")), r"images\[0\] has the id -inf"),
    ("category without any", lambda content: content.update(categories=[]), "; the file defines no categories"),
    ("file name of another case", image(file_name="1.PNG"), r"the first is 1\.PNG; there is 1\.png"),
    ("another size", image(width=80, height=96), r"1\.png is 96 x 80 pixels, its annotations say 80 x 96"),
    ("a size beyond all screens", image(width=10**300),
     r"1\.png is 96 x 80 pixels, its annotations say 10000000000000000\.\.\. x 80 \(width x height\)$"),
    ("outline a number", first(segmentation=7), "annotation 1: segmentation: a int is neither polygons nor an RLE"),
    ("outline words", first(segmentation=[["a"] * 6]), "annotation 1: segmentation: .* is not a list of numbers"),
    ("outline of objects", first(segmentation=[{"x": 1}, {"x": 2}]), "annotation 1: segmentation: "),
    ("rle too short", first(segmentation={"size": [80, 96], "counts": [10, 20, 30]}),
     "annotation 1: segmentation.counts: adds up to 60, its size to 80 x 96 pixels"),
    ("rle negative", first(segmentation={"size": [80, 96], "counts": [-20, 7700]}),
     "annotation 1: segmentation.counts: has"),
    ("rle without counts", first(segmentation={"size": [80, 96]}), "annotation 1: segmentation.counts: is a NoneType"),
    ("rle without size", first(segmentation={"counts": [7680]}), "annotation 1: segmentation.size: is None"),
    ("rle turned", first(segmentation={"size": [96, 80], "counts": [7680]}),
     r"annotation 1: segmentation.size: its RLE is 96 x 80, its image 80 x 96"),
    ("rle huge", first(segmentation={"size": [10**6, 10**6], "counts": [10**12]}),
     "annotation 1: segmentation.size: is 1000000"),
    ("packed rle cut", first(segmentation={**PACKED, "counts": PACKED["counts"][:-2]}),
     "annotation 1: segmentation.counts: not a compressed RLE of 80 x 96 pixels"),
    ("packed rle of noise", first(segmentation={**PACKED, "counts": "o" * 60}),
     "segmentation.counts: not a compressed RLE"),
    ("packed rle beyond ASCII", first(segmentation={**PACKED, "counts": "é" + PACKED["counts"]}),
     "not a compressed RLE"),
    ("packed rle, more to come", first(segmentation={**PACKED, "counts": PACKED["counts"] + "P"}),
     "not a compressed RLE"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_cannot_be_used_is_refused_with_file_entry_and_field(folder: Path, change: Change, message: str) -> None:
    content = {**sound(), "folder": str(folder)}
    change(content)
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "out.png")
    Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "images" / "\u00fc.png")
    with pytest.raises(DataError, match=message) as caught:
        opened(folder, content)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_every_encoding_of_json_is_read(folder: Path, encoding: str) -> None:
    content = sound()
    content["categories"][0]["name"] = "Brötchen"
    dataset, _ = opened(folder, json.dumps(content, ensure_ascii=False).encode(encoding))
    assert dataset.categories.names[1] == "Brötchen"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "annotations.json is empty: no bytes"),
        (b" \n\0\n", "annotations.json is empty: 4 bytes of nothing"),
        (b"\xff\xfe\x00", "is not UTF-16 .* cut off"),
        ('{"images": "\xe9 and more"}'.encode("latin-1"), r"is not UTF-8 \(byte 0xe9 at 12\): re-encode it as UTF-8"),
        (gzip.compress(json.dumps(sound()).encode()), "is compressed with gzip: gunzip it first"),
        (b"PK\x03\x04" + b"x" * 99, "is a zip archive: unzip it first"),
        (b"[" * 100_000, "is no COCO file: its lists or objects are nested too deep"),
        (b'{"images": [' + b"9" * 5000 + b"]}", "is no COCO file: it has a whole number of more than 4300 digits"),
        (b'"text"', "its top level is a text, not an object"),
        (b"[]", "its top level is a list, not an object"),
        (b'{"images": {}, "annotations": [], "categories": []}', "its 'images' is no list"),
        (b'{"annotations": [], "categories": []}', "the list 'images' is missing"),
        (json.dumps(sound())[:-40].encode(), "not valid JSON"),
        (json.dumps(sound())[:-1].encode() + b', "annotations": []}', "the key 'annotations' occurs 2 times"),
        (b'{"images": [], ' + json.dumps(sound())[1:].encode(), "the key 'images' occurs 2 times at the top level"),
    ],
    ids=["empty", "nothing", "utf-16 cut", "latin-1", "gzip", "zip", "too deep", "too many digits", "text", "list",
         "images an object", "no images", "cut", "annotations twice", "images twice"],
)  # fmt: skip
def test_what_is_no_coco_file_is_refused(folder: Path, raw: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        opened(folder, raw)
    assert not any(word in str(caught.value) for word in ("codec", "recursion", "sys.", "Exceeds"))


def test_the_name_of_a_list_may_occur_elsewhere(folder: Path) -> None:
    content = sound()
    content["annotations"][0]["attributes"] = {"images": [], "annotations": "annotations"}
    dataset, lines = opened(folder, content)
    assert lines == []
    assert len(dataset.table) == 2


@pytest.mark.parametrize(
    "change",
    [every(iscrowd=1), every(bbox=[200, 0, 5, 5]), lambda content: content.update(annotations=[])],
    ids=["crowds", "boxes outside", "none"],
)
def test_no_usable_object_at_all_is_said(folder: Path, change: Change) -> None:
    content = sound()
    change(content)
    dataset, lines = opened(folder, content)
    assert any("no usable object" in line for line in lines)
    assert not len(dataset.usable.rows)


def test_crowds_alone_have_no_figures(folder: Path) -> None:
    content = sound()
    every(iscrowd=1)(content)
    dataset, _ = opened(folder, content)
    assert check_usable(dataset) == {}


def test_something_else_that_looks_like_an_annotation_is_passed_over(folder: Path) -> None:
    content = {"old": [dict(each) for each in sound()["annotations"]], **sound()}
    dataset, lines = opened(folder, content)
    assert lines == []
    assert len(dataset.table) == 2


def test_annotations_may_stand_before_the_images(folder: Path) -> None:
    dataset, _ = opened(folder, dict(reversed(sound().items())))
    assert [len(rows) for rows in dataset.rows] == [1, 1]


def test_packed_rles_are_checked_one_by_one_and_many_at_once() -> None:
    from losslog.detection.outlines import check_counts

    random = np.random.default_rng(0)
    texts, pixels = [], []
    for _ in range(300):
        shape = random.integers(1, 90, 2)
        mask = random.random(shape) < random.random() ** 2
        texts.append(mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"])
        pixels.append(int(shape.prod()))
    assert check_counts(texts, pixels) is None
    for row in range(0, 300, 7):
        assert check_counts(texts, [*pixels[:row], pixels[row] + 1, *pixels[row + 1 :]]) == row
        assert check_counts([*texts[:row], texts[row][:-1], *texts[row + 1 :]], pixels) == row


# ---------------------------------------------------------------------- images


def redrawn(folder: Path, save: Callable[[Path], object]) -> Callable[[], tuple[CocoDataset, list[str]]]:
    path = folder / "images" / "1.png"
    path.unlink()
    save(path)
    return lambda: opened(folder, sound())


def ramp(kind: Any, top: float) -> Image.Image:
    values = np.tile(np.linspace(0, top, WIDTH), (HEIGHT, 1))
    return Image.fromarray(values.astype(kind))


@pytest.mark.parametrize(
    ("kind", "top", "form"),
    [
        (np.uint16, 65535, "PNG"), (np.uint16, 4095, "PNG"), (np.uint16, 300, "TIFF"), (np.int32, 70_000, "TIFF"),
        (np.float32, 1.0, "TIFF"), (np.float32, 255.0, "TIFF"), (np.float32, 1e30, "TIFF"),
    ],
)  # fmt: skip
def test_deep_images_are_scaled_to_8_bits(folder: Path, kind: Any, top: float, form: str) -> None:
    dataset, lines = redrawn(folder, lambda path: ramp(kind, top).save(path, format=form))()
    assert lines == ["images of more than 8 bits or of floats, each one's own range scaled to 8 bits: 1 (1.png)"]
    image = dataset[0][0]
    assert image.min() == 0
    assert image.max() == 1
    assert image.mean() == pytest.approx(0.5, abs=0.02)


def test_a_float_image_with_holes_is_scaled(folder: Path) -> None:
    values = np.tile(np.linspace(0, 1, WIDTH, dtype=np.float32), (HEIGHT, 1))
    values[0, :3] = (np.nan, np.inf, -np.inf)
    dataset, _ = redrawn(folder, lambda path: Image.fromarray(values).save(path, format="TIFF"))()
    assert torch.isfinite(dataset[0][0]).all()
    assert dataset[0][0].max() == 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_mode_of_8_bits_is_read_without_a_word(folder: Path, mode: str) -> None:
    form = "JPEG" if mode == "CMYK" else "PNG"
    dataset, lines = redrawn(folder, lambda path: ramp(np.uint8, 255).convert("RGB").convert(mode).save(path, form))()
    assert lines == []
    assert dataset[0][0].max() > 0.9


def corner_marked(width: int, height: int) -> Image.Image:
    image = Image.new("RGB", (width, height))
    image.paste((255, 255, 255), (0, 0, width // 2, height // 2))
    return image


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_as_viewers_turn_them(folder: Path, form: str, orientation: int) -> None:
    back = {
        1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]  # fmt: skip
    stored = corner_marked(WIDTH, HEIGHT)
    if back is not None:
        stored = stored.transpose(back)
    exif = Image.Exif()
    exif[0x0112] = orientation
    dataset, lines = redrawn(folder, lambda path: stored.save(path, format=form, exif=exif))()
    assert lines == ([] if back is None else ["images turned as their EXIF orientation says: 1 (1.png)"])
    image = dataset[0][0]
    assert image.shape == (3, HEIGHT, WIDTH)
    assert image[:, :30, :40].mean() > 0.95
    assert image[:, 50:, :].mean() < 0.05


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_annotations_of_stored_pixels_are_refused_with_the_cause(folder: Path, form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    opens = redrawn(folder, lambda path: corner_marked(WIDTH, HEIGHT).save(path, format=form, exif=exif))
    told = (
        rf"1\.png is {HEIGHT} x {WIDTH} pixels as its EXIF orientation turns it \(stored {WIDTH} x {HEIGHT}\), "
        rf"its annotations say {WIDTH} x {HEIGHT} \(width x height\)"
    )
    with pytest.raises(DataError, match=told):
        opens()


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_read_and_said(folder: Path, form: str) -> None:
    frames = [Image.new("RGB", (WIDTH, HEIGHT), colour) for colour in ("white", "black")]
    dataset, lines = redrawn(
        folder, lambda path: frames[0].save(path, format=form, save_all=True, append_images=frames[1:])
    )()
    assert lines == ["images of several frames, of which the first is read: 1 (1.png)"]
    assert dataset[0][0].min() > 0.9


def test_a_float_image_without_a_finite_value_is_refused(folder: Path) -> None:
    values = np.full((HEIGHT, WIDTH), np.nan, np.float32)
    opens = redrawn(folder, lambda path: Image.fromarray(values).save(path, format="TIFF"))
    with pytest.raises(DataError, match=r"1\.png: none of its values is finite"):
        opens()


FORMS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")


def cut(form: str, keep: float) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(noise).save(path, format=form)
        raw = path.read_bytes()
        path.write_bytes(raw[: int(len(raw) * keep)])

    return save


def bomb(path: Path) -> None:
    Image.new("1", (8, 8)).save(path, format="PNG")
    raw = bytearray(path.read_bytes())
    raw[16:24] = (60_000).to_bytes(4, "big") * 2
    raw[29:33] = zlib.crc32(raw[12:29]).to_bytes(4, "big")
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("save", "message"),
    [
        (lambda path: path.write_bytes(b""), "Pillow does not know its format, or the file is empty or damaged"),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"), "Pillow does not know its format"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 40), "cannot read the image"),
        (lambda path: path.write_bytes(b"\xff\xd8\xff"), "cannot read the image"),
        (bomb, "Pillow's limit"),
        (lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 48\n"), "it is PostScript"),
        *((cut(form, keep), "cannot read the image") for form in FORMS for keep in (0.5, 0.9)),
    ],
)  # fmt: skip
def test_an_image_that_cannot_be_read_is_named_before_training(
    folder: Path, save: Callable[[Path], object], message: str
) -> None:
    open_it = redrawn(folder, save)
    with pytest.raises(DataError, match=message) as caught:
        open_it()
    assert "1.png" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_all_images_that_cannot_be_read_are_counted(folder: Path) -> None:
    for number in (1, 2):
        (folder / "images" / f"{number}.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"1\.png: .* \(and 1 more of 2 images cannot be used\)"):
        opened(folder, sound())


def test_an_image_that_has_gone_since_is_one_line(folder: Path) -> None:
    dataset, _ = opened(folder, sound())
    (folder / "images" / "1.png").unlink()
    with pytest.raises(DataError, match=r"cannot read the image .*1\.png: No such file"):
        dataset[0]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name on this system")
@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda path: path.mkdir(), "it is a folder"),
        (lambda path: os.mkfifo(path), "it is a pipe or a device, not a file"),
        (lambda path: path.symlink_to(os.devnull), "it is a pipe or a device, not a file"),
        (lambda path: path.symlink_to("gone.png"), "it is a link to gone.png that leads nowhere"),
        (lambda path: path.symlink_to(path), "it is a link to "),
    ],
    ids=["folder", "pipe", "device", "broken link", "link to itself"],
)
def test_a_name_that_is_no_file_is_told_what_it_is(folder: Path, make: Callable[[Path], object], what: str) -> None:
    open_it = redrawn(folder, make)
    with pytest.raises(DataError, match=r"1 of 2 images of .* the first is 1\.png: ") as caught:
        open_it()
    assert what in str(caught.value)


def test_a_link_in_the_folder_is_followed(folder: Path) -> None:
    (folder / "images" / "1.png").rename(folder / "elsewhere.png")
    (folder / "images" / "1.png").symlink_to(folder / "elsewhere.png")
    dataset, lines = opened(folder, sound())
    assert lines == []
    assert len(dataset[0][1]["boxes"]) == 1


def damaged(folder: Path) -> Path:
    """An image whose header and end are whole, and whose pixels are not."""
    path = folder / "images" / "1.png"
    noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(noise).save(path)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 255
    path.write_bytes(bytes(raw))
    return path


def test_pixels_are_read_beforehand_where_it_is_asked_for(folder: Path) -> None:
    dataset, lines = opened(folder, sound())
    damaged(folder)
    dataset, lines = opened(folder, sound())
    assert lines == []
    with pytest.raises(DataError, match=r"cannot read the image .*1\.png: "):
        dataset[0]
    done: list[tuple[int, int]] = []
    with pytest.raises(DataError, match=r"cannot read the image .*1\.png: ") as caught:
        CocoDataset(folder / "images", folder / "annotations.json", decode=True, progress=lambda *at: done.append(at))
    assert len(str(caught.value).splitlines()) == 1
    assert done[-1] == (2, 2)


def test_what_a_loaders_process_cannot_read_is_the_same_line(folder: Path) -> None:
    dataset, _ = opened(folder, sound())
    damaged(folder)
    with pytest.raises(DataError) as alone:
        dataset[0]
    with pytest.raises(DataError) as caught:
        list(torch.utils.data.DataLoader(dataset, 1, num_workers=1, collate_fn=list))
    assert str(caught.value) == str(alone.value)
    assert "in load_pixels" in caught.value.__notes__[0]


def test_what_libtiff_prints_stays_away(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def save(path: Path) -> None:
        noise = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        Image.fromarray(noise).save(path, "TIFF", compression="tiff_lzw")
        raw = bytearray(path.read_bytes())
        raw[200:1200] = b"\xff" * 1000
        path.write_bytes(bytes(raw))

    open_it = redrawn(folder, save)
    with pytest.raises(DataError, match="cannot read the image"):
        open_it()
    print("mine", file=sys.stderr)
    assert capfd.readouterr().err == "mine\n"


def test_outlines_without_a_pixel_are_found_among_many(folder: Path) -> None:
    content = sound()
    for number in range(3, 603):
        outline = NOTHING if number % 100 == 0 else PACKED
        also([10, 10, 30, 30], outline, id=number)(content)
    dataset, lines = opened(folder, content)
    assert lines == ["objects without a usable outline, left out of training: 6 (the first: annotation 100)"]
    assert len(dataset.usable.rows) == 596


def test_an_image_listed_twice_is_said_once(folder: Path) -> None:
    content = sound()
    content["images"] += [{**content["images"][0], "id": 8}, {**content["images"][0], "id": 9, "file_name": "./1.png"}]
    _, lines = opened(folder, content)
    assert lines == ["images listed more than once: 2 (the first: 1.png)"]


def test_an_image_that_takes_much_memory_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, lines = opened(folder, sound())
    assert lines == []
    monkeypatch.setattr("losslog.detection.coco._LARGE", 16.0 * WIDTH * HEIGHT - 1)  # float32, bytes and one mask
    _, lines = opened(folder, sound())
    (line,) = lines
    assert line.startswith("images that take more than ")
    assert "each to load: 2, the largest 1.png (96 x 80, 1 masks)" in line


def test_what_is_left_out_of_a_validation_file_is_not_left_out_of_training(folder: Path) -> None:
    train, _ = opened(folder, sound())
    content = sound()
    first(bbox=[5, 5, 0, 0])(content)
    (folder / "annotations.json").write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="inside the image, left out of the validation losses: 1"):
        CocoDataset(folder / "images", folder / "annotations.json", categories=train.categories)


def test_classes_with_other_ids_are_refused_with_the_way_out(folder: Path) -> None:
    train, _ = opened(folder, sound())
    for ids in ((2, 1), (6, 5), (1, 5)):
        content = sound()
        for each, number in zip(content["categories"], ids, strict=True):
            each["id"] = number
        for each, number in zip(content["annotations"], ids, strict=True):
            each["category_id"] = number
        (folder / "annotations.json").write_text(json.dumps(content))
        with pytest.raises(DataError, match=r"training annotations.*; (disc is 1|box is 2) there: give both files the"):
            CocoDataset(folder / "images", folder / "annotations.json", categories=train.categories)
