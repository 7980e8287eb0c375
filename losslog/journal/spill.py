"""Records that the disk of the journal did not take, written elsewhere, and taken back.

`spill` runs where a run is closed, `take_back` in the command ``losslog replay``. Contract:

- A spill file is one line that says of which run it is, then lines as in a journal. It is made anew, and only there
  where a folder answers within two seconds: the disk that hangs may be the one that everything lies on.
- Taking it back appends what the journal does not have; a second time nothing.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from losslog.errors import JournalError
from losslog.journal.file import Writer
from losslog.journal.files import opened
from losslog.journal.folder import JOURNAL
from losslog.journal.lines import read
from losslog.journal.records import Record, encode
from losslog.runtime.containment import attempt
from losslog.runtime.pace import start_thread

PATIENCE: Final = 2.0  # seconds that a folder gets to take it
AT_ONCE: Final = 1024  # records a write
RUN: Final = "losslog_spill"  # the first line's key


class Unwritten:
    """A journal's writer, as far as records are numbered by it, for those that are not written."""

    unsynced_for = 0.0

    def __init__(self, writer: Writer) -> None:
        self.seq, self.end, self.alert_keys = writer.seq, writer.end, {*writer.alert_keys}

    def moved(self) -> bool:
        """Never."""
        return False

    def sync(self) -> None:
        """Nothing."""


def spill(lines: Sequence[bytes], run: str) -> Path | None:
    """Write records to the working directory, else to the folder for temporary files; where they are, or None.

    Args:
        lines: of the records.
        run: the run's id.
    """
    for folder in (os.curdir, tempfile.gettempdir()):
        done = threading.Event()
        found: list[Path] = []

        def write(folder: str = folder, done: threading.Event = done, found: list[Path] = found) -> None:
            path, _ = attempt(_write, Path(folder).absolute(), lines, run)
            found.extend([] if path is None else [path])
            done.set()

        if attempt(start_thread, write, "losslog-spill")[0] is None:
            write()  # no thread can be had: this one is waited for anyway
        if done.wait(PATIENCE) and found:
            return found[0]
    return None


def _write(folder: Path, lines: Sequence[bytes], run: str) -> Path:
    count = 1
    while True:
        path = folder / f"losslog-spill-{run}{'' if count == 1 else f'-{count}'}.jsonl"
        try:
            fd = opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            count += 1
            continue
        with open(fd, "wb") as file:
            file.write(json.dumps({RUN: run}).encode("ascii") + b"\n")
            file.writelines(lines)
        return path


def take_back(folder: Path, path: Path) -> int:
    """Append what a spill file has and the journal has not; how many records that were.

    Args:
        folder: the run folder.
        path: the file.

    Raises:
        JournalError: it is no spill file of this run.
        RunLocked: the run is live.
        OSError: it cannot be read, or the journal cannot be written.
    """
    with open(opened(path), "rb") as file:
        head, error = attempt(json.loads, file.readline(1000))
    if error is not None or not isinstance(head, dict) or head.get(RUN) != folder.name:
        raise JournalError(f"{path} is no spill file of the run {folder.name}")
    spilt = [record for _, record in read(path) if record is not None]
    writer = Writer(folder)
    try:
        first = min((record.seq for record in spilt), default=0)
        there = {_alike(each) for _, each in read(folder / JOURNAL) if each is not None and each.seq >= first}
        new = [record for record in spilt if _alike(record) not in there]
        for first in range(0, len(new), AT_ONCE):
            some = [each._replace(seq=writer.seq + more) for more, each in enumerate(new[first : first + AT_ONCE])]
            lines, end = [encode(each) for each in some], writer.end
            writer.append(lines)
            writer.wrote(
                list(zip(itertools.accumulate(map(len, lines[1:]), initial=end + len(lines[0])), some, strict=True))
            )
        return len(new)
    finally:
        writer.close()


def _alike(record: Record) -> bytes:
    """What is the same for a record under whatever number: it may have got another when it was taken back."""
    return encode(record._replace(seq=0))
