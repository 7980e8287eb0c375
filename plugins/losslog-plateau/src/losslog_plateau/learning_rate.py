"""Was the learning rate changed by a factor of two at once, and is it well below where it was?

- Takes what the loop gives: a float, or a dict by parameter group.
- A jump makes the lines start anew; a slow decay (cosine, linear warm-up) does not, but is named in the message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

JUMP: Final = 1.99
"""A factor of two, with room for rounding."""
NEGLIGIBLE: Final = 0.01
"""Below this part of the highest rate a factor of two changes nothing: a cosine halves at each of its last steps."""


@dataclass(slots=True)
class _Group:
    now: float
    highest: float
    cut_step: int | None = None
    at_once: bool = False


class LearningRate:
    """The learning rates of a run so far."""

    __slots__ = ("groups", "rising")

    def __init__(self) -> None:
        self.groups: dict[str, _Group] = {}
        self.rising = False  # whether the last change set a new highest

    def take(self, step: int, lr: float | Mapping[str, float]) -> bool:
        """Take the rates used at a step.

        Returns:
            Whether one changed by a factor of two or more at once, or the groups themselves changed.
        """
        rates = dict(lr) if isinstance(lr, Mapping) else {"": lr}
        self.rising = False
        jumped = bool(self.groups) and rates.keys() != self.groups.keys()
        if jumped:
            self.groups = {name: group for name, group in self.groups.items() if name in rates}
        for name, value in rates.items():
            now = float(value)
            group = self.groups.get(name)
            if group is None:
                self.groups[name] = _Group(now, now)
                continue
            before, group.now = group.now, now
            larger, smaller = max(before, now), min(before, now)
            at_once = smaller > 0 and larger >= JUMP * smaller and larger >= NEGLIGIBLE * group.highest
            jumped = jumped or at_once
            self.rising = self.rising or now > group.highest
            if now >= group.highest:
                group.highest, group.cut_step = now, None
            elif now * JUMP > group.highest:
                group.cut_step = None
            elif group.cut_step is None or (at_once and now < before):
                group.cut_step, group.at_once = step, at_once
        return jumped

    def cut(self, axis: str) -> str | None:
        """Words on the newest cut that still holds, or None.

        Args:
            axis: "step" or "epoch": what the steps given to `take` count.
        """
        held = [(group.cut_step, name, group) for name, group in self.groups.items() if group.cut_step is not None]
        if not held:
            return None
        step, name, group = max(held, key=lambda item: (item[0], item[1]))
        which = f" of {name}" if name else ""
        if group.at_once:
            return (
                f"the learning rate{which} was cut at {axis} {step} (highest {group.highest:.3g}, now {group.now:.3g})"
            )
        return (
            f"the learning rate{which} has come down from {group.highest:.3g} to {group.now:.3g} "
            f"and passed half of it at {axis} {step}"
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain data from which `load_state_dict` restores exactly."""
        return {
            "rising": self.rising,
            "groups": {n: [g.now, g.highest, g.cut_step, g.at_once] for n, g in self.groups.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.rising = state["rising"]
        self.groups = {name: _Group(*values) for name, values in state["groups"].items()}
