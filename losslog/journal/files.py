"""Opening files of a run folder, which may come from anybody, or lie where others can write.

Any thread. Contract:

- Only regular files are opened, and no link is followed: what is a link, a pipe or a device is an error, in one line.
- A file that is appended to has one name: through a second one, the file of somebody else would be written.
- `small` reads no more than it was told to.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

SMALL: Final = 1 << 20  # bytes of a cursor at most
_CAREFUL: Final = sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_NOCTTY", "O_BINARY"))


def opened(path: Path, flags: int = os.O_RDONLY, mode: int = 0o664) -> int:
    """A descriptor of the regular file ``path``.

    Raises:
        OSError: it is not one, or cannot be opened.
    """
    with contextlib.suppress(FileNotFoundError):  # before, where links cannot be declined, and for devices' sake
        _check(path, os.lstat(path), flags)
    fd = os.open(path, flags | _CAREFUL, mode)
    try:
        _check(path, os.fstat(fd), flags)
    except OSError:
        os.close(fd)
        raise
    return fd


def reading(path: Path) -> BinaryIO:
    """The file ``path``, open for reading, unbuffered.

    Raises:
        OSError: it is not a regular file, or cannot be opened.
    """
    return os.fdopen(opened(path), "rb", buffering=0)


def buffered(path: Path) -> BinaryIO:
    """As `reading`, with a buffer.

    Raises:
        OSError: it is not a regular file, or cannot be opened.
    """
    return os.fdopen(opened(path), "rb")


def small(path: Path) -> bytes:
    """The content of a small file.

    Raises:
        OSError: it is not a regular file, or cannot be read.
        ValueError: it is not small.
    """
    with reading(path) as file:
        content = file.read(SMALL + 1)
    if len(content) > SMALL:
        raise ValueError(f"{path} is larger than {SMALL} bytes")
    return content


def write_anew(path: Path, text: str) -> None:
    """Write a file of plain text that is nobody else's, whatever lies there.

    Raises:
        OSError: it cannot be written.
    """
    path.unlink(missing_ok=True)  # what a killed process, or somebody else, has left under that name
    with open(opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w", encoding="ascii") as file:
        file.write(text)


def own_folder(path: Path) -> None:
    """Whether a folder of a run folder is in it, and not behind a link.

    Raises:
        OSError: it is a link.
    """
    if path.is_symlink():
        raise OSError(f"{path} is a link: remove it, nothing outside the run folder is touched")


def _check(path: Path, found: os.stat_result, flags: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        what = "a link" if stat.S_ISLNK(found.st_mode) else "not a regular file"
        raise OSError(f"{path} is {what}: nothing is read from it, or written to it")
    if flags & os.O_APPEND and found.st_nlink > 1:
        raise OSError(f"{path} has another name elsewhere (a hard link): nothing is written to it; copy it to go on")


def check_folder(folder: Path) -> None:
    """Whether writing to a run folder, or reading what is in it, stays in it and comes to an end.

    ``checkpoints`` may lie elsewhere, and wandb keeps links to its logs: nobody writes through these.

    Raises:
        OSError: it has a link that leads out, something that is no file, or a file where cursors belong.
    """
    home = Path(os.path.realpath(folder))
    for path in _entries(home, 3):
        place, first = Path(os.path.realpath(path)), path.relative_to(home).parts[0]
        if first == "checkpoints":
            continue
        if not place.is_relative_to(home):
            if first != "wandb" or not path.is_file():
                raise OSError(f"{path} is a link to {place}: remove it, nothing outside the run folder is touched")
        elif place.exists() and not (place.is_file() or place.is_dir()):
            raise OSError(f"{path} is not a regular file: remove it, it may never end")
        elif path == home / "cursors" and not path.is_dir():
            raise OSError(f"{path} is no folder: remove it, what plugins have got is kept in one")


def _entries(folder: Path, depth: int) -> Iterator[Path]:
    for entry in sorted(os.scandir(folder), key=lambda each: each.name):
        yield Path(entry.path)
        if depth > 1 and entry.is_dir(follow_symlinks=False):
            yield from _entries(Path(entry.path), depth - 1)
