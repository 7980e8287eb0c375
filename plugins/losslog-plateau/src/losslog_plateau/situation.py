"""What the words and the evidence about a component are made of. Plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


class Measured(Protocol):
    """A cause that was measured, as `losslog_plateau.causes` gives it."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def text(self) -> str:
        """What was measured, as a clause."""

    @property
    def evidence(self) -> Mapping[str, Any]:
        """The same as data."""

    @property
    def since(self) -> int | None:
        """Step since which it is so, or None where that is not known."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Change of a loss with its bounds.

    Attributes:
        change: In % per `per`; negative is a fall.
        low: Lower bound.
        high: Upper bound.
        per: "epoch" or "1000 steps".
    """

    change: float
    low: float
    high: float
    per: str

    def __str__(self) -> str:
        """For example "-0.2 % per epoch (between -0.9 and +0.5)"."""
        values = (self.change, self.low, self.high)
        change, low, high = (f"{each:+.2g}" if abs(each) >= 0.01 else "0" for each in values)
        return f"{change} % per {self.per} (between {low} and {high})"


@dataclass(frozen=True, slots=True)
class Situation:
    """All that the words are made of.

    Attributes:
        component: Name of the loss.
        level: Mean loss over the last epoch or unit, or along the line where it is flat.
        peak: Highest such mean so far.
        range: Typical final values, or None.
        usual: Whether these are what is known of the name, rather than of this data.
        floored: Kind of a loss that has a floor of its own, or None.
        share: Share of the total.
        rate: Its change, or None.
        window: Steps the rate was measured over.
        since: Step at which the state began.
        step: Present step.
        epoch: Steps in an epoch, or None.
        end: (planned last step, forecast at it, best case), or None.
        improving: Other components that improve, and more than this one.
        improved: Others that did so while this one was flat.
        others: How many other components there are.
        cause: The cause that was measured, or None.
        later: Words on a cut of the learning rate that came later, or None.
        axis: What the steps count: "step" or "epoch".
        blocked: The cause for which it learns nothing, whatever its curve does; or None.
        presence: Share of the steps that have a loss other than 0, of which alone `level` is.
    """

    component: str
    level: float
    peak: float
    range: tuple[float, float] | None
    usual: bool
    floored: str | None
    share: float
    rate: Rate | None
    window: int
    since: int
    step: int
    epoch: float | None
    end: tuple[int, float, float] | None
    improving: Sequence[str]
    improved: Sequence[str]
    others: int
    cause: Measured | None
    later: str | None
    axis: str
    blocked: Measured | None = None
    presence: float = 1.0


def evidence_of(s: Situation, cause: Measured | None) -> dict[str, Any]:
    """What was measured, as plain data."""
    found: dict[str, Any] = {
        "level": s.level,
        "range": None if s.range is None else list(s.range),
        "fallen": 1 - s.level / s.peak if s.peak > 0 else 0.0,
        "share": s.share,
        "since": s.since,
        "improving": list(s.improving),
        "improved": list(s.improved),
    }
    if s.rate is not None:
        found["rate"] = {"change": s.rate.change, "low": s.rate.low, "high": s.rate.high, "per": s.rate.per}
        found["window"] = s.window
    return found if cause is None else found | dict(cause.evidence)
