"""How far each plugin is, durably.

Lane threads. Contract:

- A cursor is a small file in the run folder, replaced at each commit (temporary file, then ``os.replace``).
- One reader owns a cursor, by a kernel lock.
- It tells what was delivered (before it, but for `skipped`), what was skipped, and what is still to come.
- A cursor beyond the end (power cut) or inside a line is set back.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from losslog.journal.archive import reading, size_of
from losslog.journal.files import own_folder, small, write_anew
from losslog.journal.folder import CURSORS, stem_of
from losslog.journal.lines import read
from losslog.journal.locks import Lock
from losslog.runtime.containment import is_read_only


class Position(NamedTuple):
    """A place in a journal, between two records.

    Attributes:
        offset: bytes before it.
        seq: that of the record before it, -1 at the beginning.
    """

    offset: int
    seq: int


BEGINNING: Final = Position(0, -1)
RANGES: Final = 256  # of skipped records remembered apart; beyond, those next to each other become one


class Seqs:
    """A set of records by seq, as ranges.

    Args:
        ranges: pairs of first and last seq.
    """

    def __init__(self, ranges: Iterable[Sequence[int]] = ()) -> None:
        self.ranges: list[list[int]] = []
        for first, last in sorted((int(first), int(last)) for first, last in ranges):
            if last >= first >= 0:
                self._join(first, last)

    def _join(self, first: int, last: int) -> None:
        if self.ranges and first <= self.ranges[-1][1] + 1:
            self.ranges[-1][1] = max(self.ranges[-1][1], last)
        else:
            self.ranges.append([first, last])

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges)

    def __contains__(self, seq: int) -> bool:
        return any(first <= seq <= last for first, last in self.ranges)

    def add(self, seq: int) -> None:
        """One more."""
        self.ranges = Seqs([*self.ranges, (seq, seq)]).ranges
        if len(self.ranges) > RANGES:
            gaps = [after[0] - before[1] for before, after in itertools.pairwise(self.ranges)]
            at = gaps.index(min(gaps))
            self.ranges[at : at + 2] = [[self.ranges[at][0], self.ranges[at + 1][1]]]

    def upto(self, seq: int) -> Seqs:
        """Those no later than this one."""
        return Seqs((first, min(last, seq)) for first, last in self.ranges)


class Cursor:
    """How far one plugin is durable: a small file replaced at each commit, and a lock so that one reader owns it.

    Args:
        folder: the run folder; None keeps the cursor in memory (hooks of the user's script).
        name: the plugin's name.

    Attributes:
        name: the plugin's.
        at: after the last durable record.
        start: offset of the last ``on_run_start`` handled.
        skipped: records before `at` that the plugin did not take.
        remembers: False on a read-only file system, where it stays in memory and nobody else can own it.
    """

    def __init__(self, folder: Path | None, name: str) -> None:
        self.name = name
        self.path = None if folder is None else folder / CURSORS / f"{stem_of(name)}.json"
        self._lock = None if self.path is None else Lock(self.path.with_suffix(".lock"))
        self.at = BEGINNING
        self.start = 0
        self.skipped = Seqs()
        self.remembers = True

    def acquire(self) -> bool:
        """Own the cursor and load it; False where another lane (here or in another process) owns it."""
        if self.path is None or self._lock is None:
            return True
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o775)
            own_folder(self.path.parent)
            if not self._lock.acquire():
                return False
        except OSError as error:
            if not is_read_only(error):
                raise
            self.remembers = False
        self.load()
        return True

    def load(self) -> None:
        """Read the file; an absent or broken one means the beginning."""
        if self.path is None:
            return
        try:
            own_folder(self.path.parent)
            body = json.loads(small(self.path))
            self.at, self.start = Position(int(body["offset"]), int(body["seq"])), int(body["start"])
            self.name = str(body.get("plugin", self.name))
            self.skipped = Seqs(body.get("skipped", ()))
        except (FileNotFoundError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            self.start = -1
        if min(self.at.offset, self.start) < 0:
            self.at, self.start, self.skipped = BEGINNING, 0, Seqs()

    def commit(self, at: Position) -> None:
        """Remember that everything up to there is durable.

        Raises:
            OSError: the file cannot be written; the old one stays.
        """
        try:
            if self.path is not None and self.remembers:
                self._replace(self.path, json.dumps(self._body(at)))
        finally:  # who sees the new position may rely on the file being there, or having failed
            self.at = at

    def _body(self, at: Position) -> dict[str, Any]:
        skipped = self.skipped.upto(at.seq).ranges
        named = {} if self.path is None or self.path.stem == self.name else {"plugin": self.name}
        return named | {**at._asdict(), "start": self.start} | ({"skipped": skipped} if skipped else {})

    def _replace(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o775)  # somebody may have deleted the run folder
        write_anew(temporary := path.with_suffix(".tmp"), text)
        os.replace(temporary, path)

    def release(self) -> None:
        """Let another reader have it."""
        if self._lock is not None:
            self._lock.release()


def stored(folder: Path) -> list[Cursor]:
    """The cursors that lie in a run folder, as they stand.

    Raises:
        OSError: the folder cannot be read.
    """
    found = []
    for path in sorted((folder / CURSORS).glob("*.json")):
        cursor = Cursor(folder, path.stem)
        cursor.path = path
        cursor.load()
        found.append(cursor)
    return found


def settle(cursor: Cursor, path: Path, *, anyway: bool = False) -> None:
    """Set a cursor that does not stand at a line's end back to one that does.

    A cursor beyond the end goes back to the end (a power cut lost what it had seen). One inside a line, where the file
    was changed under it, or ``anyway``, goes to the line after its seq.
    """
    if cursor.at.offset == 0 or (not anyway and _at_a_line(path, cursor.at.offset)):
        return
    at, start = BEGINNING, 0
    for end, record in read(path):
        if record is not None and record.seq > cursor.at.seq:
            break
        if record is not None and record.hook == "on_run_start":
            start = at.offset
        at = Position(end, at.seq if record is None else record.seq)
    cursor.at, cursor.start, cursor.skipped = at, start, cursor.skipped.upto(at.seq)


def _at_a_line(path: Path, offset: int) -> bool:
    """Whether a line of the file ends before ``offset``."""
    if offset > size_of(path):
        return False
    with reading(path) as file:
        file.seek(offset - 1)
        return file.read(1) == b"\n"
