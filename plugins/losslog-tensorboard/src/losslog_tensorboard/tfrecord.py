"""The frame around each event in an event file, and the one writer of such a file.

No thread. Contract:

- A record is ``length (u64) | masked crc32c of length (u32) | data | masked crc32c of data (u32)``, little endian.
- `EventFile` is opened once, written from its end by whole records only, and never opened again for writing.
- Its name sorts behind every event file already in the folder, whatever the clock says: readers go by name.
- `read` yields whole records and stops at the first one that is torn or damaged, as TensorBoard's readers do.
"""

from __future__ import annotations

import functools
import itertools
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

PREFIX: Final = "events.out.tfevents."
_HEADER: Final = struct.Struct("<QI")
_CRC: Final = struct.Struct("<I")
_MASK_DELTA: Final = 0xA282EAD8  # from tensorflow/core/lib/hash/crc32c.h
_serial: Final = itertools.count()

_crc32c: Callable[[bytes], int]
try:
    import google_crc32c

    _crc32c = google_crc32c.value
except ImportError:  # no wheel for this platform: TensorBoard's own in Python, 25 us an event instead of 0.1
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import crc32c

    _crc32c = crc32c


def masked_crc(data: bytes) -> int:
    """The checksum as event files store it."""
    crc = _crc32c(data)
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """One record."""
    return _head(len(data)) + data + _CRC.pack(masked_crc(data))


@functools.lru_cache(maxsize=256)  # events of one run are of few lengths
def _head(size: int) -> bytes:
    length = size.to_bytes(8, "little")
    return length + _CRC.pack(masked_crc(length))


def read(path: Path) -> Iterator[bytes]:
    """The data of every whole record of a file.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        while len(head := file.read(_HEADER.size)) == _HEADER.size:
            length, crc = _HEADER.unpack(head)
            if masked_crc(head[:8]) != crc:
                return
            body = file.read(length + _CRC.size)
            if len(body) < length + _CRC.size or _CRC.unpack(body[length:])[0] != masked_crc(body[:length]):
                return
            yield body[:length]


def event_files(folder: Path) -> list[Path]:
    """The event files of a folder in the order in which readers take them."""
    found = sorted(folder.glob(f"{PREFIX}*")) if folder.is_dir() else []
    return [path for path in found if path.is_file()]  # a pipe would never end


class EventFile:
    """A new event file.

    Args:
        folder: where; made if it is missing.

    Raises:
        OSError: it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        second = int(time.time())
        for path in event_files(folder):
            stamp = path.name[len(PREFIX) :].partition(".")[0]
            if stamp.isdecimal():
                second = max(second, int(stamp) + 1)
        host = socket.gethostname() or "localhost"
        self.path = folder / f"{PREFIX}{second:010d}.{host}.{os.getpid()}.{next(_serial)}"
        self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        self._links = os.fstat(self._fd).st_nlink  # some network file systems say 0 for every file

    def write(self, data: bytes) -> None:
        """Append whole records; after an error the file ends in a torn record and must be left.

        Raises:
            OSError: not all of it was written, or somebody removed the file.
        """
        while data:
            data = data[os.write(self._fd, data) :]
        if os.fstat(self._fd).st_nlink < self._links:
            raise FileNotFoundError(f"{self.path} was removed while it was being written")

    def sync(self) -> None:
        """Bring what was written to the disk itself.

        Raises:
            OSError: the disk refused.
        """
        os.fsync(self._fd)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
