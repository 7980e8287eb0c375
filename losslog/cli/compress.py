"""``losslog compress RUN ...``: a quarter of the room for runs that have ended; every command reads them as before.

Main thread. Contract:

- A live run, and one that a plugin is still delivered, are left alone; a run that was killed is ended first.
- Killed at any moment, it has lost nothing: the plain journal goes once its compressed form was read back and is
  durable.
- ``--undo`` makes the plain journal again; so does a run that is gone on with.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from losslog.cli.arguments import UsageError, add_dir, command, not_negative
from losslog.cli.prune import DAY, shown
from losslog.cli.replay import finish
from losslog.cli.show import say
from losslog.errors import LosslogError, RunLocked
from losslog.journal.archive import form_of, pack, unpack
from losslog.journal.cursors import stored
from losslog.journal.files import check_folder
from losslog.journal.folder import JOURNAL, LOCK, find, runs
from losslog.journal.lines import last_record, whole_lines
from losslog.journal.locks import Lock
from losslog.runtime.containment import attempt, one_line

WHICH: Final = "name the runs, or say --older-than DAYS for all that ended longer ago (0 for all that have ended)"


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "compress",
        main,
        "compress the journals of runs that have ended",
        "Compresses journals of runs that have ended: by zstandard where it is installed, else by gzip. Every command "
        "reads them; losslog cat prints them; a run that is gone on with is plain again.",
        ("losslog compress RUN", "losslog compress --older-than 7", "losslog compress RUN --undo"),
    )
    parser.add_argument("runs", metavar="RUN", nargs="*", help="run folders, ids, names, latest, or NAME/latest")
    parser.add_argument("--older-than", type=not_negative, metavar="DAYS", help="all runs that ended longer ago")
    parser.add_argument("--undo", action="store_true", help="make the plain journal again")
    add_dir(parser)


def main(args: argparse.Namespace) -> int:
    """Compress them, one after another; one that cannot be is said.

    Raises:
        UsageError: nothing was asked for.
    """
    if bool(args.runs) == (args.older_than is not None):
        raise UsageError(WHICH)
    code = 0
    change = undo if args.undo else compress
    for folder in [find(run, args.dir) for run in args.runs] or _ended(Path(args.dir), args.older_than, args.undo):
        told, error = attempt(change, folder)
        if isinstance(error, LosslogError | OSError):
            why = str(error) if isinstance(error, LosslogError) else one_line(error)
            say(f"{folder.name}: not done: {why}")
            code = 1
        elif error is not None:
            raise error
        else:
            say(f"{folder.name}: {told}")
    return code


def _ended(directory: Path, days: float, compressed: bool) -> Iterator[Path]:
    """Runs that ended so long ago and are in the other form; those that are live are not spoken of."""
    for folder in runs(directory):
        journal = form_of(folder / JOURNAL)
        if (journal.name != JOURNAL) != compressed:
            continue
        age, _ = attempt(lambda path=journal: time.time() - path.stat().st_mtime)
        last, _ = attempt(last_record, folder / JOURNAL)
        if age is not None and age >= days * DAY and last is not None and last.hook == "on_run_end":
            yield folder


def compress(folder: Path) -> str:
    """Compress one journal; what is to be said.

    Raises:
        RunLocked: the run is live, or delivered to a plugin.
        OSError: it cannot be done; nothing has changed.
    """
    journal = folder / JOURNAL
    if form_of(journal) != journal:
        return "is compressed"
    check_folder(folder)
    finish(folder)
    with ExitStack() as held:
        _hold(folder, held)
        end = whole_lines(journal)
        after = pack(journal, end).stat().st_size
    return f"{shown(end)} -> {shown(after)}"


def undo(folder: Path) -> str:
    """Make one journal plain again; what is to be said.

    Raises:
        RunLocked: somebody writes or delivers it.
        OSError: it cannot be done; nothing has changed.
    """
    journal = folder / JOURNAL
    if form_of(journal) == journal:
        return "is not compressed"
    check_folder(folder)
    with ExitStack() as held:
        _hold(folder, held)
        unpack(journal)
    return shown(journal.stat().st_size)


def _hold(folder: Path, held: ExitStack) -> None:
    """Keep whoever writes or delivers the run away."""
    lock = Lock(folder / LOCK)
    if not lock.acquire():
        raise RunLocked("the run is live: wait until it ends")
    held.callback(lock.release)
    for cursor in stored(folder):
        if not cursor.acquire():
            raise RunLocked(f"it is being delivered to {cursor.name}: wait, then try again")
        held.callback(cursor.release)
