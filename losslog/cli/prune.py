"""``losslog prune``: remove old runs and old checkpoints, after asking.

Main thread. Contract:

- Nothing is removed that was not listed, and nothing without a yes: at the terminal, or by ``--yes``.
- A live run is never touched, ``best.pth`` never removed, a link never followed: what does not lie in the folder it is
  found in is refused, and said.
- The engine's own ``checkpoints/epoch_N.pth`` may go also where the journal does not have them, as after a kill between
  the two; other files only where the run logged them.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, NamedTuple

from losslog.cli.arguments import UsageError, add_dir, command, count, positive, positive_int
from losslog.cli.show import say
from losslog.journal.archive import form_of
from losslog.journal.folder import JOURNAL, LOCK, clean_name, runs
from losslog.journal.locks import is_locked
from losslog.runtime.containment import attempt, one_line
from losslog.viewing.summary import summary_of

EPOCH: Final = re.compile(r"epoch_(\d+)\.pth")
FOLDER: Final = re.compile(r"(checkpoint|epoch|step)[-_=]?\d")  # a checkpoint that is one
KINDS: Final = (".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".tar", ".pkl", ".pickle", ".keras", ".h5", ".zip")
DAY: Final = 86_400.0


class Thing(NamedTuple):
    """What may go: a run folder, or a checkpoint.

    Attributes:
        path: where it is.
        size: in bytes.
        why: what was asked for.
    """

    path: Path
    size: int
    why: str


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "prune",
        main,
        "remove old runs and old checkpoints, after asking",
        "Lists what would go, with its size, and asks. Live runs and best.pth stay.",
        (
            "losslog prune --checkpoints 1 --dry-run",
            "losslog prune --runs 5 --name maskrcnn",
            "losslog prune --older-than 90 --yes",
        ),
    )
    parser.add_argument("--runs", type=count, metavar="N", help="of each name, only the newest N runs stay")
    parser.add_argument("--older-than", type=positive, metavar="DAYS", help="runs that ended longer ago go")
    parser.add_argument("--checkpoints", type=positive_int, metavar="N", help="of each run, only the newest N stay")
    parser.add_argument("--name", help="only runs of this name; * and ? match any")
    add_dir(parser)
    parser.add_argument("--dry-run", action="store_true", help="list, and remove nothing")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def main(args: argparse.Namespace) -> int:
    """List, ask, remove.

    Raises:
        UsageError: nothing was asked for, or there is nobody to ask.
    """
    if args.runs is None and args.older_than is None and args.checkpoints is None:
        raise UsageError("say what may go: --runs N, --older-than DAYS or --checkpoints N")
    odd: list[BaseException] = []
    found = list(things(Path(args.dir), args.name, args.runs, args.older_than, args.checkpoints, odd))
    leading = leading_out(Path(args.dir), args.name, checkpoints=args.checkpoints is not None)
    for path in leading:
        say(f"not touched: {path} leads to {_real(path)}, out of the folder it is in: prune there", sys.stderr)
    for why in odd:
        say(f"not touched: {one_line(why)}", sys.stderr)
    if not found:
        if leading or odd:
            return 1
        there = named(Path(args.dir), args.name)
        say("nothing to remove" if there else f"no runs{f' named {args.name}' if args.name else ''} under {args.dir}")
        return 0
    for each in found:
        say(f"{shown(each.size):>9}  {each.path}  ({each.why})")
    total = f"{len(found)} of these, {shown(sum(each.size for each in found))}"
    if args.dry_run:
        print(f"would remove {total}")
        return 0
    if not args.yes:
        if not sys.stdin.isatty():
            raise UsageError("there is no terminal to ask at: say --yes, or --dry-run to look only")
        if input(f"remove {total}? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was removed")
            return 0
    failed = [error for each in found if (error := attempt(remove, each.path)[1]) is not None]
    for error in failed:
        say(f"not removed: {one_line(error)}")
    print(f"removed {len(found) - len(failed)} of {len(found)}")
    return 1 if failed or leading or odd else 0


def leading_out(directory: Path, name: str | None, *, checkpoints: bool) -> list[Path]:
    """Links in the way of what was asked for, which lead to somewhere else."""
    found: dict[Path, None] = {}
    for folder in named(directory, name):
        way = [(folder.parent, directory), (folder, folder.parent)]
        way += [(folder / "checkpoints", folder)] * checkpoints
        out = next((path for path, home in way if path.is_symlink() and not lies_in(path, home)), None)
        if out is not None:
            found[out] = None
    return [*found]


def lies_in(path: Path, home: Path) -> bool:
    """Whether a path is below a folder when all links on its way are followed."""
    real, of = _real(path), _real(home)
    return real is not None and of is not None and real != of and real.is_relative_to(of)


def _real(path: Path) -> Path | None:
    return attempt(path.resolve)[0]


def things(
    directory: Path, name: str | None, keep_runs: int | None, days: float | None, checkpoints: int | None,
    odd: list[BaseException],
) -> Iterator[Thing]:  # fmt: skip
    """What may go; ``odd`` gets why run folders cannot be looked at."""
    newer: dict[str, int] = {}
    for folder in reversed(named(directory, name)):
        before = newer.get(folder.parent.name, 0)
        newer[folder.parent.name] = before + 1
        if folder.is_symlink() or not lies_in(folder, directory):
            continue
        age, error = attempt(_age, folder)
        if error is not None:
            odd.append(error)
        if age is None:
            continue
        if keep_runs is not None and before >= keep_runs:
            yield Thing(folder, size_of(folder), f"{before} newer runs of {folder.parent.name}")
        elif days is not None and age > days:
            yield Thing(folder, size_of(folder), f"ended {age:.0f} days ago")
        elif checkpoints is not None:
            for path in checkpoints_of(folder)[:-checkpoints]:
                yield Thing(path, size_of(path) if path.is_dir() else path.stat().st_size, "an older checkpoint")


def _age(folder: Path) -> float | None:
    """Days since a run ended; None of one that is live."""
    if is_locked(folder / LOCK):
        return None
    return (time.time() - form_of(folder / JOURNAL).stat().st_mtime) / DAY


def named(directory: Path, name: str | None) -> list[Path]:
    """The run folders of a name, or of names that match one with wildcards; oldest first."""
    return [each for each in runs(directory, "*") if name is None or fnmatchcase(each.parent.name, clean_glob(name))]


def clean_glob(name: str) -> str:
    """A name as folders are called, its wildcards kept."""
    return "".join(part if part in ("*", "?") else clean_name(part) for part in re.split(r"([*?])", name) if part)


def checkpoints_of(folder: Path) -> list[Path]:
    """The checkpoints of a run that lie in its folder, oldest first: the engine's own, and those that it logged."""
    matched = ((EPOCH.fullmatch(path.name), path) for path in (folder / "checkpoints").glob("*.pth"))
    own = sorted((int(match[1]), path) for match, path in matched if match)
    found = dict.fromkeys(path for _, path in own if not path.is_symlink() and lies_in(path, folder))
    summary, _ = attempt(summary_of, folder)
    for place, *_ in () if summary is None else summary.lasting["checkpoints"]:
        path = Path(os.path.normpath(folder / place))
        if not attempt(path.exists)[0] or path.is_symlink() or not lies_in(path, folder):
            continue
        kind = FOLDER.match(path.name) if path.is_dir() else path.suffix.lower() in KINDS
        if kind and path.name != "best.pth":
            found.pop(path, None)  # logged again: it is as new as that
            found[path] = None
    return list(found)


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder; one with several names counts once."""
    found = {}
    for path in folder.rglob("*"):
        stat, _ = attempt(path.lstat)
        if stat is not None and not path.is_dir():
            found[(stat.st_dev, stat.st_ino or path)] = stat.st_size
    return sum(found.values())


def remove(path: Path) -> None:
    """Remove a run folder, and its name's where that was the last; or a file.

    Raises:
        OSError: it stays, or a part of it does.
    """
    if path.is_dir():
        shutil.rmtree(path)
        attempt(path.parent.rmdir)
    else:
        path.unlink()


def shown(size: float) -> str:
    """``1.2 GB``."""
    if size < 1000:
        return f"{size:.0f} B"
    power = min(int(math.log10(size) / 3), 4)
    return f"{size / 1000**power:.1f} {'kMGT'[power - 1]}B"
