"""What measurements come to: something a person should know, or a proof for a later alert. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .finding import Severity


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that was measured and a person should know.

    Attributes:
        cause: Its name.
        title: One line.
        text: What it is, and what to do.
        level: How much it matters.
        component: The loss that it is about, or None.
        evidence: The same as data.
    """

    cause: str
    title: str
    text: str
    level: Severity
    component: str | None
    evidence: Mapping[str, Any]

    @property
    def about(self) -> list[str]:
        """The losses it concerns; "" where that is none of them in particular."""
        return [self.component] if self.component is not None else list(self.evidence.get("losses") or [""])

    def tell(self, run: Any, step: int | None, epoch: int | None) -> None:
        """Raise it as an alert of a run."""
        key = f"plateau/{self.title}/{self.evidence.get('step', '')}"
        run.alert(self.title, self.text, level=self.level, key=key, component=self.component, step=step, epoch=epoch,
                  cause=self.cause, evidence=dict(self.evidence))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Proof:
    """What bears on one component.

    Attributes:
        cause: Its name.
        since: Step since which it is so.
        text: As a clause.
        evidence: The same as data.
    """

    cause: str
    since: int
    text: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
