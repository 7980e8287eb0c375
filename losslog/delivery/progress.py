"""How far one plugin is: what was handed over, and what of it is durable.

The lane's thread; others read `at` and `committed`. Contract:

- The cursor never passes what the plugin has made durable.
- After a failed flush everything since the last commit is handed over again, with a flush after each record.
- What was handed over is remembered in bounded memory: a plugin that is never durable only makes it coarser.
"""

from __future__ import annotations

import time
from collections import deque
from pathlib import Path
from typing import Final

from losslog.journal.cursors import BEGINNING, Cursor, Position, Seqs, settle
from losslog.journal.records import Record
from losslog.journal.tail import Tail
from losslog.runtime.containment import one_line

BATCH: Final = 1024  # records before a flush at the latest


class Progress:
    """One plugin's way through the journal.

    Args:
        cursor: where it stands, durably.

    Attributes:
        at: after the last record handed over.
        trouble: why the cursor could not be written, or "".
        unflushed: whether something was handed over since the last flush.
        held: whether a flush is to wait for what is handed over next.
        missing: records that the journal lacks, by their numbers, of those it is past.
        garbled: lines that are no records, of those it is past.
        fell: whether a number was not above all before it.
    """

    def __init__(self, cursor: Cursor) -> None:
        self.at = BEGINNING
        self.trouble = ""
        self.unflushed = self.held = self.fell = False
        self.missing = self.garbled = self._farthest = 0
        self._highest = -1
        self._cursor = cursor
        self._since = 0.0  # when the first of what is unflushed was handed over
        self._uncommitted: deque[Position] = deque()
        self._careful_until = -1
        self._limit, self._cuts = BATCH, 0

    @property
    def committed(self) -> Position:
        """After the last durable record."""
        return self._cursor.at

    @property
    def waiting(self) -> int:
        """How many records were handed over since the last commit."""
        return len(self._uncommitted)

    @property
    def start(self) -> int:
        """Offset of the last ``on_run_start`` handed over."""
        return self._cursor.start

    def acquire(self) -> bool:
        """Own the cursor; False where another reader does."""
        return self._cursor.acquire()

    def release(self) -> None:
        """Let another reader have it."""
        self._cursor.release()

    def settle(self, path: Path) -> None:
        """Stand where the cursor does, at a line's end of the journal."""
        settle(self._cursor, path)
        self.rewind()

    def read(self, tail: Tail) -> list[tuple[int, Record | None]]:
        """The next records; where somebody has cut the file, from what is left of it on.

        Raises:
            OSError: the file cannot be read.
        """
        if self._cuts != tail.cuts:
            self._cuts = tail.cuts
            settle(self._cursor, tail.path, anyway=True)
            self.rewind()
        return tail.read(self.at.offset, BATCH)

    def starts(self) -> None:
        """The next record is an ``on_run_start``."""
        self._cursor.start = self.at.offset

    @property
    def skipped(self) -> Seqs:
        """The records that the plugin did not take, of those it is past."""
        return self._cursor.skipped

    def skip(self, seq: int) -> None:
        """A record is given up; it is remembered with the next commit."""
        self._cursor.skipped.add(seq)

    def handed(self, at: Position, *, garbled: bool = False) -> None:
        """A record was handed over, or a garbled line passed over; it ends there."""
        if at.offset > self._farthest:  # what is handed over again is counted once
            self._farthest = at.offset
            self.garbled += garbled
            if self.at.seq > self._highest:  # numbers may fall where files were put together
                self._highest = self.at.seq
            if at.seq > self._highest + 1:
                self.missing += at.seq - self._highest - 1
            self.fell = self.fell or (not garbled and at.seq <= self._highest)
        self.at = at
        self._uncommitted.append(at)
        if len(self._uncommitted) > 4 * BATCH:
            self._uncommitted = deque(list(self._uncommitted)[1::2])
        if not self.unflushed:
            self.unflushed, self._since = True, time.monotonic()

    def due(self, every: float) -> bool:
        """Whether it is time for a flush: after ``every`` seconds, many records, or each one where care is needed."""
        if self.held or not self.unflushed:
            return False
        if len(self._uncommitted) >= self._limit or self.at.seq <= self._careful_until:
            return True
        return time.monotonic() - self._since >= every

    def flushed(self, upto: int | None, before: int | None) -> None:
        """A flush went well: commit.

        Args:
            upto: seq of the last durable record; None is all that was handed over, whatever a garbled seq may claim.
            before: seq of a record that may not be passed, or None.
        """
        reached, self._limit = None, min(2 * self._limit, BATCH)
        while self._uncommitted:
            first = self._uncommitted[0].seq
            if (upto is not None and first > upto) or (before is not None and first >= before):
                break
            reached = self._uncommitted.popleft()
        if reached is not None:
            self.commit(reached)
        self.unflushed, self._since = upto is not None and bool(self._uncommitted), time.monotonic()

    def commit(self, at: Position) -> None:
        """Everything up to there is durable, or given up."""
        try:
            self._cursor.commit(at)
            self.trouble = ""
        except OSError as error:  # disk full or folder gone: the next commit covers it
            self.trouble = f"the cursor cannot be written: {one_line(error)}"

    def rewind(self) -> None:
        """Stand after the last durable record again."""
        self.at = self._cursor.at
        self._cursor.skipped = self._cursor.skipped.upto(self.at.seq)
        self._uncommitted.clear()
        self.unflushed = self.held = False

    def narrow(self, another: bool = False) -> int | None:
        """Hand over half as many records before a flush; ``another`` one was too much.

        Returns:
            The seq of the record that was handed over where there is no doubt which it was.
        """
        count = len(self._uncommitted)
        self._limit = max(min(count, self._limit) // 2, 1)
        return self._uncommitted[0].seq if count == 1 and not another else None

    def careful(self) -> None:
        """A flush failed: hand it all over again, and find the record whose flush fails."""
        self._careful_until = self.at.seq
        self.rewind()

    def culprit(self, alone: bool) -> Position | None:
        """After a failed flush: the record that must be its cause, which is forgotten; None where it may be several.

        Args:
            alone: whether it is sure to be the newest, however many wait.
        """
        if self.at.seq > self._careful_until or not (len(self._uncommitted) == 1 or (alone and self._uncommitted)):
            return None
        found = self._uncommitted[-1]
        self._uncommitted.clear()
        self.unflushed = False
        return found

    def put_back(self, at: Position) -> bool:
        """Forget what was handed over after ``at``; whether something before it still needs a flush."""
        self._uncommitted = deque(each for each in self._uncommitted if each.offset <= at.offset)
        self._cursor.skipped = self._cursor.skipped.upto(at.seq)
        if self._cursor.at.offset <= at.offset:
            return bool(self._uncommitted)
        self.commit(at)
        return False

    def jump(self, tail: Tail, seq: int) -> None:
        """Stand after the record ``seq``, forwards or back."""
        at = self._cursor.at if seq > self._cursor.at.seq else BEGINNING
        more = True
        while more and (found := tail.read(at.offset)):
            for end, record in found:
                more = record is None or record.seq <= seq
                if not more:
                    break
                at = Position(end, at.seq if record is None else record.seq)
        self._cursor.at = at
        self.rewind()
