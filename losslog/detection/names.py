"""The image files that an annotation file names: found below the image folder, nowhere else. Plain functions.

Contract:

- A name is a path below the image folder: one that leads out of it (``..``, an absolute path) is not followed. Links
  that lie in the folder are the user's own, and are.
- A name that finds nothing is told with what lies there instead, and with the fix.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from losslog.detection.findings import DataError, Findings, shown
from losslog.runtime.containment import attempt


def find_images(folder: Path, names: Sequence[str], findings: Findings) -> list[Path]:
    """The files that names mean.

    Args:
        folder: names are relative to it.
        names: as in the annotation file.
        findings: gets what is put right, and what is there twice.

    Raises:
        DataError: a name finds no file below the folder; says why for the first.
    """
    if not folder.is_dir():
        raise DataError(f"no image folder {folder}")
    paths = [_find(folder, name, findings) for name in names]
    missing = [name for name, path in zip(names, paths, strict=True) if path is None]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(names)} images of {findings.source} are not in {folder}, "
            f"the first is {shown(missing[0], 300)}{_why(folder, missing[0])}"
        )
    found = [path for path in paths if path is not None]
    if twice := len(found) - len(set(found)):
        seen: set[Path] = set()
        first = next(path for path in found if path in seen or seen.add(path))  # type: ignore[func-returns-value]
        findings.remarks.append(f"images listed more than once: {twice} (the first: {shown(first.name)})")
    return found


def _find(folder: Path, name: str, findings: Findings) -> Path | None:
    path = _below(folder, name)
    if path is not None and attempt(path.is_file)[0]:
        return path
    if "\\" in name:
        path = _below(folder, name.replace("\\", "/"))
        if path is not None and attempt(path.is_file)[0]:
            findings.note("file names with backslashes, read as folders", shown(name))
            return path
    return None


def _below(folder: Path, name: str) -> Path | None:
    """The path a name means, or None where it leads out of the folder."""
    path = folder / name
    if ".." not in name and path.is_relative_to(folder) and not os.path.isabs(name):
        return path
    # As it reads: links on the way must not lead elsewhere than the name says.
    whole = os.path.normpath(os.path.abspath(path))
    for root in (os.path.abspath(folder), os.path.realpath(folder)):
        if Path(whole).is_relative_to(root):
            return folder / os.path.relpath(whole, root)
    return None


def _why(folder: Path, name: str) -> str:
    """What to say after a name that finds nothing."""
    path = _below(folder, name)
    if path is not None and (what := _what(path)):
        return f": it is {what}"
    parts = name.replace("\\", "/").split("/")
    for start in range(1, len(parts)):
        tail = "/".join(parts[start:])
        inside = _below(folder, tail)
        if inside is not None and attempt(inside.is_file)[0]:
            carried = name[: len(name) - len(tail)]
            above = _below(folder.absolute().parent, name)
            other = " or name the folder above (--images)" if above and attempt(above.is_file)[0] else ""
            return f"; {shown(tail)} is there: take {shown(carried, 300)} out of the file names{other}"
    if path is None or _below(folder, "/".join(parts)) is None:
        return "; it leads out of that folder: name images relative to one folder that holds them all (--images)"
    listed, _ = attempt(os.listdir, path.parent)
    alike = [each for each in listed or () if each != parts[-1] and _plain(each) == _plain(parts[-1])]
    same = alike and unicodedata.normalize("NFC", alike[0]) == unicodedata.normalize("NFC", parts[-1])
    return f"; there is {shown(alike[0])}{', in other Unicode characters' if same else ''}" if alike else ""


def _what(path: Path) -> str:
    """What lies at a path where no regular file does; nothing where nothing does."""
    if attempt(path.is_symlink)[0] and not attempt(path.exists)[0]:
        return f"a link to {shown(str(attempt(os.readlink, path)[0]))} that leads nowhere"
    found, _ = attempt(os.stat, path)
    if found is None or stat.S_ISREG(found.st_mode):
        return ""
    return "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device, not a file"


def _plain(name: str) -> str:
    """What two names share that a person reads as one."""
    return unicodedata.normalize("NFC", name).casefold().strip()


def shared(first: Iterable[Path], second: Iterable[Path]) -> list[Path]:
    """The files of the second that are among the first, too."""
    known = {os.path.abspath(path) for path in first}
    return [path for path in second if os.path.abspath(path) in known]
