"""How a run comes to its end when nobody calls `close`: interpreter exit, exceptions, forks.

Main thread. Contract:

- Open runs are closed while threads still run, and before concurrent.futures shuts its pools.
- In a notebook the error of the cell that logged to a run last ended it; another cell's did not. IPython tells of its
  cells, and is not imported for it. At Python's own prompt nobody tells what an error ended, so it ended nothing.
- No signal handler, and nothing at import but the registration that makes forked children inert.
"""

from __future__ import annotations

import atexit
import builtins
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from losslog.errors import StopTraining
from losslog.runtime.containment import attempt, one_line


class Spoken(NamedTuple):
    """What was logged to a run so far.

    Attributes:
        calls: how many there were.
        thread: who made the last of them, as `threading.get_ident` says.
    """

    calls: int
    thread: int


class _Cell:
    """The notebook's cell that logged to a run last.

    Args:
        spoken: gives what was logged so far.

    Attributes:
        status: status and error text of how it ended.
    """

    def __init__(self, spoken: Callable[[], Spoken] | None) -> None:
        self.status: tuple[str, str | None] = ("finished", None)
        self._spoken, self._calls = spoken, -1
        self._left: tuple[BaseException, int] | None = None

    def ended(self, error: BaseException | None) -> None:
        """A cell has ended, in this thread; it may have been another one."""
        now = None if self._spoken is None else self._spoken()
        if now is not None and now.calls != self._calls:
            self._calls = now.calls
            self.status = status_of(error if now.thread == threading.get_ident() else None)

    def leaves(self, error: BaseException) -> None:
        """The program is about to end with this, unless somebody catches it."""
        self._left = error, 0 if self._spoken is None else self._spoken().calls

    @property
    def left(self) -> BaseException | None:
        """What it ended with, where nothing was logged since."""
        calls = 0 if self._spoken is None else self._spoken().calls
        return self._left[0] if self._left is not None and self._left[1] == calls else None


_open: Final[dict[Any, _Cell]] = {}
_guard: Final = threading.RLock()
_registered = False
_shell: Any = None


def opened(run: Any, spoken: Callable[[], Spoken] | None = None) -> None:
    """Remember a run: its ``end_at_exit(status, error)`` is called at the latest when the interpreter exits.

    Args:
        run: it.
        spoken: gives what was logged to it so far, that a cell's error be laid to the run it broke off.
    """
    _open[run] = _Cell(spoken)
    _register()
    attempt(_hear_cells)


def closed(run: Any) -> None:
    """Forget a run that was closed."""
    _open.pop(run, None)


def open_runs() -> list[Any]:
    """The runs that are open now."""
    return list(_open)


def leaves(code: Any) -> None:
    """``sys.exit`` was called with this: Python itself remembers no such end."""
    if threading.current_thread() is threading.main_thread():
        for cell in list(_open.values()):
            cell.leaves(SystemExit(code))


def any_opened() -> bool:
    """Whether there has been a run in this process."""
    return _registered


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


def _hear_cells() -> None:
    """Have IPython tell of each cell's end, where it runs us."""
    global _shell
    find = vars(builtins).get("get_ipython")
    shell = None if find is None else find()
    if shell is not None and shell is not _shell:
        shell.events.register("post_run_cell", _cell_ended)
        _shell = shell


def _cell_ended(result: Any) -> None:
    for cell in list(_open.values()):
        attempt(cell.ended, getattr(result, "error_in_exec", None))


def _close_all() -> None:
    last = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    for run, cell in list(_open.items()):
        attempt(run.end_at_exit, *(cell.status if _is_interactive() else status_of(last or cell.left)))


def _is_interactive() -> bool:
    """Whether a person at a prompt or in a notebook ended the session: an earlier cell's error did not."""
    return hasattr(sys, "ps1") or "get_ipython" in vars(builtins)


def _after_fork() -> None:
    for run in list(_open):
        run.forget()
    _open.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
