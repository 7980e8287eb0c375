"""``losslog replay RUN --to NAMES``: deliver a finished or dead run to a backend, also one installed since.

Main thread; lanes in threads of their own. Contract:

- From each plugin's cursor, so a second replay sends nothing; with ``--from-start`` from the first record.
- With ``--skipped`` only records that a plugin could not take before, where its cursor says so; the others it has.
- A run that was killed gets its ``on_run_end(status="crashed")`` first.
- A run that is still live is refused, and so is a plugin that another process delivers to.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from losslog.cli.arguments import command, folder_of
from losslog.cli.delivering import add_arguments, lanes_over, plugins_for, positions, start_of, tell, watch
from losslog.cli.show import say
from losslog.delivery.discovery import Plugin
from losslog.errors import RunLocked
from losslog.journal.archive import form_of, size_of
from losslog.journal.cursors import Cursor
from losslog.journal.ends import noted
from losslog.journal.file import Writer, append_record
from losslog.journal.files import check_folder
from losslog.journal.folder import JOURNAL, LOCK
from losslog.journal.lines import whole_lines
from losslog.journal.locks import is_locked
from losslog.journal.spill import take_back
from losslog.runtime.containment import is_read_only


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "replay",
        main,
        "deliver a finished or dead run to a backend",
        "Delivers to a backend what it lacks of a run that has ended, also to a tracker installed since.",
        (
            "losslog replay latest --to tensorboard",
            "losslog replay latest --to mlflow -o mlflow.tracking_uri=http://host:5000 --from-start",
        ),
    )
    add_arguments(parser)
    parser.add_argument("--from-start", action="store_true", help="deliver everything again, to a fresh target")
    parser.add_argument("--spill", type=Path, metavar="FILE",
                        help="take records back first that the run's disk did not take")  # fmt: skip
    parser.add_argument("--skipped", action="store_true", help="deliver only what was skipped, which failed before")


def finish(folder: Path) -> int:
    """End a run that was killed; the journal's length.

    Raises:
        RunLocked: the run is live.
    """
    if form_of(folder / JOURNAL).name != JOURNAL:  # it had ended when it was compressed
        return size_of(folder / JOURNAL)
    try:
        writer = Writer(folder)
    except RunLocked as error:
        raise RunLocked(f"{folder.name} is still live: use losslog follow, or wait until it ends") from error
    except OSError as error:
        if not is_read_only(error):
            raise
        return _read_only(folder)
    try:
        if not writer.ended:
            append_record(writer, "on_run_end", {"status": noted(folder) or "crashed"})
        return writer.end
    finally:
        writer.close()


def _read_only(folder: Path) -> int:
    """The journal's length where nothing may be written.

    Raises:
        RunLocked: the run is live.
    """
    if is_locked(folder / LOCK):
        raise RunLocked(f"{folder.name} is still live: use losslog follow, or wait until it ends")
    say(f"{folder} is read-only: what is delivered is not remembered there", sys.stderr)
    return whole_lines(folder / JOURNAL)


def main(args: argparse.Namespace) -> int:
    """Deliver what the plugins lack."""
    folder = folder_of(args)
    check_folder(folder)
    start = start_of(folder)
    plugins = plugins_for(folder, start, args)
    if args.spill is not None:
        say(f"{take_back(folder, args.spill)} records taken back from {args.spill}", sys.stderr)
    end = finish(folder)
    if args.skipped:
        return _again(args, folder, plugins, start, end)
    before = positions(folder, plugins, from_start=args.from_start)
    lanes = lanes_over(folder, plugins, start, args)
    for lane in lanes:
        lane.finish(end)
        lane.start()
    try:
        watch(lanes, lambda: end, args.wait, lambda: False)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        tell(lanes, before, end, folder / JOURNAL)
        return 130
    return tell(lanes, before, end, folder / JOURNAL)


def _again(
    args: argparse.Namespace, folder: Path, plugins: Sequence[Plugin], start: Mapping[str, Any], end: int
) -> int:
    """Deliver what each plugin has skipped; the exit code: 0 when nothing is skipped any more."""
    cursors = {plugin.name: Cursor(folder, plugin.name) for plugin in plugins}
    if not all([cursor.acquire() for cursor in cursors.values()]):
        raise RunLocked(f"another process delivers to {args.to}: wait, then try again")
    try:
        lanes = lanes_over(folder, [each for each in plugins if cursors[each.name].skipped], start, args, cursors)
        for lane in lanes:
            lane.finish(end)
            lane.start()
        watch(lanes, lambda: end, args.wait, lambda: False)
        code = 0
        for name, cursor in cursors.items():
            before = len(cursor.skipped)
            why = ""
            for own in (each for each in lanes if each.name == name):
                figures = own.figures()
                if figures.state == "done":
                    cursor.skipped = own.progress.skipped
                    cursor.commit(cursor.at)
                why = f", the last: {figures.reason}" if figures.reason else ""
            left = len(cursor.skipped)
            said = f"; still skipped: {left}{why}" if left else ""
            say(f"{name}: {before - left} of {before} skipped records delivered{said}", sys.stderr)
            code = code or int(left > 0)
        return code
    finally:
        for cursor in cursors.values():
            cursor.release()
