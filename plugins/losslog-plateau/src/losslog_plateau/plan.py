"""How long a run and its epochs are, and where its learning rate is going to be cut: told, or learnt on the way.

Runs in the plugin's lane.

- Options come first, then what the run says, then the first whole epoch seen, then what the data loader says.
- Until the length of an epoch is known, the first epoch is *open*: it may be a hundred steps long, or a hundred
  thousand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

CHANGE: Final = 0.05
"""A learnt length is learnt again where a whole epoch differs by more than this part."""
CUT_KEYS: Final = frozenset({"milestones", "lr_milestones", "lr_steps", "lr_decay_epochs", "planned_cuts"})
"""Keys of a config under which schedules keep the epochs (or steps) at which they cut the learning rate."""


class Plan:
    """Lengths of one run.

    Attributes:
        config: The run's config, which may tell where the learning rate is cut.
        epochs: Planned epochs, or None.

    Args:
        planned_steps: Steps of the whole run, if an option says so.
        steps_per_epoch: Steps in an epoch, if an option says so.
        cuts: Steps at which the learning rate is cut, if an option says so.
    """

    def __init__(self, planned_steps: int | None, steps_per_epoch: int | None, cuts: Sequence[int] | None) -> None:
        self._planned = planned_steps
        self._given = steps_per_epoch
        self._cuts = cuts
        self.config: Mapping[str, Any] = {}
        self.epochs: int | None = None
        self._told: int | None = None
        self._learnt: int | None = None
        self._data: int | None = None  # what the loader says
        self._start: tuple[int, int] | None = None  # epoch, its first step
        self._whole = False  # whether that epoch was seen from its first step

    def take(self, epochs: int | None, steps_per_epoch: int | None) -> None:
        """Take what the run says at its start."""
        self.epochs, self._told = epochs, steps_per_epoch

    @property
    def told(self) -> tuple[int | None, int | None]:
        """What the run said at its start, as `take` takes it."""
        return self.epochs, self._told

    def learn(self, step: int, epoch: int) -> bool:
        """See one more step.

        Returns:
            Whether the length of an epoch has become another.
        """
        if self._given or self._told:
            return False
        before = self._start
        if before is None:
            self._start, self._whole = (epoch, step), step == 0
        elif epoch != before[0]:
            length = step - before[1]
            self._start = (epoch, step)
            usable = epoch == before[0] + 1 and length > 0 and self._whole
            self._whole = True
            if usable and abs(length - (self._learnt or self._data or 0)) > CHANGE * length:
                self._learnt = length
                return True
        return False

    def knows(self, epoch: object) -> bool:
        """Whether another step of this epoch is no news."""
        return bool(self._given or self._told) or (self._start is not None and self._start[0] == epoch)

    def loaded(self, steps: Any) -> bool:
        """Take how long an epoch is by its loader; whether that is news."""
        if type(steps) is not int or steps < 1 or self._data or self.steps_per_epoch is not None:
            return False
        self._data = steps
        return True

    def rewind(self) -> None:
        """The run goes on from elsewhere: the epoch at hand is not seen from its first step."""
        self._start = None

    @property
    def steps_per_epoch(self) -> float | None:
        """Steps in an epoch, or None while that is unknown."""
        length = self._given or self._told or self._learnt or self._data
        if length is None and self._planned and self.epochs:
            return self._planned / self.epochs
        return length

    @property
    def planned_steps(self) -> float | None:
        """Steps of the whole run, or None."""
        length = self.steps_per_epoch
        return self._planned or (self.epochs * length if self.epochs and length else None)

    @property
    def planned_epochs(self) -> int | None:
        """Epochs of the whole run, or None."""
        if self._planned is None:
            return self.epochs
        return max(1, round(self._planned / self._given)) if self._given else self._planned

    @property
    def open(self) -> bool:
        """Whether the first epoch is still open, of unknown length, and no plan is known either."""
        return self.steps_per_epoch is None and self.planned_steps is None

    def cuts(self, per_epoch: bool = False) -> list[int]:
        """Steps (epochs, where only epoch means come) at which the learning rate is going to be cut.

        Args:
            per_epoch: Whether epochs are counted, not steps.
        """
        if self._cuts is not None:
            return list(self._cuts)
        told = _told_cuts(self.config)
        if not told or self.epochs is None or max(told) > self.epochs:
            return told
        length = 1.0 if per_epoch else self.steps_per_epoch
        return [] if length is None else [round(cut * length) for cut in told]


def _told_cuts(config: Mapping[str, Any]) -> list[int]:
    """Milestones that a config tells of, at its top or one floor down."""
    for floor in (config, *(value for value in config.values() if isinstance(value, Mapping))):
        for key, value in floor.items():
            if isinstance(key, str) and key.lower() in CUT_KEYS and isinstance(value, list | tuple):
                return [int(cut) for cut in value if isinstance(cut, int | float) and cut > 0]
    return []
