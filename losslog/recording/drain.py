"""From the queue to the journal: on the logging rank, items become records, in order.

Drain thread only. Contract:

- Records are numbered on from what the writer has, and written here: one write per batch of records.
- While the journal cannot be written, records wait in memory up to a bound. Beyond it new batch records are dropped,
  then the oldest metrics, evaluations, checkpoints and hooks of the user's own; both are counted. `KEPT` ones stay.
- An alert whose key the journal has is dropped.
- With several ranks, records come out of the `Joiner`, in the logging rank's order.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, Final, cast

from losslog.journal.ends import note
from losslog.journal.file import Writer
from losslog.journal.records import Record, count_in, keys_of, written
from losslog.journal.spill import Unwritten, spill
from losslog.journal.tail import Tail, strangers
from losslog.ranks.joining import Joiner
from losslog.ranks.sums import Share
from losslog.recording.alike import alike
from losslog.recording.hardest import Hardest
from losslog.recording.highlights import highlights
from losslog.recording.intake import KEPT, Intake, Queue
from losslog.recording.items import Batch, Event, Item
from losslog.runtime.containment import one_line
from losslog.runtime.notices import say, warn
from losslog.values.losses import Losses
from losslog.values.means import weighted
from losslog.values.totals import EpochMeans, Whole

SYNC_EVERY: Final = 30.0  # seconds between fsyncs; also at each epoch's end and at close
# Bytes of batches kept while the journal cannot be written, and as many of others; in memory two to five times as much.
MAX_WAITING: Final = 32_000_000
BESIDES: Final = 500  # bytes that a record takes beside its line
RETRY_EVERY: Final = 1.0  # seconds between attempts to write it
LOOK_EVERY: Final = 0.5  # seconds between looks whether somebody else writes to it, where nothing is written
WRITE_AT: Final = 1024  # records a write


class Drain(Intake):
    """Turns items into records.

    Args:
        queue, culprit: see `Intake`.
        writer: the journal.
        tail: where near lanes read.
        joiner: joins the ranks, where there are several.
        images: gives the image ids of the batch of a step.

    Attributes:
        records: how many are written.
        dropped, dropped_others: how many batch records, and others, it dropped: the journal could not be written.
        trouble: why it cannot be written, or "".
        spilt: how many records were saved elsewhere, and where.
    """

    def __init__(
        self, queue: Queue, writer: Writer, tail: Tail, culprit: Callable[[int], str] = lambda step: "",
        joiner: Joiner | None = None, images: Callable[[int], list[Any]] = lambda step: [],
    ) -> None:  # fmt: skip
        super().__init__(queue, culprit)
        self._hardest = Hardest(images)
        self.records = self.dropped = self.dropped_others = 0
        self.trouble = ""
        self._writer, self._tail, self._joiner = writer, tail, joiner
        self._began, self._resumed = time.monotonic(), writer.seq > 0
        self._epoch_began = time.monotonic()  # the clock on the wall may be set meanwhile
        self._last_lr: Any = None
        self._fresh: list[tuple[Record, bytes]] = []
        self._retry_at = self._looked = 0.0
        self._lost_before, self._sync_due = 0, False
        self._waiting = [0, 0]  # bytes: of batch records, of others that are not `KEPT`
        self.spilt: tuple[int, Path | None] = (0, None)

    @property
    def end(self) -> int:  # type: ignore[override]
        """Length of the journal in bytes."""
        return self._writer.end

    @property
    def waiting_for(self) -> Sequence[int]:  # type: ignore[override]
        """Ranks that have yet to say goodbye."""
        return () if self._joiner is None else self._joiner.waiting_for

    def recall(self, epoch: int, step: int | None) -> int | None:
        """Count an unended epoch's batches, up to a step, of a run of one process; the last step counted, or None."""
        last: Record | None = None
        for last in self._writer.index.open_batches(epoch, step) if self._joiner is None else ():
            data = last.data
            self.means.add(
                Whole(data["losses"], data["total"], given=True), max(count_in(data, "n"), 1), data.get("weights")
            )
            self._last_lr = data.get("lr", self._last_lr)
        return None if last is None else count_in(last.data, "step")

    def pass_on(self) -> None:
        """Write what the items gave."""
        if self._joiner is not None:
            self._joiner.receive()
            self._join(self._joiner)
        self.write()

    def close(self, deadline: float) -> None:
        """Record what still waited for other ranks, and let go of the journal."""
        if self._joiner is not None:
            self._join(self._joiner, all_of_it=True)
        self._retry_at = 0.0
        self.write()
        if self._fresh and self._fresh[-1][0].hook == "on_run_end":
            note(self._writer.path.parent, str(self._fresh[-1][0].data.get("status")))
        self._writer.close()

    def figures(self) -> dict[str, Any]:
        """What `losslog.Run.stats` says of it."""
        lost = super().figures()
        return lost | {
            "dropped": lost["dropped"] + self.dropped, "dropped_others": lost["dropped_others"] + self.dropped_others,
            "records": self.records, "unwritten": len(self._fresh), "journal": self.trouble,
            "spilt": self.spilt[0], "spill": str(self.spilt[1] or ""),
            "seq": self._writer.seq - 1, "seconds": round(time.monotonic() - self._began, 3),
            "resumed": self._resumed, **highlights(self._writer.index.facts),
        }  # fmt: skip

    def _join(self, joiner: Joiner, *, all_of_it: bool = False) -> None:
        for ready in joiner.ready(all_of_it=all_of_it):
            if ready.batch is None:
                self._in_turn(ready.event, ready.means)
                continue
            losses, total, spread = ready.batch.result()
            about = ready.batch.about | {"step": ready.step}
            ranks = ready.batch.ranks
            self._batch_record(losses, total, epoch=ready.epoch, ranks=ranks, spread=spread if ranks > 1 else None,
                               **about)  # fmt: skip

    def spill(self, items: Sequence[Item]) -> None:
        """Save what waits for the disk, and what these items give, elsewhere; the drain thread may yet come back."""
        other = self.twin()
        other._writer, other._joiner = cast(Writer, Unwritten(self._writer)), None
        other._fresh, other._waiting = [*self._fresh], [0, 0]
        other.trouble, other._retry_at = "it hangs", math.inf
        other.take(items)
        if (path := spill([line for _, line in other._fresh], self._writer.path.parent.name)) is not None:
            self.spilt = len(other._fresh), path

    def several(self, hand: deque[Item]) -> bool:
        """Record batches that are alike, at once."""
        alone = self._joiner is None and not (self.trouble or self.queue.targets)
        found = alike(hand, self._writer.seq + len(self._fresh), self.totals) if alone else None
        if found is None:
            return False
        for _ in found.fresh:
            hand.popleft()
        self._fresh += found.fresh
        self.means.add_all(*found[1:])
        self._last_lr = found.fresh[-1][0].data.get("lr", self._last_lr)
        if len(self._fresh) >= WRITE_AT:
            self.write()
        return True

    def on_batch(self, batch: Batch, whole: Whole, weights: Mapping[str, float] | None) -> None:
        """Record a batch, or hand it to the joiner."""
        if self.queue.targets:
            self._hardest.take(batch.step, whole.losses)
        if self._joiner is not None:
            self._joiner.add_batch(batch.epoch, Share.of(batch, whole, weights))
            return
        at, step, epoch, _, _, _, lr, batch_size, n, *_ = batch
        self._batch_record(whole.losses, whole.total, at, step, epoch, lr, batch_size, n, weights=weights)

    def on_event(self, event: Event) -> None:
        """Record an event, or let it wait its turn in the joiner."""
        means = self.take_means() if event.hook == "on_epoch_end" else None
        if means is not None:
            self.last_means = event.data["losses"] if event.data["losses"] is not None else means.result()[0]
        if self._joiner is not None:
            self._joiner.add_event(event, means, event.data["epoch"] if means is not None else 0)
        else:
            self._in_turn(event, means)

    def _batch_record(
        self, losses: Losses, total: float, time: float, step: int, epoch: int, lr: Any, batch_size: int | None, n: int,
        ranks: int | None = None, spread: Any = None, weights: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        if self._waiting[0] > MAX_WAITING:
            self.dropped += 1
            return
        data: dict[str, Any] = {"step": step, "epoch": epoch, "losses": losses, "total": total}
        if lr is not None:
            self._last_lr = data["lr"] = lr
        if (batch_size, n, ranks, spread) != (None, 1, None, None) or weights:
            more = {"batch_size": batch_size, "n": None if n == 1 else n, "ranks": ranks, "spread": spread,
                    "weights": dict(weights) if weights else None}  # fmt: skip
            data |= {key: value for key, value in more.items() if value is not None}
        self._record(time, "on_batch_losses", data)

    def _end_of_epoch(self, data: dict[str, Any], means: EpochMeans, heard: bool) -> dict[str, Any]:
        if self._joiner is not None:
            self._joiner.finish(data, means, heard=heard)
        if data["losses"] is None:
            data["losses"], data["total"] = means.result()
            data["weights"] = means.weights()
            data["val_loss"] = weighted(data["val_loss"], means.weights_of_a_pass(), data["losses"])
        else:
            data["losses"], data["total"], _ = self.totals.whole(data["losses"])
        if data["lr"] is None:
            data["lr"] = self._last_lr
        data["hardest"] = self._hardest.result()
        data.setdefault("duration", round(time.monotonic() - self._epoch_began, 6))
        lost = self.queue.lost + self.dropped
        data["dropped"] = lost - self._lost_before or None
        self._lost_before, self._epoch_began = lost, time.monotonic()
        self._sync_due = True
        return data

    def _in_turn(self, event: Event, means: EpochMeans | None) -> None:
        """Record an event; ``means`` come with the end of an epoch."""
        if means is not None:
            event = event._replace(data=self._end_of_epoch(dict(event.data), means, event.heard))
        if event.hook == "on_alert":
            if event.data["key"] in self._writer.alert_keys:
                return
            self._writer.alert_keys.update(keys_of(event.data))
        elif event.hook in ("on_run_end", "on_checkpoint"):
            self._sync_due = True
        self._record(event.time, event.hook, {key: value for key, value in event.data.items() if value is not None})

    def _record(self, at: float, hook: str, data: dict[str, Any]) -> None:
        self._fresh.append(written(Record(self._writer.seq + len(self._fresh), at, hook, data)))
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
        kept, self._fresh = [record for record, _ in self._fresh if record.seq not in gone], []
        self._waiting = [0, 0]
        for record in kept:
            self._record(*record[1:])
            self.pace.rest()

    def write(self) -> None:
        """Write what is waiting; where that fails it waits on, and is tried again a second later."""
        now = time.monotonic()
        if (self._fresh or now - self._looked > LOOK_EVERY) and (not self.trouble or now >= self._retry_at):
            try:
                if self.trouble and self._writer.moved():
                    self._writer.heal()
                self._looked = now
                more = strangers(self._writer, self._tail) if self._writer.intruded else 0
                if more:  # our numbers go on behind his
                    self._fresh = [written(record._replace(seq=record.seq + more)) for record, _ in self._fresh]
                offset = self._writer.end
                self._writer.append([line for _, line in self._fresh])
            except OSError as error:
                self._fails(error)
                return
            ends = accumulate((len(line) for _, line in self._fresh), initial=offset)
            found = list(zip(islice(ends, 1, None), (record for record, _ in self._fresh), strict=True))
            self.records += len(found)
            self._fresh, self._waiting = [], [0, 0]
            if self.trouble:
                say("the journal can be written again")
                self.trouble = ""
            if found:
                self._tail.publish(found)
                self._writer.wrote(found)
        if self._sync_due or self._writer.unsynced_for > SYNC_EVERY:
            self._sync()

    def _sync(self) -> None:
        self._sync_due = False
        try:
            if self._writer.moved():
                warn("the run folder was deleted or replaced: the journal is written anew at %s", self._writer.path)
                self._writer.heal()
            self._writer.sync()
        except OSError as error:
            self._fails(error)

    def _fails(self, error: OSError) -> None:
        if not self.trouble:
            warn("the journal cannot be written (%s): records wait in memory and are tried again", one_line(error))
        self.trouble = one_line(error)
        self._retry_at = time.monotonic() + RETRY_EVERY
