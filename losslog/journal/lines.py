r"""The lines of a journal, read: in order, in bounded memory, in time that grows with their length.

Any thread; reads only. Contract:

- Lines are split on ``\n`` only. A torn last line is not one yet; a garbled one, and an endless one, is None.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import Final, cast

from losslog.journal.archive import reading, size_of
from losslog.journal.records import Record, decode_all

CHUNK: Final = 1 << 18
END: Final = 1 << 16  # bytes at the end in which the last record is looked for first
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
    ends = accumulate(map(len, lines), lambda end, length: end + length + 1, initial=offset)
    return list(zip(islice(ends, 1, None), decode_all(lines), strict=True))


def in_order(found: list[tuple[int, Record | None]], offset: int) -> bool:
    """Put right, in place, numbers that do not rise by one, where those beside them tell; whether any was wrong.

    One flipped digit would make a backend skip what comes after. A gap, where lines were lost, is none of that: there
    the next record counts on from the number.

    Args:
        found: records that follow each other.
        offset: where the first of them begins.
    """
    places = [place for place, (_, record) in enumerate(found) if record is not None]
    seqs = [record.seq for _, record in found if record is not None]
    if not seqs or ((seqs[0] == 0 or offset > 0) and seqs == list(range(seqs[0], seqs[0] + len(seqs)))):
        return False
    wrong = False
    for each, place in enumerate(places):
        before = seqs[each - 1] if each else -1 if offset == 0 else None
        after = seqs[each + 1] if each + 1 < len(seqs) else None
        if before is None or seqs[each] == before + 1 or after == seqs[each] + 1:
            continue
        expected = before + place - (places[each - 1] if each else -1)  # garbled lines may have numbers
        most = expected + (expected - before - 1)  # two where their end is garbled
        record = found[place][1]
        if record is not None and not before < seqs[each] <= most and (after is None or after > expected):
            found[place] = (found[place][0], record._replace(seq=expected))
            seqs[each], wrong = expected, True
    return wrong


def read(path: Path, offset: int = 0) -> Iterator[tuple[int, Record | None]]:
    """All complete lines of a journal from ``offset`` on: (end of line in bytes, record), None for a garbled line.

    Raises:
        OSError: the file cannot be read.
    """
    more = True
    while more:
        lines, start, more = lines_from(path, offset)
        found = records_in(lines, start)
        in_order(found, offset)
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


def line_after(path: Path, offset: int) -> int:
    """Where the line that ``offset`` is in ends.

    Raises:
        OSError: the file cannot be read.
    """
    with io.BufferedReader(cast(io.RawIOBase, reading(path))) as file:
        file.seek(offset)
        file.readline()
        return file.tell()


def last_record(path: Path) -> Record | None:
    """The last record that can be read; the journal is read from where its end begins.

    Raises:
        OSError: the file cannot be read.
    """
    size, last = size_of(path), None
    for start in (line_after(path, size - END), 0) if size > END else (0,):
        for _, record in read(path, start):
            last = record or last
        if last is not None:
            break
    return last
