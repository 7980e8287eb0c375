"""The plugin's own options, checked at the door. What concerns the test itself is checked by the watcher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from .known import HEADS
from .proofs import ORDER
from .settings import SENSITIVITY

OnStall = Literal["stop", "raise_head_lr"] | None
ACTIONS: Final = (None, "stop", "raise_head_lr")
CAUSES: Final = frozenset({"not_trained", *ORDER, "exploding_gradient"})
"""Causes that are proven, and may stop a run."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which components are reported; all of them are watched, since shares and "others improve" need all.

    Attributes:
        watch: Only these, or None for all.
        ignore: Never these.
    """

    watch: frozenset[str] | None
    ignore: frozenset[str]

    def reports(self, component: str) -> bool:
        """Whether findings about a component are passed on."""
        return (self.watch is None or component in self.watch) and component not in self.ignore


@dataclass(frozen=True, slots=True)
class Reaction:
    """What is asked of the run when a component stalls.

    Attributes:
        on_stall: None, "stop" or "raise_head_lr".
        lr_factor: Factor for the learning rate of the head's group.
        groups: Parameter group by component.
        group: Group for every component that `groups` does not name, or None.
        on_cause: "stop" by cause.
    """

    on_stall: OnStall
    lr_factor: float
    groups: Mapping[str, str]
    group: str | None
    on_cause: Mapping[str, str]

    def group_of(self, component: str) -> str | None:
        """The parameter group that a component trains, or None if unknown."""
        return self.groups.get(component) or self.group or HEADS.get(component)


def filter_of(watch: Sequence[str] | None, ignore: Sequence[str] | None) -> Filter:
    """Check ``watch`` and ``ignore``.

    Raises:
        ValueError: If one is not a list of names.
    """
    return Filter(None if watch is None else _names("watch", watch), _names("ignore", ignore or ()))


def reaction_of(on_stall: Any, lr_factor: Any, head_group: Any, on_cause: Any = None) -> Reaction:
    """Check ``on_stall``, ``lr_factor``, ``head_group`` and ``on_cause``.

    Raises:
        ValueError: If one means nothing; the message names it and what to give.
    """
    if on_stall not in ACTIONS:
        raise ValueError(f'on_stall={on_stall!r}: give None, "stop" or "raise_head_lr"')
    if isinstance(lr_factor, bool) or not isinstance(lr_factor, int | float) or not 0 < lr_factor < float("inf"):
        raise ValueError(f"lr_factor={lr_factor!r}: give a positive number, for example 10")
    causes = {} if on_cause is None else on_cause
    if not isinstance(causes, Mapping) or not causes.keys() <= CAUSES or [*causes.values()] != ["stop"] * len(causes):
        known = ", ".join(sorted(CAUSES))
        raise ValueError(f'on_cause={on_cause!r}: give a table such as {{"not_trained": "stop"}}; causes are {known}')
    if head_group is None or isinstance(head_group, str):
        return Reaction(on_stall, float(lr_factor), {}, head_group or None, dict(causes))
    if isinstance(head_group, Mapping) and all(isinstance(name, str) for pair in head_group.items() for name in pair):
        return Reaction(on_stall, float(lr_factor), dict(head_group), None, dict(causes))
    raise ValueError(
        f"head_group={head_group!r}: give the name of a parameter group, "
        f"or a table such as {{'loss_mask': 'mask_head'}}"
    )


def z_of(z: float | None, sensitivity: str | None) -> float:
    """The normal quantile from ``z`` or from the name in ``sensitivity``.

    Raises:
        ValueError: If both are given, or the name is unknown.
    """
    if sensitivity is None:
        return SENSITIVITY["normal"] if z is None else z
    if z is not None:
        raise ValueError(f"z={z!r} and sensitivity={sensitivity!r}: give only one of them")
    if not isinstance(sensitivity, str) or sensitivity not in SENSITIVITY:
        names = ", ".join(f'"{name}"' for name in SENSITIVITY)
        raise ValueError(f"sensitivity={sensitivity!r}: give one of {names}")
    return SENSITIVITY[sensitivity]


def cuts_of(planned_cuts: Any) -> list[int] | None:
    """Check ``planned_cuts``.

    Raises:
        ValueError: If it is not a list of whole numbers above 0.
    """
    if planned_cuts is None:
        return None
    if isinstance(planned_cuts, str) or not isinstance(planned_cuts, Sequence):
        raise ValueError(f"planned_cuts={planned_cuts!r}: give a list of steps, for example [60000, 80000]")
    if not all(isinstance(cut, int) and not isinstance(cut, bool) and cut > 0 for cut in planned_cuts):
        raise ValueError(f"planned_cuts={planned_cuts!r}: give whole numbers of steps above 0, such as [60000, 80000]")
    return list(planned_cuts)


def flag(name: str, value: Any) -> bool:
    """Check a switch.

    Raises:
        ValueError: If it is not True or False.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r}: give true or false")
    return value


def _names(key: str, value: Sequence[str]) -> frozenset[str]:
    if (
        isinstance(value, str)
        or not isinstance(value, Sequence | set | frozenset)
        or not all(isinstance(n, str) for n in value)
    ):
        raise ValueError(f"{key}={value!r}: give a list of component names, for example ['loss_mask']")
    return frozenset(value)
