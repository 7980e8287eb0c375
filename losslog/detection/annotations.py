"""COCO annotation files: read, checked, mapped to contiguous labels. Runs wherever a data set is made; no torch here.

Contract:

- One set of rules for training, validation and evaluation. What cannot be used raises `DataError` with the file, the
  entry and the field, when the file is read, not in epoch 7; what can be put right is, and is counted.
- What can be left out (boxes without area, objects without an outline) is left out of *training*. Evaluation sees the
  file's own objects, so that its figures are pycocotools' figures for that file.
- Category ids may have gaps and any order; labels are 1..n in the order of the ids, 0 is the background.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from losslog.detection.fields import Ids, is_id
from losslog.detection.findings import DataError, Findings, shown
from losslog.detection.objects import TAKEN, Objects
from losslog.detection.reading import parse, plain, read_raw, text_of
from losslog.runtime.containment import encodable

_EXACT: Final = 2.0**53  # whole numbers beyond have no float of their own


@dataclass
class Categories:
    """The classes of a data set: ids as in the file, labels as the model counts them.

    Attributes:
        names: name by category id, in the order of the ids (numbers before text).
    """

    names: dict[Any, str]
    to_label: dict[Any, int] = field(init=False)
    to_id: dict[int, Any] = field(init=False)

    def __post_init__(self) -> None:
        order = sorted(self.names, key=lambda each: (isinstance(each, str), each is None, each or 0))
        self.names = {category: self.names[category] for category in order}
        self.to_label = {category: label for label, category in enumerate(self.names, start=1)}
        self.to_id = {label: category for category, label in self.to_label.items()}

    def __len__(self) -> int:
        return len(self.names)

    @property
    def num_classes(self) -> int:
        """The number of classes as torchvision counts them: with the background."""
        return len(self.names) + 1


@dataclass
class Annotations:
    """An annotation file as read.

    Attributes:
        path: the file.
        images: its image entries, as they stand there.
        categories: its classes.
        objects: its annotations; they refer to images by position and to categories by label.
        findings: what was put right or left out.
    """

    path: Path
    images: list[dict[str, Any]]
    categories: Categories
    objects: Objects
    findings: Findings


def read_annotations(path: str | Path) -> Annotations:
    """Reads a COCO annotation file and checks what every later step relies on.

    Args:
        path: the JSON file, with the lists ``images``, ``annotations`` and ``categories``.

    Raises:
        DataError: no such file, not JSON, not COCO format, ids twice, an annotation of an unknown image or category, a
            field that is not what COCO says and cannot be read as it.
    """
    path = Path(path)
    findings = Findings(shown(str(path), 1000))
    objects = Objects(findings)
    raw = read_raw(path)
    lists = _quickly(raw, objects)
    if lists is None:
        findings.kinds.clear()
        objects.__init__(findings)  # type: ignore[misc]
        lists = _carefully(path, text_of(path, raw), objects, findings)
    del raw
    images, classes = lists
    categories = _categories(path, classes, findings)
    _refer(path, images, categories, objects, findings)
    return Annotations(path, images, categories, objects, findings)


def _quickly(raw: bytes, objects: Objects) -> tuple[list[Any], list[Any]] | None:
    """Images and categories, with all annotations taken; None where `_carefully` must look."""
    lists = plain(raw)
    if lists is None:
        return None
    try:
        for entry in lists.annotations:
            if type(entry) is not dict:
                return None
            objects.add(entry)
    except DataError:
        raise
    except (ValueError, RecursionError):  # one of them is not plain: NaN, half a surrogate pair
        return None
    ids = [*objects.ids, *objects.image_ids, *objects.category_ids]
    ids += [each.get("id") for each in (*lists.images, *lists.categories) if type(each) is dict]
    if any(type(each) is float and abs(each) >= _EXACT for each in ids):  # perhaps a whole number, and not this one
        return None
    return lists.images, lists.categories


def _carefully(path: Path, text: str, objects: Objects, findings: Findings) -> tuple[list[Any], list[Any]]:
    content = parse(path, text, objects.hook)
    rows = content["annotations"]
    if len(rows) != len(objects) or not all(row is TAKEN for row in rows):
        first = next((row for row in rows if row is not TAKEN), None)
        if objects.refused is not None and first is objects.refused[0]:
            raise objects.refused[1]
        # Something else than an annotation looks like one: one by one then.
        findings.kinds.clear()
        objects.__init__(findings)  # type: ignore[misc]
        content = parse(path, text)
        for index, entry in enumerate(content["annotations"]):
            if not isinstance(entry, dict):
                raise DataError(f"{path}: annotations[{index}] is {shown(entry)}, not an object")
            objects.add(entry)
    return content["images"], content["categories"]


def _categories(path: Path, entries: Sequence[Any], findings: Findings) -> Categories:
    names: dict[Any, str] = {}
    taken: set[str] = set()
    for index, entry in enumerate(entries):
        _need(path, "categories", index, entry, ("id", "name"))
        identity, name = entry["id"], entry["name"]
        if identity in names:
            raise DataError(
                f"{path}: the id {shown(identity)} occurs more than once in 'categories'; ids must be unique"
            )
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise DataError(f"{path}: categories[{index}]: name: {shown(name)} is not a text")
        if not isinstance(name, str):
            findings.note("category names that are a number, read as text", shown(name))
        text = encodable(str(name)).strip()
        if not text:
            text = f"category {identity}"
            findings.note("categories with an empty name, called by their id", shown(text))
        if text in taken:
            findings.note("categories with a name that another one has, their id is added", f"{shown(text)}")
            while text in taken:
                text = f"{text} ({identity})"
        taken.add(text)
        names[identity] = text
    return Categories(names)


def _need(path: Path, key: str, index: int, entry: Any, fields: Sequence[str]) -> None:
    if not isinstance(entry, dict):
        raise DataError(f"{path}: {key}[{index}] is {shown(entry)}, not an object")
    missing = [name for name in fields if name not in entry]
    if missing:
        raise DataError(f"{path}: {key}[{index}] has no {missing[0]!r}")
    if not is_id(entry["id"]):
        raise DataError(f"{path}: {key}[{index}] has the id {shown(entry['id'])}, not a text or finite number")


def _refer(path: Path, images: list[Any], categories: Categories, objects: Objects, findings: Findings) -> None:
    """Turns the objects' references into positions of images and labels of categories."""
    seen: set[Any] = set()
    for index, entry in enumerate(images):
        _need(path, "images", index, entry, ("id", "file_name"))
        if entry["id"] in seen:
            raise DataError(
                f"{path}: the id {shown(entry['id'])} occurs more than once in 'images'; ids must be unique"
            )
        seen.add(entry["id"])
        name = entry["file_name"]
        if not isinstance(name, str) or not name or "\0" in name:
            raise DataError(f"{path}: images[{index}]: file_name: {shown(name)} is not the name of a file")
    if len(set(objects.ids)) != len(objects.ids):
        twice = _first_twice(objects.ids)
        raise DataError(f"{path}: the id {shown(twice)} occurs more than once in 'annotations'; ids must be unique")
    objects.freeze()
    known = Ids(entry["id"] for entry in images)
    objects.image = _resolved(path, objects, "image", known, list(objects.image_ids), findings, "")
    listed = ", ".join(shown(category) for category in categories.names)
    known = Ids(categories.names)
    advice = f"; the file defines {shown(listed, 300) or 'no categories'}"
    objects.category = _resolved(path, objects, "category", known, list(objects.category_ids), findings, advice) + 1


