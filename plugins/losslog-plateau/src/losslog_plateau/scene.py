"""Where a run stands: what the watcher keeps up to date and the judge reads.

Runs in whatever thread feeds the watcher; no decision is made here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .clock import Clock
from .component import Component
from .learning_rate import LearningRate


@dataclass(slots=True)
class Scene:
    """All components of one run, and the place it has reached.

    Attributes:
        clock: Lengths in updates.
        components: By name, in the order in which they came.
        rates: The learning rates so far.
        updates: Updates so far.
        step: Step of the newest update.
    """

    clock: Clock
    components: dict[str, Component] = field(default_factory=dict)
    rates: LearningRate = field(default_factory=LearningRate)
    updates: int = 0
    step: int = -1

    @property
    def axis(self) -> str:
        """What ``step`` counts: "epoch" with one value per epoch, else "step"."""
        return "epoch" if self.clock.steps_per_epoch == 1 else "step"

    @property
    def lr_cut(self) -> str | None:
        """Words on a cut of the learning rate that still holds, or None."""
        return self.rates.cut(self.axis)
