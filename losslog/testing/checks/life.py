"""Checks of a plugin's end, of what it leaves behind, and of its cost.

Test thread. Contract:

- Every wait is bounded: a plugin that hangs fails its check, it does not stop the others.
- Times are printed, not judged, except the bound on the end.
"""

from __future__ import annotations

import gc
import os
import threading
import time
from pathlib import Path

from losslog.runtime.containment import attempt, long_form
from losslog.testing.story import batches, full_story
from losslog.testing.subject import COSTS, Subject
from losslog.testing.telling import tell

CALLS = 500


class LifeChecks(Subject):
    """How it ends, and what it leaves."""

    def test_bounded_close(self) -> None:
        """``on_run_end`` and its flush end within ``close_within`` seconds."""
        took = self.reference().ended_in
        assert took is not None, f"on_run_end and the flush after it took longer than {self.close_within:g} s"

    def test_second_end(self) -> None:
        """``on_run_end`` may be delivered again."""
        story, home = full_story(), self.home()
        stage = self.stage(home)
        stage.write(story.records)
        lane = stage.open(self.made(home))
        stage.settle(lane)
        lane.failures.clear()
        stage.end(self.close_within, times=2)
        assert not lane.failures, f"on_run_end came again, and it raised:\n{lane.failures[0][2]}"

    def test_end_without_start(self) -> None:
        """``on_run_end`` without ``on_run_start`` (which had failed) does nothing and raises nothing."""
        plugin = self.made(self.home())()
        _, error = attempt(tell, plugin, "on_run_end", status="crashed")
        assert error is None, f"on_run_end without on_run_start raised:\n{long_form(error)}"

    def test_leaves_nothing_open(self) -> None:
        """After its end there are no more threads and no more open files than before."""
        self.keep("life", self._live)  # what a vendor keeps for the whole process is there after the first one
        threads, files = _threads(), _files()
        plugin = self._live()
        for _ in range(50):
            gc.collect(0)
            more = [name for name in _threads() if name not in threads]
            left = [path for path in _files() if path not in files]
            if not more and not left:
                break
            time.sleep(0.02)
        del plugin
        assert not more, f"threads left after on_run_end: {more}"
        assert not left, f"files left open after on_run_end: {left}"

    def _live(self) -> object:
        story, home = full_story(), self.home()
        stage = self.stage(home)
        stage.write(story.records)
        lane = stage.open(self.made(home))
        stage.settle(lane)
        stage.end(self.close_within)
        return lane.object

    def test_cost_per_call(self) -> None:
        """What a batch costs, flush included; it is printed at the end."""
        story, home = batches(CALLS), self.home()
        stage = self.stage(home)
        stage.write(story.records[:1])
        lane = stage.open(self.made(home))
        stage.settle(lane)
        began, used = time.perf_counter(), lane.cpu
        stage.write(story.records[1:])
        stage.settle(lane)
        wall = time.perf_counter() - began
        stage.end(self.close_within)
        cost = f"{1e6 * wall / CALLS:.0f} us a batch of 5 losses, {1e6 * (lane.cpu - used) / CALLS:.0f} us of CPU"
        COSTS[self.name or type(self).__name__] = cost
        print(f"{self.name}: {cost}")


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate()]


def _files() -> list[str]:
    """What this process has open, where the system can tell."""
    found = []
    folder = Path("/proc/self/fd")
    for entry in folder.iterdir() if folder.is_dir() else ():
        try:
            found.append(f"{entry.name} {os.readlink(entry)}")
        except OSError:  # closed meanwhile, as the listing's own
            continue
    return found
