"""Checkpoints that a script writes under one name, and keeps under another.

Training thread. Contract:

- A file whose name says that another comes is logged once the loop has gone on, under the name it has then; any other
  at once, and again where it was renamed since. It is looked for in its folder and in the one above.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any, Final

from losslog.runtime.containment import attempt

PASSING: Final = ("tmp", "temp", "partial", "incomplete")  # in names of files that are to be renamed


class Written:
    """The checkpoint that was written last.

    Args:
        log: called with a path, an epoch and a step.
    """

    def __init__(self, log: Callable[[str, int, int], None]) -> None:
        self._log = log
        self.waits = False
        self._last: tuple[str, Any, int, int, bool] = ("", None, 0, 0, True)

    def take(self, path: str, epoch: int, step: int) -> None:
        """One was written."""
        self.settle()
        name = os.path.basename(path).lower()
        later = name.startswith((".", "~")) or any(word in name for word in PASSING)
        self._last, self.waits = (path, _identity(path), epoch, step, later), True
        if not later:
            self._log(path, epoch, step)

    def settle(self) -> None:
        """The loop has gone on."""
        if self.waits:
            self.waits = False
            path, identity, epoch, step, later = self._last
            now = path if _identity(path) == identity else _found(path, identity)
            if later or now != path:
                self._log(now, epoch, step)


def _identity(path: str) -> Any:
    found, _ = attempt(os.stat, path)
    return None if found is None or not found.st_ino else (found.st_dev, found.st_ino)


def _found(path: str, identity: Any) -> str:
    """Where a file is that was here; the same path where that is not known."""
    for each in _around(os.path.dirname(path)):
        if identity is not None and each.inode() == identity[1] and _identity(each.path) == identity:
            return each.path
    return path


def _around(folder: str) -> Iterator[os.DirEntry[str]]:
    for each in (folder, os.path.dirname(folder)):
        found, _ = attempt(lambda each=each: [*os.scandir(each)])
        yield from found or ()
