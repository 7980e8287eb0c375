"""Calling code that is not ours without being hurt by it.

Runs in the calling thread. Contract:

- `attempt` is the only place that catches broadly; everything else lets errors be what they are.
- A plugin's ``SystemExit`` is contained too. A ``KeyboardInterrupt`` in the main thread is the user's, and passes; in
  any other thread only a plugin can have raised it, and it is contained.
- What an errno means is decided here, by one table, whoever met it.
"""

from __future__ import annotations

import errno
import re
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar

from losslog.errors import BackendUnavailable

T = TypeVar("T")

HELD: Final = frozenset({errno.EACCES, errno.EAGAIN, errno.EDEADLK})  # of a lock: another has it
READ_ONLY: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
NOT_NOW: Final = frozenset({getattr(errno, name, -1) for name in ("ENOSPC", "EDQUOT", "EIO", "ESTALE", "EMFILE",
                                                                  "ENFILE")})  # fmt: skip


# What clients raise when nobody answers, by module and name, since none of them is imported here.
AWAY: Final = re.compile(
    r"requests\.exceptions\.(ConnectionError|Timeout|ChunkedEncodingError)|httpcore\.(NetworkError|TimeoutException)|"
    r"urllib3\.exceptions\.(Timeout|NewConnection|MaxRetry|Protocol)Error|httpx\.TransportError|urllib\.error\.URLError|"
    r"aiohttp\.client_exceptions\.ClientConnectionError|socket\.gaierror|http\.client\.IncompleteRead"
)
LONGEST_WAIT: Final = 300.0  # seconds that a ``Retry-After`` is obeyed
ANSWERED: Final = {"urllib.error.HTTPError", "requests.exceptions.HTTPError", "httpx.HTTPStatusError"}


def attempt(function: Callable[..., T], /, *args: Any, **kwargs: Any) -> tuple[T | None, BaseException | None]:
    """``(result, None)``, or ``(None, error)`` where the call raised."""
    try:
        return function(*args, **kwargs), None
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise  # the user's own Ctrl-C
        return None, error


def means_not_now(error: BaseException) -> bool:
    """Whether an error says that a backend is away for the moment, so that trying again later makes sense."""
    if isinstance(error, BackendUnavailable | ConnectionError | TimeoutError):
        return True
    kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    if kinds & ANSWERED:  # a server that refuses for good is not away
        status = getattr(error, "code", None) or getattr(getattr(error, "response", None), "status_code", 0)
        return isinstance(status, int) and (status in (408, 425, 429) or status >= 500)
    return any(map(AWAY.fullmatch, kinds)) or (isinstance(error, OSError) and of_system(error) == "not now")


def answered(error: BaseException) -> bool:
    """Whether a backend that is "not now" is there, and refuses what it was given."""
    kinds = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    return bool(getattr(error, "refused", False) or kinds & ANSWERED)


def asked_to_wait(error: BaseException) -> float:
    """How many seconds a backend asks to be left alone, 0 where it does not say; `LONGEST_WAIT` at most."""
    headers = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None)
    asked = getattr(error, "retry_after", None) or attempt(lambda: headers.get("Retry-After"))[0]  # type: ignore[union-attr]
    seconds, _ = attempt(float, asked or 0)
    if seconds is None:
        seconds, _ = attempt(_seconds_until, asked)
    return min(seconds, LONGEST_WAIT) if seconds is not None and seconds > 0 else 0.0  # NaN too


def _seconds_until(date: str) -> float:
    from email.utils import parsedate_to_datetime  # 60 ms

    return parsedate_to_datetime(date).timestamp() - time.time()


def of_system(error: OSError, *, lock: bool = False) -> Literal["held", "not now", "cannot"]:
    """What a system call's failure means: another has it, try again later, or it cannot be had here.

    Args:
        error: what the call raised.
        lock: the call was to take a lock; only then can it be held, and "cannot" says that there are no kernel locks.
    """
    if lock and error.errno in HELD:
        return "held"
    return "not now" if error.errno in NOT_NOW else "cannot"


def is_read_only(error: BaseException) -> bool:
    """Whether an error says that this process may read there, but not write."""
    return isinstance(error, OSError) and error.errno in READ_ONLY


def printable(text: str) -> str:
    """``text`` with its lines and tabs, but without characters that could steer a terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "?" for char in text)


def encodable(text: str) -> str:
    """Text that every encoder takes: half a surrogate pair becomes a question mark."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def one_line(error: BaseException) -> str:
    """Type and message of an error on one line of at most 300 characters, without control characters."""
    text = printable(" ".join(str(error).split()))
    name = type(error).__name__
    return f"{name}: {text[:297] + '...' if len(text) > 300 else text}" if text else name


def long_form(error: BaseException) -> str:
    """The error's traceback as text."""
    return "".join(traceback.format_exception(error)).rstrip()
