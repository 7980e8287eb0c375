"""A disk that is full for a while, for the files of one folder.

Test thread; what it replaces is called on any. Contract:

- Only opening a file to write it is refused, and only in that folder; the journal's own file is not.
- What was replaced is put back, however the block ends.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from losslog.journal.folder import JOURNAL

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@contextlib.contextmanager
def full_disk(folder: Path) -> Iterator[list[str]]:
    """While it lasts, files in ``folder`` cannot be opened to be written; gives the list of those refused."""
    refused: list[str] = []
    root = folder.absolute()

    def check(path: Any) -> None:
        if isinstance(path, str | os.PathLike):
            place = Path(path).absolute()
            if place.is_relative_to(root) and place != root / JOURNAL:
                refused.append(str(place))
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))

    opens, low = builtins.open, os.open

    def refusing_open(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if set(mode) & set("wax+"):
            check(file)
        return opens(file, mode, *args, **kwargs)

    def refusing_low(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if flags & WRITES:
            check(path)
        return low(path, flags, *args, **kwargs)

    with (
        mock.patch.object(builtins, "open", refusing_open),
        mock.patch.object(io, "open", refusing_open),
        mock.patch.object(os, "open", refusing_low),
    ):
        yield refused
