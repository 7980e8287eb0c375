"""A stage: a run folder in which a story is played to a plugin by a real lane.

Test thread; the plugin's hooks run on the lane's thread, as in a run. Contract:

- Delivery is the core's own code: what a `losslog.delivery.lane.Lane` does to a plugin in a run, it does here.
- Every wait is bounded by ``patience``; a lane that hangs is left behind and named.
- A lane flushes when it has handed over what was written so far, not by the clock, so that tests are quick.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from losslog.control import RunHandle
from losslog.delivery.follower import Follower
from losslog.delivery.lane import Lane
from losslog.journal.cursors import Cursor
from losslog.journal.file import Tail
from losslog.journal.folder import JOURNAL
from losslog.journal.records import Record, encode
from losslog.runtime.containment import long_form

RUN_ID: Final = "20260101-000000-cafe"
NAME: Final = "conformance"


class StageLane(Lane):
    """A lane whose flushes and failures a test can see and time.

    Attributes:
        failures: (hook, seq, traceback) of every call that raised; text, since an error would keep what it was given.
        flush_when: "caught up" (with what was written), "always" (after each record) or "never".
        flush_errors: raised one by one after the plugin's next flushes, as if the answer had been lost.
    """

    flush_when = "caught up"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.failures: list[tuple[str, int, str]] = []
        self.flush_errors: list[BaseException] = []
        self.written = -1
        self.object: Any = None

    def _begin(self) -> bool:
        ready = super()._begin()
        if self._caller is not None:
            self.object = self._caller.thing
        return ready

    def _call(self, record: Record) -> BaseException | None:
        error = super()._call(record)
        if error is not None:
            self.failures.append((record.hook, record.seq, long_form(error)))
        return error

    def _flush(self, *, last: bool = False) -> bool:
        if self._caller is not None and self.flush_errors and not hasattr(self, "_honest"):
            self._honest = self._caller.call
            self._caller.call = self._answer_lost  # type: ignore[method-assign,assignment]
        return super()._flush(last=last)

    def _answer_lost(self, hook: str, *args: Any) -> Any:
        result = self._honest(hook, *args)
        if hook == "on_flush" and self.flush_errors:
            raise self.flush_errors.pop(0)
        return result

    def _flush_failed(self, error: BaseException) -> None:
        self.failures.append(("on_flush", self._seq, long_form(error)))
        super()._flush_failed(error)

    def _due(self) -> bool:
        if self._unflushed_since is None or self.flush_when == "never":
            return False
        return super()._due() or self.flush_when == "always" or self._seq >= self.written

    def _away(self, error: BaseException) -> None:
        super()._away(error)
        self._delay = 0.02  # nobody wants to wait for a backend that is only said to be away


class Stage:
    """A run folder, its journal, and the lanes that read it.

    Args:
        home: an empty folder; the run folder is made in it.
        name: the plugin's name.
        patience: seconds to wait for a plugin at most.
    """

    def __init__(self, home: Path, name: str, patience: float = 30.0) -> None:
        self.folder = home / "runs" / NAME / RUN_ID
        self.folder.mkdir(parents=True)
        self.lanes: list[StageLane] = []
        self._name, self._patience = name, patience
        self._journal = self.folder / JOURNAL
        self._journal.touch()
        self._tail = Tail(self._journal, own=True)
        self._ends: list[int] = []
        self._seq = -1

    def write(self, records: Sequence[Record], live: Sequence[Record] | None = None) -> None:
        """Append records to the journal; lanes get ``live`` instead where it is given (tensors, watched dicts)."""
        found: list[tuple[int, Record | None]] = []
        with open(self._journal, "ab") as file:
            for record, shown in zip(records, records if live is None else live, strict=True):
                file.write(encode(record))
                found.append((file.tell(), shown))
                self._ends.append(file.tell())
        self._seq = records[-1].seq
        for lane in self.lanes:
            lane.written = self._seq
        self._tail.publish(found)

    def open(
        self, make: Callable[[], Any], *, after: int = -1, near: bool = False, flush: str = "caught up"
    ) -> StageLane:
        """Start a lane for a new plugin object.

        Args:
            make: makes the object; called on the lane's thread.
            after: the record up to which an earlier object had committed; -1 for a new run.
            near: rest as lanes in the training process do.
            flush: see `StageLane.flush_when`.
        """
        cursor = Cursor(None, self._name)
        if after >= 0:
            cursor.offset, cursor.seq = self._ends[after], after
        handle = RunHandle(
            id=RUN_ID, name=NAME, dir=self.folder, config={}, source=self._name, post=lambda kind, data: None
        )
        lane = StageLane(self._name, make, self._tail, cursor, handle, near=near)
        lane.flush_when, lane.written = flush, self._seq
        self.lanes.append(lane)
        lane.start()
        return lane

    def settle(self, lane: StageLane, what: str = "committed") -> None:
        """Wait until the lane has ``committed`` (or been handed: ``offset``) everything written so far.

        Raises:
            AssertionError: it hangs, or is parked.
        """
        end = self._ends[-1]
        deadline = time.monotonic() + self._patience
        while int(lane.stats()[what]) < end:
            if lane.over:
                raise AssertionError(f"{self._name} is {lane.state}: {lane.reason}{_told(lane)}")
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"{self._name} has not taken everything within {self._patience:g} s ({lane.stats()}){_told(lane)}"
                )
            lane.wake()
            time.sleep(0.002)

    def end(self, within: float, times: int = 1) -> float | None:
        """Write ``on_run_end`` and let every lane deliver it.

        Args:
            within: seconds they get.
            times: how often it is delivered; 0 only waits for what was written.

        Returns:
            Seconds it took; None where that was not enough.
        """
        end = Record(self._seq + 1, 1.8e9, "on_run_end", {"status": "finished", "error": None})
        for _ in range(times):
            self.write([end])
        began = time.monotonic()
        for lane in self.lanes:
            if lane.flush_when == "never":
                lane.flush_when = "caught up"
            lane.finish(self._ends[-1])
        while not all(lane.over for lane in self.lanes):
            if time.monotonic() - began > within:
                for lane in self.lanes:
                    lane.abandon()
                return None
            time.sleep(0.002)
        return time.monotonic() - began

    def follow(self, options: dict[str, Any], within: float) -> dict[str, Any]:
        """Let a follower process deliver the journal.

        Returns:
            What it says of the plugin's lane.

        Raises:
            AssertionError: it does not start, or does not finish in time.
        """
        follower = Follower(self.folder, [{"name": self._name, "options": options}], lambda kind, data: None)
        trouble = follower.start()
        assert not trouble, f"the follower cannot be started: {trouble}"
        follower.finish(self._ends[-1])
        finished = follower.done.wait(within)
        follower.leave()
        for thread in threading.enumerate():  # which takes the child's leave
            if thread.name == "losslog-follower":
                thread.join(5.0)
        log = (self.folder / "follower.log").read_text("utf-8", "replace")
        assert finished, f"the follower has not delivered everything within {within:g} s:\n{log}"
        stats = dict(follower.lanes.get(self._name, {}))
        assert stats.get("committed") == self._ends[-1], f"the follower delivered only a part ({stats}):\n{log}"
        return stats


def _told(lane: StageLane) -> str:
    if not lane.failures:
        return ""
    hook, seq, text = lane.failures[-1]
    return f"\n  last failure, in {hook} (seq {seq}): {text}"
