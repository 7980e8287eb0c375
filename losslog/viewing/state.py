"""What is known of a run besides its journal: whether it lives, and how far its plugins are.

Any thread; reads only. Contract:

- It works in a folder that cannot be written to: there, a journal that grew within `FRESH` seconds means a live run.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

from losslog.journal.archive import form_of
from losslog.journal.cursors import stored
from losslog.journal.ends import noted
from losslog.journal.folder import JOURNAL, LOCK
from losslog.journal.locks import is_locked
from losslog.runtime.containment import attempt

FRESH: Final = 60.0


def status_of(folder: Path, ended: str | None) -> str:
    """``running``, ``crashed``, or as it ended.

    Args:
        folder: the run folder.
        ended: the status in the journal's last record, where that is ``on_run_end``.
    """
    if ended is not None:
        return ended
    locked, error = attempt(is_locked, folder / LOCK)
    if error is not None:  # the lock cannot be tried here
        stat, _ = attempt(form_of(folder / JOURNAL).stat)
        locked = stat is not None and time.time() - stat.st_mtime < FRESH
    return "running" if locked else noted(folder) or "crashed"


def lags(folder: Path, size: int) -> dict[str, dict[str, Any]]:
    """By plugin: the last record it has durably, the bytes of the journal it has not, whether it has all of it."""
    found = {}
    for cursor in attempt(stored, folder)[0] or ():
        behind = max(0, size - cursor.at.offset)
        found[cursor.name] = {"seq": cursor.at.seq, "behind": behind, "complete": behind == 0,
                              "skipped": len(cursor.skipped)}  # fmt: skip
    return found
