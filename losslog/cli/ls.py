"""``losslog ls``: the runs of a folder, newest first, a line each.

Main thread. Contract:

- It reads; all it may write is the summary kept beside a journal, which makes the next listing fast.
- A run that cannot be read is a line too, never the end of the list.
- On a terminal that is too narrow columns go, the least telling first; in a pipe all are there.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Final

from losslog.cli.arguments import add_dir, add_json, command, finite, names_in, positive_int
from losslog.cli.show import clean, say
from losslog.journal.folder import journals
from losslog.recording.highlights import BEST
from losslog.runtime.containment import attempt, one_line
from losslog.runtime.notices import did_you_mean
from losslog.viewing.summary import row_of

HEADINGS: Final = (
    "name", "id", "status", "when", "took", "epochs", "total", "best AP", "worst", "alerts", "undelivered"
)  # fmt: skip
DROPPED: Final = (
    "when",
    "took",
    "alerts",
    "undelivered",
    "epochs",
    "total",
    "name",
    "worst",
    "best AP",
    "status",
)  # in this order, whole: a number is never cut
TEXTS: Final = ("name", "id", "status", "worst", "undelivered")  # what may be shortened
STATUSES: Final = ("running", "finished", "stopped", "failed", "crashed")
WIDEST: Final = 28


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "ls",
        main,
        "list runs: status, losses, best AP, alerts",
        examples=("losslog ls", "losslog ls --name 'mask*' --status crashed,failed", "losslog ls -n 5 --json"),
    )
    add_dir(parser)
    parser.add_argument("--name", metavar="NAME", help="only runs of this name; * and ? match anything")
    parser.add_argument("--status", metavar="A,B", type=_statuses, help=f"only these: {', '.join(STATUSES)}")
    parser.add_argument("-n", "--newest", type=positive_int, metavar="N", help="only the newest N")
    add_json(parser)


def _statuses(text: str) -> list[str]:
    wanted = names_in(text)
    for word in wanted:
        if word not in STATUSES:
            near = did_you_mean(word, STATUSES) or f"; there is {', '.join(STATUSES)}"
            raise argparse.ArgumentTypeError(f"no status {word!r}{near}")
    return wanted


def main(args: argparse.Namespace) -> int:
    """Print the list."""
    found = []
    for path in journals(Path(args.dir)):
        row, error = attempt(row_of, path.parent)
        row = row or _unreadable(path.parent, error)
        if args.name is not None and not fnmatch.fnmatchcase(str(row["name"]), args.name):
            continue
        if args.status is None or row["status"] in args.status:
            found.append(row)
    found.sort(key=lambda row: (row["started"], row["id"]), reverse=True)
    found = found[: args.newest]
    if args.json:
        print(json.dumps([finite(row) for row in found], indent=2))
    elif not found:
        say(f"no runs under {args.dir}/" + (" match" if args.name or args.status else " yet"))
    else:
        for line in table([cells(row) for row in found], _width()):
            say(line)
    return 0


def _unreadable(folder: Path, error: BaseException | None) -> dict[str, Any]:
    why = "" if error is None else one_line(error)
    return {
        "name": folder.parent.name, "id": folder.name, "status": "unreadable", "started": 0.0, "seconds": 0.0,
        "epoch": 0, "epochs": None, "steps": 0, "total": None, "best": {}, "alerts": 0, "undelivered": [],
        "worst": {"level": "error", "title": why, "component": None, "step": None}, "folder": str(folder),
    }  # fmt: skip


def cells(row: dict[str, Any]) -> dict[str, str]:
    """A run's line as text by heading."""
    began, _ = attempt(time.localtime, row["started"])
    done = str(row["epoch"]) if row["epoch"] or row["epochs"] else "-"
    total = row["total"]
    best = row["best"]
    kind = next((tag for tag in (*BEST, *sorted(best)) if tag in best), None)
    worst = row["worst"]
    found = {
        "name": row["name"], "id": row["id"], "status": row["status"],
        "when": time.strftime("%Y-%m-%d %H:%M", began) if began is not None and row["started"] else "-",
        "took": took(row["seconds"]), "epochs": f"{done}/{row['epochs']}" if row["epochs"] else done,
        "total": f"{total:.4g}" if isinstance(total, int | float) else "-",
        "best AP": f"{kind[4:-3]} {best[kind]:.3f}" if kind else "-",
        "worst": worst["title"] if worst else "-", "alerts": row["alerts"] or "-",
        "undelivered": ",".join(row["undelivered"]) or "-",
    }  # fmt: skip
    return {heading: clean(str(text)) for heading, text in found.items()}


def took(seconds: float) -> str:
    """A duration for people: ``45 s``, ``3:20``, ``7:03:20``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def table(rows: list[dict[str, str]], width: int | None) -> list[str]:
    """Lines of text: as many columns as there is room for."""
    headings = list(HEADINGS)
    if width is not None:
        rows = [
            {
                key: text[: WIDEST - 1] + "~" if key in TEXTS and len(text) > WIDEST else text
                for key, text in row.items()
            }
            for row in rows
        ]
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in headings}
    for key in DROPPED:
        if width is None or sum(widths[each] + 2 for each in headings) - 2 <= width:
            break
        headings.remove(key)
    lines = []
    for row in [dict(zip(HEADINGS, HEADINGS, strict=True)), *rows]:
        lines.append("  ".join(row[key].ljust(widths[key]) for key in headings).rstrip())
    return lines


def _width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None
