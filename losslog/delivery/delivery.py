"""Delivery: a run's near lanes and its follower, as one thing that can be woken, waited for and asked.

Called from the training thread and the drain thread. Contract:

- A plugin that says it is near, or cannot travel, gets a lane here; all others go to the follower.
- Where the follower cannot be had, all lanes are near. On a rank that does not log there are none of either.
- Waiting is bounded, and lanes that back off or hang are not waited for.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from losslog.control import Post, RunHandle
from losslog.delivery.caller import Caller
from losslog.delivery.discovery import Plugin
from losslog.delivery.follower import Follower
from losslog.delivery.lane import Lane
from losslog.delivery.progress import Progress
from losslog.delivery.trust import Trust, from_journal
from losslog.delivery.wire import Figures
from losslog.journal.cursors import Cursor, Position, Seqs
from losslog.journal.folder import JOURNAL
from losslog.journal.tail import Tail
from losslog.runtime.notices import warn
from losslog.runtime.settings import switch


class Delivery:
    """Who gets a run's records.

    Args:
        tail: its records, in the run folder.
        handle: makes the ``run`` argument for a plugin of that name.
        post: takes what lanes ask for.
        specs: further hook specifications; the owner may add to them.
        began: where this process's first record is.
    """

    def __init__(
        self, tail: Tail, handle: Callable[[str], RunHandle], post: Post, specs: Sequence[Any], began: Position
    ) -> None:
        self.lanes: dict[str, Lane] = {}
        self.follower: Follower | None = None
        self._tail, self._handle, self._post, self._specs, self._began = tail, handle, post, specs, began
        self._far: list[str] = []
        self._own: set[str] = set()  # objects of the script: no other process can make them
        self._local: set[str] = set()  # their options are not to be had from the journal

    def serve(self, plugins: Sequence[Plugin], follower: bool) -> None:
        """Start lanes for plugins that are ready."""
        self._local |= {each.name for each in plugins if from_journal(each.load(), each.options)[1]}
        alone = not follower or not switch("LOSSLOG_FOLLOWER", True)
        far = [] if alone else [plugin for plugin in plugins if not plugin.near]
        for plugin in plugins:
            if plugin not in far:
                self.add(plugin)
        if not far:
            return
        self._far = [plugin.name for plugin in far]
        about = [{"name": plugin.name, "options": plugin.options} for plugin in far]
        self.follower = Follower(self._handle(""), about, self._post, self._began.seq + 1)
        trouble = self.follower.start()
        if trouble:
            warn("the follower cannot be started (%s): all plugins run in this process", trouble)
            self.follower, self._far = None, []
            for plugin in far:
                self.add(plugin)

    def add(self, plugin: Plugin, *, own: bool = False) -> None:
        """Start a near lane; ``own`` is for a hook of the user's script, whose cursor lives as long as this process."""
        handle = self._handle(plugin.name)
        cursor = Cursor(None if own else handle.dir, plugin.name)
        if own:
            cursor.at, cursor.start = self._began, self._began.offset
        if not plugin.distribution:
            self._own.add(plugin.name)
        trust = Trust(self._began.seq + 1)
        lane = lane_of(plugin, self._tail, Progress(cursor), handle, trust, tuple(self._specs), near=True)
        self.lanes[plugin.name] = lane
        lane.start()

    def names(self) -> set[str]:
        """Of all plugins that are served."""
        return {*self.lanes, *self._far}

    def wake(self) -> None:
        """There are new records that the follower should not let wait; near lanes know."""
        if self.follower is not None:
            self.follower.wake()

    def hurry(self) -> None:
        """Training is over: near lanes need not rest any more."""
        for lane in self.lanes.values():
            lane.hurry()

    def finish(self, end: int) -> None:
        """The journal ends here."""
        for lane in self.lanes.values():
            lane.finish(end)
        if self.follower is not None:
            self.follower.finish(end)

    def leave(self) -> None:
        """Go: near lanes end after their present call, the follower goes on by itself."""
        for lane in self.lanes.values():
            lane.abandon()
        if self.follower is not None:
            self.follower.leave()

    def first_error(self) -> BaseException | None:
        """The first error of a near plugin since the last call."""
        for lane in self.lanes.values():
            error, lane.patience.first_error = lane.patience.first_error, None
            if error is not None:
                return error
        return None

    def figures(self) -> dict[str, Figures]:
        """How each plugin is doing."""
        known = {} if self.follower is None else self.follower.lanes
        near = {name: lane.figures() for name, lane in list(self.lanes.items())}
        return near | {name: known.get(name, Figures()) for name in self._far}

    def stats(self, seq: int, end: int) -> dict[str, dict[str, Any]]:
        """Figures by plugin, as plain data; it is ``behind`` by so many records, and ``far`` if a follower serves it.

        Args:
            seq: the last record's.
            end: the journal's length in bytes.
        """
        found: dict[str, dict[str, Any]] = {}
        for name, each in self.figures().items():
            behind = max(seq - each.seq, 0) if each.committed < end else 0
            far = name in self._far and self.follower is not None and not self.follower.done.is_set()
            found[name] = {**each._asdict(), "own": name in self._own, "local": name in self._local, "far": far,
                           "behind": behind}  # fmt: skip
        return found

    def wait(self, end: Callable[[], int], deadline: float, *, committed: bool) -> bool:
        """Wait until all lanes have the journal's end.

        Args:
            end: the journal's length in bytes, which may grow meanwhile.
            deadline: on the monotonic clock.
            committed: wait for what is durable rather than for what was handed over.

        Returns:
            Whether every lane has it.
        """
        while True:
            lost = self.follower is None or self.follower.done.is_set()
            if self.follower is not None and not lost:
                self.follower.report()
                self.follower.news.wait(min(0.25, max(deadline - time.monotonic(), 0.0)))
            figures = self.figures().items()
            late = [(name, each) for name, each in figures if (each.committed if committed else each.offset) < end()]
            busy = [name for name, each in late if each.state in ("starting", "live")]
            if not busy or (lost and all(name in self._far for name in busy)):
                return not late
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)


