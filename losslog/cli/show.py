"""``losslog show RUN``: a run's journal in a few lines.

Main thread. Contract:

- It only reads; names and texts from the journal are printed without control characters.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any, Final

from losslog.cli.arguments import add_dir, add_json, add_run, command, folder_of
from losslog.history import is_void, resumes
from losslog.journal.cursors import Cursor
from losslog.journal.file import read
from losslog.journal.folder import CURSORS, JOURNAL, LOCK
from losslog.journal.locks import is_locked
from losslog.journal.records import count_in
from losslog.runtime.containment import attempt, one_line
from losslog.tags import epoch_series, eval_series

COUNTED: Final = ("on_batch_losses", "on_epoch_end", "on_eval", "on_checkpoint", "on_alert", "on_metrics")


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "show",
        main,
        "summarise a run: status, epochs, last losses, best metrics, plugins",
        examples=("losslog show", "losslog show latest --json"),
    )
    add_run(parser, optional=True)
    add_dir(parser)
    add_json(parser)


def summarise(folder: Path) -> dict[str, Any]:
    """What the journal says, in one pass."""
    counts: dict[str, int] = dict.fromkeys(COUNTED, 0)
    start: dict[str, Any] = {}
    last_epoch: dict[str, Any] = {}
    last_step: dict[str, Any] = {}
    best: dict[str, tuple[float, int]] = {}
    alerts: list[dict[str, Any]] = []
    first = last = 0.0
    garbled, end, status = 0, 0, None
    fences = resumes(folder)
    for at, record in read(folder / JOURNAL):
        end = at
        if record is None:
            garbled += 1
            continue
        if not is_void(record, fences):  # what a resume superseded is not counted twice
            counts[record.hook] = counts.get(record.hook, 0) + 1
        first, last, status = first or record.time, record.time, None
        data = record.data
        if record.hook == "on_run_start":
            start = data
        elif record.hook == "on_batch_losses":
            last_step = data
        elif record.hook == "on_epoch_end":
            last_epoch = data
        elif record.hook == "on_eval":
            series, _ = attempt(eval_series, data.get("metrics") or {}, str(data.get("split", "val")))
            for tag, value in (series or {}).items():
                if math.isfinite(value) and (tag not in best or value > best[tag][0]):
                    best[tag] = (value, count_in(data, "epoch"))
        elif record.hook == "on_alert":
            alerts.append(data)
        elif record.hook == "on_run_end":
            status = str(data.get("status"))
    if status is None:
        status = "running" if is_locked(folder / LOCK) else "crashed"
    return {
        "folder": str(folder), "id": folder.name, "name": start.get("name", ""), "status": status,
        "seconds": last - first, "started": first, "epochs": start.get("epochs"), "counts": counts, "garbled": garbled,
        "last_epoch": last_epoch, "last_step": last_step, "best": best, "alerts": alerts, "bytes": end,
        "plugins": _cursors(folder, end),
    }  # fmt: skip


def _cursors(folder: Path, end: int) -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted((folder / CURSORS).glob("*.json")):
        cursor = Cursor(folder, path.stem)
        cursor.load()
        found[path.stem] = {"seq": cursor.at.seq, "complete": cursor.at.offset >= end}
    return found


def main(args: argparse.Namespace) -> int:
    """Print the summary."""
    found = summarise(folder_of(args))
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    counts = found["counts"]
    say(f"{found['name']} {found['id']}: {found['status']}")
    began, _ = attempt(time.localtime, found["started"])
    if began is not None and found["started"]:
        say(f"started {time.strftime('%Y-%m-%d %H:%M:%S', began)}, {found['seconds']:.0f} s, {found['folder']}")
    planned = f" of {found['epochs']}" if found["epochs"] else ""
    did = [f"epochs {counts['on_epoch_end']}{planned}", f"steps {counts['on_batch_losses']}"]
    did += [f"{hook[3:]}s {counts[hook]}" for hook in ("on_eval", "on_checkpoint", "on_alert")]
    say(", ".join(did))
    if found["garbled"]:
        say(f"{found['garbled']} garbled lines were skipped")
    _print_losses(found)
    for tag, (value, epoch) in found["best"].items():
        if (not tag.startswith("mAP_class") and tag.endswith(("_AP", "_AP50"))) or tag.startswith("eval"):
            say(f"best {tag} {value:.4f} (epoch {epoch})")
    for alert in found["alerts"][-5:]:
        say(f"{alert.get('level')}: {alert.get('title')} (step {alert.get('step')})")
    for name, state in found["plugins"].items():
        say(f"{name}: {'complete' if state['complete'] else 'delivered up to record ' + str(state['seq'])}")
    return 0


def _print_losses(found: dict[str, Any]) -> None:
    epoch, step = found["last_epoch"], found["last_step"]
    if epoch:
        say(f"last epoch {epoch.get('epoch')}:")
        values = (epoch.get(key) for key in ("losses", "total", "val_loss", "lr", "weights"))
        series, error = attempt(epoch_series, *values)
        if error is not None:
            say(f"   its losses cannot be read: {one_line(error)}")
        for tag, value in (series or {}).items():
            say(f"   {tag} {value:.6g}")
    elif step:
        say(f"last step {step.get('step')}: {step.get('losses')}")


def say(text: str) -> None:
    """Print a line of text that may be anybody's."""
    print(clean(text))


def clean(text: str) -> str:
    """``text`` without control characters, so that a name cannot steer the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
