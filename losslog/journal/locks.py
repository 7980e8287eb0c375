"""Locks that die with their process, however it dies.

Any thread. Contract:

- Kernel locks (fcntl, msvcrt): a pid proves nothing in a container. Where the platform or the file system has none, a
  file made with O_EXCL, which names its owner; one whose owner is known to be dead is taken over.
- A forked child does not inherit the lock, so a DataLoader worker cannot keep a dead run locked.
- Locks of one process exclude each other too.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from losslog.journal.files import opened, small
from losslog.runtime.containment import of_system
from losslog.runtime.pace import Guard

_held: set[object] = set()  # kernel locks do not conflict within a process; this does
_held_guard: Final = Guard()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_held.clear)  # a child has none of its parent's


class Lock:
    """A lock file held by this process; the kernel frees it when the process ends, however it ends.

    Args:
        path: the lock file; its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.owner = path.with_suffix(".owner")  # the lock, where there are no kernel locks
        self._fd: int | None = None
        self._name: object = None

    def acquire(self) -> bool:
        """Take the lock; False where another live process, or this one elsewhere, holds it.

        Raises:
            OSError: neither kind of lock can be had at the moment.
        """
        with _held_guard:
            if _identity(self.path) in _held:  # before it is opened: closing it would free the lock we have
                return False
            fd = opened(self.path, os.O_RDWR | os.O_CREAT)
            try:
                _lock(fd)
            except OSError as error:
                os.close(fd)
                verdict = of_system(error, lock=True)
                if verdict == "not now":
                    raise
                if verdict == "held" or not self._acquire_by_name():
                    return False
                fd = -1
            self._fd, self._name = fd, _identity(self.path)
            _held.add(self._name)
            return True

    def _acquire_by_name(self) -> bool:
        for _ in range(2):
            try:
                fd = os.open(self.owner, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o664)
            except FileExistsError:
                if not _is_dead(self.owner):
                    return False
                self.owner.unlink(missing_ok=True)
                continue
            try:
                with open(fd, "wb", buffering=0) as file:
                    file.write(f"{os.getpid()} {_host()}".encode())
            except OSError:  # a full disk: without a name in it nobody could ever take it over
                self.owner.unlink(missing_ok=True)
                raise
            return True
        return False

    def release(self) -> None:
        """Give it back; no effect where it is not held."""
        with _held_guard:
            if self._fd is None:
                return
            if self._fd >= 0:
                os.close(self._fd)  # closing frees a record lock
            else:
                self.owner.unlink(missing_ok=True)
            self._fd = None
            _held.discard(self._name)


def _identity(path: Path) -> object:
    """What a file is called by nobody else: a path has many spellings where case is ignored, or with links."""
    try:
        found = os.stat(path)
    except OSError:
        return os.path.realpath(path)
    return (found.st_dev, found.st_ino) if found.st_ino else os.path.realpath(path)


def _lock(fd: int, *, shared: bool = False) -> None:
    """Take the kernel's lock on a file; a ``shared`` one needs no right to write.

    Raises:
        OSError: it is held, or there are no kernel locks here.
    """
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        return
    try:
        import fcntl
    except ImportError as error:
        raise OSError(None, "this Python has no fcntl") from error
    # POSIX record locks: not inherited by fork, so a DataLoader worker cannot keep a dead run locked.
    fcntl.lockf(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def _host() -> str:
    return os.uname().nodename if hasattr(os, "uname") else os.environ.get("COMPUTERNAME", "")


def _is_dead(owner: Path) -> bool:
    """Whether the process that made an owner file is known to be gone: it was of this host."""
    try:
        pid, _, host = small(owner).decode("utf-8").partition(" ")
        if host != _host() or sys.platform == "win32":  # where signal 0 is Ctrl-C
            return False
        if int(pid) != os.getpid():  # else ours, and not held: an earlier process of this very number
            os.kill(int(pid), 0)
            return False
    except ProcessLookupError:
        return True
    except (OSError, ValueError, OverflowError):
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether a live process holds the lock file; nothing is written, and no right to write is needed.

    Raises:
        OSError: that cannot be found out.
    """
    with _held_guard:
        if _identity(path) in _held:
            return True
        try:
            fd = opened(path)
        except FileNotFoundError:
            return False
        try:
            _lock(fd, shared=True)
            return False
        except OSError as error:
            verdict = of_system(error, lock=True)
            if verdict == "not now":
                raise
            owner = Lock(path).owner
            return verdict == "held" or (owner.exists() and not _is_dead(owner))
        finally:
            os.close(fd)
