"""The live view of a run on a terminal of its own: drawn, resized, steered by keys.

Runs in the thread that calls it. Contract:

- The terminal is given back as it was, however it ends.
- It draws when something changed, when a key is pressed, and once a second for the clock.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from losslog_console import screen
from losslog_console.board import SORTS, Choice, board, ordered

ARROWS: Final = {"\x1b[A": "k", "\x1b[B": "j", "\x1bOA": "k", "\x1bOB": "j"}


def watch(live: Any, interval: float = 0.5) -> None:
    """Show a run until ``q`` or Ctrl-C.

    Args:
        live: the run, as `losslog watch` sees it.
        interval: seconds between two looks.
    """
    from rich.console import Console, Group
    from rich.live import Live

    console = Console(highlight=False)
    emoji = screen.shows_emoji(sys.stdout)
    choice = Choice()
    live.look()
    with _keys() as read, Live(console=console, screen=True, auto_refresh=False, transient=True) as shown:
        drawn, size = -1.0, None
        changed = True
        while True:
            now = time.monotonic()
            console.size = _size(console)
            if changed or now - drawn >= 1.0 or console.size != size:
                size, drawn = console.size, now
                shown.update(Group(*board(live, size.width, size.height, choice, emoji=emoji)), refresh=True)
            key = read(interval)
            if key in ("q", "Q", "\x03"):
                return
            changed = press(key, choice, live.rows) if key else live.look()


def _size(console: Any) -> Any:
    """That of the terminal as it is: an exported LINES or COLUMNS is some other terminal's, or an older size."""
    from rich.console import ConsoleDimensions

    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        return console.size
    return ConsoleDimensions(size.columns, size.lines) if min(size) > 0 else console.size


def press(key: str, choice: Choice, rows: Any) -> bool:
    """Carry out a key; whether it means anything."""
    names = [row.name for row in ordered(rows, choice)]
    if key == "s":
        choice.sort = (choice.sort + 1) % len(SORTS)
    elif key in ("j", "k") and names:
        choice.cursor = max(0, min(len(names) - 1, choice.cursor + (1 if key == "j" else -1)))
    elif key == " " and len(names) > 1:
        choice.hidden.add(names[min(choice.cursor, len(names) - 1)])
        choice.cursor = min(choice.cursor, len(names) - 2)
    elif key == "a":
        choice.hidden.clear()
    else:
        return False
    return True


@contextmanager
def _keys() -> Iterator[Any]:
    """A function that waits for a key, so many seconds at most; "" for none."""
    if os.name == "nt":
        yield _windows_key
        return
    import select
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    try:
        before = termios.tcgetattr(descriptor)
    except termios.error:  # no terminal to type on
        yield _no_key
        return

    waiting: list[str] = []

    def read(seconds: float) -> str:
        if not waiting:
            ready, _, _ = select.select([descriptor], [], [], seconds)
            if not ready:
                return ""
            waiting.extend(keys_in(os.read(descriptor, 64).decode("utf-8", "ignore")) or ["q"])  # the terminal is gone
        return waiting.pop(0)

    try:
        tty.setcbreak(descriptor)
        yield read
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def keys_in(text: str) -> list[str]:
    """The keys pressed, of what a terminal sends for them."""
    found = []
    while text:
        length = 3 if text[:2] in ("\x1b[", "\x1bO") else 1
        key, text = text[:length], text[length:]
        found.append(ARROWS.get(key, key))
    return found


def _no_key(seconds: float) -> str:
    time.sleep(seconds)
    return ""


def _windows_key(seconds: float) -> str:
    import msvcrt

    kbhit, getwch = msvcrt.kbhit, msvcrt.getwch  # type: ignore[attr-defined,unused-ignore]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if kbhit():
            key = str(getwch())
            return {"H": "k", "P": "j"}.get(str(getwch()), "") if key in ("\x00", "\xe0") else key
        time.sleep(0.02)
    return ""
