r"""The lines of a journal, read: in order, in bounded memory, in time that grows with their length.

Any thread; reads only. Contract:

- Lines are split on ``\n`` only. A torn last line is not one yet; a garbled one, and an endless one, is None.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from losslog.journal.files import reading
from losslog.journal.records import Record, decode

CHUNK: Final = 1 << 18
LONGEST: Final = 1 << 24  # bytes of a line; a longer one is garbled


def lines_from(path: Path, offset: int) -> tuple[list[bytes], int, bool]:
    """Complete lines from ``offset`` on, about `CHUNK` bytes of them.

    Returns:
        The lines, where they begin, and whether more may follow. A line longer than `LONGEST` is not kept: it is b"?",
        and "where they begin" is such that it ends where it does.

    Raises:
        OSError: the file cannot be read.
    """
    with reading(path) as file:
        file.seek(offset)
        data = file.read(CHUNK)
        size = len(data)
        if data and b"\n" not in data:  # one line longer than the limit
            parts = [data]
            while b"\n" not in parts[-1]:
                more = file.read(CHUNK)
                if not more:
                    return [], offset, False
                size += len(more)
                parts = [*parts, more] if size <= LONGEST else [more]
            if size > LONGEST:
                end = offset + size - len(parts[-1]) + parts[-1].find(b"\n") + 1
                return [b"?"], end - 2, True
            data = b"".join(parts)
    cut = data.rfind(b"\n") + 1
    return data[:cut].split(b"\n")[:-1] if cut else [], offset, size >= CHUNK


def records_in(lines: Sequence[bytes], offset: int) -> list[tuple[int, Record | None]]:
    """Records of lines that begin at ``offset``, each with where it ends; None for a garbled one."""
    found: list[tuple[int, Record | None]] = []
    for line in lines:
        offset += len(line) + 1
        try:
            found.append((offset, decode(line)))
        except ValueError:
            found.append((offset, None))
    return found


def read(path: Path, offset: int = 0) -> Iterator[tuple[int, Record | None]]:
    """All complete lines of a journal from ``offset`` on: (end of line in bytes, record), None for a garbled line.

    Raises:
        OSError: the file cannot be read.
    """
    more = True
    while more:
        lines, start, more = lines_from(path, offset)
        found = records_in(lines, start)
        yield from found
        if not found:
            return
        offset = found[-1][0]


def whole_lines(path: Path) -> int:
    """The length of a journal without a torn last line; 0 where it is gone."""
    try:
        with reading(path) as file:
            start = file.seek(0, os.SEEK_END)
            while start > 0:
                size = min(CHUNK, start)
                start = file.seek(start - size)
                if cut := file.read(size).rfind(b"\n") + 1:
                    return start + cut
    except OSError:
        pass
    return 0
