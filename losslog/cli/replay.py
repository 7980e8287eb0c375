"""``losslog replay RUN --to NAMES``: deliver a finished or dead run to a backend, also one installed since.

Main thread; lanes in threads of their own. Contract:

- From each plugin's cursor, so a second replay sends nothing; with ``--from-start`` from the first record.
- A run that was killed gets its ``on_run_end(status="crashed")`` first.
- A run that is still live is refused, and so is a plugin that another process delivers to.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from losslog.cli.arguments import command, folder_of
from losslog.cli.delivering import add_arguments, lanes_over, plugins_for, positions, start_of, tell, watch
from losslog.errors import RunLocked
from losslog.journal.file import Writer, append_record


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


def finish(folder: Path) -> int:
    """End a run that was killed; the journal's length.

    Raises:
        RunLocked: the run is live.
    """
    try:
        writer = Writer(folder)
    except RunLocked as error:
        raise RunLocked(f"{folder.name} is still live: use losslog follow, or wait until it ends") from error
    try:
        if not writer.ended:
            append_record(writer, "on_run_end", {"status": "crashed"})
        return writer.end
    finally:
        writer.close()


def main(args: argparse.Namespace) -> int:
    """Deliver what the plugins lack."""
    folder = folder_of(args)
    start = start_of(folder)
    plugins = plugins_for(folder, start, args.to, args.option)
    end = finish(folder)
    before = positions(folder, plugins, from_start=args.from_start)
    lanes = lanes_over(folder, plugins, start)
    for lane in lanes:
        lane.finish(end)
        lane.start()
    try:
        watch(lanes, lambda: end, args.wait, lambda: False)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        tell(lanes, before, end)
        return 130
    return tell(lanes, before, end)
