"""``losslog diagnose RUN``: the plateau plugin's verdict on every component of a run, finished or running.

Main thread. Contract:

- It reads the journal and nothing else, also of a run made without the plugin; no alert is written anywhere.
- What a resume superseded does not count.
"""

from __future__ import annotations

import argparse
import json
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Final

from losslog.cli.arguments import add_dir, add_json, add_options, add_run, command, finite, folder_of, parse_options
from losslog.cli.delivering import journaled_options
from losslog.cli.show import clean
from losslog.control import RunHandle
from losslog.delivery.caller import Caller
from losslog.delivery.discovery import named
from losslog.errors import LosslogError, PluginError
from losslog.history import records
from losslog.journal.index import index_of
from losslog.runtime.containment import attempt, one_line
from losslog.runtime.notices import Once, warn

AT_ONCE: Final = 1024  # batches
HEADINGS: Final = ("component", "state", "level", "typical", "change", "since")


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser = command(
        commands,
        "diagnose",
        main,
        "which losses improve, have converged, or have stalled",
        examples=("losslog diagnose latest", "losslog diagnose latest -o plateau.sensitivity=high"),
    )
    add_run(parser, optional=True)
    add_dir(parser)
    add_options(parser, "plateau.sensitivity=high")
    add_json(parser)


def verdicts(folder: Path, options: dict[str, Any]) -> list[Any]:
    """Replay the journal through the plateau plugin.

    Raises:
        LosslogError: the plugin is not installed, or does not take the options.
    """
    try:
        plugin = named(["plateau"])[0]
    except PluginError as missing:
        raise PluginError("diagnose needs the plateau plugin: pip install losslog-plateau") from missing
    start = index_of(folder).start(0)
    of_run = journaled_options(plugin, start, options)
    plugin.options = of_run | options
    error = plugin.make()
    if error is not None and of_run:
        warn("plateau: the options in the journal are not taken (%s)", one_line(error))
        plugin.options = options
        error = plugin.make()
    if error is not None:
        raise LosslogError(f"plateau: {one_line(error)}") from error
    caller = Caller("plateau", plugin.object)
    handle = RunHandle(
        id="", name="", dir=folder / "nowhere", config=start.get("config") or {}, source="plateau",
        post=lambda kind, data: None,
    )  # fmt: skip
    over, once = False, Once()
    for of_batches, group in groupby(records(folder), lambda record: record.hook == "on_batch_losses"):
        while several := list(islice(group, AT_ONCE)):
            over, place, data = several[-1].hook == "on_run_end", 0, [each.data for each in several]
            while place < len(several):
                taken = plugin.object.watch_many(data, place) if of_batches else 0
                hook, seq = several[place].hook, several[place].seq
                if not taken and hook != "on_run_end" and (hook not in ("on_resume", "on_run_start") or seq == 0):
                    _, failed = attempt(caller.call, hook, data[place], handle, seq, several[place].time)
                    if failed is not None:
                        once("records that cannot be judged are left out, such as %d: %s", seq, one_line(failed))
                place += taken or 1
    return list(plugin.object.verdicts(over))


def main(args: argparse.Namespace) -> int:
    """Print one line a component."""
    folder = folder_of(args)
    found = verdicts(folder, parse_options(args.option).get("plateau", {}))
    rows = [_row(each) for each in found]
    if args.json:
        told = [dict(zip(HEADINGS, row, strict=True)) for row in rows]
        told = [row | {"state": each.state} for row, each in zip(told, found, strict=True)]
        more = [{"text": each.text, "outlook": each.outlook} for each in found]
        print(json.dumps(finite([row | rest for row, rest in zip(told, more, strict=True)]), indent=2))
        return 0
    if not rows:
        print(clean(f"{folder.name} has no losses yet"))
        return 0
    widths = [max(len(row[column]) for row in [HEADINGS, *rows]) for column in range(len(HEADINGS))]
    for row in [HEADINGS, *rows]:
        print(clean("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip())
    print()
    for each in found:
        print(clean(f"{each.component} {each.outlook}"))
    for each in found:
        if each.severity != "info":
            print(f"\n{clean(each.text)}")
    return 0


def _row(verdict: Any) -> tuple[str, ...]:
    gone = verdict.state in ("non_finite", "zero", "missing")  # where it stood before means nothing now
    level = "-" if verdict.level is None or gone else f"{verdict.level:.4g}"
    typical = "-" if verdict.range is None else f"{verdict.range[0]:g}-{verdict.range[1]:g}"
    change = "-"
    if verdict.rate is not None and not gone:
        change = f"{verdict.rate:+z.1f} % ({verdict.rate_low:+z.1f} to {verdict.rate_high:+z.1f}) per {verdict.per}"
    return verdict.component, state_in_words(verdict.state), level, typical, change, str(verdict.since)


def state_in_words(state: str) -> str:
    """A component's state as it is said to people."""
    return "not finite" if state == "non_finite" else state.replace("_", " ")
