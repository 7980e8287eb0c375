"""What a journal comes to, kept so that it need not be read again.

The writer's drain thread keeps one; readers make their own. Contract:

- It lies beside the journal as ``journal.index``, written by the run alone: at the end of an epoch, after every few
  megabytes, at the end. Whoever only reads writes nothing there.
- The journal is the truth: an index counts only for the bytes it was made from, and only while both their ends are
  still there. What the journal has beyond is read; one that is missing, torn, old or of another journal is made anew.
- With more keys of alerts, or resumes, than `MOST` it is not kept.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from losslog.journal.archive import reading, size_of
from losslog.journal.fences import is_void
from losslog.journal.files import small, write_anew
from losslog.journal.folder import INDEX
from losslog.journal.lines import read
from losslog.journal.records import Record, count_in
from losslog.journal.shapes import fits
from losslog.journal.tally import Mark, Tally
from losslog.runtime.containment import attempt

VERSION: Final = 3
EDGE: Final = 256  # bytes at either end by which a journal is known again
MOST: Final = 4000
KEEP_EVERY: Final = 8 << 20  # bytes the journal grows before the index is written again


class Index(Tally):
    """A tally that is kept."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._kept = -1

    def start(self, place: int = -1) -> dict[str, Any]:
        """The data of the last ``on_run_start``, or of the first (0); ``{}`` where there is none.

        Raises:
            OSError: the journal cannot be read.
        """
        if not self.lasting["starts"]:
            return {}
        found = next(read(self.path, self.lasting["starts"][place]), (0, None))[1]
        return found.data if found is not None and found.hook == "on_run_start" else {}

    def open_batches(self, epoch: int, step: int | None) -> Iterator[Record]:
        """The batches since the last end of an epoch that count, of one epoch, up to a step.

        Raises:
            OSError: the journal cannot be read.
        """
        ends = self.counted["counts"].get("on_epoch_end", 0)
        marks = [each.offset for each in self._marks if each.counted["counts"].get("on_epoch_end", 0) == ends]
        for _, record in read(self.path, marks[0] if marks else 0):
            if record is None or record.hook != "on_batch_losses" or is_void(record, self.fences):
                continue
            known = record.data.get("losses") is not None and record.data.get("total") is not None
            at = count_in(record.data, "step")
            if known and record.data.get("epoch") == epoch and (step is None or at <= step):
                yield record

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
        if not (_lasts(lasting) and _counts(counted) and all(fits(*each) for each in fences) and _are(int, seq)
                and all(_are(int, *at) and _counts(its) for *at, its in marks)):  # fmt: skip
            raise ValueError("of other values than records have")
        known = dict.fromkeys(map(str, keys))
        self.lasting, self.counted, self.size, self._seq = lasting, counted, size, seq
        self.fences, self.keys = [Record(*each) for each in fences], known
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
        if attempt(write_anew, temporary, text)[1] is None and attempt(os.replace, temporary, target)[1] is None:
            self._kept = self.size
        else:
            attempt(temporary.unlink, missing_ok=True)


def _are(kind: type, *values: Any) -> bool:
    return all(type(each) is kind for each in values)


def _lasts(kept: Mapping[str, Any]) -> bool:
    """Whether `Tally.lasting` is made of what records may have: the file may be somebody else's."""
    get = kept.__getitem__
    return (
        _are(int, *map(get, ("garbled", "step", "epoch", "done", "steps")), *get("starts")) and _are(str, get("name"))
        and all(type(get(key)) in (int, float) for key in ("started", "last"))
        and type(get("epochs")) in (int, type(None)) and type(get("ended")) in (str, type(None))
        and all(_are(dict, each) and fits(0, 0.0, "on_alert", each) for each in get("alerts"))
        and all(_are(str, path) and _are(int, *numbers) for path, *numbers in get("checkpoints"))
    )  # fmt: skip


def _counts(kept: Mapping[str, Any]) -> bool:
    """The same of `Tally.counted`."""
    return (
        _are(int, *kept["counts"].values(), *kept["top"]) and len(kept["top"]) == 2
        and all(type(value) in (int, float) and _are(int, epoch) for value, epoch in kept["best"].values())
        and _are(dict, kept["last_epoch"], kept["last_step"], kept["trains"])
        and fits(0, 0.0, "on_epoch_end", kept["last_epoch"]) and fits(0, 0.0, "on_batch_losses", kept["last_step"])
        and fits(0, 0.0, "on_metrics", {"detail": kept["trains"]})
    )  # fmt: skip


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
