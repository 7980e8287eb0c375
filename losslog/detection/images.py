"""The image files of a data set: opened once before training, and read for training. Pillow and numpy, no torch here.

Contract:

- `check_images` reads headers (and looks whether the end of a file is there); nothing is decoded but what looks cut,
  and everything where it is asked for.
- What a library writes to the process's stderr meanwhile does not get there.
- An image is turned as its EXIF orientation says, as viewers do; its annotations are of the turned image.
- Pixels become 8 bits: of 16 or 32 bits or floats, each image's own range is spread over 0..255.
- Every error is one line that names the file.
- No format is read that has a program run: a data set is no more trusted than a run folder.
"""

from __future__ import annotations

import contextlib
import functools
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from losslog.detection.fields import whole
from losslog.detection.findings import DataError, Findings, shown
from losslog.detection.names import find_images
from losslog.runtime.containment import attempt, one_line

Progress = Callable[[int, int], None]
_ORIENTATION: Final = 0x0112
_ACROSS: Final = (5, 6, 7, 8)  # orientations that make width of height
TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_PROGRAMS: Final = ("EPS", "WMF")  # Pillow hands these to Ghostscript, and to Windows
_POSTSCRIPT: Final = (b"%!PS", b"\xc5\xd0\xd3\xc6")
_FRAMES: Final = "images of several frames, of which the first is read"
_DEEP: Final = "images of more than 8 bits or of floats, each one's own range scaled to 8 bits"


def opened(path: str | os.PathLike[str]) -> Image.Image:
    """An image file, of any format that holds pixels.

    Raises:
        OSError: it cannot be read, or Pillow does not know it.
        DataError: it is a program.
    """
    try:
        return Image.open(path, formats=_formats())
    except UnidentifiedImageError:
        with open(path, "rb") as raw:
            if raw.read(4).startswith(_POSTSCRIPT):
                raise DataError("it is PostScript (EPS), a program and no picture: convert it to PNG") from None
        raise


@functools.cache
def _formats() -> tuple[str, ...]:
    """Those that this Pillow was built with, the most usual first."""
    Image.init()
    return tuple(each for each in Image.ID if each not in _PROGRAMS)


def check_images(
    folder: Path,
    entries: Sequence[dict[str, Any]],
    findings: Findings,
    progress: Progress | None = None,
    decode: bool = False,
) -> tuple[list[Path], npt.NDArray[np.int64]]:
    """Opens every image of an annotation file.

    Args:
        folder: file names are relative to it.
        entries: the file's image entries; their ``width`` and ``height`` become what the image says where they are
            missing, or no number.
        findings: gets what is put right.
        progress: called now and then with how many of how many are done.
        decode: read all pixels, too, as training does.

    Returns:
        The paths, and ``(width, height)`` by image.

    Raises:
        DataError: an image is not there, cannot be read, or has another size than the annotations say.
    """
    if not entries:
        raise DataError(f"{findings.source} lists no images")
    paths = find_images(folder, [entry["file_name"] for entry in entries], findings)
    sizes = np.zeros((len(entries), 2), np.int64)
    problems: list[str] = []
    for number, (entry, path) in enumerate(zip(entries, paths, strict=True)):
        if progress is not None:
            progress(number, len(entries))
        found, error = attempt(_look, path, findings)
        if found is not None and decode:
            error = attempt(_load, path)[1]
        if found is None or error is not None:
            problems.append(f"cannot read the image {shown(str(path), 300)}: {_reason(error)}")
            continue
        sizes[number], across = found
        if problem := _compare(entry, found[0], findings, across=across):
            problems.append(f"{shown(str(path), 300)} {problem}")
    if progress is not None:
        progress(len(entries), len(entries))
    if problems:
        more = f" (and {len(problems) - 1} more of {len(entries)} images cannot be used)" if len(problems) > 1 else ""
        raise DataError(problems[0] + more)
    return paths, sizes


def _reason(error: BaseException | None) -> str:
    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return f"it has more than {limit:,} pixels, Pillow's limit (PIL.Image.MAX_IMAGE_PIXELS)"
    if isinstance(error, UnidentifiedImageError):
        return "Pillow does not know its format, or the file is empty or damaged"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, DataError):
        return str(error)
    return one_line(error) if error is not None else "unknown"


def _compare(entry: dict[str, Any], size: tuple[int, int], findings: Findings, *, across: bool) -> str | None:
    given = [whole(entry.get(key)) for key in ("width", "height")]
    if any(value is None or value <= 0 for value in given):
        if "width" in entry and "height" in entry:
            findings.note("images whose width or height is no size, taken from the file", shown(entry["file_name"]))
        given = list(size)
    elif any(isinstance(entry[key], str) for key in ("width", "height")):
        findings.note("numbers written as text", f"the size of {shown(entry['file_name'])}")
    entry["width"], entry["height"] = given
    if (given[0], given[1]) == size:
        return None
    turned = f" as its EXIF orientation turns it (stored {size[1]} x {size[0]})" if across else ""
    said = " x ".join(shown(each, 20) for each in given)
    return f"is {size[0]} x {size[1]} pixels{turned}, its annotations say {said} (width x height)"


