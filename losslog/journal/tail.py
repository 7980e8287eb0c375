"""The end of a journal, decoded once for all lanes of a process.

Lanes' threads, and the drain thread that publishes. Contract:

- A file that was cut, or changed before the place where it was read to, is noticed at the next look: `Tail.cuts` counts
  it, and lanes find their place again by the records' numbers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from losslog.journal.archive import reading, size_of
from losslog.journal.file import Writer
from losslog.journal.lines import in_order, lines_from, records_in
from losslog.journal.records import Record
from losslog.runtime.containment import attempt
from losslog.runtime.notices import Once
from losslog.runtime.pace import Bell, Guard

MARK: Final = 64  # bytes before a place by which it is known again


class Tail:
    """The decoded end of a journal, shared by the lanes of one process, so that a record is decoded once.

    Args:
        path: the journal.
        window: how many records are kept decoded, and at least twice what was added last; a lane further behind reads
            the file itself. Small, since objects that live long bring on the garbage collector's walks through all
            there is, torch's objects too (0.1 s and more each).
        own: the process that writes publishes what it wrote, and never reads at the end.

    Attributes:
        bells: set when something was published: one of each lane that waits.
        cuts: how often the file was cut, or changed before the end: places in it mean nothing any more.
    """

    def __init__(self, path: Path, *, window: int = 512, own: bool = False, offset: int = 0) -> None:
        self.path = path
        self.bells: set[Bell] = set()
        self._window = window
        self._own = own
        self._lock, self._once = Guard(), Once()
        self._start = offset
        self._ends: list[int] = []
        self._records: list[Record | None] = []
        self.cuts = 0
        self._before: tuple[int, bytes] = (0, b"")  # an offset, and what stands before it

    @property
    def end(self) -> int:
        """Offset up to which records are decoded."""
        return self._ends[-1] if self._ends else self._start

    def publish(self, found: Sequence[tuple[int, Record | None]]) -> None:
        """Add records that follow the present end, and wake who waits for them."""
        with self._lock:
            self._extend(found)
        for bell in tuple(self.bells):
            bell.set()

    def cut(self, end: int) -> None:
        """The file was cut, and ends there."""
        with self._lock:
            self.cuts += 1
            self._start, self._ends, self._records = end, [], []

    def _is_as_before(self, offset: int) -> bool:
        """Whether what stands before an offset still does; without a look where nothing was read to there."""
        known = b""
        if offset and attempt(size_of, self.path)[0] is not None:
            with reading(self.path) as file:
                file.seek(max(offset - MARK, 0))
                known = file.read(min(MARK, offset))
        if self._before[0] == offset and known != self._before[1]:
            return False
        self._before = offset, known
        return True

    def _extend(self, found: Sequence[tuple[int, Record | None]]) -> None:
        self._ends += [end for end, _ in found]
        self._records += [record for _, record in found]
        spare = len(self._ends) - max(self._window, 2 * len(found))
        if spare > self._window // 2:
            self._start = self._ends[spare - 1]
            del self._ends[:spare], self._records[:spare]

    def read(self, offset: int, limit: int = 1024) -> list[tuple[int, Record | None]]:
        """Records after ``offset``, at most ``limit``; empty at the end.

        Raises:
            OSError: the file cannot be read.
        """
        with self._lock:
            if offset >= self._start:
                if offset > self.end and not self._own:  # a lane that starts ahead of what was decoded so far
                    self._start, self._ends, self._records = offset, [], []
                if offset == self.end and not self._own:
                    if not self._is_as_before(offset):
                        self.cuts += 1
                        self._start, self._ends, self._records, self._before = 0, [], [], (0, b"")
                        return []
                    lines, start, _ = lines_from(self.path, offset)
                    self._extend(self._mended(records_in(lines, start), offset))
                    self._is_as_before(self.end)
                first = bisect_right(self._ends, offset) if self._ends else 0
                if offset == (self._ends[first - 1] if first else self._start):
                    return list(
                        zip(self._ends[first : first + limit], self._records[first : first + limit], strict=True)
                    )
        lines, start, _ = lines_from(self.path, offset)
        return self._mended(records_in(lines, start), offset)[:limit]

    def _mended(self, found: list[tuple[int, Record | None]], offset: int) -> list[tuple[int, Record | None]]:
        if in_order(found, offset):
            self._once("%s has numbers that do not rise by one: its records are handed over as they stand; "
                       "a backend may leave out those whose numbers fall", self.path.name)  # fmt: skip
        return found


def strangers(writer: Writer, tail: Tail) -> int:
    """Publish what somebody else wrote to the file, and notice a cut; by how much the writer's numbers went on.

    Raises:
        OSError: that cannot be found out.
    """
    seq, cuts = writer.seq, writer.cuts
    found = writer.strangers()
    if writer.cuts != cuts:
        tail.cut(found[0][0] if found else writer.end)
    if found:
        tail.publish(found)
    return writer.seq - seq
