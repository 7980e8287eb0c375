"""What losslog says to the person at the terminal.

Any thread. Contract:

- Everything goes through the logger ``losslog``, and obeys its level; while nobody configures logging, that writes
  to stderr what is INFO and above. A configuration that comes later takes over, its level too.
- ``dictConfig`` and ``fileConfig`` disable loggers that they do not name: ours stays able to say what failed.
- Never stdout: that belongs to the user's script (and to the console plugin).
- It never raises, whatever a handler of the user's does: notices come from lanes, too.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any, Final

from losslog.runtime.containment import attempt, printable
from losslog.runtime.pace import Guard

logger: Final = logging.getLogger("losslog")
_lock: Final = Guard()
_lowered: Final[list[bool]] = []  # not empty: the level INFO is ours, and nobody else's wish


class _Stderr(logging.Handler):
    """Writes to whatever ``sys.stderr`` is now: progress bars and notebooks replace it, and keep their lines."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr
        if logging.getLogger().handlers:  # configured since: it is said there
            return
        if stream is None:  # pythonw, some services
            return
        text = f"losslog: {printable(record.getMessage())}\n"
        try:
            stream.write(text)
        except UnicodeEncodeError:
            stream.write(text.encode("ascii", "backslashreplace").decode("ascii"))
        except (OSError, ValueError):  # a closed pipe or file: nowhere left to say it
            return


def did_you_mean(word: str, known: Iterable[str], likeness: float = 0.7) -> str:
    """`` (did you mean 'x'?)`` with the known word that is nearest; "" where none is near."""
    import difflib  # only for those who erred

    spelled = {each.lower(): each for each in known}
    near = difflib.get_close_matches(str(word).lower(), spelled, n=1, cutoff=likeness)
    return f" (did you mean {spelled[near[0]]!r}?)" if near else ""


def prepare() -> None:
    """Give the logger a way to stderr unless the user's program configured logging."""
    with _lock:
        if logger.handlers or logging.getLogger().handlers:
            return
        logger.addHandler(_Stderr())
        if logger.level == logging.NOTSET:
            logger.setLevel(logging.INFO)
            _lowered.append(True)


def tell(level: int, text: str, *args: Any) -> None:
    """A line of that level."""
    logger.disabled = False
    if _lowered and logging.getLogger().handlers:
        _lowered.clear()
        logger.setLevel(logging.NOTSET)
    attempt(logger.log, level, text, *args, stacklevel=4)


def say(text: str, *args: Any) -> None:
    """An ordinary line."""
    tell(logging.INFO, text, *args)


def warn(text: str, *args: Any) -> None:
    """Something is not as it should be."""
    tell(logging.WARNING, text, *args)


def now_and_then(count: int) -> bool:
    """Whether the ``count``-th occurrence of something is worth a line: the 1st, 2nd, 4th, 8th..."""
    return count & (count - 1) == 0


class Once:
    """Says each thing once."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __call__(self, text: str, *args: Any, key: str = "") -> None:
        """Warn, the first time that ``key`` (else ``text``) comes up."""
        if (key or text) not in self._told:
            self._told.add(key or text)
            warn(text + " (said once)", *args)
