"""What a journal comes to, counted as it is read or written.

The writer's drain thread, and readers. Contract:

- Batches are counted by the beginning of their line, and decoded but for the last of each group not.
- A resume makes it go back to what it was at the last `Mark` that the resume leaves, and count again from there.
- Bounded by `MARKS`, `ALERTS`, `TAGS` and `CHECKPOINTS`, but for the keys of alerts, and resumes: all are there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from losslog.journal.archive import size_of
from losslog.journal.fences import VOIDABLE, counts, is_void, leaves
from losslog.journal.folder import JOURNAL
from losslog.journal.metrics import trained
from losslog.journal.records import Record, count_in, keys_of
from losslog.journal.scan import BATCH, HEAD, blocks, record_of
from losslog.runtime.containment import attempt
from losslog.tags import eval_series

ALERTS: Final = 200
TAGS: Final = 400
CHECKPOINTS: Final = 200
MARKS: Final = 16
MARK_EVERY: Final = 32 << 20  # bytes
_STEP: Final = re.compile(
    rb'\{"seq": (\d+), "time": [^,]{1,30}, "hook": "on_batch_losses", "data": \{"step": (-?\d+), "epoch": (\d+), '
)


class Mark(NamedTuple):
    """What counted when a part of the journal had been read.

    Attributes:
        offset: bytes of that part.
        seq: of its last record.
        counted: what counted, as `Tally.counted` is.
    """

    offset: int
    seq: int
    counted: dict[str, Any]


class Tally:
    """Counts, ends, bests and alerts of a run.

    Args:
        folder: the run folder.

    Attributes:
        size: bytes of the journal that are in it.
        lasting: what no resume makes void, plain data.
        counted: what counts: counts by hook, the last step and epoch, bests, how far steps and epochs went.
        fences: the ``on_resume`` records.
        keys: of all alerts.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / JOURNAL
        self._forget()

    def _forget(self) -> None:
        self.size = self._seq = 0
        self.lasting: dict[str, Any] = {
            "name": "", "epochs": None, "started": 0.0, "last": 0.0, "ended": None, "garbled": 0, "alerts": [],
            "starts": [], "step": -1, "epoch": 0, "done": 0, "steps": 0, "checkpoints": [],
        }  # fmt: skip
        self.counted: dict[str, Any] = {
            "counts": {"on_batch_losses": 0}, "last_epoch": {}, "last_step": {}, "best": {}, "top": [-1, 0],
            "trains": {},
        }  # fmt: skip
        self.fences: list[Record] = []
        self.keys: dict[str, None] = {}
        self._marks: list[Mark] = []

    # ------------------------------------------------------------------ reading

    def read(self, pieces: int | None = None) -> bool:
        """Take what is new in the journal.

        Args:
            pieces: read at most so many megabytes now; None reads all.

        Returns:
            Whether anything came.

        Raises:
            OSError: the journal cannot be read.
        """
        before = self.size
        if size_of(self.path) < before:
            self._forget()
        for number, (size, piece) in enumerate(blocks(self.path, self.size)):
            if number == pieces:
                break
            self._take(piece, size - len(piece))
        return self.size != before

    def took(self, found: Sequence[tuple[int, Record]]) -> None:
        """Take records that were written just now, each with where it ends."""
        group: list[Record] = []
        for end, record in found:
            if record.hook == "on_batch_losses":
                group.append(record)
                upto = end
                continue
            if group:
                self._written(group, upto)
                group = []
            self._record(record, self.size, end)
        if group:
            self._written(group, upto)
        if self.size - (self._marks[-1].offset if self._marks else 0) >= MARK_EVERY:
            self._mark()

    def _take(self, piece: bytes, offset: int) -> None:
        for group, line in _parts(piece):
            if group:
                self._group(group, ())
                self.size = offset = offset + sum(map(len, group)) + len(group)
            if line is not None:
                record, begin, offset = record_of(line), offset, offset + len(line) + 1
                if record is None:
                    self.lasting["garbled"] += 1
                else:
                    self._record(record, begin, offset)
                self.size = offset
        if self.size - (self._marks[-1].offset if self._marks else 0) >= MARK_EVERY:
            self._mark()

    def _group(self, lines: list[bytes], fences: Sequence[Record], *, again: bool = False) -> None:
        """Count batch lines without decoding any but the last that counts."""
        found = [_STEP.match(line) for line in lines]
        last = record_of(lines[-1])
        if last is None or None in found:
            for line in lines:
                record = record_of(line)
                if record is not None and (not again or not is_void(record, [*fences])):
                    self._count(record)
                if not again:
                    self.lasting["garbled"] += record is None
                    if record is not None:
                        self._seq = record.seq
                        self._time(record)
                        self.lasting["step"] = max(self.lasting["step"], count_in(record.data, "step"))
            return
        seqs, steps, epochs = zip(*(map(int, each.groups()) for each in found if each), strict=True)
        if not again:
            first = record_of(lines[0]) if not self.lasting["started"] else None
            self._time(first or last)
            self._time(last)
            self._seq = last.seq
            self.lasting["step"] = max(self.lasting["step"], *steps)
        if fences:
            kept = [place for place, each in enumerate(zip(seqs, steps, epochs, strict=True)) if counts(each, fences)]
            if not kept:
                return
            last = record_of(lines[kept[-1]]) or last
            steps, epochs = tuple(steps[place] for place in kept), tuple(epochs[place] for place in kept)
        self._count(last, len(steps))
        self._reach(max(steps), max(epochs))

    # ------------------------------------------------------------------ what a record adds

    def _time(self, record: Record) -> None:
        lasting = self.lasting
        lasting["started"] = lasting["started"] or record.time
        lasting["last"], lasting["ended"] = record.time, None

    def _written(self, group: list[Record], end: int) -> None:
        """Take batches that follow each other."""
        steps, last = [each.data["step"] for each in group], group[-1]
        self._time(group[0])
        self._time(last)
        self._seq, self.size = last.seq, end
        self.lasting["step"] = max(self.lasting["step"], *steps)
        self._count(last, len(group))
        self._reach(max(steps), max([each.data["epoch"] for each in group]))

    def _record(self, record: Record, begin: int, end: int) -> None:
        lasting, data, hook = self.lasting, record.data, record.hook
        self._time(record)
        self._seq, self.size = record.seq, end
        if hook == "on_run_start":
            lasting["name"] = lasting["name"] or str(data.get("name") or "")
            lasting["epochs"] = data.get("epochs")
            lasting["starts"] = [*lasting["starts"][:1], begin]
        elif hook == "on_batch_losses":
            lasting["step"] = max(lasting["step"], count_in(data, "step"))
        elif hook == "on_epoch_end":
            self._end(count_in(data, "epoch"), count_in(data, "step"))
        elif hook == "on_alert":
            kept = [*lasting["alerts"], data]
            half = ALERTS // 2  # the first tell what it began with
            lasting["alerts"] = kept if len(kept) <= ALERTS else [*kept[:half], *kept[-half:]]
            self.keys |= dict.fromkeys(keys_of(data))
        elif hook == "on_checkpoint":
            place = [str(data.get("path")), count_in(data, "epoch"), count_in(data, "step")]
            lasting["checkpoints"] = [*lasting["checkpoints"], place][-CHECKPOINTS:]
        elif hook == "on_run_end":
            lasting["ended"] = str(data.get("status"))
        self._count(record)
        if hook == "on_resume":
            self._go_back(record, end)
        elif hook == "on_epoch_end":
            self._mark()

    def _end(self, epoch: int, step: int) -> None:
        """An epoch has ended: how many steps it had, and which checkpoints were written amid it."""
        lasting, last = self.lasting, self.counted["last_epoch"]
        if count_in(last, "epoch") == epoch - 1:
            lasting["steps"] = step - (count_in(last, "step") if last else -1)
        lasting["epoch"], lasting["done"] = epoch, max(lasting["done"], epoch)
        lasting["checkpoints"] = [[path, its - (its == epoch and at < step), at] for path, its, at in
                                  lasting["checkpoints"]]  # fmt: skip

    def _count(self, record: Record, number: int = 1) -> None:
        counted, data = self.counted, record.data
        counted["counts"][record.hook] = counted["counts"].get(record.hook, 0) + number
        if record.hook == "on_batch_losses":
            counted["last_step"] = data
        elif record.hook == "on_epoch_end":
            counted["last_epoch"] = data
        elif record.hook == "on_eval":
            self._eval(data)
        elif record.hook == "on_metrics":
            counted["trains"] = trained(counted["trains"], data)
        if record.hook in VOIDABLE:
            self._reach(count_in(data, "step"), count_in(data, "epoch"))

    def _reach(self, step: int, epoch: int) -> None:
        top = self.counted["top"]
        self.counted["top"] = [max(top[0], step), max(top[1], epoch)]

    def _eval(self, data: dict[str, Any]) -> None:
        best = dict(self.counted["best"])
        series, _ = attempt(eval_series, data.get("metrics") or {}, str(data.get("split") or "val"))
        for tag, value in (series or {}).items():
            known = best.get(tag)
            if math.isfinite(value) and (known is None or value > known[0]) and (known or len(best) < TAGS):
                best[tag] = [value, count_in(data, "epoch")]
        self.counted["best"] = best

    def _mark(self) -> None:
        self._marks.append(Mark(self.size, self._seq, _copy(self.counted)))
        if len(self._marks) > MARKS:
            del self._marks[1 : -MARKS // 2 : 2]

    def _go_back(self, fence: Record, end: int) -> None:
        """A resume: count again from the last mark that it leaves as it is."""
        self.fences.append(fence)
        step, epoch = (fence.data.get(key) for key in ("step", "epoch"))
        while self._marks and not leaves(self._marks[-1].counted["top"], step, epoch):
            self._marks.pop()
        at = self._marks[-1] if self._marks else Mark(0, -1, Tally(self.folder).counted)
        self.counted = _copy(at.counted)
        fences = [each for each in self.fences if each.seq > at.seq]
        for offset, piece in blocks(self.path, at.offset, end):
            for group, line in _parts(piece):
                if group:
                    self._group(group, fences, again=True)
                record = None if line is None else record_of(line)
                if record is not None and not is_void(record, fences):
                    self._count(record)
            if offset >= end:
                break

    # ------------------------------------------------------------------ what it tells

    @property
    def facts(self) -> dict[str, Any]:
        """What lasts and what counts, together."""
        return self.lasting | self.counted


def _parts(piece: bytes) -> Iterator[tuple[list[bytes], bytes | None]]:
    """The lines of a piece: those of batches that follow each other, and the line after them, if there is one."""
    group: list[bytes] = []
    for line in piece.split(b"\n")[:-1]:
        if BATCH in line[:HEAD] and line.endswith(b"}}"):
            group.append(line)
        else:
            yield group, line
            group = []
    yield group, None


def _copy(counted: dict[str, Any]) -> dict[str, Any]:
    return {**counted, "counts": dict(counted["counts"])}
