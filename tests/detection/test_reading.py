"""Two ways into an annotation file: whatever lies there, both read the same, or refuse it with the same words."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from losslog.detection.findings import DataError

pytest.importorskip("msgspec")
module = importlib.import_module("losslog.detection.annotations")
COLUMNS = ("image", "category", "box", "area", "crowd", "parts", "ends", "points")


def coco(**change: Any) -> dict[str, Any]:
    annotation = {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2.5, 10, 20.25], "area": 100.5, "iscrowd": 0,
                  "segmentation": [[1, 2, 11.5, 2, 11, 22]]}  # fmt: skip
    return {
        "info": {"about": [1, {"a": None}]},
        "images": [{"id": 7, "file_name": "7.jpg", "width": 64, "height": 48}],
        "annotations": [annotation | change, annotation | {"id": 2}],
        "categories": [{"id": 3, "name": "cat"}],
    }


TEXT = json.dumps(coco())
FILES: dict[str, bytes] = {
    "plain": TEXT.encode(),
    "a mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "UTF-16": TEXT.encode("utf-16"),
    "latin": TEXT.replace("cat", "c\xe4t").encode("latin1"),
    "half a pair": TEXT.replace("cat", "c\\ud800t").encode(),
    "half a pair in an annotation": json.dumps(coco(note="\ud800")).encode(),
    "NaN": json.dumps(coco(area=float("nan"))).encode(),
    "infinite": json.dumps(coco(bbox=[1, 2, float("inf"), 4])).encode(),
    "1e400": TEXT.replace("100.5", "1e400").encode(),
    "5000 digits": TEXT.replace("100.5", "9" * 5000).encode(),
    "ids that differ beyond a float": json.dumps(coco(id=10**20 + 1)).replace('"id": 2', f'"id": {10**20}').encode(),
    "an image id beyond a float": TEXT.replace("7,", f"{10**20 + 1},").encode(),
    "ids beyond 2**53": json.dumps(coco(id=2**53 + 1)).replace('"id": 2', f'"id": {2**53}').encode(),
    "text": json.dumps(coco(id="1", image_id="7", bbox=["1", 2, 3, 4], iscrowd="0", area=None)).encode(),
    "a list": json.dumps(coco(bbox=None)).encode(),
    "no category": json.dumps(coco(category_id=9)).encode(),
    "an annotation that is none": TEXT.replace('"annotations": [', '"annotations": [5, ').encode(),
    "null for a list": json.dumps(coco() | {"images": None}).encode(),
    "no images": json.dumps({key: value for key, value in coco().items() if key != "images"}).encode(),
    "a list twice": TEXT.replace('"info"', '"images": [], "info"').encode(),
    "a key of that name inside": json.dumps(coco() | {"info": {"images": 5}}).encode(),
    "a key with an escape": TEXT.replace('"images"', '"im\\u0061ges"').encode(),
    "cut": TEXT.encode()[:-40],
    "more behind it": TEXT.encode() + b" []",
    "a comma too many": TEXT.replace("]]", "],]").encode(),
    "deep": TEXT.replace("null", "[" * 100_000 + "]" * 100_000).encode(),
    "deep in an annotation": TEXT.replace("100.5", "[" * 100_000 + "]" * 100_000).encode(),
    "a control character": TEXT.replace("cat", "c\x01t").encode(),
    "an image in an annotation": json.dumps(coco(of={"image_id": 5, "id": 8})).encode(),
    "a file name in it": json.dumps(coco(file_name="a.jpg")).encode(),
    "rle": json.dumps(coco(segmentation={"size": [48, 64], "counts": [5, 10, 3057]})).encode(),
    "a list of lists": b"[[]]",
}


def read(path: Path) -> Any:
    try:
        found = module.read_annotations(path)
    except DataError as error:
        return str(error)
    columns = [np.asarray(getattr(found.objects, name)).tolist() for name in COLUMNS]
    said = {kind.what: kind.count for kind in found.findings.kinds.values()}
    return found.images, found.categories.names, found.objects.ids, columns, found.objects.rles, said


@pytest.mark.parametrize("name", FILES)
def test_both_ways_read_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = tmp_path / "annotations.json"
    path.write_bytes(FILES[name])
    quick = read(path)
    monkeypatch.setattr(module, "plain", lambda raw: None)
    assert repr(quick) == repr(read(path))  # NaN is NaN, 1 is not 1.0


def test_what_is_plain_goes_the_quick_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "annotations.json"
    path.write_bytes(FILES["plain"])
    monkeypatch.setattr(module, "parse", None)
    assert len(module.read_annotations(path).objects) == 2
