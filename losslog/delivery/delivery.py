"""Delivery: a run's near lanes and its follower, as one thing that can be woken, waited for and asked.

Called from the training thread and the drain thread. Contract:

- A plugin that says it is near, or cannot travel, gets a lane here; all others go to the follower.
- Where the follower cannot be had, all lanes are near.
- Waiting is bounded, and lanes that back off or hang are not waited for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from losslog.control import RunHandle
from losslog.delivery.discovery import Plugin
from losslog.delivery.follower import Follower, Post
from losslog.delivery.lane import Lane
from losslog.journal.cursors import Cursor
from losslog.journal.file import Tail, read
from losslog.journal.folder import JOURNAL
from losslog.runtime.notices import warn

BLANK: Final = {"state": "starting", "reason": "", "delivered": 0, "errors": 0, "offset": 0, "committed": 0, "seq": -1,
                "cpu": 0.0}  # fmt: skip


class Delivery:
    """Who gets a run's records.

    Args:
        folder: the run folder.
        tail: its records.
        handle: makes the ``run`` argument for a plugin of that name.
        post: takes what lanes ask for.
        began_at: offset of this process's first record.
    """

    def __init__(self, folder: Path, tail: Tail, handle: Callable[[str], RunHandle], post: Post, began_at: int) -> None:
        self.lanes: dict[str, Lane] = {}
        self.follower: Follower | None = None
        self.specs: tuple[Any, ...] = ()
        self._folder, self._tail, self._handle, self._post, self._began_at = folder, tail, handle, post, began_at
        self._far: list[str] = []
        self._own: set[str] = set()  # objects of the script: no other process can make them

    def serve(self, plugins: Sequence[Plugin], follower: bool) -> None:
        """Start lanes for plugins that are ready."""
        alone = not follower or os.environ.get("LOSSLOG_FOLLOWER") == "0"
        far = [] if alone else [plugin for plugin in plugins if not plugin.near]
        for plugin in plugins:
            if plugin not in far:
                self.add(plugin)
        if not far:
            return
        self._far = [plugin.name for plugin in far]
        about = [{"name": plugin.name, "options": plugin.options} for plugin in far]
        self.follower = Follower(self._folder, about, self._post)
        trouble = self.follower.start()
        if trouble:
            warn("the follower cannot be started (%s): all plugins run in this process", trouble)
            self.follower, self._far = None, []
            for plugin in far:
                self.add(plugin)

    def add(self, plugin: Plugin, *, own: bool = False) -> None:
        """Start a near lane; ``own`` is for a hook of the user's script, whose cursor lives as long as this process."""
        cursor = Cursor(None if own else self._folder, plugin.name)
        cursor.offset = cursor.start = self._began_at if own else 0
        if not plugin.distribution:
            self._own.add(plugin.name)
        name, every = plugin.name, int(plugin.options.get("batch_every", 1))
        about: dict[str, Any] = {"near": True, "specs": self.specs, "batch_every": every}
        lane = Lane(name, lambda: plugin.object, self._tail, cursor, self._handle(name), **about)
        self.lanes[name] = lane
        lane.start()

    def wake(self, *, follower: bool) -> None:
        """There are new records."""
        for lane in list(self.lanes.values()):
            lane.wake()
        if follower and self.follower is not None:
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
            if lane.first_error is not None:
                error, lane.first_error = lane.first_error, None
                return error
        return None

    def stats(self, seq: int, end: int) -> dict[str, dict[str, Any]]:
        """Figures by plugin; ``behind`` is how many records it lacks.

        Args:
            seq: the last record's.
            end: the journal's length in bytes.
        """
        found = {name: lane.stats() for name, lane in list(self.lanes.items())}
        known = {} if self.follower is None else self.follower.lanes
        found |= {name: dict(known.get(name, BLANK)) for name in self._far}
        for name, each in found.items():
            each["own"] = name in self._own
            each["behind"] = max(seq - each["seq"], 0) if each["committed"] < end else 0
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
        what = "committed" if committed else "offset"
        while True:
            lost = self.follower is None or self.follower.done.is_set()
            if self.follower is not None and not lost:
                self.follower.report()
                self.follower.news.wait(min(0.25, max(deadline - time.monotonic(), 0.0)))
            stats = self.stats(0, end())
            late = {name: each for name, each in stats.items() if each[what] < end()}
            busy = [name for name, each in late.items() if each["state"] in ("starting", "live")]
            if not busy or (lost and all(name in self._far for name in busy)):
                return not late
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.005)


def lanes_for(folder: Path, plugins: Sequence[Plugin], post: Post) -> list[Lane]:
    """A lane for each plugin over the journal in ``folder``, in a process that does not train.

    Args:
        folder: the run folder.
        plugins: installed plugins with their options; each is made in its lane's thread.
        post: takes what lanes ask for.
    """
    tail = Tail(folder / JOURNAL)
    start = next((record for _, record in read(tail.path) if record is not None), None)
    about = {} if start is None else start.data
    lanes = []
    for plugin in plugins:
        name, config = str(about.get("name", "")), about.get("config") or {}
        handle = RunHandle(id=folder.name, name=name, dir=folder, config=config, source=plugin.name, post=post)
        every = int(plugin.options.get("batch_every", 1))
        lanes.append(Lane(plugin.name, plugin.made, tail, Cursor(folder, plugin.name), handle, batch_every=every))
    return lanes


def need_home(folder: Path) -> None:
    """Make the run folder the home of a user who has none, as in a container: vendors ask when they are imported."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(folder)
