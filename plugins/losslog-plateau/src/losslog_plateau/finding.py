"""What the watcher says: findings (news) and verdicts (the present state of every component).

- Plain frozen data; made by the watcher, read by the plugin, by tables and by tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something new about one component.

    Attributes:
        component: Name of the loss; ``loss`` where the loop gives a scalar, ``total`` for the sum.
        state: "stalled", "flat", "diverging", "non_finite", "dominating", "zero", "missing", "new", "sum_mismatch" or
            "oscillating".
        level: How much it matters: "info", "warning" or "error".
        step: Step at which it was found.
        since: Step at which it began.
        text: What a person needs to know, in full sentences.
        cause: Name of the cause that was measured (see `losslog_plateau.causes`), or None.
        evidence: What was measured, as data: level, range, rate and its bounds, who improves, what proves the cause.
    """

    component: str
    state: str
    level: Severity
    step: int
    since: int
    text: str
    cause: str | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The present state of one component.

    Attributes:
        component: Name of the loss.
        state: "warming up", "improving", "converged", "stalled", "flat", "rising", "unclear", "diverging",
            "non_finite", "zero", "missing" or "oscillating".
        severity: "info", "warning" or "error".
        level: Mean loss over the last epoch (or unit), or along the line where it is flat; None before there is one.
        range: Typical final values (low, high), or None.
        rate: Change of the loss in % per `per`; negative is a fall. None before there is a line.
        rate_low: Lower bound of `rate`.
        rate_high: Upper bound of `rate`.
        per: What the rate refers to: "epoch" or "1000 steps".
        share: Share of the total, 0 to 1.
        step: Last step seen.
        since: Step at which the state began.
        text: One sentence.
        outlook: What came of it, in a few words: "converged at 0.12", "still improving 2 % an epoch: train longer".
    """

    component: str
    state: str
    severity: Severity
    level: float | None
    range: tuple[float, float] | None
    rate: float | None
    rate_low: float | None
    rate_high: float | None
    per: str
    share: float | None
    step: int
    since: int
    text: str
    outlook: str = ""
