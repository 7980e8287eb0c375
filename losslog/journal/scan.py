"""Journals read fast: what is not a batch is decoded, batches are decoded many at a time.

Any thread; reads only. Contract:

- Complete lines only; a torn last line is left for the next look, a garbled one is counted and skipped.
- A batch record is known by the beginning of its line, so that counting them costs no decoding.
- The memory used is that of one block, whatever the size of the journal.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from losslog.journal.archive import reading
from losslog.journal.lines import LONGEST
from losslog.journal.records import Record, decode
from losslog.runtime.containment import attempt

BLOCK: Final = 1 << 20
BATCH: Final = b'"hook": "on_batch_losses"'
RESUME: Final = b'"on_resume"'
HEAD: Final = 96  # bytes of a line in which its hook stands


def blocks(path: Path, offset: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
    """The journal from ``offset`` on, in pieces of complete lines: (offset after it, the piece).

    Args:
        path: the journal.
        offset: the beginning of a line.
        end: the beginning of another, where to stop; None is the end of the file.

    Raises:
        OSError: the file cannot be read.
    """
    with reading(path) as file:
        file.seek(offset)
        rest, held = [b""], 0  # the beginning of a line, and its length
        while data := file.read(BLOCK if end is None else min(BLOCK, end - offset - held)):
            cut = data.rfind(b"\n") + 1
            if not cut:  # one line longer than a block
                held += len(data)
                rest = [*rest, data] if held <= LONGEST else []
                continue
            piece = b"".join([*rest, data[:cut]]) if rest else b"?" + data[data.find(b"\n") : cut]
            offset += held + cut
            rest, held = [data[cut:]], len(data) - cut
            yield offset, piece


def is_batch(line: bytes) -> bool:
    """Whether the line is a batch record, by its beginning."""
    return BATCH in line[:HEAD]


def record_of(line: bytes) -> Record | None:
    """The record of a line; None for a garbled one."""
    return attempt(decode, line)[0]


def resumes(path: Path, offset: int = 0) -> list[Record]:
    """The ``on_resume`` records from ``offset`` on.

    Raises:
        OSError: the file cannot be read.
    """
    found = []
    for _, piece in blocks(path, offset):
        if RESUME in piece:
            records = [record_of(line) for line in piece.split(b"\n") if RESUME in line]
            found += [each for each in records if each is not None and each.hook == "on_resume"]
    return found
