"""The form of a compressed journal: blocks that stand alone, and a table of them at the end.

Any thread; reads only. Contract:

- ``zstdcat`` and ``zcat`` read it too: a block is a frame, or a member, and the table is one that they pass over.
- The table is small, and checked: a file without it is none of ours.
"""

from __future__ import annotations

import functools
import importlib
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Final

from losslog.errors import JournalError
from losslog.journal.files import reading
from losslog.runtime.containment import attempt

MOST: Final = 16_000  # blocks: their table fits a gzip header
_GZIP: Final = b"\x1f\x8b\x08\x04\0\0\0\0\0\xff"  # a member with an extra field
_EMPTY: Final = b"\x03\0\0\0\0\0\0\0\0\0"  # nothing, its sum, its length
_SKIPPED: Final = 0x184D2A5E  # of a zstandard frame that readers pass over
_MARK: Final = b"LL"


class Table:
    """Where the blocks of a compressed journal are."""

    def __init__(self, size: int, block: int, packed: tuple[int, ...]) -> None:
        self.size, self.block, self.packed = size, block, packed
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
        if len(tail) == 8:
            total, count = struct.unpack("<II", tail)
            if 12 <= count <= min(length, 4 * MOST + 64):
                file.seek(length - after - 8 - count)
                body = file.read(count)
                if zlib.crc32(body) == total:
                    size, block, *packed = struct.unpack(f"<QI{(count - 12) // 4}I", body)
                    if block > 0 and len(packed) == -(-size // block) and sum(packed) < length:
                        return Table(size, block, tuple(packed))
    raise OSError(f"{path} is not a compressed journal, or it is damaged at its end")
