"""A stage: a run folder in which a story is played to a plugin by a real lane.

Test thread; the plugin's hooks run on the lane's thread, as in a run. Contract:

- Delivery is the core's own code: what a `losslog.delivery.lane.Lane` does to a plugin in a run, it does here.
- Every wait is bounded by ``patience``; a lane that hangs is left behind and named.
- A lane flushes when it has handed over what was written so far, not by the clock, so that tests are quick.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from losslog.control import RunHandle
from losslog.delivery.caller import Caller
from losslog.delivery.follower import Follower
from losslog.delivery.lane import Lane
from losslog.delivery.patience import Patience
from losslog.delivery.progress import Progress
from losslog.delivery.wire import Figures
from losslog.journal.cursors import Cursor, Position
from losslog.journal.folder import JOURNAL
from losslog.journal.records import Record, encode
from losslog.journal.tail import Tail
from losslog.runtime.containment import long_form

RUN_ID: Final = "20260101-000000-cafe"
NAME: Final = "conformance"


class _Watched(Caller):
    """Keeps what a plugin raises, and loses answers of its flushes.

    Args:
        lane: whose plugin it is; it has the lists.
        thing: the plugin object.
    """

    def __init__(self, lane: StageLane, thing: Any) -> None:
        super().__init__(lane.name, thing)
        self._lane = lane

    def call(self, hook: str, data: Mapping[str, Any], run: Any, seq: int, time: float) -> Any:
        """Call one hook."""
        try:
            result = super().call(hook, data, run, seq, time)
            if hook == "on_flush" and self._lane.flush_errors:
                raise self._lane.flush_errors.pop(0)
        except BaseException as error:
            self._lane.failures.append((hook, seq, long_form(error)))
            raise
        return result


class _Paced(Progress):
    """Flushes when a test wants it.

    Attributes:
        flush_when: "caught up" (with what was written), "always" (after each record) or "never".
        written: seq of the last record that was written.
    """

    flush_when = "caught up"
    written = -1

    def due(self, every: float) -> bool:
        """Whether it is time for a flush."""
        if not self.unflushed or self.flush_when == "never":
            return False
        return super().due(every) or self.flush_when == "always" or self.at.seq >= self.written


class _Hasty(Patience):
    """Nobody wants to wait for a backend that is only said to be away."""

    back_off = (0.02, 0.02)


class StageLane(Lane):
    """A lane whose flushes and failures a test can see and time.

    Args:
        name: the plugin's name.
        make: makes the plugin object.
        tail: the journal's records.
        cursor: how far the plugin is.
        handle: the ``run`` argument of its hooks.
        near: whether to rest as in the training process.

    Attributes:
        failures: (hook, seq, traceback) of every call that raised; text, since an error would keep what it was given.
        flush_errors: raised one by one after the plugin's next flushes, as if the answer had been lost.
        flushes: see `_Paced`.
        object: the plugin object, once it is made.
        gone: whether its process is said to be gone: nobody ends it any more.
    """

    def __init__(
        self, name: str, make: Callable[[], Any], tail: Tail, cursor: Cursor, handle: RunHandle, *, near: bool
    ) -> None:
        self.flushes = _Paced(cursor)
        self.failures: list[tuple[str, int, str]] = []
        self.flush_errors: list[BaseException] = []
        self.object: Any = None
        self.gone = False
        super().__init__(name, self._made, tail, self.flushes, handle, near=near, patience=_Hasty(name))
        self._make_object = make

    def _made(self) -> Caller:
        self.object = self._make_object()
        return _Watched(self, self.object)


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
            lane.flushes.written = self._seq
        self._tail.publish(found)

    def open(
        self, make: Callable[[], Any], *, after: int = -1, near: bool = False, flush: str = "caught up"
    ) -> StageLane:
        """Start a lane for a new plugin object.

        Args:
            make: makes the object; called on the lane's thread.
            after: the record up to which an earlier object had committed; -1 for a new run.
            near: rest as lanes in the training process do.
            flush: see `_Paced.flush_when`.
        """
        cursor = Cursor(None, self._name)
        if after >= 0:
            cursor.at = Position(self._ends[after], after)
        lane = StageLane(self._name, make, self._tail, cursor, self._handle(), near=near)
        lane.flushes.flush_when, lane.flushes.written = flush, self._seq
        self.lanes.append(lane)
        lane.start()
        return lane

    def _handle(self) -> RunHandle:
        return RunHandle(
            id=RUN_ID, name=NAME, dir=self.folder, config={}, source=self._name, post=lambda kind, data: None
        )

    def settle(self, lane: StageLane, what: str = "committed") -> None:
        """Wait until the lane has ``committed`` (or been handed: ``offset``) everything written so far.

        Raises:
            AssertionError: it hangs, or is parked.
        """
        end = self._ends[-1]
        deadline = time.monotonic() + self._patience
        while getattr(lane.figures(), what) < end:
            if lane.patience.over:
                figures = lane.figures()
                raise AssertionError(f"{self._name} is {figures.state}: {figures.reason}{_told(lane)}")
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"{self._name} has not taken everything within {self._patience:g} s ({lane.figures()}){_told(lane)}"
                )
            lane.wake()
            time.sleep(0.002)

    def attempted(self, lane: StageLane) -> None:
        """Wait until the lane was refused, or has committed everything written so far.

        Raises:
            AssertionError: neither, within ``patience``.
        """
        deadline, known = time.monotonic() + self._patience, len(lane.failures)
        while len(lane.failures) == known and lane.figures().committed < self._ends[-1]:
            assert time.monotonic() < deadline, f"{self._name} does nothing ({lane.figures()}){_told(lane)}"
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
        lanes = [lane for lane in self.lanes if not lane.gone]
        for lane in lanes:
            if lane.flushes.flush_when == "never":
                lane.flushes.flush_when = "caught up"
            lane.finish(self._ends[-1])
        while not all(lane.patience.over for lane in lanes):
            if time.monotonic() - began > within:
                for lane in lanes:
                    lane.abandon()
                return None
            time.sleep(0.002)
        return time.monotonic() - began

    def follow(self, options: dict[str, Any], within: float) -> Figures:
        """Let a follower process deliver the journal.

        Returns:
            What it says of the plugin's lane.

        Raises:
            AssertionError: it does not start, or does not finish in time.
        """
        follower = Follower(self._handle(), [{"name": self._name, "options": options}], lambda kind, data: None)
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
        figures = follower.lanes.get(self._name, Figures())
        assert figures.committed == self._ends[-1], f"the follower delivered only a part ({figures}):\n{log}"
        return figures


def _told(lane: StageLane) -> str:
    if not lane.failures:
        return ""
    hook, seq, text = lane.failures[-1]
    return f"\n  last failure, in {hook} (seq {seq}): {text}"
