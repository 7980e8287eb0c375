"""What ``replay`` and ``follow`` share: plugins with their options, lanes that are watched, a result that is said.

Main thread. Contract:

- Options on the command line beat the journal's, which beat the environment. Of the journal's those count that its
  sender may decide (`losslog.delivery.trust`); all of them with ``--trust``, which says what they are.
- Alerts and requests of plugins have no effect here: the journal of a run is written by the run.
- Ctrl-C ends cleanly: cursors stay where delivery is durable.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from losslog.cli.arguments import UsageError, add_dir, add_options, add_run, names_in, parse_options, positive
from losslog.cli.show import say as print_line
from losslog.delivery.attached import OBJECTS
from losslog.delivery.delivery import lanes_for, need_home
from losslog.delivery.discovery import Plugin, named
from losslog.delivery.lane import Lane
from losslog.delivery.trust import Trust, from_journal
from losslog.errors import LosslogError, RunLocked
from losslog.journal.archive import reading
from losslog.journal.cursors import BEGINNING, Cursor, Position, Seqs
from losslog.journal.index import index_of
from losslog.runtime.notices import say
from losslog.runtime.pace import start_thread
from losslog.viewing.rows import counted


def add_arguments(parser: Any) -> None:
    """RUN, --to, -o, --dir and --wait."""
    add_run(parser)
    parser.add_argument("--to", metavar="NAMES", required=True, help="plugins, e.g. mlflow or mlflow,wandb")
    add_options(parser)
    add_dir(parser)
    parser.add_argument(
        "--trust",
        action="store_true",
        help="obey all options in the journal, also those that say where data go; they are shown",
    )
    parser.add_argument(
        "--checkpoints-in",
        action="append",
        default=[],
        type=Path,
        metavar="FOLDER",
        help="checkpoints may lie there too, not only in the run folder; repeatable",
    )
    parser.add_argument(
        "--images-in",
        action="append",
        default=[],
        type=folder_there,
        metavar="FOLDER",
        help="pictures may lie there too, e.g. in your data folder; repeatable",
    )
    parser.add_argument("--wait", type=positive, default=60.0, metavar="SECONDS",
                        help="give up on a backend that is away for so long")  # fmt: skip


def folder_there(text: str) -> Path:
    """A folder of the command line that has to be there."""
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {text}")
    return Path(text)


def start_of(folder: Path) -> dict[str, Any]:
    """The data of the newest ``on_run_start``; ``{}`` where there is none."""
    return index_of(folder).start()


def lanes_over(
    folder: Path, plugins: Sequence[Plugin], start: Mapping[str, Any], args: Any,
    again: Mapping[str, Cursor] | None = None,
) -> list[Lane]:  # fmt: skip
    """A lane for each plugin, of the run that began so; ``again`` as `losslog.delivery.delivery.lanes_for` has it."""
    name, config = str(start.get("name") or folder.parent.name), start.get("config") or {}
    trust = Trust(folders=args.checkpoints_in, pictures=args.images_in)
    gc.set_threshold(OBJECTS, 20, 20)
    return lanes_for(folder, plugins, lambda kind, data: None, trust, name=name, config=config, again=again)


def plugins_for(folder: Path, start: Mapping[str, Any], args: Any) -> list[Plugin]:
    """The plugins named, made, with the journal's options and those of the command line.

    Args:
        folder: the run folder.
        start: data of its newest ``on_run_start``.
        args: the command line.

    Raises:
        PluginError: one is not installed.
        LosslogError: one does not accept its options.
        UsageError: an option is not of the form PLUGIN.KEY=VALUE, or for another plugin.
    """
    given = parse_options(args.option)
    need_home(folder)
    chosen = named(names_in(args.to))
    for plugin in chosen:
        own = given.get(plugin.name, {})
        plugin.options = journaled_options(plugin, start, own, trust=args.trust) | own
        if not args.trust and not getattr(args, "from_start", False):
            _check_place(folder, plugin, start, own)
        error = plugin.make()
        if error is not None:
            raise LosslogError(f"plugin {plugin.name!r} ({plugin.distribution}): {plugin.reason}") from error
    for name in given.keys() - {plugin.name for plugin in chosen}:
        raise UsageError(f"an option is given for {name!r}, which --to does not name")
    return chosen


def journaled_options(
    plugin: Plugin, start: Mapping[str, Any], own: Mapping[str, Any], *, trust: bool = False
) -> dict[str, Any]:
    """A plugin's options as the journal has them, as far as its sender may decide; the others are said.

    Args:
        plugin: the plugin.
        start: data of an ``on_run_start``.
        own: what the command line says, which beats the journal's.
        trust: obey them all.
    """
    taken, local = _divided(plugin, start)
    told = ", ".join(f"{key}={value!r:.200}" for key, value in local.items() if key not in own)
    if told and trust:
        say("%s: the journal is trusted with %s", plugin.name, told)
    elif told:
        say("%s: not taken from the journal: %s (-o %s.KEY=VALUE says it, --trust takes them all)", plugin.name, told,
            plugin.name)  # fmt: skip
    return {**taken, **local} if trust else taken


def _divided(plugin: Plugin, start: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    journaled = start.get("options")
    return from_journal(plugin.load(), journaled.get(plugin.name) if isinstance(journaled, Mapping) else None)


def _check_place(folder: Path, plugin: Plugin, start: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """One half of a run in one place and one in another is worse than none.

    Raises:
        UsageError: the plugin was delivered to where only the journal says, and nobody says where to go on.
    """
    missing = ", ".join(key for key in _divided(plugin, start)[1] if key not in own)
    said = any(os.environ.get(name) for name in getattr(plugin.load(), "consent_variables", ()))
    cursor = Cursor(folder, plugin.name)
    cursor.load()
    if missing and not said and cursor.at.seq >= 0:
        raise UsageError(
            f"{plugin.name} has a part of this run, with options that only the journal knows ({missing}): go on there "
            f"with --trust, or say -o {plugin.name}.KEY=VALUE, or --from-start for another place"
        )


def positions(folder: Path, plugins: Sequence[Plugin], *, from_start: bool = False) -> dict[str, Position]:
    """Where each plugin stands in the journal; with ``from_start`` cursors are set back first.

    Raises:
        RunLocked: another process delivers to one of them.
    """
    found = {}
    for plugin in plugins:
        cursor = Cursor(folder, plugin.name)
        if not cursor.acquire():
            raise RunLocked(f"another process (the run's follower?) delivers to {plugin.name}: wait, then try again")
        if from_start:
            cursor.start, cursor.skipped = 0, Seqs()
            cursor.commit(BEGINNING)
        found[plugin.name] = cursor.at
        cursor.release()
    return found


def watch(lanes: Sequence[Lane], end: Callable[[], int], wait: float, over: Callable[[], bool]) -> None:
    """Let lanes work until all are over; say how far they are; give up on one that gets nowhere for so long."""
    waits = {lane.name: _Waits(lane, wait) for lane in lanes}
    told = time.monotonic()
    shown = False
    while not all(lane.patience.over for lane in lanes):
        for lane in lanes:
            if waits[lane.name].gives_up():
                lane.abandon()
        if all(lane.patience.over or waits[lane.name].gave_up for lane in lanes) or over():
            break
        now = time.monotonic()
        if now - told > 1.0 and sys.stderr.isatty():
            told, shown = now, True
            parts = [f"{lane.name} {100 * lane.progress.at.offset // max(end(), 1)} %" for lane in lanes]
            sys.stderr.write("\r" + ", ".join(parts) + "\x1b[K")
            sys.stderr.flush()
        time.sleep(0.02)
    if shown:
        sys.stderr.write("\r\x1b[K")
    if any(lane.patience.hung for lane in lanes):
        leave_anyway()


class _Waits:
    """Notices that a lane gets nowhere: its backend is away, its call does not return, its flush is never durable.

    Args:
        lane: the lane.
        wait: seconds to bear that; a call that has just begun gets the time that it may take.
    """

    def __init__(self, lane: Lane, wait: float) -> None:
        self.gave_up = False
        self._lane, self._wait = lane, wait
        self._before: object = None
        self._since = 0.0

    def gives_up(self) -> bool:
        """Whether it is time."""
        lane, now = self._lane, time.monotonic()
        away = lane.patience.state == "waiting"
        found = (away, lane.progress.committed, None if away else (lane.progress.at, lane.delivered))
        if found != self._before or not (away or lane.patience.takes or lane.progress.waiting):
            self._before, self._since = found, now
        self.gave_up = not lane.patience.over and now - self._since > max(self._wait, lane.patience.takes)
        return self.gave_up


def leave_anyway() -> None:
    """When this process ends, end it whatever still hangs in a thread or an exit handler of a vendor's."""
    atexit.register(start_thread, _leave, "losslog-leave")


