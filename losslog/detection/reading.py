"""An annotation file from the disk to parsed JSON. Plain functions, no torch and no numpy here.

Contract:

- Whatever lies there, what is wrong with it is a `DataError` of one line that says what it is and what to do.
- One pass in the usual case: what is only asked about a bad file is looked for only then.
"""

from __future__ import annotations

import codecs
import importlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import GenericAlias
from typing import Any, Final, NamedTuple

from losslog.detection.findings import DataError
from losslog.runtime.containment import attempt

LISTS: Final = ("images", "annotations", "categories")
"""What a COCO file has at its top level."""


class Plain(NamedTuple):
    """A file's lists; ``annotations`` are parsed one by one, and raise ValueError or RecursionError."""

    images: list[Any]
    annotations: Iterator[Any]
    categories: list[Any]


_PACKED: Final = {
    b"\x1f\x8b": "compressed with gzip: gunzip it",
    b"PK\x03\x04": "a zip archive: unzip it",
    b"BZh": "compressed with bzip2: bunzip2 it",
    b"\xfd7zXZ": "compressed with xz: unxz it",
    b"\x28\xb5\x2f\xfd": "compressed with zstandard: unzstd it",
}


def read_raw(path: Path) -> bytes:
    """The bytes of an annotation file.

    Raises:
        DataError: it is not there, empty, or packed.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"no annotation file {path}") from error
    except OSError as error:
        raise DataError(f"cannot read the annotation file {path}: {error.strerror or error}") from error
    if not raw[:4096].strip(b"\0 \t\r\n") and not raw.strip(b"\0 \t\r\n"):
        raise DataError(f"{path} is empty: {f'{len(raw)} bytes of nothing' if raw else 'no bytes'}")
    for mark, what in _PACKED.items():
        if raw.startswith(mark):
            raise DataError(f"{path} is {what} first")
    return raw


def plain(raw: bytes) -> Plain | None:
    """The lists of a file that is plain JSON; None where it is not, or msgspec is not there: `parse` says what it is.

    It takes half the time of `parse`, and has no annotation in memory but the one that is looked at.
    """
    msgspec, _ = attempt(importlib.import_module, "msgspec")
    if msgspec is None or any(raw.count(b'"%b"' % key.encode()) != 1 for key in LISTS):
        return None
    rows = GenericAlias(list, msgspec.Raw)
    top = msgspec.defstruct("Top", [(key, rows if key == "annotations" else list) for key in LISTS])
    found, _ = attempt(msgspec.json.decode, raw, type=top)
    if found is None:
        return None
    return Plain(found.images, map(msgspec.json.Decoder().decode, found.annotations), found.categories)


def text_of(path: Path, raw: bytes) -> str:
    """The text of an annotation file: UTF-8, UTF-16 or UTF-32, with or without a mark.

    Raises:
        DataError: it is in another encoding.
    """
    encoding = json.detect_encoding(raw)
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        name = codecs.lookup(encoding.removesuffix("-sig")).name.upper()
        advice = f"re-encode it as UTF-8, e.g. iconv -f LATIN1 -t UTF-8 {path.name}"
        if name != "UTF-8":
            advice = "it is cut off, or no text"
        raise DataError(f"{path} is not {name} (byte 0x{raw[error.start]:02x} at {error.start}): {advice}") from error


def parse(path: Path, text: str, hook: Callable[[dict[str, Any]], Any] | None = None) -> dict[str, Any]:
    """The JSON of an annotation file, its top level checked.

    Args:
        path: as lines name it.
        text: what it holds.
        hook: gets every object, innermost first; what it returns stands for it.

    Raises:
        DataError: not JSON, or not COCO format.
    """
    try:
        content = json.loads(text, object_hook=hook)
    except json.JSONDecodeError as error:
        raise DataError(f"{path} is not valid JSON: {error}") from error
    except RecursionError as error:
        raise DataError(f"{path} is no COCO file: its lists or objects are nested too deep to be read") from error
    except ValueError as error:
        limit = sys.get_int_max_str_digits()
        raise DataError(f"{path} is no COCO file: it has a whole number of more than {limit} digits") from error
    if not isinstance(content, dict):
        kind = {list: "a list", str: "a text", type(None): "null"}.get(type(content), "a single value")
        raise DataError(f"{path} is not in COCO format: its top level is {kind}, not an object")
    missing = [key for key in LISTS if not isinstance(content.get(key), list)]
    if missing:
        what = f"its {missing[0]!r} is no list" if missing[0] in content else f"the list {missing[0]!r} is missing"
        raise DataError(f"{path} is not in COCO format: {what}")
    _check_once(path, text)
    return content


def _check_once(path: Path, text: str) -> None:
    """Refuses a list that is there twice: JSON would take the last one and forget the other."""
    if all(text.count(f'"{key}"') == 1 for key in LISTS):
        return  # nearly always
    top: Sequence[str] = ()

    def hook(pairs: list[tuple[str, Any]]) -> None:
        nonlocal top
        top = [key for key, _ in pairs]  # of the outermost object at last

    json.loads(text, object_pairs_hook=hook)
    for key in LISTS:
        if top.count(key) > 1:
            raise DataError(f"{path}: the key {key!r} occurs {top.count(key)} times at the top level; join its lists")
