"""The form of a compressed journal: blocks that stand alone, and a table of them at the end.

Any thread; reads only. Contract:

- ``zstdcat`` and ``zcat`` read it too: a block is a frame, or a member, and the table is one that they pass over.
- The table is small, and checked. Where it is gone, or something stands behind it, the file was cut or written to: that
  is said, and the blocks are found by their own beginnings and sums; one without a single whole block is none of ours.
- What ``gzip`` or ``zstd`` made of a journal is one block without a table, and whole where its sum holds.
"""

from __future__ import annotations

import functools
import importlib
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from losslog.errors import JournalError
from losslog.journal.files import reading
from losslog.runtime.containment import attempt
from losslog.runtime.notices import warn

MOST: Final = 16_000  # blocks: their table fits a gzip header
_GZIP: Final = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff"  # a member with an extra field
_EMPTY: Final = b"\x03\0\0\0\0\0\0\0\0\0"  # nothing, its sum, its length
_SKIPPED: Final = 0x184D2A5E  # of a zstandard frame that readers pass over
_MARK: Final = b"LL"
_BEGINS: Final = {".gz": b"\x1f\x8b\x08\0", ".zst": b"\x28\xb5\x2f\xfd"}  # of a block
_OURS: Final = {".gz": b"\x1f\x8b\x08\0\0\0\0\0", ".zst": b"\x28\xb5\x2f\xfd"}  # no name, no time
_SMALLEST: Final = 1 << 18  # bytes of a block of ours, but the last
_TABLE: Final = {".gz": _GZIP, ".zst": struct.pack("<I", _SKIPPED)}  # of the table
_LARGEST: Final = 1 << 24  # bytes of a block that is looked for
_FOREIGN: Final = 1 << 26  # bytes of a journal that another tool packed as one
_PIECE: Final = 1 << 16
_SEARCHED: Final = 1 << 30  # bytes of a file without a table that are looked through
_TRIED: Final = 1000  # places at which a table, or a block, may seem to begin and does not
_DENSEST: Final = 4096  # bytes that one byte of a journal may unpack to: what says more is made up


class Table:
    """Where the blocks of a compressed journal are; not ``whole`` where its own table is gone, and perhaps more."""

    def __init__(self, size: int, block: int, packed: tuple[int, ...], *, whole: bool = True) -> None:
        self.size, self.block, self.packed, self.whole = size, block, packed, whole
        self.starts = [0]
        for each in packed:
            self.starts.append(self.starts[-1] + each)


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
    found: ModuleType | None
    found, _ = attempt(importlib.import_module, "zstandard")
    return found


def footer(suffix: str, size: int, block: int, packed: list[int]) -> bytes:
    """The table of blocks, as a frame that tools pass over; its own length stands where the file's end tells it."""
    body = struct.pack(f"<QI{len(packed)}I", size, block, *packed)
    body += struct.pack("<II", zlib.crc32(body), len(body))
    if suffix == ".zst":
        return struct.pack("<II", _SKIPPED, len(body)) + body
    return _GZIP + struct.pack("<H2sH", len(body) + 4, _MARK, len(body)) + body + _EMPTY


def table_of(path: Path) -> Table:
    """Where the blocks are.

    Raises:
        OSError: it is not a compressed journal, or it is damaged there.
    """
    found = path.stat()
    return _table_at(path, found.st_size, found.st_mtime_ns, found.st_ino)


@functools.lru_cache(16)
def _table_at(path: Path, length: int, _changed: int, _inode: int) -> Table:
    after = len(_EMPTY) if path.suffix == ".gz" else 0
    with reading(path) as file:
        file.seek(max(0, length - after - 8))
        tail = file.read(8)
        count = struct.unpack("<II", tail)[1] if len(tail) == 8 else length
        if count <= min(length - after - 8, 4 * MOST + 64):
            file.seek(length - after - 8 - count)
            found = _parsed(file.read(count + 8), length)
            if found is not None:
                return found
        file.seek(0)
        data = file.read() if length <= _SEARCHED else b""
    found = _foreign(data, path.suffix)
    if found is not None:
        return found
    found = _table_within(data, path.suffix) or _walked(data, path.suffix)
    if found is None:
        raise OSError(f"{path} is not a compressed journal, or it is damaged at its end: unpack it, if it is whole")
    missing = "nothing is missing" if found.whole else "it was cut, or another tool made it; what is there is read"
    warn("%s is damaged at its end: %s", path, missing)
    return found


