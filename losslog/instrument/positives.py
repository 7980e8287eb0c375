"""Whether the targets of a detector have boxes and masks at all: counted at the first steps of each epoch.

On the thread that trains. Contract:

- Boxes are counted by their shape. Masks are looked at where they lie, and the count is read when it is recorded.
- Targets are dicts with ``boxes`` and, perhaps, ``masks``, in a list among what the model is called with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from torch import Tensor

STEPS: Final = 4


class Positives:
    """Counts for one run."""

    def __init__(self) -> None:
        self._clear()
        self.left = 0

    def _clear(self) -> None:
        self._images = self._boxes = 0
        self._masks: Any = None

    def begin(self) -> dict[str, Any]:
        """An epoch has begun: look at its first steps. Gives the counts of an epoch that had fewer."""
        found = self._counts()
        self.left = STEPS
        return found

    def look(self, batches: Iterable[Any]) -> dict[str, Any]:
        """Look at what one step was computed of.

        Args:
            batches: arguments of the model's calls.

        Returns:
            The counts, when these were the last steps to look at: ``targets/images``, ``targets/boxes``, and
            ``targets/masks``, those that have a pixel; else nothing.
        """
        self.left -= 1
        for batch in batches:
            for target in targets_in(batch):
                self._images += 1
                boxes, masks = target.get("boxes"), target.get("masks")
                self._boxes += len(boxes) if isinstance(boxes, Tensor) else 0
                if isinstance(masks, Tensor) and masks.dim() == 3:
                    there = masks.flatten(1).any(1).sum() if masks.numel() else 0
                    self._masks = there if self._masks is None else self._masks + there
        return {} if self.left > 0 else self._counts()

    def _counts(self) -> dict[str, Any]:
        if not self._images:
            return {}
        found: dict[str, Any] = {"targets/images": self._images, "targets/boxes": self._boxes}
        if self._masks is not None:
            found["targets/masks"] = self._masks
        self._clear()
        return found


def targets_in(batch: Any) -> Sequence[Mapping[str, Any]]:
    """The target dicts in what a model is called with."""
    for each in batch if isinstance(batch, list | tuple) else ():
        if isinstance(each, list | tuple) and each and all(isinstance(one, Mapping) and "boxes" in one for one in each):
            return each
    return ()
