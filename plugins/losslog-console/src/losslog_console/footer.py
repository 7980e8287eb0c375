r"""Two lines of progress under everything else that is printed.

Drawn on the plugin's lane; prints of other threads pass through. Contract:

- The cursor rests on a free line *above* the progress and is never hidden: what a C library or a debugger's prompt
  writes behind Python's back begins on a clean line, and a killed process leaves the terminal as it should be.
- Text printed through ``sys.stdout`` and ``sys.stderr``, also by logging handlers made before, comes out byte by byte
  as it was given; the progress is taken away before, and drawn again at the next redraw, after a complete line.
- Only ``\r``, "clear to the end of the screen" and "cursor up" are used; nothing above the cursor is ever touched.
- A forked child writes straight through. No print waits longer than a second for this module.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import Any, Final

from losslog_console import screen

CLEAR: Final = "\r\x1b[J"
MIN_ROWS: Final = 5


class Footer:
    """The progress at the bottom of a terminal.

    Args:
        name: ``stdout`` or ``stderr``: where the progress is drawn.
    """

    def __init__(self, name: str) -> None:
        self._stream = screen.stream(name)
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._drawn = False
        self._mid_line = False
        self._active = True
        self._passages: dict[str, Passage] = {}
        for each in ("stdout", "stderr"):
            stream = screen.stream(each)
            if screen.is_terminal(stream):
                self._passages[each] = Passage(self, stream)
                setattr(sys, each, self._passages[each])
        for handler in _handlers():
            for passage in self._passages.values():
                if handler.stream is passage.stream:
                    handler.setStream(passage)

    def draw(self, lines: list[str]) -> None:
        """Show these lines; they must be narrower than the terminal. Not while a printed line is incomplete."""
        with self._lock:
            if self._active and not self._mid_line and self._rows() >= MIN_ROWS:
                up = f"\x1b[{len(lines)}A\r"
                screen.put(self._stream, CLEAR + "".join(f"\n{line}" for line in lines) + up)
                self._drawn = True

    def clear(self) -> None:
        """Take the lines away until the next `draw`."""
        with self._lock:
            if self._drawn:
                screen.put(self._stream, CLEAR)
                self._drawn = False

    def print(self, text: str) -> None:
        """Print complete lines above the progress."""
        with self._lock:
            self.clear()
            screen.put(self._stream, f"\n{text}" if self._mid_line else text)
            self._mid_line = False

    def stop(self) -> None:
        """Take the lines away and give the streams back."""
        with self._lock:
            self.clear()
            self._active = False
            for name, passage in self._passages.items():
                if getattr(sys, name) is passage:
                    setattr(sys, name, passage.stream)
            for handler in _handlers():
                if isinstance(handler.stream, Passage) and handler.stream in self._passages.values():
                    handler.setStream(handler.stream.stream)

    def passing(self, stream: Any, text: str) -> int:
        """Somebody prints: make room, and write it as it is."""
        if not self._active or os.getpid() != self._pid:
            return int(stream.write(text) or 0)
        held = self._lock.acquire(timeout=1.0)  # a thread that was frozen at exit may hold it for ever
        try:
            self.clear()
            if text:
                self._mid_line = not text.endswith("\n")
            return int(stream.write(text) or 0)
        finally:
            if held:
                self._lock.release()

    def _rows(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).lines or 24
        except (OSError, ValueError, AttributeError):
            return 24


class Passage:
    """Stands in for ``sys.stdout`` or ``sys.stderr`` while progress is drawn; afterwards it only passes on.

    Args:
        footer: who makes room.
        stream: the stream it stands for.
    """

    def __init__(self, footer: Footer, stream: Any) -> None:
        self._footer = footer
        self.stream = stream

    def write(self, text: str) -> int:
        """Write text through."""
        return self._footer.passing(self.stream, text)

    def writelines(self, lines: Any) -> None:
        """Write all these texts through."""
        self.write("".join(lines))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def __iter__(self) -> Any:
        return iter(self.stream)


def _handlers() -> list[logging.StreamHandler[Any]]:
    loggers = [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]
    return [
        handler
        for logger in loggers
        if isinstance(logger, logging.Logger)
        for handler in logger.handlers
        if isinstance(handler, logging.StreamHandler)
    ]
