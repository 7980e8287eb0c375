"""``losslog watch [RUN]``: a run as it goes, from any shell that sees its folder.

Main thread. Contract:

- It reads files and nothing else, and writes none.
- Drawn by the console plugin on a terminal; without it, without rich, or in a pipe there is a line for each epoch, and
  it ends when the run has.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from losslog.cli.arguments import add_dir, add_run, command, folder_of, positive
from losslog.cli.show import clean
from losslog.delivery.discovery import named
from losslog.journal.fences import is_void
from losslog.journal.scan import blocks, is_batch, record_of, resumes
from losslog.runtime.containment import attempt
from losslog.tags import epoch_series, eval_series
from losslog.viewing.live import Live


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "watch",
        main,
        "a live view of a run, from any shell",
        "Shows a run as it goes: components, shares, changes, AP, alerts, what the plugins have. In a pipe a line for "
        "each epoch.",
        examples=("losslog watch", "losslog watch latest --interval 2"),
    )
    add_run(parser, optional=True)
    add_dir(parser)
    parser.add_argument("--interval", type=positive, default=0.5, metavar="SECONDS", help="between two looks")
    parser.add_argument("--plain", action="store_true", help="a line for each epoch, on a terminal too")


def main(args: argparse.Namespace) -> int:
    """Watch until the person has seen enough, or the run has ended."""
    folder = folder_of(args)
    live = Live(folder)
    draw = None if args.plain or not (sys.stdout.isatty() and sys.stdin.isatty()) else drawer()
    if draw is not None:
        draw(live, args.interval)
        return 0
    lines(live, args.interval)
    return 0


def drawer() -> Callable[[Live, float], None] | None:
    """What draws on a terminal: the console plugin's, where it is installed and can."""
    found, _ = attempt(named, ["console"])
    factory = found[0].load() if found else None
    draw: Callable[[Live, float], None] | None = getattr(factory, "watch", None)
    return draw if find_spec("rich") is not None else None


def lines(live: Live, interval: float) -> None:
    """Print a line for each epoch, and one for each alert, until the run has ended."""
    offset = 0
    fences = resumes(live.path)
    while True:
        status = live.status if live.looks else "running"
        for end, piece in blocks(live.path, offset):
            offset = end
            for line in piece.split(b"\n"):
                record = None if is_batch(line) else record_of(line)
                if record is not None and not is_void(record, fences):
                    _tell(record.hook, record.data)
        if status != "running":
            print(clean(_ending(live, status)), flush=True)
            return
        live.look()
        if live.status == "running":
            time.sleep(interval)


def _ending(live: Live, status: str) -> str:
    """How a run ended, where, and what to do about it."""
    ident = live.folder.name
    said = f"{live.name} {ident}: {status}"
    if status == "finished":
        return said
    if live.step is not None:
        said += f" after step {live.step}"
    if live.epoch:
        said += f", epoch {live.epoch}" + (f" of {live.epochs}" if live.epochs else "")
    error = (live.story.ended or {}).get("error")
    return said + (f", {' '.join(str(error).split())}" if error else "") + f"; losslog show {ident}"


def _tell(hook: str, data: dict[str, Any]) -> None:
    if hook == "on_epoch_end":
        parts = (data.get(key) for key in ("losses", "total", "val_loss", "lr"))
        series, _ = attempt(epoch_series, *parts)
        of = f"/{data['epochs']}" if data.get("epochs") else ""
        found = {tag.removeprefix("loss/").removeprefix("train_"): value for tag, value in (series or {}).items()}
        shown = {name: value for name, value in found.items() if not name.startswith(("val_", "lr_group/"))}
        said = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
        print(clean(f"Epoch {data.get('epoch')}{of}  {said}"), flush=True)
    elif hook == "on_eval":
        series, _ = attempt(eval_series, data.get("metrics") or {}, str(data.get("split") or "val"))
        wanted = {tag: value for tag, value in (series or {}).items() if tag.endswith("_AP") or tag.startswith("eval")}
        wanted = {tag: value for tag, value in wanted.items() if not tag.startswith("mAP_class")}
        if wanted:
            print(clean("  ".join(f"{tag} {value:.4g}" for tag, value in wanted.items())), flush=True)
    elif hook == "on_alert":
        print(clean(f"{data.get('level')}: {data.get('title')} (step {data.get('step')})"), flush=True)