def lane_of(
    plugin: Plugin, tail: Tail, progress: Progress, handle: RunHandle, trust: Trust, specs: Sequence[Any] = (), *,
    near: bool = False, only: Seqs | None = None,
) -> Lane:  # fmt: skip
    """A plugin's lane; one that is not made yet is made in the lane's thread."""
    every = int(plugin.options.get("batch_every", 1)) if only is None else 1
    make = functools.partial(_caller, plugin, specs, trust, near and every == 1)
    return Lane(plugin.name, make, tail, progress, handle, near=near, batch_every=every, only=only)


def _caller(plugin: Plugin, specs: Sequence[Any], trust: Trust, live: bool) -> Caller:
    """A plugin's caller; every batch counts where it is replayed, or where means over several are wanted."""
    caller = plugin.caller(specs, trust)
    caller.newest_only = caller.newest_only and live
    return caller


def lanes_for(
    folder: Path, plugins: Sequence[Plugin], post: Post, trust: Trust, *, name: str, config: dict[str, Any],
    again: Mapping[str, Cursor] | None = None,
) -> list[Lane]:  # fmt: skip
    """A lane for each plugin over the journal in ``folder``, in a process that does not train.

    Args:
        folder: the run folder.
        plugins: installed plugins with their options.
        post: takes what lanes ask for.
        trust: whose word the journal is.
        name: the run's name.
        config: the run's config, as the newest ``on_run_start`` has it.
        again: by plugin the cursor whose skipped records are handed over again, and nothing else. Their lanes have
            cursors in memory: what is skipped once more stands there.
    """
    again = again or {}
    tail = Tail(folder / JOURNAL)
    return [
        lane_of(
            plugin, tail, Progress(Cursor(None if plugin.name in again else folder, plugin.name)),
            RunHandle(id=folder.name, name=name, dir=folder, config=config, source=plugin.name, post=post), trust,
            only=again[plugin.name].skipped if plugin.name in again else None,
        )
        for plugin in plugins
    ]  # fmt: skip


def need_home(folder: Path) -> None:
    """Make the run folder the home of a user who has none, as in a container: vendors ask when they are imported."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(folder)
