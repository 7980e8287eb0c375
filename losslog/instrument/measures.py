"""What is measured at the first steps of an epoch: gradients and dead units by part, and whether targets are there.

On the thread that trains. Contract:

- It never raises: what fails is said once and not tried again; the others go on.
- Figures wait here until a step is recorded; no device is waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from losslog.instrument.dead import dead_units
from losslog.instrument.gradients import Gradients
from losslog.instrument.parts import Parts
from losslog.instrument.positives import Positives
from losslog.runtime.containment import attempt, one_line
from losslog.runtime.notices import warn

GRADIENTS: Final = "gradients and updates"
UNITS: Final = "dead units"
TARGETS: Final = "targets"


class Measures:
    """Measures for one run.

    Attributes:
        counting: whether it is to be told what steps are computed of.
        measuring: whether it is to be told when an optimizer has stepped.
        waiting: whether there are figures.
    """

    def __init__(self) -> None:
        self.counting = self.measuring = self.waiting = False
        self._gradients, self._positives = Gradients(), Positives()
        self._found: dict[str, Any] = {}
        self._broken: set[str] = set()

    def begin(self, parts: Parts, optimizers: Iterable[Any]) -> None:
        """An epoch begins; its first step is not taken yet.

        Args:
            parts: The model's.
            optimizers: Those whose next step is measured.
        """
        self._try(TARGETS, self._positives.begin)
        self._try(GRADIENTS, self._gradients.begin, parts, optimizers)
        self.counting = self._positives.left > 0 and TARGETS not in self._broken
        self.measuring = self._gradients.measuring and GRADIENTS not in self._broken

    def units(self, tensors: Iterable[Any], parts: Parts) -> None:
        """Look at what ReLUs gave, in the graph of one step.

        Args:
            tensors: Its losses, or the root of its backward pass.
            parts: The model's.
        """
        self._try(UNITS, dead_units, tensors, parts)

    def moved(self, optimizer: Any) -> None:
        """An optimizer has stepped; its gradients are still there."""
        if self.measuring:
            self._try(GRADIENTS, self._gradients.end, optimizer)
            self.measuring = self._gradients.measuring and GRADIENTS not in self._broken

    def close(self) -> None:
        """The loop is over."""
        self._gradients.close()

    def computed(self, batches: Iterable[Any]) -> None:
        """A step is computed of these batches, as the model is called with them."""
        if self.counting:
            self._try(TARGETS, self._positives.look, batches)
            self.counting = self._positives.left > 0 and TARGETS not in self._broken

    def take(self) -> dict[str, Any]:
        """The figures since the last call, by tag."""
        found, self._found = self._found, {}
        self.waiting = False
        return found

    def _try(self, what: str, function: Callable[..., Any], *args: Any) -> None:
        if what in self._broken:
            return
        found, error = attempt(function, *args)
        self._found |= found or {}
        self.waiting = bool(self._found)
        if error is not None:
            self._broken.add(what)
            warn("%s are not measured in this run: %s", what, one_line(error))
