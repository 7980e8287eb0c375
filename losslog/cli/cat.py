"""``losslog cat RUN``: the lines of a run's journal, compressed or not, for jq and the like.

Main thread. Contract:

- It only reads; lines come as they stand, also such that are garbled, without a torn last one.
- What cannot be unpacked of a compressed one is said on stderr, and the exit code is 1.
- A terminal gets no character that could steer it; a pipe gets the bytes.
- In the memory of one block, whatever the length of the journal.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from losslog.cli.arguments import add_dir, add_run, command, folder_of
from losslog.cli.show import say
from losslog.journal.archive import damage
from losslog.journal.folder import JOURNAL
from losslog.journal.scan import blocks
from losslog.runtime.containment import printable


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "cat",
        main,
        "print the lines of a run's journal, compressed or not",
        examples=("losslog cat latest | jq .hook", "losslog cat RUN | grep on_alert"),
    )
    add_run(parser, optional=True)
    add_dir(parser)


def main(args: argparse.Namespace) -> int:
    """Print them."""
    out = None if sys.stdout.isatty() else getattr(sys.stdout, "buffer", None)
    folder = folder_of(args)
    for _, piece in blocks(folder / JOURNAL):
        if out is not None:
            out.write(piece)
        else:
            sys.stdout.write(printable(piece.decode("ascii", "replace")))
    sys.stdout.flush()
    lost = damage(folder / JOURNAL)
    if lost:
        say(f"losslog cat: {lost}", sys.stderr)
    return 1 if lost else 0
