"""What W&B has of a run on this disk: the ``.wandb`` files in the run folder, read only.

Runs on the plugin's lane. Contract:

- A `LocalFile` is read forward once; a torn end is not an error, the next `LocalFile.read` goes on from there.
- A row counts when its checksum is right: what was counted is what ``wandb sync`` will send.
- ``wandb-core`` writes the files; nothing here does.

The format is that of LevelDB's log: a 7-byte header, then blocks of 32 KiB with chunks of (crc32 of type and data,
length, type: full, first, middle, last) and one serialised ``wandb_internal.Record`` in each sequence of chunks.
"""

from __future__ import annotations

import importlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

SEQ: Final = "losslog/seq"
_MAGIC: Final = b":W&B"
_BLOCK: Final = 32 * 1024
_CHUNK: Final = struct.Struct("<IHB")
_HEADER: Final = 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


class LocalFile:
    """One ``.wandb`` file.

    Attributes:
        path: the file.
        seq: the highest ``losslog/seq`` among the rows read so far, -1 where there is none.
        ended: whether the run was finished in this file, in whatever way; a killed process leaves it open.
        offline: whether it was written in offline mode.
        project: the W&B project it belongs to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seq = -1
        self.ended = False
        self.offline = path.parent.name.startswith("offline-run-")
        self.project = ""
        self._offset = _HEADER

    @property
    def synced(self) -> bool:
        """Whether ``wandb sync`` has uploaded it."""
        return self.path.with_name(self.path.name + ".synced").exists()

    def read(self) -> int:
        """Read what was added since the last call; returns `seq`."""
        record_type: Any = importlib.import_module("wandb.proto.wandb_internal_pb2").Record  # generated, untyped
        for payload in self._payloads():
            # a row is followed by a summary record with the same key, so the cheap test comes first
            if SEQ.encode() not in payload:
                record = record_type.FromString(payload)
                kind = record.WhichOneof("record_type")
                self.ended = self.ended or kind == "exit"
                if kind == "run":
                    self.project = record.run.project
                continue
            record = record_type.FromString(payload)
            for item in record.history.item:
                if SEQ in (item.key, ".".join(item.nested_key)):
                    self.seq = max(self.seq, int(float(item.value_json)))
        return self.seq

    def _payloads(self) -> Iterator[bytes]:
        """The whole records after the offset, which moves behind each one that was taken."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:  # wandb-core makes it a moment after init
            return
        with file:
            if file.read(len(_MAGIC)) != _MAGIC:
                return
            file.seek(self._offset)
            position, parts = self._offset, b""
            while True:
                room = _BLOCK - position % _BLOCK
                if room < _CHUNK.size:  # the rest of a block that holds no chunk header is padding
                    file.seek(room, 1)
                    position += room
                    continue
                head = file.read(_CHUNK.size)
                if len(head) < _CHUNK.size:
                    return
                checksum, length, kind = _CHUNK.unpack(head)
                data = file.read(length)
                if len(data) < length or zlib.crc32(head[6:] + data) != checksum:
                    return
                position += _CHUNK.size + length
                parts = data if kind in (_FULL, _FIRST) else parts + data
                if kind in (_FULL, _LAST):
                    yield parts
                    self._offset, parts = position, b""


def local_files(folder: Path, wandb_id: str) -> list[LocalFile]:
    """The files of one run below its run folder, oldest first, each read to its end."""
    paths = (folder / "wandb").glob(f"*run-*/run-{wandb_id}.wandb")
    files = [LocalFile(path) for path in sorted(paths, key=lambda path: (path.stat().st_mtime, path))]
    for file in files:
        file.read()
    return files
