"""Checkpoints that are still to be uploaded: metrics do not wait for them.

Runs on the plugin's lane. Contract:

- What the server will never take (413, a file that is gone) is given up at once and told to the lane, which remembers
  it for ``replay --skipped``. What it does not take now is tried again after 1 to 60 s, and given up after ten minutes
  of answers that refuse it. A server that is away, or a disk that is full, is waited for.
- The lane's cursor does not pass a checkpoint that waits: after a kill it comes again, and what follows it, too.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Final

from losslog import BackendUnavailable

BACK_OFF: Final = (1.0, 60.0)
LONGEST_WAIT: Final = 300.0  # seconds that a ``Retry-After`` is obeyed
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO)

logger = logging.getLogger("losslog")


class Uploads:
    """What waits, by the record's seq.

    Attributes:
        waiting: the files.
        refused: what was given up, with the reason.
    """

    gives_up: ClassVar[float] = 600.0  # seconds

    def __init__(self) -> None:
        self.waiting: dict[int, Path] = {}
        self.refused: dict[int, str] = {}
        self._since: dict[int, float] = {}
        self._next, self._delay = 0.0, 0.0

    def forget(self) -> None:
        """What waits comes again."""
        self.waiting.clear()

    def work(self, upload: Callable[[Path], None], say_never: Callable[[BaseException, str], str]) -> int | None:
        """Upload what can be; the seq of the last record before one that waits, None where none does.

        Args:
            upload: uploads one file.
            say_never: the reason in words, for an error and a file's name.
        """
        for seq, path in sorted(self.waiting.items()):
            if time.monotonic() < self._next:
                break
            try:
                upload(path)
            except BackendUnavailable as error:
                if self._waits(seq, path, error):
                    break
                self.refused[seq] = f"{path.name} was refused for long: {error}"
            except Exception as error:  # noqa: BLE001 - whatever else it is, it is about this file
                if isinstance(error, OSError) and error.errno in FULL and self._waits(seq, path, error):
                    break
                self.refused[seq] = say_never(error, path.name)
            self._delay = 0.0
            self._since.pop(seq, None)
            del self.waiting[seq]
        return min(self.waiting) - 1 if self.waiting else None

    def _waits(self, seq: int, path: Path, error: Exception) -> bool:
        now = time.monotonic()
        if seq not in self._since:
            logger.warning("mlflow: the upload of %s waits, metrics go on: %s", path.name, error)
        since = self._since.setdefault(seq, now)
        if getattr(error, "refused", False) and now - since >= self.gives_up:
            return False
        self._delay = min(max(2 * self._delay, BACK_OFF[0]), BACK_OFF[1])
        asked = str(getattr(error, "retry_after", ""))
        self._next = now + max(self._delay, min(float(asked), LONGEST_WAIT) if asked.isdecimal() else 0.0)
        return True
