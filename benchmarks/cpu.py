"""CPU seconds of this process and everything it started, and memory. Child processes only."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36


def adopt() -> None:
    """Become the parent of grandchildren whose parent ends, so that their CPU time is counted here (Linux)."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def tree() -> float:
    """CPU seconds so far of this process, of its descendants, and of those that have ended and were waited for."""
    found = sum(os.times()[:4])
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = child.cpu_times()
            found += times.user + times.system + times.children_user + times.children_system
    return found


def reap(seconds: float = 60.0) -> None:
    """Wait until all descendants have ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not psutil.Process().children(recursive=True):
            return
        time.sleep(0.05)


def others() -> float:
    """CPU seconds of this process outside the calling thread."""
    return time.process_time() - time.thread_time()


def resident(pid: int | None = None) -> int:
    """Resident memory in bytes; 0 for a process that is gone."""
    with contextlib.suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0


def size_of(folder: Path) -> int:
    """Bytes of the journal below ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("journal.jsonl"))
