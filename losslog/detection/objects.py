"""The objects of an annotation file in columns: one row an annotation, read while the JSON is parsed. No torch here.

Contract:

- `Objects.add` checks type and range of every field that training, validation or evaluation touches; what cannot be
  used raises `DataError` with the annotation's id and the field.
- A row costs about 100 bytes and 8 for each coordinate, and nothing is left of the JSON: a million annotations fit.
- What depends on the images (references, clipping, outlines outside) is `losslog.detection.annotations`' to settle.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any, Final, NoReturn

import numpy as np
import numpy.typing as npt

from losslog.detection.fields import NUMBERS, flag, is_id, number, numbers
from losslog.detection.findings import DataError, Findings, shown
from losslog.detection.outlines import Rle, coordinates, draw, is_modest, is_regular, of_box, polygons, read_rle

_FLAGS: Final = (0, 1)
_LARGEST: Final = 3e38  # what float32 holds
TAKEN: Final = object()
"""What stands in the parsed JSON for an annotation that became a row."""


class Objects:
    """Annotations in columns.

    Args:
        findings: what was put right or left out is counted there.

    Attributes:
        ids: as in the file.
        image_ids: image ids as in the file, each once, in the order of their first object; rows refer by position.
        category_ids: likewise.
        image: by row the position of its image id, later of its image.
        category: by row the position of its category id, later its label.
        box: by row x, y, width, height as in the file.
        area: by row, in square pixels.
        crowd: by row.
        parts: by row the end of its polygons in `ends`.
        ends: by polygon the end of its coordinates in `points`.
        points: the coordinates of all polygons.
        rles: by row the counts of a compressed RLE, for rows that have one.
        rle_sizes: by row their ``(height, width)``.
        refused: the first object that `hook` could not take, and why.
    """

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self.ids: list[Any] = []
        self.image_ids: dict[Any, int] = {}
        self.category_ids: dict[Any, int] = {}
        self.image: Any = array("l")
        self.category: Any = array("l")
        self.box: Any = array("d")
        self.area: Any = array("d")
        self.crowd: Any = array("b")
        self.parts: Any = array("q")
        self.ends: Any = array("q")
        self.points: Any = array("d")
        self.rles: dict[int, bytes] = {}
        self.refused: tuple[dict[str, Any], DataError] | None = None
        self.rle_sizes: dict[int, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def hook(self, entry: dict[str, Any]) -> Any:
        """What `json.loads` calls with every object: an annotation becomes a row, everything else stays as it is."""
        if "image_id" in entry and "file_name" not in entry:
            try:
                return self.add(entry)
            except DataError as error:  # perhaps it is no annotation, but something deep in one
                self.refused = self.refused or (entry, error)
        return entry

    def add(self, entry: dict[str, Any]) -> object:
        """Takes an annotation; returns `TAKEN`.

        Raises:
            DataError: a field is missing or cannot be used.
        """
        row = len(self.ids)
        for name in ("id", "image_id", "category_id", "bbox"):
            if name not in entry:
                raise DataError(f"{self._findings.source}: annotations[{row}] has no {name!r}")
        identity = entry["id"]
        if type(identity) is not int and not is_id(identity):
            raise DataError(
                f"{self._findings.source}: annotations[{row}] has the id {shown(identity)}, not a text or finite number"
            )
        image, category = entry["image_id"], entry["category_id"]
        for field, value in (("image_id", image), ("category_id", category)):
            if type(value) is not int and not is_id(value):
                self._refuse(identity, field, f"{shown(value)} is not a text or finite number")
        box, area = entry["bbox"], entry.get("area")
        if type(box) is not list or len(box) != 4 or not set(map(type, box)) <= NUMBERS:
            box = self._box(identity, box)
        try:
            self.box.extend(box)
        except OverflowError:
            del self.box[4 * row :]
            self.box.extend([number(value) for value in box])
        if type(area) is not float or not 0 <= area < _LARGEST:
            area = self._area(identity, entry)
        self.area.append(area)
        crowd = entry.get("iscrowd", 0)
        if type(crowd) is not int or crowd not in _FLAGS:
            crowd = self._crowd(identity, crowd)
        self.crowd.append(crowd)
        if segmentation := entry.get("segmentation"):
            self._outline(row, identity, segmentation)
        self.parts.append(len(self.ends))
        self.image.append(self.image_ids.setdefault(image, len(self.image_ids)))
        self.category.append(self.category_ids.setdefault(category, len(self.category_ids)))
        self.ids.append(identity)
        return TAKEN

    def _refuse(self, identity: Any, field: str, text: str) -> NoReturn:
        raise DataError(f"{self._findings.source}: annotation {shown(identity)}: {field}: {text}")

    def _note(self, identity: Any, what: str, left_out: bool = False) -> None:
        self._findings.note(what, f"annotation {shown(identity)}", left_out=left_out)

    def _box(self, identity: Any, box: Any) -> list[float]:
        found = numbers(box) if isinstance(box, list) and len(box) == 4 else None
        if found is None:
            self._refuse(identity, "bbox", f"{shown(box)} is not [x, y, width, height] in pixels")
        if any(isinstance(value, str) for value in box):
            self._note(identity, "numbers written as text")
        return found

    def _area(self, identity: Any, entry: dict[str, Any]) -> float:
        area: Any = entry.get("area")
        if type(area) in NUMBERS and 0 <= area < _LARGEST:
            return float(area)
        found = number(area)
        if found is not None and 0 <= found < _LARGEST:
            self._note(identity, "numbers written as text")
            return found
        if "area" in entry:
            self._note(identity, "areas that are no area, taken from the box")
        _, _, width, height = self.box[-4:]
        area = width * height
        return area if 0 <= area < _LARGEST else 0.0

    def _crowd(self, identity: Any, value: Any) -> bool:
        found = flag(value)
        if found is None:
            self._refuse(identity, "iscrowd", f"{shown(value)} is neither 0 nor 1")
        self._note(identity, "iscrowd that are neither 0 nor 1, read as what they mean")
        return found

    def _outline(self, row: int, identity: Any, value: Any) -> None:
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
            value = value[0]  # an RLE in a list
        if isinstance(value, dict):
            try:
                self.rle_sizes[row], counts, as_text = read_rle(value)
            except ValueError as error:
                self._refuse(identity, *str(error).split(" ", 1))
            if as_text:
                self._note(identity, "numbers written as text")
            self.rles[row] = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
            return
        if not isinstance(value, list):
            self._refuse(identity, "segmentation", f"a {type(value).__name__} is neither polygons nor an RLE")
        if all(map(is_regular, value)):  # nearly always
            for part in value:
                self.points.extend(part)
                self.ends.append(len(self.points))
            return
        if not isinstance(value[0], list):
            self._note(identity, "outlines that are one flat list, read as the polygon they are")
        for part in polygons(value):
            points, remark = coordinates(part)
            if points is None and not remark:
                self._refuse(identity, "segmentation", f"{shown(part)} is not a list of numbers")
            if points is None:
                self._note(identity, f"{remark}, left out", left_out=True)
                continue
            if remark:
                self._note(identity, remark)
            self.points.extend(points)
            self.ends.append(len(self.points))

    def freeze(self) -> None:
        """Turns the columns into numpy arrays, without a copy."""
        for name, kind in (
            ("image", np.dtype("l")),
            ("category", np.dtype("l")),
            ("box", np.float64),
            ("area", np.float64),
            ("crowd", np.int8),
            ("parts", np.int64),
            ("ends", np.int64),
            ("points", np.float64),
        ):
            column = getattr(self, name)
            setattr(self, name, np.frombuffer(column, kind) if len(column) else np.zeros(0, kind))
        self.box = self.box.reshape(-1, 4)
        self.crowd = self.crowd.astype(bool)

    def part_range(self, row: int) -> range:
        """The polygons of a row."""
        return range(int(self.parts[row - 1]) if row else 0, int(self.parts[row]))

    def polygon(self, part: int) -> npt.NDArray[np.float64]:
        """The coordinates of a polygon."""
        start = int(self.ends[part - 1]) if part else 0
        found: npt.NDArray[np.float64] = self.points[start : int(self.ends[part])]
        return found

    def without_parts(self, gone: npt.NDArray[np.bool_]) -> None:
        """Forgets polygons: their rows keep the others."""
        if not gone.any():
            return
        lengths = np.diff(self.ends, prepend=0)
        self.points = self.points[np.repeat(~gone, lengths)]
        kept = np.concatenate(([0], np.cumsum(~gone)))
        self.parts = kept[self.parts]
        self.ends = np.cumsum(lengths[~gone])

    def without_rles(self, gone: Iterable[int]) -> None:
        """Forgets the RLEs of rows."""
        for row in gone:
            del self.rles[row], self.rle_sizes[row]

    def has_outline(self) -> npt.NDArray[np.bool_]:
        """By row whether there is an outline."""
        found: npt.NDArray[np.bool_] = np.diff(self.parts, prepend=0) > 0
        if self.rles:
            found[np.fromiter(self.rles, np.int64, len(self.rles))] = True
        return found

    def outline(self, row: int, height: int, width: int) -> Rle:
        """A row's outline as an RLE; its box, cut to the image, where it has none."""
        if row in self.rles:
            return {"size": [height, width], "counts": self.rles[row]}
        parts = [self.polygon(part) for part in self.part_range(row)]
        return draw(parts or [of_box(self.box[row], height, width)], height, width)

    def segmentation(self, row: int, height: int, width: int) -> Any:
        """A row's outline as COCO has it, one that pycocotools can draw in bounded memory; None where there is none."""
        if row in self.rles:
            return {"size": [height, width], "counts": self.rles[row].decode("ascii")}
        parts = [self.polygon(part) for part in self.part_range(row)]
        if all(is_modest(part, height, width) for part in parts):
            return [part.tolist() for part in parts] or None
        rle = draw(parts, height, width)
        return {**rle, "counts": rle["counts"].decode("ascii")}

    def box_is_finite(self) -> npt.NDArray[np.bool_]:
        """By row whether the box is made of numbers that are finite, in float32 too."""
        found: npt.NDArray[np.bool_] = (np.abs(self.box) < _LARGEST).all(axis=1)
        return found
