"""``losslog follow RUN --to NAMES``: tail a live run from another process with the lanes a run itself uses.

Main thread; lanes in threads of their own. Contract:

- It delivers until the run has ended and everything is delivered, or until Ctrl-C; cursors make it continue.
- With ``--attached`` it is the follower of a live run (`losslog.delivery.attached`); that is not for people.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from losslog.cli.arguments import command, folder_of
from losslog.cli.delivering import add_arguments, lanes_over, plugins_for, positions, start_of, tell, watch
from losslog.journal.archive import size_of
from losslog.journal.file import state_of
from losslog.journal.files import check_folder
from losslog.journal.folder import JOURNAL
from losslog.journal.lines import whole_lines


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "follow",
        main,
        "deliver a live run to a backend from another process",
        "Delivers a live run to a backend, record by record, until the run has ended or Ctrl-C.",
        ("losslog follow latest --to tensorboard",),
    )
    attached = "--attached" in sys.argv
    if attached:
        parser.add_argument("run")
    else:
        add_arguments(parser)
    parser.add_argument("--attached", action="store_true", help=argparse.SUPPRESS)


class _Ending:
    """Notices, at most once a second, that the run has ended."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._looked = 0.0
        self.end: int | None = None

    def __call__(self) -> bool:
        if self.end is None and time.monotonic() - self._looked > 1.0:
            self._looked = time.monotonic()
            if state_of(self._folder)["status"] != "running":
                self.end = whole_lines(self._folder / JOURNAL)
        return self.end is not None


def main(args: argparse.Namespace) -> int:
    """Follow until the end."""
    if args.attached:
        from losslog.delivery.attached import attached

        return attached(Path(args.run))
    folder = folder_of(args)
    check_folder(folder)
    start = start_of(folder)
    plugins = plugins_for(folder, start, args)
    before = positions(folder, plugins)
    lanes = lanes_over(folder, plugins, start, args)
    for lane in lanes:
        lane.start()
    journal, ending = folder / JOURNAL, _Ending(folder)
    try:
        watch(lanes, lambda: size_of(journal), args.wait, ending)
        for lane in lanes:
            lane.finish(ending.end if ending.end is not None else whole_lines(journal))
        watch(lanes, lambda: size_of(journal), args.wait, lambda: False)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        for lane in lanes:
            lane.abandon()
        return 130
    return tell(lanes, before, whole_lines(journal), journal)
