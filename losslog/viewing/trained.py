"""What each loss trains, as a table in text: components by parts, the parts' learning rates, shares of the gradient.

Any thread, no I/O. Contract:

- It takes what a journal may hold: what does not fit is left out, never raised at.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

from losslog.journal.shapes import LARGEST

MOST: Final = 12  # parts that fit beside each other


def table(trains: Any) -> list[str]:
    """Lines of the table; none where nothing is known.

    Args:
        trains: As for `cells`.
    """
    rows = cells(trains)
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))] if rows else []
    return ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]


def cells(trains: Any) -> list[list[str]]:
    """The table, row by row; no row where nothing is known.

    Args:
        trains: ``detail`` of an ``on_metrics`` record: ``reach`` by component and part, ``parts`` by name; and
            ``shares`` of the gradient by component, where these were measured.
    """
    reach = trains.get("reach") if isinstance(trains, Mapping) else None
    parts = trains.get("parts") if isinstance(trains, Mapping) else None
    if not isinstance(reach, Mapping) or not isinstance(parts, Mapping) or not reach or not parts:
        return []
    names = [name for name, part in parts.items() if isinstance(part, Mapping)]
    rows = [["tensors trained", *names]]
    for component, found in reach.items():
        counts = found if isinstance(found, Mapping) else {}
        rows.append([str(component), *(_count(counts.get(name), "-") for name in names)])
    left_out = trains.get("left_out")
    idle = [f"{name} (in no backward pass)" for name in left_out] if isinstance(left_out, list) else []
    rows += [[each, *("-" for _ in names)] for each in idle]
    rows.append(["of", *(_count(parts[name].get("tensors")) for name in names)])
    rows.append(["lr", *(_rate(parts[name]) for name in names)])
    if len(names) > MOST:
        rows = [[*row[: MOST + 1], "..."] for row in rows]
    shares = trains.get("shares")
    if isinstance(shares, Mapping) and any(name in shares for name in reach):
        last = ["gradient", *(_percent(shares.get(name)) for name in reach), *("" for _ in idle), "", ""]
        rows = [[*row, each] for row, each in zip(rows, last, strict=True)]
    return rows


def _count(value: Any, otherwise: str = "?") -> str:
    return str(value) if type(value) is int and abs(value) < LARGEST else otherwise


def _finite(value: Any) -> bool:
    """Whether it is a number that text can be made of: a whole number may be too large for a float."""
    return type(value) in (int, float) and abs(value) < sys.float_info.max


def _percent(share: Any) -> str:
    return f"{100 * share:.0f} %" if _finite(share) else "-"


def _rate(part: Mapping[str, Any]) -> str:
    """The learning rates of a part, or why it has none."""
    trainable, outside, rates = part.get("trainable"), part.get("outside"), part.get("lr")
    if trainable == 0:
        return "frozen"
    if outside and outside == trainable:
        return "none"
    known = [f"{rate:.3g}" for rate in rates if _finite(rate)] if isinstance(rates, list) else []
    return "/".join(known) or "?"
