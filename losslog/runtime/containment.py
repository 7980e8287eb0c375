"""Calling code that is not ours without being hurt by it.

Runs in the calling thread. Contract:

- `attempt` and `lanes` are the only places that catch broadly; everything else lets errors be what they are.
- A plugin's ``SystemExit`` is contained too. A ``KeyboardInterrupt`` in the main thread is the user's, and passes; in
  any other thread only a plugin can have raised it, and it is contained.
"""

from __future__ import annotations

import errno
import threading
import traceback
from collections.abc import Callable
from typing import Any, Final, TypeVar

from losslog.errors import BackendUnavailable

T = TypeVar("T")

NOT_NOW: Final = {getattr(errno, name, -1) for name in ("ENOSPC", "EDQUOT", "EIO", "ESTALE", "EMFILE", "ENFILE")}


def attempt(function: Callable[..., T], /, *args: Any, **kwargs: Any) -> tuple[T | None, BaseException | None]:
    """``(result, None)``, or ``(None, error)`` where the call raised."""
    try:
        return function(*args, **kwargs), None
    except BaseException as error:
        if must_pass(error):
            raise
        return None, error


def must_pass(error: BaseException) -> bool:
    """Whether the error is the user's own Ctrl-C rather than a plugin's."""
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


def means_not_now(error: BaseException) -> bool:
    """Whether an error says that a backend is away for the moment, so that trying again later makes sense."""
    if isinstance(error, BackendUnavailable | ConnectionError | TimeoutError):
        return True
    return isinstance(error, OSError) and error.errno in NOT_NOW


def one_line(error: BaseException) -> str:
    """Type and message of an error on one line of at most 300 characters, without control characters."""
    text = " ".join(str(error).split())
    text = "".join(char if char.isprintable() else "?" for char in text)
    name = type(error).__name__
    return f"{name}: {text[:297] + '...' if len(text) > 300 else text}" if text else name


def long_form(error: BaseException) -> str:
    """The error's traceback as text."""
    return "".join(traceback.format_exception(error)).rstrip()
