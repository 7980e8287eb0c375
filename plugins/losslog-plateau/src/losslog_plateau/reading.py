"""Numbers that a caller hands over: losses of any kind, and lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any


def number(value: Any) -> float:
    """A float from a number, a numpy scalar or a tensor, also one that needs gradients."""
    detach = getattr(value, "detach", None)
    return float(value if detach is None else detach())


def named(losses: Any) -> dict[str, float]:
    """Losses by name as floats; one value is ``loss``."""
    given = losses if isinstance(losses, Mapping) else {"loss": losses}
    return {name: value if type(value) is float else number(value) for name, value in given.items()}


def floats(values: Sequence[Any]) -> Sequence[float]:
    """Numbers as floats."""
    return values if set(map(type, values)) == {float} else [number(each) for each in values]


def positive(name: str, value: float | None) -> float | None:
    """Check a length; None is unknown.

    Raises:
        ValueError: If it is no positive number.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0 or not isfinite(value):
        raise ValueError(f"{name}={value!r}: give a positive number of steps, or None if it is unknown")
    return value
