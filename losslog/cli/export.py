"""``losslog export RUN --to csv|parquet|jsonl``: a run as a table.

Main thread. Contract:

- It only reads runs; the file it writes is there whole or not at all. Without ``-o`` the table goes to stdout.
- What the journal has that is no record is said on stderr, and the exit code is 1: the table is there, but lacks it.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from losslog.cli.arguments import UsageError, add_dir, add_run, command, file_at, folder_of, reason
from losslog.cli.show import clean, say
from losslog.delivery.report import shown
from losslog.errors import LosslogError
from losslog.history import records
from losslog.journal.archive import damage
from losslog.journal.folder import JOURNAL
from losslog.journal.tally import Tally
from losslog.runtime.containment import attempt, printable
from losslog.viewing.export import FORMATS, export
from losslog.viewing.rows import counted


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "export",
        main,
        "a run as a table: CSV, Parquet or JSON lines",
        "Writes what backends get of a run as a table: a row for each step, or for each epoch.",
        (
            "losslog export latest --to csv -o steps.csv",
            "losslog export RUN --to parquet --by epoch -o epochs.parquet",
        ),
    )
    add_run(parser, optional=True)
    parser.add_argument("--to", choices=FORMATS, required=True, help="csv, parquet (needs pyarrow) or jsonl")
    parser.add_argument("--by", choices=("step", "epoch"), default="step", help="what a row is")
    parser.add_argument("-o", "--output", metavar="FILE",
                        help="or a folder, for RUN.FORMAT in it; unset: stdout; parquet needs one")  # fmt: skip
    add_dir(parser)


def main(args: argparse.Namespace) -> int:
    """Write the table.

    Raises:
        UsageError: Parquet without a file.
        LosslogError: there is nothing to write, a library is missing, or the file cannot be written.
    """
    folder = folder_of(args)
    if args.output is None:
        if args.to == "parquet":
            raise UsageError("parquet is no text: say -o FILE")
        export(folder, args.to, args.by, _Screen() if sys.stdout.isatty() else sys.stdout)
        sys.stdout.flush()
        return _lacking(folder)
    target = file_at(args.output, f"{folder.name}.{args.to}")
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        _, error = attempt(_write, folder, args.to, args.by, temporary)
        if error is None:
            _, error = attempt(os.replace, temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    if isinstance(error, OSError) and attempt(lambda: next(records(folder), None))[1] is None:  # it is no reader's
        raise LosslogError(f"{clean(str(target))} cannot be written ({reason(error)}): say -o FILE") from error
    if error is not None:
        raise error
    print(f"{clean(shown(target))}  {target.stat().st_size / 1024:.0f} KiB")
    return _lacking(folder)


def _lacking(folder: Path) -> int:
    """Say what the journal has that is no record; the exit code."""
    tally = Tally(folder)
    tally.read()
    garbled = tally.lasting["garbled"]
    lost = [f"{counted(garbled, 'garbled line')} left out"] * bool(garbled)
    lost += [found] if (found := damage(folder / JOURNAL)) else []
    if lost:
        say(f"losslog export: {'; '.join(lost)}", sys.stderr)
    return 1 if lost else 0


class _Screen:
    """A terminal as a text file, which gets no character that could steer it."""

    def write(self, text: str) -> int:
        """Print it."""
        return sys.stdout.write(printable(text))


def _write(folder: Path, kind: str, by: str, path: Path) -> None:
    if kind == "parquet":
        export(folder, kind, by, path)
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        export(folder, kind, by, file)
