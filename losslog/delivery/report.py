"""The two things a run says of itself: what is on at the start, what became of it at the end.

No thread, no I/O: text from plain figures. Contract:

- The report says what the journal and the backends hold, not what was hoped, and who goes on with what is missing: the
  follower, or a command that works now.
- The last line but warnings is for a person: how it ended, how long, how far, the best, the alerts, where. What logging
  cost is said to those who ask (level DEBUG, `losslog.Run.stats`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from losslog.delivery.discovery import Plugin
from losslog.journal.folder import JOURNAL

GOING: Final = ("starting", "live", "waiting", "hung")  # a lane that its follower goes on with


def start_line(folder: Path, plugins: Sequence[Plugin]) -> str:
    """One line: what is on, what is not, where the run lies."""
    on = ", ".join(plugin.name for plugin in plugins if plugin.state == "ready") or "the journal alone"
    off = ", ".join(plugin.name for plugin in plugins if plugin.state not in ("ready", "broken"))
    broken = ", ".join(plugin.name for plugin in plugins if plugin.state == "broken")
    aside = "; ".join([f"broken: {broken}"] * bool(broken) + [f"not on: {off}"] * bool(off))
    return f"{on}{f' ({aside}; losslog plugins says why)' if aside else ''} -> {shown(folder)}"


def shown(path: Path) -> str:
    """A path as a person would type it: relative where it lies below the working directory, quoted if it must be."""
    with suppress(ValueError, OSError):
        path = path.relative_to(Path.cwd())
    return f'"{path}"' if " " in str(path) else str(path)


def cost_of(stats: Mapping[str, Any]) -> dict[str, Any]:
    """What logging has cost so far, as ``on_run_end`` tells it."""
    seconds = {"journal": stats["cpu"]} | {name: lane["cpu"] for name, lane in stats["lanes"].items()}
    rounded = {name: round(each, 3) for name, each in seconds.items()}
    return {"us_per_step": round(stats["us_per_step"], 1), "cpu_seconds": rounded}


def end_report(status: str, stats: Mapping[str, Any], folder: Path) -> list[tuple[int, str]]:
    """The lines said when a run closes, each with its level.

    Args:
        status: as in ``on_run_end``.
        stats: `losslog.Run.stats`.
        folder: the run folder.
    """
    lines = [(logging.INFO, f"{status} after {_summary(stats)} -> {shown(folder)}"), (logging.DEBUG, _costs(stats))]
    for key, what in (("dropped", "batch records"), ("dropped_others", "metrics and other records")):
        if stats[key]:
            said = f"{stats[key]} {what} were dropped: the queue was full, or the journal could not be written"
            lines.append((logging.WARNING, said))
    if stats.get("spilt"):
        names = ",".join(name for name, lane in stats["lanes"].items() if not lane["own"]) or "NAMES"
        place = shown(Path(stats["spill"]))
        said = f"the disk did not take {_count(stats['spilt'], 'record')} in time: they are in {place}; "
        said += f"losslog replay {shown(folder)} --to {names} --spill {place} delivers them"
        lines.append((logging.WARNING, said))
    elif stats.get("queued"):
        said = f"{_count(stats['queued'], 'record')} still waited for the journal when time was up, and may be missing"
        lines.append((logging.WARNING, said))
    if stats["unwritten"] and not stats.get("spilt"):
        said = f"{stats['unwritten']} records could not be written to the journal: {stats['journal']}"
        lines.append((logging.WARNING, said))
    if stats["steps"] and not stats["epochs"] and status == "finished":
        lines.append((logging.INFO, "no epoch was ended: series by epoch (loss/train_*) come with run.end_epoch()"))
    late, going, again = [], [], []
    for name, lane in stats["lanes"].items():
        behind = lane["committed"] < stats["journal_bytes"]
        if lane["errors"] and not behind:
            lines.append((logging.WARNING, f"{name}: {_count(lane['errors'], 'error')}, the last: "
                          f"{lane['reason'] or 'see above'}"))  # fmt: skip
        if lane.get("skipped"):
            lines.append((logging.WARNING, f"{name}: {_count(lane['skipped'], 'record')} skipped"))
            again += [] if lane["own"] else [name]
        if not behind:
            continue
        why = f" ({lane['reason']})" if lane["reason"] else ""
        if lane["far"] and lane["state"] in GOING:
            going.append(name)
            level = logging.INFO if lane["state"] == "live" else logging.WARNING
            lines.append((level, f"{name}: {_count(lane['behind'], 'record')} to go{why}"))
            continue
        if lane["own"]:  # a hook of the script: no other process can make it, and it may want a few of these only
            said = f"{name}: not called with what came last: {lane['state']}{why}; its records stay in"
            lines.append((logging.WARNING, f"{said} {shown(folder / JOURNAL)}"))
            continue
        lines.append((logging.WARNING, f"{name}: {lane['state']}{why}; undelivered: {lane['behind']}"))
        late.append(name)
    if going:
        lines.append((logging.INFO, f"the follower goes on with {', '.join(going)} for up to 10 minutes; look with: "
                      f"losslog show {shown(folder)}"))  # fmt: skip
    if late:
        said = f"deliver what is missing with: losslog replay {shown(folder)} --to {','.join(late)}"
        said += " --trust" if any(stats["lanes"][name].get("local") for name in late) else ""
        lines.append((logging.WARNING, said))
    if again:
        said = f"try what was skipped again with: losslog replay {shown(folder)} --to {','.join(again)} --skipped"
        lines.append((logging.WARNING, said))
    return lines


def _summary(stats: Mapping[str, Any]) -> str:
    """``2:13, 10 epochs, best segm AP 0.7310 (epoch 9), 1 alert: loss_mask has stalled``."""
    minutes, seconds = divmod(round(stats["seconds"]), 60)
    parts = [f"{minutes // 60}:{minutes % 60:02}:{seconds:02}" if minutes >= 60 else f"{minutes}:{seconds:02}"]
    parts[0] += " since the resume" if stats.get("resumed") else ""
    parts += [_count(stats["epochs"], "epoch")] if stats["epochs"] else []
    parts += [_count(stats["steps"], "step")] if not stats["epochs"] else []
    for kind, (value, epoch) in stats["best"].items():
        parts.append(f"best {kind} {value:.4f} (epoch {epoch})")
    if stats["alerts"]:
        parts.append(f"{_count(len(stats['alerts']), 'alert')}: {stats['worst']}")
    return ", ".join(parts)


def _costs(stats: Mapping[str, Any]) -> str:
    cpu = {"journal": stats["cpu"]} | {name: lane["cpu"] for name, lane in stats["lanes"].items()}
    return (
        f"logging cost {stats['us_per_step']:.1f} us a step on the training thread; {stats['records']} records; "
        f"CPU s: {', '.join(f'{name} {seconds:.2f}' for name, seconds in cpu.items())}"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