def _parsed(body: bytes, length: int) -> Table | None:
    """The table in its frame, with sum and length; None where it is none."""
    told = (zlib.crc32(body[:-8]), len(body) - 8)
    if not 20 <= len(body) <= 4 * MOST + 64 or len(body) % 4 or struct.unpack("<II", body[-8:]) != told:
        return None
    size, block, *packed = struct.unpack(f"<QI{(len(body) - 20) // 4}I", body[:-8])
    right = 0 < block <= _LARGEST and len(packed) == -(-size // block) and sum(packed) < length
    return Table(size, block, tuple(packed)) if right and size <= _DENSEST * length else None


def _foreign(data: bytes, suffix: str) -> Table | None:
    """The table of a journal that another tool packed as one, and whole; None where it is none.

    A single block of ours, the rest of which was cut, is told by its length.
    """
    end, size = _block_at(data, 0, suffix, _FOREIGN)
    ours = data.startswith(_OURS[suffix]) and size % _SMALLEST == 0
    return Table(size, size, (end,)) if size and end == len(data) and not ours else None


def _table_within(data: bytes, suffix: str) -> Table | None:
    """The last table, wherever it stands."""
    begin, size, before = (_GZIP, "<H", 4) if suffix == ".gz" else (_TABLE[suffix], "<I", 0)
    at = len(data)
    for _ in range(_TRIED):
        at = data.rfind(begin, 0, at)
        if at < 0:
            break
        start = at + len(begin) + struct.calcsize(size)
        told = data[at + len(begin) : start]
        if len(told) == struct.calcsize(size):
            end = start + struct.unpack(size, told)[0]
            found = _parsed(data[start + before : end], len(data))
            if found is not None:
                return found
    return None


def _walked(data: bytes, suffix: str) -> Table | None:
    """A table made of the blocks that are found; what lies between two of them is taken for a damaged one."""
    begin, table, at, from_, left, most = _BEGINS[suffix], _TABLE[suffix], 0, 0, _TRIED, 2 * MOST
    packed: list[int] = []
    sizes: list[int] = []
    while left and len(packed) <= most and 0 <= at < len(data) and not table.startswith(data[at : at + len(table)]):
        end, size = _block_at(data, at, suffix)
        if size:
            if at > from_:
                packed.append(at - from_)
                sizes.append(0)
            packed.append(end - at)
            sizes.append(size)
            at = from_ = end
        else:
            left -= 1
            at = min((found for each in (begin, table) if (found := data.find(each, at + 1)) >= 0), default=-1)
    end = len(data) if at < 0 else at
    if end > from_:
        packed.append(end - from_)
        sizes.append(len(begun(data[from_:end], suffix)) or 2 * bool(sizes))
    block = max(sizes, default=0)
    whole = (len(sizes) - 1) * block + sizes[-1] if block > 1 else 0
    if not left or len(packed) > most or not 0 < whole <= _DENSEST * len(data) or not {*sizes[:-1]} <= {0, block}:
        return None
    return Table(whole, block, tuple(packed), whole=False)


def begun(data: bytes, suffix: str) -> bytes:
    """What a block that was cut still gives."""
    if suffix == ".zst" and not 0 < _content(data) <= _LARGEST:
        return b""
    unpacker, found, size = _unpacker(suffix), [], 0
    for at in range(0, len(data), 1 << 10):
        out, _ = attempt(unpacker.decompress, data[at : at + (1 << 10)])
        size += len(out or b"")
        if out is None or unpacker.eof or size > _LARGEST:
            break
        found.append(out)
    return b"".join(found)


def _content(data: bytes) -> int:
    """How long a frame of zstandard says that it is unpacked; 0 where it is none."""
    codec(".zst")
    module: Any = zstandard()
    told: Any = attempt(module.get_frame_parameters, data[:18])[0]
    return told.content_size if told is not None else 0


def _unpacker(suffix: str) -> Any:
    module: Any = zstandard()
    return zlib.decompressobj(31) if suffix == ".gz" else module.ZstdDecompressor().decompressobj()


def _block_at(data: bytes, at: int, suffix: str, most: int = _LARGEST) -> tuple[int, int]:
    """Where the block that begins there ends, and its length unpacked; 0 where there is no whole one."""
    if suffix == ".zst" and not 0 < _content(data[at : at + 18]) <= most:
        return at, 0
    unpacker = _unpacker(suffix)
    size = 0
    while not unpacker.eof and at < len(data) and size <= most:
        out, error = attempt(unpacker.decompress, data[at : at + _PIECE])
        if out is None or error is not None:
            return at, 0
        size, at = size + len(out), at + len(data[at : at + _PIECE])
    return (at - len(unpacker.unused_data), size) if unpacker.eof and size <= most else (at, 0)
