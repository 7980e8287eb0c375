"""A journal that was compressed, read as if it were not; and how one becomes the other.

Any thread. Contract:

- A folder's journal is ``journal.jsonl``, and where that is not there ``journal.jsonl.zst`` or ``journal.jsonl.gz``:
  the same bytes at the same offsets, in blocks, so that a reader goes anywhere without unpacking what is before.
- ``zstdcat`` and ``zcat`` read it too: a block is a frame, and the table of blocks one that they pass over.
- A change of form is a file written beside, read back and compared, made durable, and renamed; only then does the other
  form go. Killed at any moment, one whole form is there, and where both are, ``journal.jsonl`` counts.
- A block that cannot be unpacked is a garbled line.
"""

from __future__ import annotations

import functools
import io
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Final, cast

from losslog.errors import JournalError
from losslog.journal.files import opened
from losslog.journal.files import reading as reading_plain
from losslog.journal.folder import FORMS, JOURNAL
from losslog.runtime.containment import attempt

BLOCK: Final = 1 << 18
RECENT: Final = 8  # unpacked blocks that are kept for whoever reads on
_GZIP: Final = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff"  # a member with an extra field
_EMPTY: Final = b"\x03\0\0\0\0\0\0\0\0\0"  # nothing, its sum, its length
_SKIPPED: Final = 0x184D2A5E  # of a zstandard frame that readers pass over
_MARK: Final = b"LL"
_MOST: Final = 16_000  # blocks: their table fits a gzip header


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
    return form.stat().st_size if form == path else _table(form).size


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


def buffered(path: Path) -> io.BufferedReader:
    """As `reading`, with a buffer.

    Raises:
        OSError: as there.
    """
    return io.BufferedReader(cast(io.RawIOBase, reading(path)))


class _Table:
    """Where the blocks of a compressed journal are."""

    def __init__(self, size: int, block: int, packed: tuple[int, ...]) -> None:
        self.size, self.block, self.packed = size, block, packed
        self.starts = [0]
        for each in packed:
            self.starts.append(self.starts[-1] + each)


_recent: dict[tuple[_Table, int], bytes] = {}
_guard: Final = threading.Lock()


class Unpacked(io.RawIOBase):
    """A compressed journal as the file it was made from.

    Args:
        path: the compressed file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._at = path, 0
        self._table = _table(path)
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
            table = self._table
            length = min(table.block, table.size - number * table.block)
            self._file.seek(table.starts[number])
            data, _ = attempt(self._unpack, self._file.read(table.packed[number]))
            found = data if data is not None and len(data) == length else b"?" * (length - 1) + b"\n"
            with _guard:
                _recent[key] = found
                for old in list(_recent)[:-RECENT]:
                    del _recent[old]
        return found

    def close(self) -> None:
        """Close the file."""
        if not self.closed and hasattr(self, "_file"):
            self._file.close()
        super().close()


def codec(suffix: str) -> tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]:
    """How a block is packed and unpacked.

    Raises:
        JournalError: zstandard is not installed.
    """
    if suffix == ".gz":
        return _gzip, lambda data: zlib.decompress(data, 31)
    module = zstandard()
    if module is None:
        raise JournalError("the journal is compressed with zstandard: pip install zstandard")
    packer = module.ZstdCompressor(level=9, write_checksum=True, write_content_size=True)
    return packer.compress, lambda data: module.ZstdDecompressor().decompress(data)


def _gzip(data: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


@functools.cache
def zstandard() -> ModuleType | None:
    """The library, where it is installed."""
    import importlib

    found: ModuleType | None
    found, _ = attempt(importlib.import_module, "zstandard")
    return found


def _footer(suffix: str, size: int, block: int, packed: list[int]) -> bytes:
    """The table of blocks, as a frame that tools pass over; its own length stands where the file's end tells it."""
    body = struct.pack(f"<QI{len(packed)}I", size, block, *packed)
    body += struct.pack("<II", zlib.crc32(body), len(body))
    if suffix == ".zst":
        return struct.pack("<II", _SKIPPED, len(body)) + body
    return _GZIP + struct.pack("<H2sH", len(body) + 4, _MARK, len(body)) + body + _EMPTY


def _table(path: Path) -> _Table:
    """Where the blocks are.

    Raises:
        OSError: it is not a compressed journal, or it is damaged there.
    """
    found = path.stat()
    return _table_at(path, found.st_size, found.st_mtime_ns, found.st_ino)


@functools.lru_cache(16)
def _table_at(path: Path, length: int, _changed: int, _inode: int) -> _Table:
    after = len(_EMPTY) if path.suffix == ".gz" else 0
    with reading_plain(path) as file:
        file.seek(max(0, length - after - 8))
        tail = file.read(8)
        if len(tail) == 8:
            total, count = struct.unpack("<II", tail)
            if 12 <= count <= min(length, 4 * _MOST + 64):
                file.seek(length - after - 8 - count)
                body = file.read(count)
                if zlib.crc32(body) == total:
                    size, block, *packed = struct.unpack(f"<QI{(count - 12) // 4}I", body)
                    if block > 0 and len(packed) == -(-size // block) and sum(packed) < length:
                        return _Table(size, block, tuple(packed))
    raise OSError(f"{path} is not a compressed journal, or it is damaged at its end")


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
    block = max(BLOCK, -(-end // _MOST))
    compress = codec(suffix)[0]
    packed: list[int] = []

    def parts() -> Iterator[bytes]:
        for data in _pieces(path, end, block):
            packed.append(len(part := compress(data)))
            yield part
        yield _footer(suffix, end, block, packed)

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
