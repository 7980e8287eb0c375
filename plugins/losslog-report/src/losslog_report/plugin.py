"""The far plugin: ``report.html`` in the run folder, renewed at each epoch's end.

Runs in a lane of the follower. Contract:

- The page is what ``losslog report RUN`` makes; it is written whole or not at all, after a batch of records.
- The journal is read on from where it was read last; memory is bounded whatever the length of the run.
- At most one page in ``seconds``; the last one, at the end of the run, is always written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, Final

from losslog import hookimpl
from losslog.delivery.trust import Trust
from losslog.viewing.page import FILE, page, write
from losslog.viewing.parts import story_of
from losslog.viewing.story import Story

PICTURES: Final = 5000  # paths remembered


class ReportPlugin:
    """Writes the report.

    Args:
        seconds: at most one page in so many seconds, so that epochs of a second cost nothing.
        file: name of the page in the run folder.

    Raises:
        TypeError, ValueError: an option is not what it may be.
    """

    def __init__(self, seconds: float = 5.0, file: str = FILE) -> None:
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise TypeError(f"report option seconds={seconds!r}: pass a number of seconds")
        if not 0 <= seconds < float("inf"):
            raise ValueError(f"report option seconds={seconds!r}: pass 0 or more")
        if not isinstance(file, str) or not file or file in (".", "..") or set(file) & set("/\\\0:"):
            raise ValueError(f"report option file={file!r}: pass the name of a file, it lies in the run folder")
        self._seconds, self._file = seconds, file
        self._story: Story | None = None
        self._due = self._over = False
        self._written = float("-inf")
        self._known: set[str] = set()

    @hookimpl
    def on_epoch_end(self) -> None:
        """There is something new to see."""
        self._due = True

    @hookimpl
    def on_images(self, images: Sequence[Mapping[str, Any]]) -> None:
        """Remember which pictures this run's own process may have read."""
        if len(self._known) < PICTURES:
            self._known |= {str(each["path"]) for each in images if each.get("path")}

    @hookimpl
    def on_alert(self) -> None:
        """There is something that should be seen."""
        self._due = True

    @hookimpl
    def on_run_end(self) -> None:
        """The last page is due, however soon after the one before."""
        self._due = self._over = True

    @hookimpl
    def on_flush(self, run: Any) -> None:
        """Write the page, where one is due."""
        if not self._due or (monotonic() - self._written < self._seconds and not self._over):
            return
        if self._story is None or self._story.folder != run.dir:
            self._story = story_of(run.dir)
        else:
            self._story.read()
        write(page([self._story], trust=Trust(known=self._known)), run.dir / self._file)
        self._written = monotonic()
        self._due = self._over = False
