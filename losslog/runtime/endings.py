"""How a run comes to its end when nobody calls `close`: interpreter exit, exceptions, forks.

Main thread. Contract:

- Open runs are closed while threads still run, and before concurrent.futures shuts its pools.
- In a notebook or at a prompt the last error is some cell's, and ended nothing.
- No signal handler, and nothing at import but the registration that makes forked children inert.
"""

from __future__ import annotations

import atexit
import builtins
import os
import sys
import threading
from typing import Any, Final

from losslog.errors import StopTraining
from losslog.runtime.containment import attempt, one_line

_open: Final[set[Any]] = set()
_guard: Final = threading.RLock()
_registered = False


def opened(run: Any) -> None:
    """Remember a run: its ``end_at_exit(status, error)`` is called at the latest when the interpreter exits."""
    _open.add(run)
    _register()


def closed(run: Any) -> None:
    """Forget a run that was closed."""
    _open.discard(run)


def open_runs() -> list[Any]:
    """The runs that are open now."""
    return list(_open)


def status_of(error: BaseException | None) -> tuple[str, str | None]:
    """Status and error text of ``on_run_end`` for what ended the loop."""
    if error is None:
        return "finished", None
    if isinstance(error, KeyboardInterrupt | StopTraining):
        return "stopped", one_line(error)
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return "finished", None
    return "failed", one_line(error)


def _register() -> None:
    global _registered
    with _guard:
        if _registered:
            return
        _registered = True
        import concurrent.futures.thread  # noqa: F401 - handlers run last in, first out: its own must come after ours

        # atexit runs after non-daemon threads were joined, when it is too late for a thread pool of the user's.
        register = getattr(threading, "_register_atexit", None)
        if register is None or attempt(register, _close_all)[1] is not None:
            atexit.register(_close_all)


def _close_all() -> None:
    last = None if _is_interactive() else getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    status, error = status_of(last)
    for run in open_runs():
        attempt(run.end_at_exit, status, error)


def _is_interactive() -> bool:
    """Whether a person at a prompt or in a notebook ended the session: an earlier cell's error did not."""
    return hasattr(sys, "ps1") or "get_ipython" in vars(builtins)


def _after_fork() -> None:
    for run in list(_open):
        run.forget()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
