"""What the learning rate did: a cut or a rise by a factor of two at once, a slow way down, a warm-up.

- Takes what the loop gives: a float, or a dict by parameter group.
- A rise makes the lines start anew. A cut does not: what was seen before it still counts, and what does not move when
  the rate is cut has stood still for another reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

JUMP: Final = 1.99
"""A factor of two, with room for rounding."""
NEGLIGIBLE: Final = 0.01
"""Below this part of the highest rate a factor of two changes nothing: a cosine halves at each of its last steps."""
Jump = Literal["rise", "cut"] | None


@dataclass(frozen=True, slots=True)
class Cut:
    """A learning rate that came down to half of its highest or less, and is still there.

    Attributes:
        step: Step at which it passed half.
        group: Parameter group; "" where there is one rate.
        highest: Highest rate.
        now: Present rate.
        at_once: Whether it was cut at once, rather than by a slow decay.
    """

    step: int
    group: str
    highest: float
    now: float
    at_once: bool


@dataclass(slots=True)
class _Group:
    now: float
    highest: float
    cut_step: int | None = None
    at_once: bool = False
    zero: int | None = None  # step since which it is 0


class LearningRate:
    """The learning rates of a run so far.

    Attributes:
        rising: Whether the last change set a new highest, and no update since came without one.
    """

    __slots__ = ("groups", "rising")

    def __init__(self) -> None:
        self.groups: dict[str, _Group] = {}
        self.rising = False

    def take(self, step: int, lr: float | Mapping[str, float]) -> Jump:
        """Take the rates used at a step.

        Returns:
            "rise" if one grew by a factor of two or more at once, or the groups themselves changed; "cut" if one fell
            by such a factor; else None.
        """
        rates = dict(lr) if isinstance(lr, Mapping) else {"": lr}
        self.rising = False
        jump: Jump = None
        if self.groups and rates.keys() != self.groups.keys():
            jump = "rise"
            self.groups = {name: group for name, group in self.groups.items() if name in rates}
        for name, value in rates.items():
            now = float(value)
            group = self.groups.get(name)
            if group is None:
                self.groups[name] = _Group(now, now, zero=None if now else step)
                continue
            before, group.now = group.now, now
            group.zero = None if now else step if group.zero is None else group.zero
            larger, smaller = max(before, now), min(before, now)
            at_once = smaller > 0 and larger >= JUMP * smaller and larger >= NEGLIGIBLE * group.highest
            if at_once:
                jump = "rise" if now > before else jump or "cut"
            self.rising = self.rising or now > group.highest
            if now >= group.highest:
                group.highest, group.cut_step = now, None
            elif now * JUMP > group.highest:
                group.cut_step = None
            elif group.cut_step is None or (at_once and now < before):
                group.cut_step, group.at_once = step, at_once
        return jump

    def zero_since(self, group: str | None = None) -> int | None:
        """Step since which the rate of a group is 0, or that of all of them; None where it is not."""
        groups = [*self.groups.values()] if group is None else [self.groups[group]] if group in self.groups else []
        steps = [each.zero for each in groups if each.zero is not None]
        return max(steps) if steps and len(steps) == len(groups) else None

    def cut(self) -> Cut | None:
        """The newest cut that still holds, or None."""
        held = [(group.cut_step, name, group) for name, group in self.groups.items() if group.cut_step is not None]
        if not held:
            return None
        step, name, group = max(held, key=lambda item: (item[0], item[1]))
        return Cut(step, name, group.highest, group.now, group.at_once)

    def state_dict(self) -> dict[str, Any]:
        """Plain data from which `load_state_dict` restores exactly."""
        return {
            "rising": self.rising,
            "groups": {n: [g.now, g.highest, g.cut_step, g.at_once, g.zero] for n, g in self.groups.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.rising = state["rising"]
        self.groups = {name: _Group(*values) for name, values in state["groups"].items()}
