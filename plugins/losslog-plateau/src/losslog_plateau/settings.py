"""The numbers that decide when a curve counts as flat, and where a level counts as good enough.

- `Settings` holds what a user may choose; the constants are fixed, each with the measurement behind it in
  ``docs/plateau.md``.
- `SENSITIVITY` is the one knob most people need: names for three values of ``z``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

SENSITIVITY: Final[Mapping[str, float]] = {"low": 2.5, "normal": 1.8, "high": 1.28}
"""Names for ``z``: fewer false alarms ("low") or more and earlier findings ("high")."""

HALVED: Final = 0.5
"""A component that fell by this part from its peak may stand a little higher."""
CAP: Final = 1.25
"""Times the top of the typical range: converged, wherever it came from."""
CAP_HALVED: Final = 1.5
"""The same for a component that has halved; real mask stalls stood at 1.68 times the range after a 60 % fall."""
LEARNT: Final = 0.75
CAP_LEARNT: Final = 3.0
"""A component that fell by three quarters has learnt, and may stand at three times its range: where a loss ends is a
matter of the data. Real stalls had fallen by 0.68 at most."""
SMALL_SHARE: Final = 0.1
"""Without a range, a component below this share of the total is left alone."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a user may choose about the test.

    Attributes:
        z: Normal quantile of the bounds on a rate: higher is more cautious.
        r: Improvement per unit below which a curve is flat, as a fraction.
        window: Shortest line, in units.
        confirm: Checks in a row that must agree.
        quiet: Warn only while two other components improve, rather than one.
        oscillating: Look for oscillation too.
    """

    z: float = 1.8
    r: float = 0.015
    window: float = 2.5
    confirm: int = 2
    quiet: bool = False
    oscillating: bool = False

    def __post_init__(self) -> None:
        """Refuse values that mean nothing.

        Raises:
            ValueError: If a value is out of its range; the message names the option and what to give.
        """
        if not 0.5 <= self.z <= 5:
            raise ValueError(
                f"z={self.z!r}: give a normal quantile between 0.5 and 5, for example 1.8 (usual) or 2.5 (cautious)"
            )
        if not 0 < self.r < 1:
            raise ValueError(
                f"r={self.r!r}: give the improvement per unit as a fraction between 0 and 1, for example 0.015"
            )
        if not 0 < self.window <= 20:
            raise ValueError(
                f"window={self.window!r}: give the shortest line in units, above 0 and at most 20, for example 3"
            )
        if self.confirm < 1:
            raise ValueError(f"confirm={self.confirm!r}: give the number of checks that must agree, 1 or more")


def typical_ranges(table: Mapping[str, object]) -> dict[str, tuple[float, float]]:
    """Check a table of typical final values.

    Args:
        table: ``{component: (low, high)}``.

    Raises:
        ValueError: If an entry is not a pair of numbers with 0 <= low <= high and high > 0.
    """
    if not isinstance(table, Mapping):
        raise ValueError(f"typical={table!r}: give a table such as {{'loss_mask': [0.08, 0.20]}}")
    ranges = {}
    for name, pair in table.items():
        try:
            low, high = (float(value) for value in pair)  # type: ignore[attr-defined]
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"typical[{name!r}]={pair!r}: give two numbers, low and high, such as [0.08, 0.20]"
            ) from error
        if not (0 <= low <= high and high > 0):
            raise ValueError(
                f"typical[{name!r}]={pair!r}: give 0 <= low <= high and high above 0, such as [0.08, 0.20]"
            )
        ranges[str(name)] = (low, high)
    return ranges
