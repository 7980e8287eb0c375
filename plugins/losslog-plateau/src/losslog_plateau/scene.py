"""Where a run stands: what the watcher keeps up to date and the judge reads.

Runs in whatever thread feeds the watcher; no decision is made here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .clock import Clock
from .component import Component
from .learning_rate import LearningRate
from .measured import Measured


@dataclass(slots=True)
class Scene:
    """All components of one run, and the place it has reached.

    Attributes:
        clock: Lengths in steps.
        components: By name, in the order in which they came.
        rates: The learning rates so far.
        planned_cuts: Steps at which the schedule is known to cut the learning rate.
        untrained: Components that were found to train no parameter: the step since which, and what was said of it.
        measured: What others measured: reach, gradients, targets, weights.
        step: Step of the newest update.
        updates: Updates so far.
        held: Whether the length of an epoch is still to be learnt: nothing can be said of flatness before.
        over: Whether the run has ended.
    """

    clock: Clock
    components: dict[str, Component] = field(default_factory=dict)
    rates: LearningRate = field(default_factory=LearningRate)
    planned_cuts: tuple[int, ...] = ()
    untrained: dict[str, tuple[int, str]] = field(default_factory=dict)
    measured: Measured = field(default_factory=Measured)
    step: int = -1
    updates: int = 0
    held: bool = False
    over: bool = False

    @property
    def axis(self) -> str:
        """What ``step`` counts: "epoch" with one value per epoch, else "step"."""
        return "epoch" if self.clock.per_epoch_feed else "step"

    @property
    def finished(self) -> bool:
        """Whether no further step is to come."""
        plan = self.clock.plan
        if plan is None:
            return self.over
        next_row = self.step + self.clock.stride
        return self.over or (next_row > plan if self.clock.per_epoch_feed else next_row >= plan)

    @property
    def next_cut(self) -> int | None:
        """The next planned cut of the learning rate, or None."""
        return min((step for step in self.planned_cuts if step > self.step), default=None)
