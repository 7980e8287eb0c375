"""``losslog follow RUN --to NAME``: tail a run from another process with the lanes a run itself uses.

Main thread; lanes in threads of their own. Contract:

- With ``--attached`` it is the follower of a live run, talking to it over stdin and stdout; not for people.
- Otherwise it delivers until the run ends, or until Ctrl-C; cursors make it continue where it was.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from losslog import follower
from losslog.folders import find


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser("follow", help="deliver a live run to a backend from another process")
    parser.add_argument("run", metavar="RUN", help="run folder, run id, or latest")
    parser.add_argument("--attached", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(command=main)


def main(args: argparse.Namespace) -> int:
    """Follow until the end."""
    if args.attached:
        return follower.attached(Path(args.run))
    find(args.run)
    return 2
