"""Where a fresh plugin object begins: what it is told first, and how far its backend is.

The lane's thread; reads only. Contract:

- Not having begun is never a silent drop: where the line is garbled, or the cursor does not know where it stands, the
  nearest ``on_run_start`` of the journal is told, else what is known of the run without it; and it is said.
"""

from __future__ import annotations

import time

from losslog.control import RunHandle
from losslog.delivery.caller import Caller
from losslog.delivery.patience import Patience
from losslog.delivery.progress import Progress
from losslog.journal.lines import read
from losslog.journal.records import Record
from losslog.journal.tail import Tail
from losslog.runtime.containment import one_line
from losslog.runtime.notices import warn


def beginning(name: str, tail: Tail, progress: Progress, run: RunHandle) -> tuple[int, Record | None]:
    """The record to begin with.

    Args:
        name: the plugin's.
        tail: the journal.
        progress: how far the plugin is.
        run: what is known of the run.

    Returns:
        Where it ends, 0 where it does not stand at ``progress.start``; and the record, None where there are none yet.
    """
    end, record = next(iter(tail.read(progress.start, 1)), (0, None))
    if end == 0 or (record is not None and record.hook == "on_run_start"):
        return end, record
    found = None
    for end, each in read(tail.path):
        if each is not None and each.hook == "on_run_start":
            found = each
        if found is not None and end >= progress.committed.offset:
            break
    what = "it is told what is known without it" if found is None else f"it is told that of record {found.seq}"
    warn("plugin %s: the run's first line cannot be read, or its cursor is wrong: %s", name, what)
    known = {"name": run.name, "config": dict(run.config), "options": {}, "resumed": False}
    return 0, found or Record(0, time.time(), "on_run_start", known)


def ask_backend(
    caller: Caller, patience: Patience, progress: Progress, tail: Tail, run: RunHandle, *, back_only: bool = False
) -> None:
    """Stand where a plugin's backend says it is, where it can tell; with ``back_only`` never further on."""
    ask = getattr(caller.thing, "delivered_upto", None)
    if ask is None:
        return
    upto: int | None
    upto, error = patience.guard(lambda: None if (seq := ask(run)) is None else int(seq))
    if error is not None:
        warn("plugin %s: delivered_upto failed, going on from the cursor: %s", caller.name, one_line(error))
    if upto is not None and (upto < progress.committed.seq or (upto > progress.committed.seq and not back_only)):
        progress.jump(tail, upto)
