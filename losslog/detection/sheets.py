"""What a plugin asks for a sheet of images: nothing heavy is imported before there is one to draw.

The plugin's lane. Contract:

- Where Pillow or numpy is not installed there is no sheet, and one line says so.
- Tags and titles are the same in every backend.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from losslog.runtime.notices import Once

if TYPE_CHECKING:
    from losslog.detection.drawing import Sheet

NEEDED: Final = {"PIL": "pillow", "numpy": "numpy"}
_said = Once()  # of the process


def sheet_of(
    split: str | None, name: str | None, epoch: int | None, images: Sequence[Mapping[str, Any]] | None, *,
    both: bool = True,
) -> Sheet | None:  # fmt: skip
    """The sheet of a record of ``on_images``; None where it has no images, or nothing can draw here.

    Args:
        split: the hook's argument, as the others.
        name: likewise.
        epoch: likewise.
        images: likewise.
        both: truth beside predictions; False: one picture an image, for backends that draw boxes themselves.
    """
    missing = [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        _said("images are not drawn: pip install %s", " ".join(missing), key="missing")
    if missing or not images:
        return None
    drawing = importlib.import_module("losslog.detection.drawing")
    title = drawing.title_of(split or "", name or "", epoch)
    sheet: Sheet = drawing.Sheet(images, title=title, both=both)
    return sheet


def tag_of(split: str | None, name: str | None) -> str:
    """What a series of sheets is called in every backend."""
    return f"images/{split or 'val'}_{name or 'images'}"
