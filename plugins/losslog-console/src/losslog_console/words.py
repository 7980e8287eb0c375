r"""Words and numbers as they may be shown: nothing a name or a text contains is acted upon by the terminal.

No thread, no I/O. Contract:

- Control, format and surrogate characters come out as their escapes (``\x1b``), whatever a name or text holds.
- A duration is ``M:SS`` or ``H:MM:SS``.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final

LENGTHS: Final = (8, 7, 6, 5, 4, 3)  # characters that are left of a name


def clean(text: object) -> str:
    r"""One line of harmless text: an escape character becomes the four characters ``\x1b``, a newline ``\n``."""
    plain = str(text)
    if plain.isascii() and plain.isprintable():
        return plain
    return "".join(
        char.encode("unicode_escape").decode("ascii") if unicodedata.category(char) in _HARMFUL else char
        for char in plain
    )


_HARMFUL = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # control, format (right-to-left marks), surrogates, line ends


def clock(seconds: float) -> str:
    """A duration for people."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def columns(entries: list[str], width: int, indent: str = "   ") -> list[str]:
    """Entries side by side, read downwards, aligned; one a line where two do not fit.

    Args:
        entries: one cell each.
        width: of the terminal, in cells.
        indent: before each line.
    """
    from rich.cells import cell_len

    widest = max(map(cell_len, entries)) + 3
    count = max(1, min(3, (width - len(indent) + 2) // widest))
    rows = -(-len(entries) // count)
    lines = []
    for row in range(rows):
        cells = entries[row::rows]
        lines.append(indent + "".join(cell + " " * (widest - cell_len(cell)) for cell in cells).rstrip())
    return lines


def pairs(values: Mapping[str, float], precision: int) -> list[str]:
    """``name: 0.1234``, sorted by name."""
    return [f"{clean(name)}: {values[name]:.{precision}f}" for name in sorted(values)]


def listed(values: Iterable[tuple[str, float]], precision: int) -> str:
    """``AP50: 0.1234, AP75: 0.0123``."""
    return ", ".join(f"{clean(name)}: {value:.{precision}f}" for name, value in values)


def unprefixed(names: list[str]) -> list[str]:
    """Names without what all of them but the total begin with: ``loss_``."""
    prefix = os.path.commonprefix([name for name in names if name != "total"])  # noqa: RUF071 # names, not paths
    prefix = prefix[: prefix.rfind("_") + 1]
    return names if prefix in names or len(names) < 3 else [name.removeprefix(prefix) for name in names]


def shortened(names: list[str], room: int) -> list[str]:
    """Names that take at most ``room`` cells together, still told apart; the shortest there are where none do.

    All are cut to one length, as people abbreviate; the total keeps its own.
    """
    cut = names
    for length in LENGTHS:
        if sum(map(len, cut)) <= room:
            break
        short = [name if name == "total" else name[:length].rstrip("_") or name for name in names]
        if len(set(short)) < len(names):
            break
        cut = short
    return cut
