"""From the queue to the journal: on the logging rank, items become records, in order.

Drain thread only. Contract:

- Records get their seq here, and here they are written: one write per batch of records.
- While the journal cannot be written, records wait in memory up to a bound. Beyond it new batch records are dropped,
  then the oldest metrics, evaluations, checkpoints and hooks of the user's own; both are counted. `KEPT` ones stay.
- An alert whose key the journal has is dropped.
- With several ranks, records come out of the `Joiner`, in the logging rank's order.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from losslog.journal.file import Tail, Writer
from losslog.journal.records import Record, encode
from losslog.ranks.joining import Joiner, join
from losslog.recording.intake import Batch, Event, Intake, Share
from losslog.runtime.containment import one_line
from losslog.runtime.notices import say, warn
from losslog.values.losses import Losses, total_of
from losslog.values.means import EpochMeans

SYNC_EVERY: Final = 30.0  # seconds between fsyncs; also at each epoch's end and at close
# Bytes of batch records kept while the journal cannot be written, and as many of others: 50,000 small ones of each. In
# memory that is two to five times as much.
MAX_WAITING: Final = 32_000_000
BESIDES: Final = 500  # bytes that a record takes beside its line
KEPT: Final = frozenset({"on_run_start", "on_resume", "on_epoch_end", "on_alert", "on_run_end", "request"})
RETRY_EVERY: Final = 1.0  # seconds between attempts to write it
WRITE_AT: Final = 1024  # records a write


class Drain(Intake):
    """Turns items into records.

    Args:
        writer: the journal.
        tail: where near lanes read.
        lost: how many batches the full queue has refused so far.
        culprit: see `Intake`.

    Attributes:
        records: how many are written.
        dropped: how many batch records were dropped because the journal could not be written.
        dropped_others: how many others were.
        trouble: why it cannot be written, or "".
        joiner: joins the ranks, where there are several.
    """

    def __init__(
        self, writer: Writer, tail: Tail, lost: Callable[[], int], culprit: Callable[[int], str] = lambda step: ""
    ) -> None:
        super().__init__(culprit)
        self.writer = writer
        self.records = 0
        self.dropped = self.dropped_others = 0
        self.trouble = ""
        self.joiner: Joiner | None = None
        self._tail, self._lost = tail, lost
        self._lost_before = 0
        self._epoch_began = time.monotonic()  # the clock on the wall may be set meanwhile
        self._last_lr: Any = None
        self._fresh: list[tuple[Record, bytes]] = []
        self._retry_at = 0.0
        self._sync_due = False
        self._waiting = [0, 0]  # bytes: of batch records, of others that are not `KEPT`

    def pass_on(self) -> None:
        """Write what the items gave."""
        if self.joiner is not None:
            self.joiner.receive()
            self._join(self.joiner)
        self.write()

    def finish(self) -> None:
        """Nothing more comes: record what still waited for other ranks."""
        if self.joiner is not None:
            self._join(self.joiner, all_of_it=True)
        self._retry_at = 0.0
        self.write()

    def _join(self, joiner: Joiner, *, all_of_it: bool = False) -> None:
        for shares, event, epoch, step in joiner.ready(all_of_it=all_of_it):
            if shares is not None:
                losses, total, spread = join(shares)
                several: dict[str, Any] = {"ranks": len(shares), "spread": spread if len(shares) > 1 else None}
                first = shares[0].about
                last = (first["lr"], first["batch_size"], first["n"])
                self._batch_record(first["time"], step, epoch, losses, total, *last, **several)
            elif event[1] is None:
                self._record_event(event[0])
            else:
                end, means = event
                for sums in joiner.sums(end.data["epoch"]):
                    means.merge(sums)
                if end.data["step"] is not None:
                    end = end._replace(data=end.data | {"step": max(end.data["step"], joiner.step)})
                self._end_of_epoch(end, means)

    # ------------------------------------------------------------------ items to records

    def on_batch(self, batch: Batch, losses: Losses, total: float, given: bool) -> None:
        """Record a batch, or hand it to the joiner."""
        at, step, epoch, _, _, _, lr, batch_size, n, _, _ = batch
        if self.joiner is not None:
            self.joiner.add_batch(epoch, Share.of(batch, losses, total, given))
        else:
            self._batch_record(at, step, epoch, losses, total, lr, batch_size, n)

    def on_event(self, event: Event) -> None:
        """Record an event, or let it wait its turn in the joiner."""
        means = None
        if event.hook == "on_epoch_end":
            means, self.means = self.means, EpochMeans()
            self.last_means = event.data["losses"] if event.data["losses"] is not None else means.result()[0]
        if self.joiner is not None:
            self.joiner.add_event((event, means), event.data["epoch"] if means is not None else 0)
        elif means is not None:
            self._end_of_epoch(event, means)
        else:
            self._record_event(event)

    def _batch_record(
        self, at: float, step: int, epoch: int, losses: Losses, total: float, lr: Any, batch_size: int | None, n: int,
        **more: Any,
    ) -> None:  # fmt: skip
        if self._waiting[0] > MAX_WAITING:
            self.dropped += 1
            return
        data = {"step": step, "epoch": epoch, "losses": losses, "total": total}
        if lr is not None:
            data["lr"] = self._last_lr = lr
        if batch_size is not None:
            data["batch_size"] = batch_size
        if n != 1:
            data["n"] = n
        for key, value in more.items():
            if value is not None:
                data[key] = value
        self._record(at, "on_batch_losses", data)

    def _end_of_epoch(self, event: Event, means: EpochMeans) -> None:
        data = dict(event.data)
        if data["losses"] is None:
            data["losses"], data["total"] = means.result()
        else:
            data["total"] = total_of(data["losses"])
        if data["lr"] is None:
            data["lr"] = self._last_lr
        data["duration"] = round(time.monotonic() - self._epoch_began, 6)
        lost = self._lost() + self.dropped
        data["dropped"] = lost - self._lost_before or None
        self._lost_before, self._epoch_began = lost, time.monotonic()
        self._sync_due = True
        self._record_event(event._replace(data=data))

    def _record_event(self, event: Event) -> None:
        if event.hook == "on_alert":
            if event.data["key"] in self.writer.alert_keys:
                return
            self.writer.alert_keys.add(event.data["key"])
        elif event.hook in ("on_run_end", "on_checkpoint"):
            self._sync_due = True
        self._record(event.time, event.hook, {key: value for key, value in event.data.items() if value is not None})

    def _record(self, at: float, hook: str, data: dict[str, Any]) -> None:
        record = Record(self.writer.seq, at, hook, data)
        self._fresh.append((record, encode(record)))
        self.writer.seq += 1
        if self.trouble:
            if hook not in KEPT:
                self._waiting[hook != "on_batch_losses"] += len(self._fresh[-1][1]) + BESIDES
            if self._waiting[1] > MAX_WAITING:
                self._make_room()
        elif len(self._fresh) >= WRITE_AT:
            self.write()

    def _make_room(self) -> None:
        """Drop the older half of what is neither a batch nor `KEPT`, and number anew what stays."""
        others = [record.seq for record, _ in self._fresh if record.hook not in {*KEPT, "on_batch_losses"}]
        gone = {*others[: (len(others) + 1) // 2]}
        self.dropped_others += len(gone)
        self.writer.seq -= len(self._fresh)
        kept, self._fresh = [record for record, _ in self._fresh if record.seq not in gone], []
        self._waiting = [0, 0]
        for record in kept:
            self._record(*record[1:])
            self.pace.rest()

    # ------------------------------------------------------------------ records to the file

    def write(self) -> None:
        """Write what is waiting; where that fails it waits on, and is tried again a second later."""
        if self._fresh and (not self.trouble or time.monotonic() >= self._retry_at):
            try:
                if self.trouble and self.writer.moved():
                    self.writer.heal()
                offset = self.writer.end
                self.writer.append([line for _, line in self._fresh])
            except OSError as error:
                self._fails(error)
                return
            found = []
            for record, line in self._fresh:
                offset += len(line)
                found.append((offset, record))
            self.records += len(found)
            self._fresh, self._waiting = [], [0, 0]
            if self.trouble:
                say("the journal can be written again")
                self.trouble = ""
            self._tail.publish(found)
        if self._sync_due or self.writer.unsynced_for > SYNC_EVERY:
            self._sync()

    def _sync(self) -> None:
        self._sync_due = False
        try:
            if self.writer.moved():
                warn("the run folder was deleted or replaced: the journal is written anew at %s", self.writer.path)
                self.writer.heal()
            self.writer.sync()
        except OSError as error:
            self._fails(error)

    def _fails(self, error: OSError) -> None:
        if not self.trouble:
            warn("the journal cannot be written (%s): records wait in memory and are tried again", one_line(error))
        self.trouble = one_line(error)
        self._retry_at = time.monotonic() + RETRY_EVERY

    @property
    def unwritten(self) -> int:
        """Records that wait for the journal to be writable."""
        return len(self._fresh)