def _look(path: Path, findings: Findings) -> tuple[tuple[int, int], bool]:
    """Width and height after EXIF, from the header, and whether that made one of the other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # DecompressionBombWarning: large, but within the limit; odd metadata
        with opened(path) as file:
            with open(path, "rb") as raw:
                whole_file, orientation = _ends(raw, file.format)
            own = _orientation(file) if file.format == "TIFF" else 1  # Pillow turns these itself
            if not whole_file:
                with _silence(file.format):
                    file.load()
            if orientation is None:
                orientation = _orientation(file)
            if own in TURNS or orientation in TURNS:
                findings.note("images turned as their EXIF orientation says", shown(path.name))
            if _is_deep(file):
                if file.mode == "F" and not np.isfinite(np.asarray(file)).any():
                    raise DataError("none of its values is finite")
                findings.note(_DEEP, shown(path.name))
            if file.format != "MPO" and attempt(getattr, file, "is_animated", False)[0]:
                findings.note(_FRAMES, shown(path.name))
            width, height = file.size
    across = orientation in _ACROSS
    return (height, width) if across else (width, height), across or own in _ACROSS


def _orientation(file: Image.Image) -> int:
    exif, _ = attempt(file.getexif)
    return int(attempt(exif.get, _ORIENTATION, 1)[0] or 1) if exif is not None else 1


def _is_deep(file: Image.Image) -> bool:
    return file.mode in ("I", "F") or file.mode.startswith("I;")


def _ends(raw: BinaryIO, form: str | None) -> tuple[bool, int | None]:
    """Whether the end of a file is where its format says, and a PNG's orientation, which may stand at its end.

    False means that decoding must tell; for formats whose end cannot be known cheaply it always does.
    """
    size = raw.seek(0, os.SEEK_END)
    if form == "PNG":
        return _png(raw, size)
    if form in ("JPEG", "MPO"):
        raw.seek(max(0, size - 4096))
        return b"\xff\xd9" in raw.read(), None
    if form == "WEBP":
        raw.seek(4)
        return int.from_bytes(raw.read(4), "little") + 8 <= size, None
    return False, None


def _png(raw: BinaryIO, size: int) -> tuple[bool, int | None]:
    position, orientation = 8, 1
    while position + 12 <= size:
        raw.seek(position)
        head = raw.read(8)
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"IEND":
            return True, orientation or None
        if kind == b"eXIf":
            exif = Image.Exif()
            attempt(exif.load, b"Exif\0\0" + raw.read(min(length, size)))
            orientation = int(attempt(exif.get, _ORIENTATION, 1)[0] or 1)
        elif kind in (b"tEXt", b"zTXt", b"iTXt") and raw.read(18).startswith((b"Raw profile", b"XML:com.adobe.xmp")):
            orientation = 0  # Pillow must tell
        position += length + 12
    return False, None


@contextlib.contextmanager
def _silence(form: str | None) -> Iterator[None]:
    """Keeps what libtiff prints from the process's stderr; the error that Pillow raises says enough."""
    kept = attempt(os.dup, 2)[0] if form == "TIFF" else None
    if kept is None:
        yield
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def load_pixels(path: Path) -> npt.NDArray[np.uint8]:
    """An image as 8-bit RGB, ``[height, width, 3]``, turned as its EXIF says.

    Raises:
        DataError: it cannot be read (any more).
    """
    pixels, error = attempt(_load, path)
    if pixels is None:
        raise DataError(f"cannot read the image {shown(str(path), 300)}: {_reason(error)}") from error
    return pixels


def _load(path: Path) -> npt.NDArray[np.uint8]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with opened(path) as file:
            with _silence(file.format):
                file.load()
            orientation = _orientation(file)
            image = to_rgb(file)
            if orientation in TURNS:
                image = image.transpose(TURNS[orientation])
            return np.array(image)


def to_rgb(file: Image.Image) -> Image.Image:
    """A picture of any depth as 8-bit RGB."""
    if _is_deep(file):
        return Image.fromarray(_to_8_bits(np.asarray(file))).convert("RGB")
    if file.mode == "P" and "transparency" in file.info:
        file = file.convert("RGBA")
    return file.convert("RGB")


def _to_8_bits(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    values = values.astype(np.float64)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(values.shape, np.uint8)
    low, high = values[finite].min(), values[finite].max()
    scaled = (np.clip(np.nan_to_num(values, nan=low, posinf=high, neginf=low), low, high) - low) / max(
        high - low, 1e-300
    )
    eight: npt.NDArray[np.uint8] = (scaled * 255).round().astype(np.uint8)
    return eight
