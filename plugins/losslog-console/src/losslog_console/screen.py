"""Where the lines go, and what can be shown there.

Any thread. Contract:

- A stream is looked up at each write, since programs and notebooks replace ``sys.stdout``.
- Writing never raises: a reader that went away, a closed or a full file cost lines, not the run.
- Progress is drawn only where somebody watches: a terminal that moves its cursor, not CI, not a notebook.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Final

from losslog_console.blocks import SYMBOLS

FALSE: Final = ("", "0", "false", "no")


def stream(name: str) -> Any:
    """``sys.stdout`` or ``sys.stderr`` as it is now; None where there is none."""
    return getattr(sys, name)


def encodes(target: Any, text: str) -> bool:
    """Whether the stream's encoding has these characters."""
    try:
        text.encode(getattr(target, "encoding", None) or "utf-8")
    except (UnicodeError, LookupError):
        return False
    return True


def shows_emoji(target: Any, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether emoji can be shown; the Linux text console has an encoding for them, but no glyphs."""
    return encodes(target, SYMBOLS) and environ.get("TERM") != "linux"


def is_terminal(target: Any) -> bool:
    """Whether the stream is a terminal."""
    try:
        return bool(target.isatty())
    except (AttributeError, ValueError):  # no stream at all, or a closed one
        return False


def wants_progress(target: Any, asked: bool | str, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether to draw progress on this stream.

    Args:
        target: the stream.
        asked: True wherever it is a terminal, False never, ``auto`` where somebody is likely to watch.
        environ: environment variables: ``TERM``, ``CI``, ``TTY_COMPATIBLE``, ``TTY_INTERACTIVE``.
    """
    if asked is False or not is_terminal(target) or environ.get("TERM", "") in ("dumb", "unknown"):
        return False
    if os.name == "nt" and _legacy_windows(target):
        return False
    if asked is True:
        return True
    if "TTY_INTERACTIVE" in environ:
        return environ["TTY_INTERACTIVE"] != "0" and environ.get("TTY_COMPATIBLE") != "0"
    return environ.get("TTY_COMPATIBLE") != "0" and environ.get("CI", "").lower() in FALSE


def width(target: Any) -> int | None:
    """Cells in a line, or None where the stream is not a terminal."""
    if not is_terminal(target):
        return None
    try:
        return os.get_terminal_size(target.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return 80


def put(target: Any, text: str) -> None:
    """Write text as far as the stream takes it."""
    if target is None:
        return
    encoding = getattr(target, "encoding", None) or "utf-8"
    if not encodes(target, text):
        text = text.encode(encoding, "backslashreplace").decode(encoding)
    try:
        target.write(text)
        target.flush()
    except (OSError, ValueError):  # the reader went away, the disk is full, the file is closed
        return


def _legacy_windows(target: Any) -> bool:
    from rich.console import Console

    return Console(file=target).legacy_windows
