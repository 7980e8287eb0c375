"""Where a run stands: what the watcher keeps up to date and the judge reads.

Runs in whatever thread feeds the watcher; no decision is made here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from .clock import Clock
from .component import Component
from .learning_rate import LearningRate
from .measured import Measured

MOST: Final = 400  # components that are watched; of more the time of a step would grow with its square


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
        left_out: The first component that came after `MOST` others; "" for none.
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
    left_out: str = ""

    def is_full(self, name: str) -> bool:
        """Whether there is no room for one more component, which is left out."""
        full = len(self.components) >= MOST
        if full and not self.left_out:
            self.left_out = name
        return full

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

    def reached(self, step: int, nothing: Mapping[str, bool], said: str = "") -> None:
        """Take what was found in the graph.

        Args:
            step: Step of the visit.
            nothing: Whether each component trains nothing.
            said: What was said of it, to be quoted.
        """
        for name, none in nothing.items():
            if none:
                since, before = self.untrained.get(name, (step, ""))
                self.untrained[name] = (since, before or said)
            else:
                self.untrained.pop(name, None)

    def state_dict(self) -> dict[str, Any]:
        """Plain data from which `load_state_dict` restores exactly."""
        return {
            "updates": self.updates,
            "step": self.step,
            "clock": [self.clock.plan, self.clock.epoch, self.clock.stride],
            "untrained": {name: list(found) for name, found in self.untrained.items()},
            "held": self.held,
            "over": self.over,
            "measured": self.measured.state_dict(),
            "rates": self.rates.state_dict(),
            "components": {name: component.state_dict() for name, component in self.components.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave, but for the components."""
        self.updates, self.step, self.held, self.over = (state[each] for each in ("updates", "step", "held", "over"))
        self.clock = Clock(*state["clock"])
        self.untrained = {name: (step, said) for name, (step, said) in state["untrained"].items()}
        self.measured.load_state_dict(state["measured"])
        self.rates.load_state_dict(state["rates"])
