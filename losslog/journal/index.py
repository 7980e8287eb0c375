"""What a journal tells without being read again: counts, ends, bests, alerts, and where they stand.

The writer's drain thread keeps one; readers make their own. Contract:

- It lies beside the journal as ``journal.index``, written by the run alone: at the end of an epoch, after every few
  megabytes, at the end. Whoever only reads writes nothing there.
- The journal is the truth: an index counts only for the bytes it was made from, and only while both their ends are
  still there. What the journal has beyond is read; one that is missing, torn, old or of another journal is made anew.
- Batches are counted by the beginning of their line, and decoded but for the last of each group not.
- A resume makes it go back to what it was at the last `Mark` that the resume leaves, and count again from there.
- Bounded: `MARKS`, `ALERTS`, `TAGS`, `CHECKPOINTS`; with more keys of alerts or resumes than `MOST` it is not kept.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from losslog.journal.archive import reading, size_of
from losslog.journal.fences import VOIDABLE, is_void
from losslog.journal.files import opened, small
from losslog.journal.folder import INDEX, JOURNAL
from losslog.journal.lines import read
from losslog.journal.records import Record, count_in
from losslog.journal.scan import BATCH, HEAD, blocks, record_of
from losslog.runtime.containment import attempt
from losslog.tags import eval_series

VERSION: Final = 2
EDGE: Final = 256  # bytes at either end by which a journal is known again
ALERTS: Final = 200
TAGS: Final = 400
CHECKPOINTS: Final = 200
MARKS: Final = 16
MOST: Final = 4000
MARK_EVERY: Final = 32 << 20  # bytes
KEEP_EVERY: Final = 8 << 20  # bytes the journal grows before the index is written again
_STEP: Final = re.compile(
    rb'\{"seq": (\d+), "time": [^,]{1,30}, "hook": "on_batch_losses", "data": \{"step": (-?\d+), "epoch": (\d+), '
)


class Mark(NamedTuple):
    """What counted when a part of the journal had been read.

    Attributes:
        offset: bytes of that part.
        seq: of its last record.
        counted: what counted, as `Index.counted` is.
    """

    offset: int
    seq: int
    counted: dict[str, Any]


class Index:
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
        self._kept = -1
        self.lasting: dict[str, Any] = {
            "name": "", "epochs": None, "started": 0.0, "last": 0.0, "ended": None, "garbled": 0, "alerts": [],
            "starts": [], "step": -1, "epoch": 0, "done": 0, "checkpoints": [],
        }  # fmt: skip
        self.counted: dict[str, Any] = {
            "counts": {"on_batch_losses": 0}, "last_epoch": {}, "last_step": {}, "best": {}, "top": [-1, 0],
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
        last = len(found) - 1
        for place, (end, record) in enumerate(found):
            if record.hook == "on_batch_losses" and place < last and found[place + 1][1].hook == "on_batch_losses":
                self._batch(record)
                self._seq, self.size = record.seq, end
            else:
                self._record(record, self.size, end)
        if self.size - (self._marks[-1].offset if self._marks else 0) >= MARK_EVERY:
            self._mark()

    def _take(self, piece: bytes, offset: int) -> None:
        group: list[bytes] = []
        for line in piece.split(b"\n")[:-1]:
            offset += len(line) + 1
            if BATCH in line[:HEAD] and line.endswith(b"}}"):
                group.append(line)
                self.size = offset
                continue
            if group:
                self._group(group, ())
                group = []
            self._line(line, offset)
        if group:
            self._group(group, ())
        if self.size - (self._marks[-1].offset if self._marks else 0) >= MARK_EVERY:
            self._mark()

    def _line(self, line: bytes, end: int) -> None:
        record = record_of(line)
        if record is None:
            self.lasting["garbled"] += 1
        else:
            self._record(record, end - len(line) - 1, end)
        self.size = end

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
            kept = [place for place, each in enumerate(zip(seqs, steps, epochs, strict=True)) if _counts(each, fences)]
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

    def _batch(self, record: Record) -> None:
        """One of several that follow each other, written just now."""
        self.counted["counts"]["on_batch_losses"] += 1
        step, epoch = record.data["step"], record.data["epoch"]
        top = self.counted["top"]
        if step > top[0] or epoch > top[1]:
            self._reach(step, epoch)
        self.lasting["step"] = max(self.lasting["step"], step)

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
            lasting["epoch"] = count_in(data, "epoch")
            lasting["done"] = max(lasting["done"], lasting["epoch"])
        elif hook == "on_alert":
            lasting["alerts"] = [*lasting["alerts"], data][-ALERTS:]
            self.keys[str(data.get("key"))] = None
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

    def _count(self, record: Record, number: int = 1) -> None:
        counted, data = self.counted, record.data
        counted["counts"][record.hook] = counted["counts"].get(record.hook, 0) + number
        if record.hook == "on_batch_losses":
            counted["last_step"] = data
        elif record.hook == "on_epoch_end":
            counted["last_epoch"] = data
        elif record.hook == "on_eval":
            self._eval(data)
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

    # ------------------------------------------------------------------ marks

    def _mark(self) -> None:
        self._marks.append(Mark(self.size, self._seq, _copy(self.counted)))
        if len(self._marks) > MARKS:
            del self._marks[1 : -MARKS // 2 : 2]

    def _go_back(self, fence: Record, end: int) -> None:
        """A resume: count again from the last mark that it leaves as it is."""
        self.fences.append(fence)
        step, epoch = (fence.data.get(key) for key in ("step", "epoch"))
        while self._marks and not _leaves(self._marks[-1].counted["top"], step, epoch):
            self._marks.pop()
        at = self._marks[-1] if self._marks else Mark(0, -1, Index(self.folder).counted)
        self.counted = _copy(at.counted)
        fences = [each for each in self.fences if each.seq > at.seq]
        for offset, piece in blocks(self.path, at.offset, end):
            group: list[bytes] = []
            for line in piece.split(b"\n")[:-1]:
                if BATCH in line[:HEAD] and line.endswith(b"}}"):
                    group.append(line)
                    continue
                if group:
                    self._group(group, fences, again=True)
                    group = []
                record = record_of(line)
                if record is not None and not is_void(record, fences):
                    self._count(record)
            if group:
                self._group(group, fences, again=True)
            if offset >= end:
                break

    # ------------------------------------------------------------------ what it tells

    @property
    def facts(self) -> dict[str, Any]:
        """What lasts and what counts, together."""
        return self.lasting | self.counted

    def start(self, place: int = -1) -> dict[str, Any]:
        """The data of the last ``on_run_start``, or of the first (0); ``{}`` where there is none.

        Raises:
            OSError: the journal cannot be read.
        """
        if not self.lasting["starts"]:
            return {}
        found = next(read(self.path, self.lasting["starts"][place]), (0, None))[1]
        return found.data if found is not None and found.hook == "on_run_start" else {}

    # ------------------------------------------------------------------ keeping

    def load(self, place: Path | None = None) -> bool:
        """Start from one that is kept, where it belongs to this journal and has more of it than this one.

        Args:
            place: where it lies; None is beside the journal.
        """
        body, _ = attempt(lambda: json.loads(small(place or self.folder / INDEX)))
        _, error = attempt(self._adopt, body)
        return error is None

    def _adopt(self, body: Any) -> None:
        """Raises anything where the index is not one of this journal."""
        new, size = Index(self.folder), body["size"]
        if body["version"] != VERSION or type(size) is not int or size <= self.size:
            raise ValueError("of another version, or older than what is known")
        if body["check"] != check(self.path, size, body["kept"]):
            raise ValueError("of another journal")
        lasting, counted, fences, keys, marks, seq = body["kept"]
        for mine, theirs in ((new.lasting, lasting), (new.counted, counted)):
            if mine.keys() != theirs.keys():
                raise ValueError("of another form")
        self.lasting, self.counted, self.size, self._seq = lasting, counted, size, int(seq)
        self.fences, self.keys = [Record(*each) for each in fences], dict.fromkeys(keys)
        self._marks = [Mark(*each) for each in marks]
        self._kept = size

    def body(self) -> str | None:
        """What is kept, as text; None where it would be too large."""
        if len(self.keys) > MOST or len(self.fences) > MOST:
            return None
        kept = [self.lasting, self.counted, self.fences, [*self.keys], self._marks, self._seq]
        return json.dumps({"version": VERSION, "size": self.size, "check": check(self.path, self.size, kept),
                           "kept": kept})  # fmt: skip

    @property
    def due(self) -> bool:
        """Whether the journal has grown so much that it should be kept again."""
        return self.size - max(self._kept, 0) >= KEEP_EVERY

    def keep(self, place: Path | None = None) -> None:
        """Write it, whole or not at all; what refuses is let be.

        Args:
            place: where to; None is beside the journal.
        """
        if self.size == self._kept and place is None:
            return
        text, _ = attempt(self.body)
        if text is None:
            return
        target = place or self.folder / INDEX
        temporary = target.with_suffix(f".{os.getpid()}")
        if attempt(_write, temporary, text)[1] is None and attempt(os.replace, temporary, target)[1] is None:
            self._kept = self.size
        else:
            attempt(temporary.unlink, missing_ok=True)


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with open(opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "w", encoding="ascii") as file:
        file.write(text)


def _copy(counted: dict[str, Any]) -> dict[str, Any]:
    return {**counted, "counts": dict(counted["counts"])}


def _leaves(top: Sequence[int], step: int | None, epoch: int | None) -> bool:
    """Whether a resume from there makes nothing void of what went so far."""
    return (step is None or top[0] <= step) and (epoch is None or top[1] <= epoch)


def _counts(batch: tuple[int, int, int], fences: Sequence[Record]) -> bool:
    """Whether a batch of this seq, step and epoch counts."""
    seq, step, epoch = batch
    for fence in fences:
        if seq <= fence.seq:
            upto, last = fence.data.get("step"), fence.data.get("epoch")
            if step > upto if upto is not None else last is not None and epoch > last:
                return False
    return True


def check(path: Path, size: int, kept: Any) -> str:
    """A sum over both ends of the journal's first ``size`` bytes and over what is kept."""
    digest = hashlib.blake2b(json.dumps(kept, sort_keys=True).encode("ascii"), digest_size=16)
    with reading(path) as file:
        digest.update(file.read(min(EDGE, size)))
        file.seek(max(0, size - EDGE))
        digest.update(file.read(min(EDGE, size)))
    return digest.hexdigest() if size_of(path) >= size else ""


def index_of(folder: Path) -> Index:
    """The run's index, up to its last record; nothing is written.

    Raises:
        OSError: the journal cannot be read.
    """
    index = Index(folder)
    index.load()
    index.read()
    return index
