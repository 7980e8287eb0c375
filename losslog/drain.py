"""From the queue to the journal: items become records, in order.

Drain thread only. Contract:

- Values are waited for here, records get their seq here, and here they are written: one write per batch of records.
- While the journal cannot be written, records wait in memory up to a bound; beyond it batch records are dropped and
  counted, all others kept.
- Epoch means and the check for non-finite losses are made here, from the values as they come.
- An alert whose key the journal has is dropped.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from losslog.containment import one_line
from losslog.journal import Tail, Writer
from losslog.losses import Losses, close, find_total, total_of
from losslog.means import EpochMeans
from losslog.notices import say, warn
from losslog.pace import Pace
from losslog.records import Record, encode
from losslog.values import Keys, Later, Staged, resolve

SYNC_EVERY: Final = 30.0  # seconds between fsyncs; also at each epoch's end and at close
MAX_WAITING: Final = 50_000  # batch records kept in memory while the journal cannot be written
RETRY_EVERY: Final = 1.0  # seconds between attempts to write it
WRITE_AT: Final = 1024  # records a write


class Batch(NamedTuple):
    """One `Run.log_batch`, as the training thread left it."""

    time: float
    step: int
    epoch: int
    keys: Keys
    values: list[float] | Staged
    has_total: bool
    lr: Any
    batch_size: int | None
    n: int


class Event(NamedTuple):
    """Any other hook call: its data is plain already."""

    time: float
    hook: str
    data: dict[str, Any]


class Question:
    """Asks the drain for the epoch means as they are after everything queued before.

    Attributes:
        answered: set when `means` is there.
    """

    def __init__(self) -> None:
        self.answered = threading.Event()
        self.means: Losses | None = None


class Drain:
    """Turns items into records.

    Args:
        writer: the journal.
        tail: where near lanes read.
        dropped: how many batches the full queue has refused so far.
        culprit: what is known of the batch of a step, for the alert on a non-finite loss.
    """

    def __init__(
        self, writer: Writer, tail: Tail, dropped: Callable[[], int], culprit: Callable[[int], str] = lambda step: ""
    ) -> None:
        self.writer = writer
        self.records = 0
        self.dropped = 0
        self.trouble = ""
        self._tail, self._dropped_by_queue, self._culprit = tail, dropped, culprit
        self._means = EpochMeans()
        self._last_means: Losses | None = None
        self._dropped_before = 0
        self._epoch_began = time.time()
        self._last_lr: Any = None
        self._totals: dict[tuple[str, ...], str | None] = {}
        self._told: set[str] = set()
        self._fresh: list[tuple[Record, bytes]] = []
        self._retry_at = 0.0
        self._sync_due = False
        self._waiting_batches = 0
        self.pace = Pace(active=True)

    def take(self, items: Sequence[Any]) -> None:
        """Process items in order and write what they give."""
        self.pace.fresh()
        for item in items:
            if isinstance(item, Batch):
                self._batch(item)
            elif isinstance(item, Event):
                self._event(item)
            else:
                item.means = self._means.result()[0] if self._means.batches else self._last_means
                item.answered.set()
            if len(self._fresh) >= WRITE_AT and not self.trouble:
                self.write()
            self.pace.rest()
        self.write()

    # ------------------------------------------------------------------ items to records

    def _batch(self, item: Batch) -> None:
        values = resolve(item.values)
        total = values[-1] if item.has_total else None
        losses: Losses
        if item.keys is None:
            losses = values[0]
        else:
            losses = dict(zip(item.keys, values, strict=False))
            losses, total = self._without_total(item.keys, losses, total)
        whole = total_of(losses, total)
        if total is not None and not close(whole, total_of(losses)):
            self._once(
                f"the total given ({whole:.6g}) is not the sum of the components ({total_of(losses):.6g}): it is kept"
            )
        self._means.add(losses, whole, total is not None, item.n)
        if self._means.mixed:
            self._once("dict and scalar losses mix in one epoch: the epoch's losses are those of the dicts")
        data: dict[str, Any] = {"step": item.step, "epoch": item.epoch, "losses": losses, "total": whole}
        if item.lr is not None:
            data["lr"] = self._last_lr = item.lr
        if item.batch_size is not None:
            data["batch_size"] = item.batch_size
        if item.n != 1:
            data["n"] = item.n
        self._record(item.time, "on_batch_losses", data, droppable=True)
        if not math.isfinite(whole) or (type(losses) is dict and not all(map(math.isfinite, losses.values()))):
            self._not_finite(item, losses)

    def _without_total(
        self, keys: tuple[str, ...], losses: dict[str, float], total: float | None
    ) -> tuple[dict[str, float], float | None]:
        """Take a component that is the sum of the others as the total."""
        if keys not in self._totals:
            try:
                self._totals[keys] = find_total(losses)
            except ValueError as error:  # only values on a device come so far: the caller is told late, but told
                self._once(f"{error}. The component is left out")
                self._totals[keys] = "total"
                del losses["total"]
                return losses, total
            if self._totals[keys] is not None:
                self._once(f"losses[{self._totals[keys]!r}] is the sum of the others: taken as the total")
        name = self._totals[keys]
        if name is not None:
            own = losses.pop(name)
            total = own if total is None else total
        return losses, total

    def _not_finite(self, item: Batch, losses: Losses) -> None:
        bad = (
            {name: value for name, value in losses.items() if not math.isfinite(value)}
            if isinstance(losses, dict)
            else {}
        )
        for name, value in bad.items() or [("loss", losses if isinstance(losses, float) else math.nan)]:
            text = f"{name} is {value} at step {item.step} (epoch {item.epoch})."
            data = {
                "level": "error",
                "title": f"{name} is {value}",
                "text": " ".join(filter(None, [text, self._culprit(item.step)])),
                "source": "losslog",
                "component": name if item.keys is not None else None,
                "step": item.step,
                "epoch": item.epoch,
                "key": f"non_finite/{name}",
            }
            self._event(Event(item.time, "on_alert", data))

    def _event(self, item: Event) -> None:
        data = item.data
        if isinstance(data.get("metrics"), Later):
            data = data | {"metrics": data["metrics"].now()}
        if item.hook == "on_alert":
            if data["key"] in self.writer.alert_keys:
                return
            self.writer.alert_keys.add(data["key"])
        elif item.hook == "on_epoch_end":
            data = self._epoch_end(item)
        elif item.hook in ("on_run_end", "on_checkpoint"):
            self._sync_due = True
        self._record(item.time, item.hook, {key: value for key, value in data.items() if value is not None})

    def _epoch_end(self, item: Event) -> dict[str, Any]:
        data = dict(item.data)
        means, total = self._means.result()
        if data.get("losses") is None:
            data["losses"], data["total"] = means, total
        else:
            data["total"] = total_of(data["losses"])
        self._last_means = data["losses"]
        if data.get("lr") is None:
            data["lr"] = self._last_lr
        data["duration"] = round(item.time - self._epoch_began, 6)
        lost = self._dropped_by_queue() + self.dropped
        if lost > self._dropped_before:
            data["dropped"] = lost - self._dropped_before
        self._dropped_before = lost
        self._means.reset()
        self._epoch_began = item.time
        self._sync_due = True
        return data

    def _once(self, text: str) -> None:
        topic = text.partition("(")[0]
        if topic not in self._told:
            self._told.add(topic)
            warn("%s (said once)", text)

    # ------------------------------------------------------------------ records to the file

    def _record(self, at: float, hook: str, data: dict[str, Any], droppable: bool = False) -> None:
        if droppable and self.trouble:
            if self._waiting_batches >= MAX_WAITING:
                self.dropped += 1
                return
            self._waiting_batches += 1
        record = Record(self.writer.seq, at, hook, data)
        self.writer.seq += 1
        self._fresh.append((record, encode(record)))

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
            self._fresh = []
            self._waiting_batches = 0
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
            warn(
                "the journal cannot be written (%s): records wait in memory and are tried again every second",
                one_line(error),
            )
        self.trouble = one_line(error)
        self._retry_at = time.monotonic() + RETRY_EVERY

    @property
    def unwritten(self) -> int:
        """Records that wait for the journal to be writable."""
        return len(self._fresh)
