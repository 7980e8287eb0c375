"""Small copies of pictures in the run folder, for those who want to see them when the data is not at hand.

Training thread, between epochs and at the run's start; no torch. Contract:

- A JPEG of at most `SIDE` pixels, once an image: what is there is not made again.
- Written whole or not at all, into ``pictures`` in the run folder, through no link.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from PIL import Image

from losslog.detection.drawing import Pixels, encoded, opened
from losslog.journal.files import own_folder
from losslog.runtime.containment import attempt, one_line
from losslog.runtime.notices import Once

SIDE: Final = 320
FOLDER: Final = "pictures"
_said = Once()  # of the process


def keep(images: Sequence[dict[str, Any]], root: str | None, home: Path) -> None:
    """Make a thumbnail of each picture that has none, and name it in the image.

    Args:
        images: with paths as a record has them; get ``thumbnail``.
        root: the data folder, or None: the run folder.
        home: the run folder.

    Raises:
        OSError: the folder cannot be made, or a file not written.
    """
    for image in images:
        if image.get("thumbnail") or not image.get("path"):
            continue
        source = os.path.realpath(Path(root or home, image["path"]))
        place = f"{FOLDER}/{hashlib.blake2s(os.fsencode(source), digest_size=8).hexdigest()}.jpg"
        if not (home / place).is_file():
            scale = min(1.0, SIDE / max(image["width"], image["height"]))
            size = (max(1, round(image["width"] * scale)), max(1, round(image["height"] * scale)))
            pixels, error = attempt(opened, source, size, turn=image.get("turned") is not False)
            if pixels is None:
                _said("no thumbnail of %s (%s)", source, one_line(error) if error is not None else "", key="thumbnail")
                continue
            write(pixels, home, place)
        image["thumbnail"] = place


def write(pixels: Pixels, home: Path, place: str) -> None:
    """Write pixels as a JPEG into the run folder.

    Raises:
        OSError: it cannot be written.
    """
    path = home / place
    path.parent.mkdir(mode=0o755, exist_ok=True)
    own_folder(path.parent)
    picture = Image.fromarray(pixels)
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("xb") as file:  # never through a link that lies there
            file.write(encoded(picture))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
