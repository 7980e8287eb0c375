"""Locks that die with their process, however it dies.

Any thread. Contract:

- Kernel locks (fcntl, msvcrt): a pid proves nothing in a container. Elsewhere an O_EXCL file and ``force``.
- A forked child does not inherit the lock, so a DataLoader worker cannot keep a dead run locked.
- Locks of one process exclude each other too.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Final

_BINARY: Final = getattr(os, "O_BINARY", 0)
_held: set[str] = set()  # kernel locks do not conflict within a process; this does
_held_guard: Final = threading.Lock()


class Lock:
    """A lock file held by this process; the kernel frees it when the process ends, however it ends.

    Args:
        path: the lock file; its folder must exist.
        force: take it although another holds it (only where the platform has no kernel locks).
    """

    def __init__(self, path: Path, *, force: bool = False) -> None:
        self.path = path
        self._force = force
        self._fd: int | None = None
        self._exclusive = False

    def acquire(self) -> bool:
        """Take the lock; False where another live process, or this one elsewhere, holds it."""
        name = os.path.realpath(self.path)
        with _held_guard:
            if name in _held:
                return False
            if not self._acquire():
                return False
            _held.add(name)
            return True

    def _acquire(self) -> bool:
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT | _BINARY, 0o644)
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                # POSIX record locks: not inherited by fork, so a DataLoader worker cannot keep a dead run locked.
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            os.close(fd)
            return self._acquire_by_name()
        except OSError:
            os.close(fd)
            return False
        self._fd = fd
        return True

    def _acquire_by_name(self) -> bool:
        own = self.path.with_suffix(".owner")
        if self._force:
            own.unlink(missing_ok=True)
        try:
            os.close(os.open(own, os.O_CREAT | os.O_EXCL, 0o644))
        except FileExistsError:
            return False
        self._exclusive = True
        return True

    def release(self) -> None:
        """Give it back; no effect where it is not held."""
        with _held_guard:
            if self._fd is None and not self._exclusive:
                return
            if self._fd is not None:
                os.close(self._fd)  # closing frees a record lock
            if self._exclusive:
                self.path.with_suffix(".owner").unlink(missing_ok=True)
            self._fd, self._exclusive = None, False
            _held.discard(os.path.realpath(self.path))


def is_locked(path: Path) -> bool:
    """Whether a live process holds the lock file."""
    if not path.exists():
        return False
    probe = Lock(path)
    if not probe.acquire():
        return True
    probe.release()
    return False
