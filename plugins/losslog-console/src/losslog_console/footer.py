r"""Two lines of progress, and one of alerts, under everything else that is printed.

Drawn on the plugin's lane; prints of other threads pass through. Contract:

- The cursor rests on a free line *above* the progress and is never hidden: what a C library or a debugger's prompt
  writes behind Python's back begins on a clean line, and a killed process leaves the terminal as it should be.
- The streams themselves are told to make room (their ``write`` is wrapped), so it does not matter who holds them: what
  ``print``, logging handlers, loguru or tqdm write comes out byte by byte as it was given; the progress is taken away
  before, and drawn again at the next redraw, after a complete line.
- Only ``\r``, "clear to the end of the screen" and "cursor up" are used; nothing above the cursor is ever touched.
- A forked child writes straight through. No print waits longer than a second for this module.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from losslog_console import screen

CLEAR: Final = "\r\x1b[J"
MIN_ROWS: Final = 5


class Footer:
    """The progress at the bottom of a terminal.

    Args:
        stream: the terminal to draw on, ``sys.stdout`` or ``sys.stderr``.

    Raises:
        AttributeError: the stream's ``write`` cannot be wrapped.
    """

    def __init__(self, stream: Any) -> None:
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._drawn = False
        self._mid_line = False
        self._active = True
        self._fileno = stream.fileno
        self._wrapped: list[tuple[Any, Callable[[str], int], Callable[[str], int]]] = []
        self._wrap(stream)
        self._out = _Unwrapped(stream, self._wrapped[0][1])
        for other in (sys.stdout, sys.stderr):
            if other is not stream and screen.is_terminal(other):
                with contextlib.suppress(AttributeError):  # not ours to draw on: its prints may meet the progress
                    self._wrap(other)

    def draw(self, lines: list[str]) -> None:
        """Show these lines; they must be narrower than the terminal. Not while a printed line is incomplete."""
        with self._lock:
            if self._active and not self._mid_line and self._rows() >= MIN_ROWS:
                up = f"\x1b[{len(lines)}A\r"
                screen.put(self._out, CLEAR + "".join(f"\n{line}" for line in lines) + up)
                self._drawn = True

    def clear(self) -> None:
        """Take the lines away until the next `draw`."""
        with self._lock:
            if self._drawn:
                screen.put(self._out, CLEAR)
                self._drawn = False

    def print(self, text: str) -> None:
        """Print complete lines above the progress."""
        with self._lock:
            self.clear()
            screen.put(self._out, f"\n{text}" if self._mid_line else text)
            self._mid_line = False

    def stop(self) -> None:
        """Take the lines away and give the streams back."""
        with self._lock:
            self.clear()
            self._active = False
            for stream, _, wrapper in self._wrapped:
                if vars(stream).get("write") is wrapper:  # else somebody wrapped it again: ours passes on from now
                    del stream.write

    def _wrap(self, stream: Any) -> None:
        write = stream.write

        def passing(text: str) -> int:
            return self._pass(write, text)

        stream.write = passing
        self._wrapped.append((stream, write, passing))

    def _pass(self, write: Callable[[str], int], text: str) -> int:
        """Somebody prints: make room, and write it as it is."""
        if not self._active or os.getpid() != self._pid:
            return write(text)
        held = self._lock.acquire(timeout=1.0)  # a thread that was frozen at exit may hold it for ever
        try:
            self.clear()
            if text:
                self._mid_line = not text.endswith("\n")
            return write(text)
        finally:
            if held:
                self._lock.release()

    def _rows(self) -> int:
        try:
            return os.get_terminal_size(self._fileno()).lines or 24
        except (OSError, ValueError):
            return 24


class _Unwrapped:
    """The stream as it was before: what the footer itself writes."""

    def __init__(self, stream: Any, write: Callable[[str], int]) -> None:
        self.write = write
        self.flush = stream.flush
        self.encoding = stream.encoding
