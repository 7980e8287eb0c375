"""The fields of a COCO file one by one: what a value may be, and what it is read as. Plain functions.

Contract:

- Numbers may stand as text; a truth value is no number. What has another form gives None: the caller refuses it.
- An id is any JSON scalar but NaN and infinities (1e400); `true` and `false` are 1 and 0.
  The ids 7, 7.0, "7" and "007" mean one thing where no other entry claims it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

NUMBERS: Final = frozenset({int, float})


def number(value: Any) -> float | None:
    """A number, also as text; None for anything else. Whole numbers beyond a float's range are infinite."""
    if type(value) in NUMBERS:
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return None


def numbers(values: Iterable[Any]) -> list[float] | None:
    """All of them as numbers, or None."""
    found = [number(value) for value in values]
    return None if None in found else found  # type: ignore[return-value]


def whole(value: Any) -> int | None:
    """A whole number, also as text or as 7.0; None for anything else."""
    if type(value) is int:
        return value
    found = number(value)
    return int(found) if found is not None and found.is_integer() else None


def flag(value: Any) -> bool | None:
    """0 or 1, also as text, truth value or null (0); None for anything else."""
    if value is None or value == "":
        return False
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    found = whole(int(value) if isinstance(value, bool) else value)
    return bool(found) if found in (0, 1) else None


def is_id(value: Any) -> bool:
    """Whether a value can be an id: text, finite number, truth value or null."""
    return value is None or isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


class Ids:
    """The entries of one list by id.

    Args:
        ids: in the order of the list, each once.
    """

    def __init__(self, ids: Iterable[Any]) -> None:
        self._exact = {value: position for position, value in enumerate(ids)}
        self._alike: dict[str, int] = {}
        for value, position in self._exact.items():
            key = _spelling(value)
            self._alike[key] = position if key not in self._alike else -1  # two entries: neither is meant

    def find(self, value: Any) -> tuple[int, bool] | None:
        """The position of the entry an id means and whether the id is spelt in another way there; None: no entry."""
        if value in self._exact:
            return self._exact[value], False
        position = self._alike.get(_spelling(value), -1)
        return (position, True) if position >= 0 else None


def _spelling(value: Any) -> str:
    text = str(value).strip() if not isinstance(value, bool) else str(int(value))
    if len(text) > 40:
        return text
    try:
        found = float(text)
    except ValueError:
        return text
    return str(int(text)) if text.isdigit() else repr(found).removesuffix(".0")
