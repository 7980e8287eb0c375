"""Lanes: each plugin reads the journal at its own pace, in a thread of its own.

A lane's thread runs `Lane._work`; other methods are called from the process that owns it. Contract:

- Delivery is at least once, in order; the cursor never passes what the plugin has made durable.
- This is the only place that calls a plugin's hooks, and it contains whatever they raise: a record that fails is
  skipped and counted, 20 in a row park the lane, "not now" rewinds to the last commit and backs off.
- A fresh plugin object gets the run's ``on_run_start`` first, then what its cursor (or its backend) lacks.
- Near lanes rest between pieces of work (`losslog.runtime.pace`), so that the user's ops do not wait for the GIL.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from losslog.control import RunHandle
from losslog.delivery.caller import Caller
from losslog.delivery.thinning import Thinner
from losslog.journal.cursors import Cursor, settle
from losslog.journal.file import Tail
from losslog.journal.records import Record
from losslog.runtime.containment import attempt, long_form, means_not_now, one_line
from losslog.runtime.notices import say, warn
from losslog.runtime.pace import Pace, start_thread

BATCH: Final = 1024  # records before a flush at the latest
PARK_AFTER: Final = 20  # failures in a row
BACK_OFF: Final = (1.0, 60.0)  # seconds, doubling
HUNG_AFTER: Final = 5.0  # seconds in one call
HUNG_AT_START: Final = 20.0  # the same until a plugin has begun: imports and new databases take seconds
POLL: Final = 0.25  # seconds between looks at the file where nobody wakes the lane


class Lane:
    """One plugin's way through the journal.

    Args:
        name: the plugin's name.
        make: makes the plugin object; called in the lane's thread.
        tail: the journal's records.
        cursor: how far the plugin is.
        handle: the ``run`` argument of its hooks.
        near: whether it shares the process with training, and so must rest.
        specs: further hook specifications.
        batch_every: deliver the mean over so many steps.
    """

    def __init__(
        self, name: str, make: Callable[[], Any], tail: Tail, cursor: Cursor, handle: RunHandle, *,
        near: bool = False, specs: tuple[Any, ...] = (), batch_every: int = 1,
    ) -> None:  # fmt: skip
        self.name = name
        self.state = "starting"
        self.reason = ""
        self.delivered = self.errors = self.skipped = 0
        self.cpu = 0.0
        self.first_error: BaseException | None = None
        self.offset = 0  # after the last record handed to the plugin
        self._seq = -1
        self._make, self._tail, self._cursor, self._handle = make, tail, cursor, handle
        self._specs = specs
        self._thinner = Thinner(batch_every)
        self._pace = Pace(near)
        self._caller: Caller | None = None
        self._flush_every = 0.5
        self._uncommitted: deque[tuple[int, int]] = deque()  # (seq, offset) handed over since the last commit
        self._unflushed_since: float | None = None
        self._careful_until = -1  # after a failed flush: up to this seq, flush after each record
        # Failures in a row, of records and of flushes; and offset and seq before the first of them.
        self._streaks: dict[bool, tuple[int, tuple[int, int]]] = {}
        self._delay = 0.0
        self._busy_since: float | None = None
        self._patience = HUNG_AT_START
        self._until: int | None = None
        self._wake = threading.Event()
        self._quit = self._parking = False
        self._thread: threading.Thread | None = None
        self._unknown: set[str] = set()
        self._garbled = 0
        self._pid, self._started = os.getpid(), 0.0

    # ------------------------------------------------------------------ the owner's side

    def start(self) -> None:
        """Start the lane's thread."""
        self._thread = start_thread(self._work, f"losslog-{self.name}")

    def wake(self) -> None:
        """There may be new records."""
        self._wake.set()

    def finish(self, until: int) -> None:
        """Deliver up to this offset, flush, and end."""
        self._until = until
        self._pace.active = False
        self._wake.set()

    def hurry(self) -> None:
        """Training is over: no more rests."""
        self._pace.active = False
        self._wake.set()

    def abandon(self) -> None:
        """End as soon as the present call returns."""
        self._quit = True
        self._wake.set()

    @property
    def hung(self) -> bool:
        """Whether one call has lasted too long: 5 s, and 20 s for a plugin's start."""
        since = self._busy_since
        return since is not None and time.monotonic() - since > self._patience

    @property
    def idle(self) -> bool:
        """Whether nobody need wait for this lane: it has ended, is backing off, or hangs."""
        return self.state in ("done", "parked", "waiting", "off") or self.hung

    @property
    def over(self) -> bool:
        """Whether the lane's thread has nothing more to do."""
        return self.state in ("done", "parked", "off")

    def stats(self) -> dict[str, Any]:
        """Plain figures: state, records delivered and left, errors, CPU seconds."""
        since = self._busy_since
        reason = f"{time.monotonic() - since:.0f} s in one call" if self.hung and since else self.reason
        figures = {"offset": self.offset, "committed": self._cursor.offset, "seq": self._cursor.seq}
        state = "hung" if self.hung else self.state
        about = {"state": state, "reason": reason, "delivered": self.delivered, "errors": self.errors}
        return about | figures | {"cpu": round(self.cpu, 4)}

    # ------------------------------------------------------------------ the lane's thread

    def _work(self) -> None:
        self._pid, self._started = os.getpid(), time.thread_time()
        try:
            if self._begin():
                while not self._quit and not self.over:
                    self._look()
                    self.cpu = time.thread_time() - self._started
                if self._until is not None and self._cursor.offset >= self._until and not self.over:
                    self._end("done", "")  # let go between its last commit and the look that would have told
        except OSError as error:
            self._end("parked", f"the run folder cannot be read: {one_line(error)}")
        finally:
            self._cursor.release()

    def _look(self) -> None:
        try:
            self._cycle()
        except OSError as error:  # the journal is gone: its writer puts it back, unless the run is over
            if self._until is not None:
                raise
            self._away(error)
            self._pause(self._delay)

    def _begin(self) -> bool:
        """Own the cursor, make the plugin, tell it of the run; False when that cannot be."""
        told = False
        while not self._cursor.acquire():
            if not told:
                self.state, self.reason = "waiting", "another process still delivers to it"
                told = True
            if self._pause(0.5):
                self._end("off", self.reason)
                return False
        settle(self._cursor, self._tail.path)
        self.state, self.reason = "live", ""
        made, error = self._guarded(self._make)
        if error is not None:
            self._log(error, "__init__")
            self._end("parked", f"could not be made: {one_line(error)}")
            return False
        caller, error = attempt(Caller, self.name, made, self._specs)
        if caller is None:
            self._end("parked", f"its hooks do not fit: {one_line(error) if error else ''}")
            return False
        self._caller = caller
        self._flush_every = float(getattr(made, "flush_every", 0.5))
        if caller.unknown:
            warn("plugin %s: unknown hooks %s (another losslog version?)", self.name, ", ".join(caller.unknown))
        self._rewind()
        return self._introduce()

    def _introduce(self) -> bool:
        """Tell a fresh object of the run, whether its cursor is past that or not; then ask how far its backend is."""
        assert self._caller is not None
        found = self._tail.read(self._cursor.start, 1)
        end, record = found[0] if found else (0, None)
        new = self._cursor.offset <= self._cursor.start
        while record is not None and record.hook == "on_run_start":
            error = self._call(record)
            if error is not None and means_not_now(error):
                self._away(error)
                if self._pause(self._delay):
                    return True
                continue
            if error is not None:
                self._failed(error, record.hook, (self._cursor.offset, self._cursor.seq))
            self._back()
            if new:  # handed over, and so not again
                self.offset, self._seq, self._unflushed_since = end, record.seq, time.monotonic()
                self._uncommitted.append((record.seq, end))
                self.delivered += error is None and self._caller.implements(record.hook)
            break
        ask = getattr(self._caller.thing, "delivered_upto", None)
        if ask is None:
            return True
        upto, error = self._guarded(ask, self._handle)
        if error is not None:
            warn("plugin %s: delivered_upto failed, going on from the cursor: %s", self.name, one_line(error))
        elif upto is not None and upto != self._cursor.seq:
            self._jump(int(upto))
        return True

    def _jump(self, seq: int) -> None:
        """Stand after the record ``seq``, forwards or back."""
        offset, reached = (self._cursor.offset, self._cursor.seq) if seq > self._cursor.seq else (0, -1)
        while found := self._tail.read(offset):
            for end, record in found:
                if record is not None and record.seq > seq:
                    break
                offset, reached = end, record.seq if record is not None else reached
            else:
                continue
            break
        self._cursor.offset, self._cursor.seq = offset, reached
        self._rewind()

    def _rewind(self) -> None:
        self.offset, self._seq = self._cursor.offset, self._cursor.seq
        self._uncommitted.clear()
        self._thinner.clear()
        self._unflushed_since = None

    def _cycle(self) -> None:
        self._wake.clear()
        found = self._tail.read(self.offset, BATCH)
        self._pace.fresh()
        for end, record in found:
            if self._quit or (self._until is not None and end > self._until):
                break
            if not self._deliver(end, record):
                return
            self._pace.rest()
            if self._due() and not self._flush():
                return
        at_end = not found or (self._until is not None and self.offset >= self._until)
        if at_end and self._until is not None and self.offset >= self._until:
            if self._flush(last=True) and not self._uncommitted:
                self._end("done", "")
            else:
                self._pause(0.05 if self.state == "live" else 0.0)
        elif at_end:
            if self._unflushed_since is None:
                self._wait(POLL)
            elif self._due() or self._until is not None:
                self._flush()
            else:
                self._wait(min(POLL, self._flush_every))

    def _due(self) -> bool:
        if self._unflushed_since is None:
            return False
        if len(self._uncommitted) >= BATCH or self._seq <= self._careful_until:
            return True
        return time.monotonic() - self._unflushed_since >= self._flush_every

    def _deliver(self, end: int, record: Record | None) -> bool:
        """Hand one record over; False when the lane rewound or parked."""
        assert self._caller is not None
        if record is None:
            self._garbled += 1
            if self._garbled == 1:
                warn("plugin %s: the journal has a garbled line before byte %d: skipped", self.name, end)
        else:
            if record.hook == "on_run_start":
                self._cursor.start = self.offset
            before, self._seq = (self.offset, self._seq), record.seq
            for each in (record,) if self._thinner.every == 1 else self._thinner.take(record):
                if not self._caller.implements(each.hook):
                    continue
                error = self._call(each)
                if error is None:
                    self.delivered += 1
                    if self._streaks:
                        self._streaks.pop(False, None)
                    if self._delay and not self._caller.implements("on_flush"):  # else only a flush shows it is back
                        self._back()
                elif means_not_now(error):
                    self._away(error)
                    self._rewind()
                    self._pause(self._delay)
                    return False
                elif not self._failed(error, each.hook, before):
                    return False
        self.offset = end
        self._uncommitted.append((self._seq, end))
        if len(self._uncommitted) > 4 * BATCH:  # a plugin that is never durable must not grow us: coarser is right too
            self._uncommitted = deque(list(self._uncommitted)[1::2])
        if self._unflushed_since is None:
            self._unflushed_since = time.monotonic()
        return True

    def _guarded(self, function: Callable[..., Any], *args: Any) -> tuple[Any, BaseException | None]:
        """Call into the plugin: what it returned, or what it raised."""
        self._busy_since = time.monotonic()
        found = attempt(function, *args)
        self._busy_since = None
        if os.getpid() != self._pid:
            os._exit(0)  # the child of a plugin that forked: the run is its parent's
        return found

    def _call(self, record: Record) -> BaseException | None:
        assert self._caller is not None
        self._patience = HUNG_AT_START if record.hook == "on_run_start" else HUNG_AFTER
        self._handle.handling(record.hook, record.seq)
        return self._guarded(self._caller.call, record.hook, record.data, self._handle, record.seq, record.time)[1]

    def _failed(self, error: BaseException, hook: str, before: tuple[int, int]) -> bool:
        """Count a skipped record; False when it was one too many and the lane is parked.

        Args:
            error: what was raised.
            hook: where.
            before: offset and seq of the record before the one that failed.
        """
        self.errors += 1
        self.skipped += 1
        count, (offset, seq) = self._streaks.get(hook == "on_flush", (0, before))
        self._streaks[hook == "on_flush"] = (count + 1, (offset, seq))
        self._log(error, hook)
        if count + 1 < PARK_AFTER:
            return True
        self._parking = True
        self._uncommitted = deque(each for each in self._uncommitted if each[1] <= offset)
        if self._cursor.offset > offset:  # committed while it was failing: what failed is to be delivered again
            self._commit_at(offset, seq)
        elif self._uncommitted and hook != "on_flush":
            self._flush()
        self._end("parked", f"{PARK_AFTER} failures in a row, the last: {one_line(error)}")
        warn("plugin %s is parked after %d failures in a row; the journal keeps its records", self.name, PARK_AFTER)
        return False

    def _log(self, error: BaseException, hook: str) -> None:
        if self.first_error is None:
            self.first_error = error
        self.reason = one_line(error)
        if self.errors & (self.errors - 1) == 0:  # 1st, 2nd, 4th, 8th...
            text = "plugin %s failed in %s (%d so far), record skipped:\n%s"
            warn(text, self.name, hook, self.errors, long_form(error))

    def _away(self, error: BaseException) -> None:
        """The backend is not there: remember, say it once, wait longer each time."""
        if self.state != "waiting":
            warn("plugin %s: %s; its records are kept and delivered later", self.name, one_line(error))
        self.state, self.reason = "waiting", one_line(error)
        self._delay = min(max(self._delay * 2, BACK_OFF[0]), BACK_OFF[1])

    def _back(self) -> None:
        if self.state == "waiting":
            say("plugin %s has recovered", self.name)
            self.state, self.reason = "live", ""
        self._delay = 0.0

    def _flush(self, *, last: bool = False) -> bool:
        """Ask the plugin to make durable what it got, and commit; False when the lane rewound."""
        if self._unflushed_since is None and not (last and self._uncommitted):
            return True
        assert self._caller is not None
        durable: Any = None
        if self._caller.implements("on_flush"):
            self._handle.handling("on_flush", self._seq)
            durable, error = self._guarded(self._caller.call, "on_flush", {}, self._handle, self._seq, time.time())
            if error is not None:
                self._flush_failed(error)
                return False
            self._streaks.pop(True, None)
            self._back()
        self._unflushed_since = None
        self._commit(None if durable is None else int(durable))
        if durable is not None and self._uncommitted:
            self._unflushed_since = time.monotonic()
        return True

    def _flush_failed(self, error: BaseException) -> None:
        if self._parking:
            return
        alone = len(self._uncommitted) == 1 or self._thinner.every > 1
        if means_not_now(error):
            self._away(error)
            self._rewind()
            self._pause(self._delay)
        elif self._seq <= self._careful_until and alone and self._uncommitted:  # this very record is the poison
            seq, offset = self._uncommitted[-1]
            self._uncommitted.clear()
            self._unflushed_since = None
            if self._failed(error, "on_flush", (self._cursor.offset, self._cursor.seq)):
                self._commit_at(offset, seq)
        else:
            self.errors += 1
            self._log(error, "on_flush")
            self._careful_until = self._seq
            self._rewind()

    def _commit(self, seq: int | None) -> None:
        """Commit up to ``seq``; None is all that was handed over, whatever seqs a garbled line may claim."""
        reached = None
        bound = self._thinner.pending_seq
        while self._uncommitted:
            first = self._uncommitted[0][0]
            if (seq is not None and first > seq) or (bound is not None and first >= bound):
                break
            reached = self._uncommitted.popleft()
        if reached is not None:
            self._commit_at(reached[1], reached[0])

    def _commit_at(self, offset: int, seq: int) -> None:
        try:
            self._cursor.commit(offset, seq)
        except OSError as error:  # disk full or folder gone: the next commit covers it
            self.reason = f"the cursor cannot be written: {one_line(error)}"

    def _wait(self, seconds: float) -> None:
        self._wake.wait(seconds)

    def _pause(self, seconds: float) -> bool:
        """Wait; True when the lane is to end meanwhile."""
        deadline = time.monotonic() + seconds
        while not self._quit and (left := deadline - time.monotonic()) > 0:
            self._wake.wait(min(left, POLL))
            if self._wake.is_set():
                time.sleep(0.01)
                self._wake.clear()
        return self._quit

    def _end(self, state: str, reason: str) -> None:
        self.cpu = time.thread_time() - self._started
        self.state, self.reason = state, reason
