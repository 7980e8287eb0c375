"""How a run ended, where its journal could not be told: on a disk that was full to the end.

Any thread. Contract:

- The note is an empty file whose name is the status: that takes no room but a name's.
- It counts as long as nothing was written to the journal after it.
"""

from __future__ import annotations

from pathlib import Path

from losslog.journal.archive import form_of
from losslog.journal.folder import JOURNAL, clean_name
from losslog.runtime.containment import attempt


def note(folder: Path, status: str) -> None:
    """Leave a note; a disk that refuses that, too, is let be."""
    attempt((folder / f"ended.{clean_name(status)}").touch)


def noted(folder: Path) -> str | None:
    """The status of a note that counts."""
    stat, _ = attempt(form_of(folder / JOURNAL).stat)
    for path in sorted(folder.glob("ended.*")):
        left, _ = attempt(path.stat)
        if stat is not None and left is not None and left.st_mtime_ns >= stat.st_mtime_ns:
            return path.suffix[1:]
    return None