def _first_twice(values: Sequence[Any]) -> Any:
    seen: set[Any] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def _resolved(
    path: Path, objects: Objects, kind: str, known: Ids, meant: list[Any], findings: Findings, advice: str
) -> npt.NDArray[np.int64]:
    column = getattr(objects, kind)
    places = np.zeros(max(len(meant), 1), np.int64)
    for number, value in enumerate(meant):
        found = known.find(value)
        if found is None:
            row = int(np.flatnonzero(column == number)[0])
            verb = "belongs to the unknown image" if kind == "image" else "has the unknown category"
            raise DataError(f"{path}: annotation {shown(objects.ids[row])} {verb} {shown(value)}{advice}")
        places[number] = found[0]
        if found[1]:
            rows = np.flatnonzero(column == number)
            example = f"annotation {shown(objects.ids[int(rows[0])])}"
            findings.note(f'{kind}_id spelt otherwise than the entry they mean (7, "7")', example, count=len(rows))
    return places[column] if len(column) else np.zeros(0, np.int64)


def check_same_categories(expected: Categories, found: Annotations) -> None:
    """Checks that a second file (validation) uses the classes of the first one (training), and takes over its labels.

    Raises:
        DataError: an id is unknown to `expected`, or stands for another name.
    """
    known = Ids(expected.names)
    ids = list(expected.names)
    labels = np.zeros(len(found.categories) + 1, np.int64)
    for category, name in found.categories.names.items():
        place = known.find(category)
        if place is None:
            raise DataError(
                f"{found.path} has the category {shown(category)} ({shown(repr(name))}), unknown to the training "
                f"annotations{_elsewhere(expected, name)}"
            )
        other = expected.names[ids[place[0]]]
        if other != name:
            raise DataError(
                f"{found.path} calls category {shown(category)} {shown(repr(name))}; "
                f"the training annotations call it {shown(repr(other))}{_elsewhere(expected, name)}"
            )
        labels[found.categories.to_label[category]] = place[0] + 1
    found.objects.category = labels[found.objects.category]


def _elsewhere(expected: Categories, name: str) -> str:
    """What to add where training has a class of that name under another id."""
    ids = [category for category, each in expected.names.items() if each == name]
    return f"; {shown(name)} is {shown(ids[0])} there: give both files the same ids" if ids else ""
