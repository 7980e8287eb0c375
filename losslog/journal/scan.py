"""Journals read fast: what is not a batch is decoded, batches are decoded many at a time.

Any thread; reads only. Contract:

- Complete lines only; a torn last line is left for the next look, a garbled one is counted and skipped.
- A batch record is known by the beginning of its line, so that counting them costs no decoding.
- The memory used is that of one block, whatever the size of the journal.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from losslog.journal.archive import reading
from losslog.journal.lines import LONGEST
from losslog.journal.records import Record, decode
from losslog.journal.shapes import fits

BLOCK: Final = 1 << 20
BATCH: Final = b'"hook": "on_batch_losses"'
RESUME: Final = b'"on_resume"'
HEAD: Final = 96  # bytes of a line in which its hook stands
_loads: Final = json.JSONDecoder().decode


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
    try:
        return decode(line)
    except ValueError:
        return None


def resumes(path: Path, offset: int = 0) -> list[Record]:
    """The ``on_resume`` records from ``offset`` on.

    Raises:
        OSError: the file cannot be read.
    """
    return resumes_upto(path, offset)[0]


def resumes_upto(path: Path, offset: int) -> tuple[list[Record], int]:
    """The ``on_resume`` records from ``offset`` on, and where the last complete line ends.

    Raises:
        OSError: the file cannot be read.
    """
    found = []
    for end, piece in blocks(path, offset):
        offset = end
        if RESUME in piece:
            records = [record_of(line) for line in piece.split(b"\n") if RESUME in line]
            found += [each for each in records if each is not None and each.hook == "on_resume"]
    return found, offset


def batches(lines: Sequence[bytes]) -> tuple[list[Record], int]:
    """The records of many lines, and how many lines were garbled. NaN and infinities may still be spelt as strings."""
    try:
        rows: list[Any] = _loads(f"[{b','.join(lines).decode('ascii')}]")
        found = [Record(row["seq"], row["time"], row["hook"], row["data"]) for row in rows]
        if not all(fits(*each) for each in found):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        each_alone = [record_of(line) for line in lines]
        found = [each for each in each_alone if each is not None]
    return found, max(0, len(lines) - len(found))
