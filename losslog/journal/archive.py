"""A journal that was compressed, read as if it were not; and how one becomes the other.

Any thread. Contract:

- A folder's journal is ``journal.jsonl``, and where that is not there ``journal.jsonl.zst`` or ``journal.jsonl.gz``:
  the same bytes at the same offsets, in blocks, so that a reader goes anywhere without unpacking what is before.
- A change of form is a file written beside, read back and compared, made durable, and renamed; only then does the other
  form go. Killed at any moment, one whole form is there, and where both are, ``journal.jsonl`` counts.
- A block that cannot be unpacked is a garbled line.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from losslog.journal.files import opened
from losslog.journal.files import reading as reading_plain
from losslog.journal.folder import FORMS, JOURNAL
from losslog.journal.packing import MOST, Table, begun, codec, footer, table_of, zstandard
from losslog.runtime.containment import attempt
from losslog.runtime.pace import Guard

BLOCK: Final = 1 << 18
RECENT: Final = 8  # unpacked blocks that are kept for whoever reads on


def form_of(path: Path) -> Path:
    """The file that has the journal: ``path`` itself, or its compressed form where that alone is there."""
    if path.exists() or path.name != JOURNAL:
        return path
    return next((each for each in map(path.with_name, FORMS) if each.exists()), path)


def size_of(path: Path) -> int:
    """The journal's length in bytes, whatever its form.

    Raises:
        OSError: there is none.
    """
    form = form_of(path)
    return form.stat().st_size if form == path else table_of(form).size


def damage(path: Path, *, most: int | None = None) -> str:
    """What is missing in a compressed journal, in words; "" for nothing, and where it is plain.

    Args:
        path: The journal.
        most: Bytes, packed, up to which every block is tried; of a longer one it is only known whether it was cut.

    Raises:
        OSError: it cannot be read.
    """
    form = form_of(path)
    if form == path:
        return ""
    with Unpacked(form) as file:
        said = file.damage(tried=most is None or form.stat().st_size <= most)
    return said and f"{form.name} is damaged: {said}"


def reading(path: Path) -> BinaryIO:
    """The journal, open for reading, whatever its form.

    Raises:
        OSError: there is none, it is no regular file, or it cannot be read.
    """
    for last in (False, False, True):  # it may change its form between the two
        form = form_of(path)
        try:
            return reading_plain(path) if form == path else cast(BinaryIO, Unpacked(form))
        except FileNotFoundError:
            if last:
                raise
    raise AssertionError


_recent: dict[tuple[Table, int], bytes] = {}
_guard: Final = Guard()


class Unpacked(io.RawIOBase):
    """A compressed journal as the file it was made from.

    Args:
        path: the compressed file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0
        self._table = table_of(path)
        self._unpack = codec(path.suffix)[1]
        self._file = reading_plain(path)

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go there."""
        self._at = offset + (0, self._at, self._table.size)[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        """As much as was asked for, less only at the end."""
        end = self._table.size if size is None or size < 0 else min(self._table.size, self._at + size)
        parts = []
        while self._at < end:
            number, start = divmod(self._at, self._table.block)
            part = self._unpacked(number)[start : start + end - self._at]
            parts.append(part)
            self._at += len(part)
        return b"".join(parts)

    def readinto(self, buffer: Any) -> int:
        """As `read`."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _unpacked(self, number: int) -> bytes:
        key = (self._table, number)
        with _guard:
            found = _recent.get(key)
        if found is None:
            length = self._length(number)
            data = self._whole(number)
            found = b"?" * (length - 1) + b"\n" if data is None else data
            with _guard:
                _recent[key] = found
                for old in list(_recent)[:-RECENT]:
                    del _recent[old]
        return found

    def _length(self, number: int) -> int:
        return min(self._table.block, self._table.size - number * self._table.block)

    def _whole(self, number: int) -> bytes | None:
        self._file.seek(self._table.starts[number])
        packed = self._file.read(self._table.packed[number])
        data, _ = attempt(self._unpack, packed)
        if data is None and not self._table.whole and number == len(self._table.packed) - 1:
            data = begun(packed, self._path.suffix)
        return data if data is not None and len(data) == self._length(number) else None

    def damage(self, *, tried: bool = True) -> str:
        """What cannot be read of it, in words: all of it is tried, or it is only told whether it was cut."""
        count = len(self._table.packed)
        lost = sum(self._whole(number) is None for number in range(count)) if tried else 0
        blocks = f"{lost} of {count} blocks cannot be unpacked: the lines in them are missing"
        return "; ".join(["it was cut: what came then is missing"] * (not self._table.whole) + [blocks] * bool(lost))

    def close(self) -> None:
        """Close the file."""
        if not self.closed and hasattr(self, "_file"):
            self._file.close()
        super().close()


def pack(path: Path, end: int) -> Path:
    """Compress a journal that nobody writes or delivers from; the plain file goes last.

    Args:
        path: the plain journal.
        end: its length without a torn last line.

    Returns:
        The compressed file.

    Raises:
        OSError: it cannot be done, or a reader holds the file where such files cannot be removed; the plain one stays.
    """
    suffix = ".zst" if zstandard() is not None else ".gz"
    _forget(path)  # of an earlier try that was killed between the two
    target = path.with_name(path.name + suffix)
    block = max(BLOCK, -(-end // MOST))
    compress = codec(suffix)[0]
    packed: list[int] = []

    def parts() -> Iterator[bytes]:
        for data in _pieces(path, end, block):
            packed.append(len(part := compress(data)))
            yield part
        yield footer(suffix, end, block, packed)

    _written(target, parts(), path, end)
    try:
        path.unlink()
    except OSError:  # Windows, while somebody reads it
        target.unlink(missing_ok=True)
        raise
    return target


def unpack(path: Path) -> None:
    """Make the plain journal again, where it is compressed; nobody else may write to it meanwhile.

    Raises:
        OSError: it cannot be done; the compressed one stays.
    """
    form = form_of(path)
    if form != path:
        end = size_of(path)
        _written(path, _pieces(path, end, BLOCK), form, end, whole=True)
    _forget(path)


def _forget(path: Path) -> None:
    """Remove compressed forms beside a plain journal."""
    for name in FORMS[1:]:
        path.with_name(name).unlink(missing_ok=True)


def _pieces(path: Path, end: int, block: int) -> Iterator[bytes]:
    with reading(path) as file:
        at = 0
        while at < end and (data := file.read(min(block, end - at))):
            at += len(data)
            yield data


def _written(target: Path, parts: Iterator[bytes], source: Path, end: int, *, whole: bool = False) -> None:
    """Write ``target`` beside its place, compare what it unpacks to with ``source``, and put it there."""
    temporary = target.with_name(f"packing{target.suffix}")
    temporary.unlink(missing_ok=True)
    try:
        with open(opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        with reading_plain(temporary) if whole else Unpacked(temporary) as copy:
            for data in _pieces(source if not whole else target, end, BLOCK):
                if copy.read(len(data)) != data:
                    raise OSError(f"{temporary} does not give back what was written: nothing was changed")
        stat = source.stat()
        os.utime(temporary, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make names durable where the platform can."""
    fd, error = attempt(os.open, folder, os.O_RDONLY)
    if error is None and fd is not None:
        attempt(os.fsync, fd)
        os.close(fd)
