r"""The journal, ``journal.jsonl``: the one truth about a run, append-only, one record a line.

Used by the drain thread, and by whoever finishes a killed run; `losslog.journal.tail` reads it. Contract:

- One writer per run folder, by a kernel lock that dies with its process; a lock that a forked child cannot inherit.
- One unbuffered write per batch of records. A write that fails or is cut short leaves the file as it was before.
- A torn last line is ignored by readers and cut by the next writer. A garbled line is skipped, and counted.
- Whoever else appends to the file, or cuts it, is noticed before the next write, and said. What he wrote stays, is
  delivered as far as it is records, and the numbers here go on behind it.
- Lines are split on ``\n`` only.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from losslog.errors import LosslogError, RunLocked
from losslog.journal.archive import unpack
from losslog.journal.ends import noted
from losslog.journal.files import opened
from losslog.journal.folder import JOURNAL, LOCK
from losslog.journal.index import Index
from losslog.journal.lines import CHUNK, last_record, lines_from, records_in, whole_lines
from losslog.journal.locks import Lock, is_locked
from losslog.journal.records import Record, encode
from losslog.runtime.containment import attempt, one_line
from losslog.runtime.notices import Once, warn

INDEX_EVERY: Final = 1.0  # seconds between two writes of the index at the least


class Writer:
    """Appends records to a run's journal.

    Args:
        folder: the run folder.
        patience: seconds to wait for a writer that is there; a follower that ends a killed run takes a moment.

    Attributes:
        end: length in bytes of what is safely in the file.
        seq: the next record's; `append` counts it on.
        alert_keys: keys of the alerts already in the journal.
        index: what the journal tells.
        ended: whether the last record is ``on_run_end``.
        cuts: how often somebody cut the file.

    Raises:
        RunLocked: another writer has this folder.
        JournalError: the journal is compressed, and cannot be unpacked here.
        OSError: the journal cannot be opened, or read.
    """

    def __init__(self, folder: Path, *, patience: float = 0.0) -> None:
        self.path = folder / JOURNAL
        self._lock = Lock(folder / LOCK)
        deadline = time.monotonic() + patience
        while not self._lock.acquire():
            if time.monotonic() >= deadline:
                # where the kernel knows no locks, a file says who writes
                by = f" (or delete {self._lock.owner.name}, if no process of any host writes there)"
                what = f"{folder} is being written by another live run: wait, or use another folder"
                raise RunLocked(what + by * self._lock.owner.exists())
            time.sleep(0.02)
        self.index, self._indexed, self._once = Index(folder), time.monotonic(), Once()
        self._fd = -1
        try:
            unpack(self.path)
            self._fd = opened(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            self.index.load()
            self.index.read()
            self.end = self.index.size
            last = last_record(self.path) if self.end else None
            if os.fstat(self._fd).st_size > self.end:  # a torn tail
                os.ftruncate(self._fd, self.end)
        except (OSError, LosslogError):
            self._let_go()
            raise
        self.seq = 0 if last is None else last.seq + 1
        self.ended = last is not None and last.hook == "on_run_end"
        self.alert_keys = {*self.index.keys}
        self.last_step, self.last_epoch = self.index.lasting["step"], self.index.lasting["epoch"]
        self._synced, self.cuts = time.monotonic(), 0

    def append(self, lines: Sequence[bytes]) -> None:
        """Append complete lines, a record each, with one write.

        Raises:
            OSError: nothing of them is in the file (disk full, folder gone); they may be appended again later.
        """
        data = b"".join(lines)
        written = 0
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:] if written else data)
        except OSError:
            if written:
                os.ftruncate(self._fd, self.end)
            raise
        self.end += len(data)
        self.seq += len(lines)

    @property
    def intruded(self) -> bool:
        """Whether somebody else has written to the file, or cut it, since the last write.

        Raises:
            OSError: that cannot be found out.
        """
        return os.fstat(self._fd).st_size != self.end

    def strangers(self) -> list[tuple[int, Record | None]]:
        """What somebody else appended since the last write, each line with where it ends; None for what is no record.

        Raises:
            OSError: the file cannot be read, or not be mended.
        """
        size = os.fstat(self._fd).st_size
        if size < self.end:
            warn("somebody cut %s: %d bytes of what was written are gone from it", self.path, self.end - size)
            self.cuts += 1
            self.end, self._indexed = whole_lines(self.path), math.inf
        if whole_lines(self.path) < size:  # his line has no end, and ours is not to be a part of it
            os.write(self._fd, b"\n")
        found: list[tuple[int, Record | None]] = []
        while lines := lines_from(self.path, self.end)[0]:
            found += records_in(lines, self.end)
            self.end = found[-1][0]
        records = [record for _, record in found if record is not None]
        if found:
            text = "somebody else writes to %s: %d lines, %d of them records; they stay, and are delivered"
            self._once(text, self.path, len(found), len(records))
            self._indexed = math.inf  # readers make an index of their own
        self.seq = max(
            [self.seq, *(record.seq + 1 for record in records if record.seq < self.seq + len(records) + 1024)]
        )
        return found

    def wrote(self, found: Sequence[tuple[int, Record]]) -> None:
        """The records that were appended, each with where it ends: for the index, which is kept now and then."""
        _, error = attempt(self.index.took, found)
        if error is not None:  # readers make one of their own
            self._once("the index of the journal is not kept: %s", one_line(error))
            self._indexed = math.inf
        ends = self.index.due or any(record.hook == "on_epoch_end" for _, record in found)
        if ends and time.monotonic() - self._indexed > INDEX_EVERY:
            self.index.keep()
            self._indexed = time.monotonic()

    def sync(self) -> None:
        """Ask the kernel to make it durable against power cuts."""
        self._synced = time.monotonic()
        os.fsync(self._fd)

    @property
    def unsynced_for(self) -> float:
        """Seconds since the last `sync`."""
        return time.monotonic() - self._synced

    def moved(self) -> bool:
        """Whether the file under the journal's name is no longer the one being written (folder deleted)."""
        try:
            named, mine = os.stat(self.path), os.fstat(self._fd)
        except FileNotFoundError:
            return True
        return (named.st_dev, named.st_ino) != (mine.st_dev, mine.st_ino)

    def heal(self) -> None:
        """Put the journal back where it was: a deleted file lives on as long as it is open, and is copied from there.

        Raises:
            OSError: the folder cannot be made again, or the old content cannot be read.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fd = opened(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC)
        try:
            self._copy_to(fd)
        except OSError:
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd = fd
        self._lock.release()
        self._lock.acquire()

    def _copy_to(self, fd: int) -> None:
        position = 0
        while position < self.end:
            os.lseek(self._fd, position, os.SEEK_SET)
            data = os.read(self._fd, min(CHUNK, self.end - position))
            if not data:  # somebody cut it, too: noticed before the next write
                return
            position += os.write(fd, data)

    def close(self) -> None:
        """Close the file and free the folder."""
        if self._fd >= 0 and self._indexed < math.inf:
            self.index.keep()
        self._let_go()

    def _let_go(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._lock.release()


def state_of(folder: Path) -> dict[str, Any]:
    """What the journal and its lock say of a run: status (``running``, ``crashed`` or as ended) and the last record."""
    last = last_record(folder / JOURNAL)
    if last is not None and last.hook == "on_run_end":
        return {"status": str(last.data.get("status")), "last": last}
    return {"status": "running" if is_locked(folder / LOCK) else noted(folder) or "crashed", "last": last}


def append_record(writer: Writer, hook: str, data: dict[str, Any]) -> None:
    """Append one record to a run whose own process is gone; a disk that refuses is said, and nothing changes."""
    try:
        record = Record(writer.seq, time.time(), hook, data)
        writer.append([encode(record)])
        writer.wrote([(writer.end, record)])
    except OSError as error:
        warn("the journal cannot be written: %s", error)
