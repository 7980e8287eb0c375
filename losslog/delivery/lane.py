"""Lanes: each plugin reads the journal at its own pace, in a thread of its own.

A lane's thread runs `Lane._work`; other methods are called from the process that owns it. Contract:

- Delivery is at least once, in order; `losslog.delivery.progress` says how far.
- Whatever a plugin raises is contained: skipped and counted, waited for, or too much (`losslog.delivery.patience`).
- A lane that is parked, or ends amid failures, stands before the first of them: they can be delivered again.
- A fresh plugin object gets the run's ``on_run_start`` first, then what its cursor (or its backend) lacks. One that
  refuses ``on_run_start`` has not begun, and gets nothing else.
- Near lanes rest between pieces of work (`losslog.runtime.pace`), so that the user's ops do not wait for the GIL.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from losslog.control import RunHandle
from losslog.delivery.beginning import ask_backend, beginning
from losslog.delivery.caller import Caller
from losslog.delivery.patience import PARK_AFTER, Patience
from losslog.delivery.progress import Progress
from losslog.delivery.refusals import Refusals
from losslog.delivery.thinning import Thinner, newest
from losslog.delivery.wire import Figures
from losslog.journal.cursors import Position, Seqs
from losslog.journal.records import Record
from losslog.journal.tail import Tail
from losslog.runtime.containment import attempt, means_not_now, one_line
from losslog.runtime.notices import Once, warn
from losslog.runtime.pace import Bell, Pace, start_thread

POLL: Final = 0.25  # seconds between looks at the file where nobody wakes the lane


class Lane:
    """One plugin's way through the journal.

    Args:
        name: the plugin's name.
        make: makes the plugin, and what calls its hooks; called in the lane's thread.
        tail: the journal's records.
        progress: how far the plugin is.
        handle: the ``run`` argument of its hooks.
        near: whether it shares the process with training, and so must rest.
        batch_every: deliver the mean over so many steps.
        patience: how much it bears.
        only: hand over these records alone, whatever the backend says it has.

    Attributes:
        delivered, cpu: hook calls that went well, seconds of its thread.
    """

    def __init__(
        self, name: str, make: Callable[[], Caller], tail: Tail, progress: Progress, handle: RunHandle, *,
        near: bool = False, batch_every: int = 1, patience: Patience | None = None, only: Seqs | None = None,
    ) -> None:  # fmt: skip
        self.name, self.progress, self.patience = name, progress, patience or Patience(name)
        self.delivered, self.cpu = 0, 0.0
        self._make, self._tail, self._handle = make, tail, handle
        self._only, self._thinner, self._pace = only, Thinner(batch_every), Pace(near)
        self._caller: Caller
        self._until: int | None = None
        self._bell, self._once, self._refusals = Bell(), Once(), Refusals(progress, self.patience)
        self._quit = self._parking = self._begun = False

    def start(self) -> None:
        """Start the lane's thread; where none can be had, the lane is parked."""
        self._tail.bells.add(self._bell)
        self.patience.started(attempt(start_thread, self._work, f"losslog-{self.name}")[1])

    def wake(self) -> None:
        """There may be new records."""
        self._bell.set()

    def finish(self, until: int) -> None:
        """Deliver up to this offset, flush, and end."""
        self._until = until
        self.hurry()

    def hurry(self) -> None:
        """Training is over: no more rests."""
        self._pace.active = False
        self._bell.set()

    def abandon(self) -> None:
        """End as soon as the present call returns."""
        self._quit = True
        self._bell.set()

    def figures(self) -> Figures:
        """How it is doing."""
        counts = (self.delivered, self.patience.errors, len(self.progress.skipped), self.progress.at.offset)
        standing, sure = self.patience.standing(self.progress.trouble), self.patience.sure(self.progress.committed)
        return Figures(*standing, *counts, *sure, round(self.cpu, 4))

    def _work(self) -> None:
        try:
            step: Callable[[], object] = self._begin
            while not (self._quit or self.patience.over):
                try:
                    step()
                    step = self._cycle
                except OSError as error:  # the journal is gone: its writer puts it back, unless the run is over
                    if self._until is not None:
                        raise
                    if step == self._begin:
                        self.progress.release()
                    self._away(error)
                self.cpu = time.thread_time()
            if self._until is not None and self.progress.committed.offset >= self._until and not self.patience.over:
                self._end("done", self.patience.last)  # let go before the look that would have told
        except OSError as error:
            self._end("parked", f"the run folder cannot be read: {one_line(error)}")
        finally:
            self._tail.bells.discard(self._bell)
            self.progress.release()

    def _begin(self) -> bool:
        """Own the cursor, make the plugin, tell it of the run; False when that cannot be."""
        while not self.progress.acquire():
            self.patience.state, self.patience.reason = "waiting", "another process still delivers to it"
            if self._pause(0.5):
                return self._end("off", self.patience.reason)
        self.progress.settle(self._tail.path)
        self.patience.state, self.patience.reason = "live", ""
        self._caller, error = self.patience.guard(self._make, begun=False)
        if error is not None:
            return self._refuses(error, "__init__", "could not be made")
        for told in self._caller.misspelt:
            warn("plugin %s: %s", self.name, told)
        if self._introduce():
            self._ask_backend()
        return True

    def _ask_backend(self, *, back_only: bool = False) -> None:
        if self._only is None and not self._quit:
            ask_backend(self._caller, self.patience, self.progress, self._tail, self._handle, back_only=back_only)

    def _refuses(self, error: BaseException, where: str, what: str) -> bool:
        self.patience.failed(error, where, "it gets no records")
        return self._end("parked", f"{what}: {one_line(error)}")

    def _introduce(self) -> bool:
        """Tell a fresh object of the run, whether its cursor is past that or not; False where it refuses."""
        end, record = beginning(self.name, self._tail, self.progress, self._handle)
        if record is None:
            return True
        self._begun = True
        while (error := self.patience.call(self._caller, record, self._handle)[1]) is not None:
            if not means_not_now(error):
                return self._refuses(error, record.hook, "it refuses on_run_start, and so has not begun")
            self._away(error)
            if self._quit:
                return True
        self.patience.back()
        if end and self.progress.at.offset <= self.progress.start:  # handed over, and so not again
            self.progress.handed(Position(end, record.seq))
            self.delivered += self._caller.implements(record.hook)
        return True

    def _cycle(self) -> None:
        self._bell.clear()
        found = (newest if self._caller.newest_only else list)(self.progress.read(self._tail))
        self._pace.fresh()
        for end, record in found:
            if self._quit or (self._until is not None and self.progress.at.offset >= self._until):
                break
            if not self._deliver(end, record):
                return
            self._pace.rest()
            if self.progress.due(self._caller.flush_every) and not self._flush():
                return
        if self.progress.held and (not found or self.progress.at.offset == self._until):
            self._rewind()  # nothing after it shows whether others are taken: its turn again
            self._pause(self.patience.delay)
        elif self._until is not None and self.progress.at.offset >= self._until:
            self._finish()
        elif not found:
            if self.progress.unflushed and (self._until is not None or self.progress.due(self._caller.flush_every)):
                self._flush()
            else:
                self._bell.wait(min(POLL, self._caller.flush_every) if self.progress.unflushed else POLL)

    def _finish(self) -> None:
        """Everything is handed over: flush, until all of it is durable."""
        if not (flushed := self._flush(last=True)) or self.progress.waiting:
            if flushed:
                self.patience.reason = f"on_flush says that {self.progress.waiting} records are not durable yet"
            self._pause(0.05 if self.patience.state == "live" else 0.0)
        else:
            self._end("done", self.patience.last)

    def _deliver(self, end: int, record: Record | None) -> bool:
        """Hand one record over; False when the lane rewound or parked."""
        if not self._begun and not self._introduce():
            return False
        if (before := self.progress.at).offset >= end:  # that was it
            return True
        if record is None:
            self._once("plugin %s: the journal has a garbled line before byte %d: skipped", self.name, end)
            self.progress.handed(Position(end, before.seq), garbled=True)
            return True
        if record.hook == "on_run_start":
            self.progress.starts()
        for each in (record,) if self._thinner.every == 1 else self._thinner.take(record):
            if not self._caller.implements(each.hook) or (self._only is not None and each.seq not in self._only):
                continue
            if self._refusals.some and self._refusals.passes_over(each.seq):
                continue
            _, error = self.patience.call(self._caller, each, self._handle)
            if error is None:
                self.delivered += 1
                self.progress.held = self.progress.held and self._refusals.handed(each.hook)
                self.patience.works(flush=False)
                if self.patience.delay and not self._caller.implements("on_flush"):  # else a flush shows it is back
                    self.patience.back()
            elif means_not_now(error):
                self._not_now(error, each.seq)
                return False
            elif (first := self.patience.skips(error, each.hook, before)) is None:
                self.progress.skip(each.seq)
            else:
                self._park(first, flush=True)
                return False
        self.progress.handed(Position(end, record.seq))
        return True

    def _flush(self, *, last: bool = False) -> bool:
        """Ask the plugin to make durable what it got, and commit; False when the lane rewound or parked."""
        if not self.progress.unflushed and not (last and self.progress.waiting):
            return True
        durable, error = None, None
        if self._caller.implements("on_flush"):
            flush = Record(self.progress.at.seq, time.time(), "on_flush", {})
            durable, error = self.patience.call(self._caller, flush, self._handle)
            if error is None and durable is not None and type(durable) is not int:
                error = TypeError(f"on_flush returned {durable!r:.60}: return None, or the seq of a record")
            if error is not None:
                self._flush_failed(error)
                return False
            self.patience.works(flush=True)
            self.patience.back()
        if not self._refusals.flushed(self._caller):
            self._rewind()
            return False
        self.progress.flushed(durable, self._thinner.pending_seq)
        return True

    def _flush_failed(self, error: BaseException) -> None:
        if self._parking:  # this was a last try, for what is before the failures
            return
        if means_not_now(error):
            self._not_now(error)
        elif (poison := self.progress.culprit(self._thinner.every > 1)) is None:
            self.patience.failed(error, "on_flush", "its records are delivered again one by one")
            self.progress.careful()
            self._thinner.clear()
        elif (first := self.patience.skips(error, "on_flush", self.progress.committed)) is None:
            self.progress.skip(poison.seq)
            self.progress.commit(poison)
        else:
            self._park(first, flush=False)

    def _rewind(self) -> None:
        self.progress.rewind()
        self._thinner.clear()
        self._refusals.passing = False

    def _not_now(self, error: BaseException, seq: int | None = None) -> None:
        """Stand after the last durable record, and wait; ``seq`` is the record whose call it was, None a flush."""
        self._refusals.not_now(error, seq)
        self._thinner.clear()
        self._away(error)
        self._ask_backend(back_only=True)  # what it had may have gone with it

    def _park(self, first: Position, *, flush: bool) -> None:
        """Too many failures: stand before the first of them, with all before it durable."""
        self._parking, last = True, self.patience.last
        if self.progress.put_back(first) and flush:
            self._flush()
        self._end("parked", f"{PARK_AFTER} failures in a row, the last: {last}")  # only now: its figures are final
        warn("plugin %s is parked after %d failures in a row; the journal keeps its records", self.name, PARK_AFTER)

    def _away(self, error: BaseException) -> None:
        self.patience.away(error)
        self._pause(self.patience.delay)

    def _pause(self, seconds: float) -> bool:
        """Wait; True when the lane is to end meanwhile."""
        return self._bell.pause(seconds, lambda: self._quit, POLL)

    def _end(self, state: str, reason: str) -> bool:
        if state == "done" and (at := self.patience.unbroken()) is not None:
            state, reason = "parked", f"it failed to the end, the last: {reason}"
            self.progress.put_back(at)
        self.cpu = time.thread_time()
        self.patience.state, self.patience.reason = state, reason
        return False