def _leave() -> None:
    time.sleep(2.0)
    os._exit(1)


def _lines(path: Path, start: int, end: int) -> int:
    """How many lines there are between two places."""
    count = 0
    with reading(path) as file:
        file.seek(start)
        while start < end and (data := file.read(min(1 << 20, end - start))):
            count, start = count + data.count(b"\n"), start + len(data)
    return count


def tell(lanes: Sequence[Lane], before: Mapping[str, Position], end: int, journal: Path) -> int:
    """Say what was delivered; the exit code: 0 when every plugin has all of it."""
    code = 0
    for lane in lanes:
        figures = lane.figures()
        progress, start = lane.progress, before[lane.name]
        skipped = len(progress.skipped) - len(progress.skipped.upto(start.seq))
        if progress.fell:  # numbers do not tell
            count = _lines(journal, start.offset, figures.committed) - progress.garbled - skipped
        else:
            count = figures.seq - start.seq - progress.missing - skipped
        count = max(count, 0)
        complete = figures.committed >= end
        why = "" if complete else f"; not complete: {figures.state} {figures.reason}".rstrip()
        print_line(f"{lane.name}: {counted(count, 'record')} delivered{why}", sys.stderr)
        missing = 0 if progress.fell else progress.missing
        if progress.garbled or missing:
            lost = f"{counted(progress.garbled, 'garbled line')}, {counted(missing, 'record')} missing there"
            print_line(f"{lane.name}: the journal is damaged: {lost}", sys.stderr)
        if figures.skipped:
            what = "1 record was" if figures.skipped == 1 else f"{figures.skipped} records were"
            why = f", the last: {figures.reason}" if figures.reason else "; try them again with --skipped"
            print_line(f"{lane.name}: {what} skipped{why}", sys.stderr)
        code = code if complete else 1
    return code
