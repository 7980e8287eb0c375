"""``losslog show RUN``: a run's journal in a few lines.

Main thread. Contract:

- It only reads; names and texts from the journal are printed without control characters.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, Final, TextIO

from losslog.cli.arguments import add_dir, add_json, add_run, command, finite, folder_of
from losslog.history import records
from losslog.journal.archive import damage
from losslog.journal.folder import JOURNAL
from losslog.journal.records import count_in
from losslog.runtime.containment import attempt, one_line
from losslog.tags import epoch_series
from losslog.viewing.rows import counted
from losslog.viewing.state import lags
from losslog.viewing.summary import Summary, summary_of
from losslog.viewing.trained import table

COUNTED: Final = ("on_batch_losses", "on_epoch_end", "on_eval", "on_checkpoint", "on_alert", "on_metrics")

SHOWN: Final = 8  # alerts
UNPACKED: Final = 1 << 24  # bytes of a compressed journal that are looked through for damage, in a fraction of a second
LEVELS: Final = ("error", "warning", "info")


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "show",
        main,
        "summarise a run: status, epochs, last losses, best metrics, plugins",
        examples=("losslog show", "losslog show latest --hard", "losslog show latest --json"),
    )
    add_run(parser, optional=True)
    add_dir(parser)
    parser.add_argument("--hard", action="store_true", help="the images with the highest losses and most mistakes")
    add_json(parser)


def summarise(folder: Path) -> dict[str, Any]:
    """What the journal says; batches are counted, not decoded, and what a kept summary has is not read again."""
    lost = damage(folder / JOURNAL, most=UNPACKED)
    summary = Summary(folder) if lost else summary_of(folder, keep=False)  # a kept one counts what was there
    summary.read()
    facts = summary.facts
    start = summary.start(0)
    origin = found if isinstance(found := start.get("origin"), dict) else {}
    nothing = {"seq": -1, "behind": summary.size, "complete": False, "skipped": 0}
    named = found if isinstance(found := origin.get("plugins"), list) else []
    plugins = {str(name): nothing for name in named} | lags(folder, summary.size)
    return {
        "folder": str(folder), "id": folder.name, "name": facts["name"], "status": summary.status,
        "seconds": facts["last"] - facts["started"], "started": facts["started"], "epochs": facts["epochs"],
        "counts": dict.fromkeys(COUNTED, 0) | facts["counts"], "garbled": facts["garbled"],
        "damaged": lost, "last_epoch": facts["last_epoch"], "last_step": facts["last_step"], "best": facts["best"],
        "alerts": facts["alerts"], "config": start.get("config") or {}, "origin": origin, "bytes": summary.size,
        "plugins": plugins, "trains": facts["trains"],
    }  # fmt: skip


def main(args: argparse.Namespace) -> int:
    """Print the summary."""
    if args.hard:
        return _hard(folder_of(args), as_json=args.json)
    found = summarise(folder_of(args))
    if args.json:
        print(json.dumps(finite(found), indent=2, allow_nan=False))
        return 0
    counts = found["counts"]
    say(f"{found['name']} {found['id']}: {found['status']}")
    began, _ = attempt(time.localtime, found["started"])
    if began is not None and found["started"]:
        say(f"started {time.strftime('%Y-%m-%d %H:%M:%S', began)}, {found['seconds']:.0f} s, {found['folder']}")
    planned = f" of {found['epochs']}" if found["epochs"] else ""
    done = count_in(found["last_epoch"], "epoch")
    missing = done - counts["on_epoch_end"]
    lacking = f" ({missing} of them not in the journal)" if missing > 0 else ""
    did = [f"epochs {done or counts['on_epoch_end']}{planned}{lacking}", f"steps {counts['on_batch_losses']}"]
    did += [f"{hook[3:]}s {counts[hook]}" for hook in ("on_eval", "on_checkpoint", "on_alert")]
    say(", ".join(did))
    if found["garbled"]:
        say(f"{found['garbled']} garbled lines were skipped")
    if found["damaged"]:
        say(found["damaged"])
    _print_losses(found)
    for tag, (value, epoch) in found["best"].items():
        if (not tag.startswith("mAP_class") and tag.endswith(("_AP", "_AP50"))) or tag.startswith("eval"):
            say(f"best {tag} {value:.4f} (epoch {epoch})")
    if lines := table(found["trains"]):
        say(f"what each loss trains (step {found['trains'].get('step')}):")
        for line in lines:
            say(f"   {line}")
    for line in _alerts(found["alerts"], counts["on_alert"]):
        say(line)
    for name, state in found["plugins"].items():
        upto = f"delivered up to record {state['seq']}" if state["seq"] >= 0 else "nothing delivered"
        count = state.get("skipped", 0)
        skipped = f", but {count} skipped: losslog replay {folder_of(args).name} --to {name} --skipped" if count else ""
        say(f"{name}: {'complete' if state['complete'] else upto}{skipped}")
    return 0


def _alerts(alerts: list[dict[str, Any]], count: int) -> list[str]:
    """The gravest first; of one level in the order they came, the first as well as the last of many."""
    levels = {level: [each for each in alerts if each.get("level") == level] for level in LEVELS}
    levels["other"] = [each for each in alerts if each.get("level") not in LEVELS]
    lines: list[str] = []
    for several in levels.values():
        room = max(0, SHOWN - len(lines))
        shown = several if len(several) <= room else several[: room - room // 3] + several[len(several) - room // 3 :]
        for alert in shown:
            places = [f"{what} {alert[what]}" for what in ("step", "epoch") if alert.get(what) is not None][:1]
            lines.append(f"{alert.get('level')}: {alert.get('title')}{f' ({places[0]})' if places else ''}")
    if (more := max(count, len(alerts)) - len(lines)) > 0:
        lines.append(f"and {counted(more, 'alert')} more, in losslog report and losslog cat")
    return lines


def hard(folder: Path) -> dict[str, Any]:
    """Of the last epoch that tells: batches by component, and images of its evaluation with most mistakes.

    Those that an evaluation found the hardest; where none was, those that were logged with their mistakes.
    """
    found: dict[str, Any] = {"epoch": None, "hardest": {}, "evaluation": None, "images": []}
    judged = False
    for record in records(folder):
        data = record.data
        if record.hook == "on_epoch_end" and data.get("hardest"):
            found |= {"epoch": data.get("epoch"), "hardest": data["hardest"]}
        elif record.hook == "on_images" and data.get("images") and (data.get("name") == "hardest" or not judged):
            judged = data.get("name") == "hardest"
            keys = ("id", "path", "mistakes", "missed", "extra", "iou")
            wrong = [each for each in data["images"] if each.get("mistakes")]
            wrong.sort(key=lambda each: -sum(each["mistakes"].values()) if not judged else 0)
            images = [{key: each.get(key) for key in keys} for each in wrong]
            found |= {"evaluation": data.get("epoch"), "images": images}
    return found


def _hard(folder: Path, *, as_json: bool) -> int:
    found = hard(folder)
    if as_json:
        print(json.dumps(finite(found), indent=2, allow_nan=False))
        return 0
    if not found["hardest"] and not found["images"]:
        say("nothing is known of images: pass targets= to run.log_batch, and evaluate with pycocotools or the engine, "
            "or log what losslog.detection.images_of gives")  # fmt: skip
    if found["hardest"]:
        say(f"highest losses of epoch {found['epoch']}: loss, step, images of the batch")
    for name, batches in found["hardest"].items():
        for place, (value, step, ids) in enumerate(batches):
            say(f"   {name if not place else '':<20} {value:>10.4g} {step:>9}  {', '.join(map(str, ids))}")
    if found["images"]:
        say(f"most mistakes in the evaluation of epoch {found['evaluation']}: image, mistakes, file")
    for each in found["images"]:
        wrong = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in (each["mistakes"] or {}).items())
        say(f"   {each['id']!s:<20} {wrong}  {each['path'] or ''}".rstrip())
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


def say(text: str, file: TextIO | None = None) -> None:
    """Print a line of text that may be anybody's: the one way in which commands print such."""
    print(clean(text), file=file)


def clean(text: str) -> str:
    """``text`` without control characters, so that a name cannot steer the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
