"""The two things a run says of itself: what is on at the start, what became of it at the end.

No thread, no I/O: text from plain figures. Contract:

- The report says what the journal and the backends hold, not what was hoped; what is undelivered comes with the command
  that delivers it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from losslog.delivery.discovery import Plugin


def start_line(folder: Path, plugins: Sequence[Plugin]) -> str:
    """One line: what is on, why the rest is not, where the run lies."""
    on = ", ".join(plugin.name for plugin in plugins if plugin.state == "ready") or "the journal alone"
    off = "; ".join(f"{plugin.name} {plugin.state}: {plugin.reason}" for plugin in plugins if plugin.state != "ready")
    return f"{on}{f' (not on: {off})' if off else ''} -> {shown(folder)}"


def shown(path: Path) -> str:
    """A path as a person would type it: relative where it lies below the working directory, quoted if it must be."""
    with suppress(ValueError, OSError):
        path = path.relative_to(Path.cwd())
    return f'"{path}"' if " " in str(path) else str(path)


def end_report(status: str, stats: Mapping[str, Any], folder: Path) -> list[str]:
    """The lines said when a run closes.

    Args:
        status: as in ``on_run_end``.
        stats: `losslog.Run.stats`.
        folder: the run folder.
    """
    cpu = {"journal": stats["cpu"]} | {name: lane["cpu"] for name, lane in stats["lanes"].items()}
    lines = [
        f"{status}: {stats['steps']} steps, {stats['records']} records, "
        f"{stats['us_per_step']:.1f} us a step on the training thread; "
        f"CPU s: {', '.join(f'{name} {seconds:.2f}' for name, seconds in cpu.items())} -> {shown(folder)}"
    ]
    for key, what in (("dropped", "batch records"), ("dropped_others", "metrics and other records")):
        if stats[key]:
            lines.append(f"{stats[key]} {what} were dropped: the queue was full, or the journal could not be written")
    if stats["unwritten"]:
        lines.append(f"{stats['unwritten']} records could not be written to the journal: {stats['journal']}")
    late = []
    for name, lane in stats["lanes"].items():
        if lane["errors"]:
            lines.append(f"{name}: {lane['errors']} errors, the last: {lane['reason'] or 'see above'}")
        if lane["committed"] < stats["journal_bytes"]:
            why = f" ({lane['reason']})" if lane["reason"] else ""
            lines.append(f"{name}: {lane['state']}{why}; undelivered: {lane['behind']}")
            if not lane.get("own"):
                late.append(name)
    if late:
        lines.append(f"deliver what is missing with: losslog replay {shown(folder)} --to {','.join(late)}")
    return lines
