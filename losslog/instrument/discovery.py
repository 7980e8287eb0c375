"""Looking at the calls of all modules, until what gives losses is known.

Training thread. Contract:

- It looks from the start, and again when an optimizer was made, a model compiled, or components leave a rest of the
  total that they did not leave before: for a few steps, since that costs each module's call a microsecond.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from losslog.instrument import calls

if TYPE_CHECKING:
    from losslog.instrument.stepper import Stepper

ENOUGH: Final = 3  # steps with components
PATIENCE: Final = 20  # steps without any
TOPS: Final = 50  # models that are remembered


class Discovery:
    """Looks for one observer.

    Args:
        observer: whose `adopt` is given the models that optimizers train.
    """

    def __init__(self, observer: Any) -> None:
        self._observer = weakref.ref(observer)
        self._explained = self._bare = 0
        self._tops: list[weakref.ref[Any]] = []
        self.looking = False

    def start(self) -> None:
        """Look from now on."""
        self._explained = self._bare = 0
        if not self.looking:
            self.looking = True
            calls.look(self._observer())

    def stop(self) -> None:
        """Look no more."""
        if self.looking:
            self.looking = False
            observer: Any = self._observer()
            calls.look_away(observer, attending=True, models=observer.modules())

    def trained(self, module: Any) -> None:
        """A module was called in training from outside, and gave no losses of its own."""
        if self.looking and not any(each() is module for each in self._tops) and len(self._tops) < TOPS:
            self._tops.append(weakref.ref(module))

    def tops(self) -> Iterable[Any]:
        """The modules that were called from outside."""
        return [module for each in self._tops if (module := each()) is not None]

    def stepped(self, stepper: Stepper, *, explained: bool) -> None:
        """A step was recorded; watch on the models it trained, and stop looking when it is known what there is."""
        if not self.looking:
            return
        observer: Any = self._observer()
        for module in self.tops():
            known = observer.sightings.family_of(module)
            if known is None and stepper.owns({id(each) for each in module.parameters()}):
                observer.sightings.adopt(module)
        self._explained += explained
        self._bare += not explained
        if self._explained >= ENOUGH or self._bare >= PATIENCE:
            self.stop()
