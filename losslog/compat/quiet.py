"""What watching a loop leaves to a framework that says itself what a step is.

Training thread. Contract:

- Nothing is recorded, and nothing missed, but for what the framework tells.
"""

from __future__ import annotations

from losslog.instrument.logbook import Logbook
from losslog.instrument.optimizers import Steppers
from losslog.instrument.readings import Reading
from losslog.instrument.roots import Root
from losslog.instrument.silence import Silence
from losslog.instrument.stepper import Stepper


class Notes(Logbook):
    """What is seen of a loop whose framework says what a step is."""

    def unstepped(self, reading: Reading, *, counted: bool) -> None:
        """It is in the framework's window, if it counts."""


class Quiet(Silence):
    """The framework says which steps there are: only what components leave of the total is said."""

    def heard(self, root: Root, steppers: Steppers) -> None:
        """Nothing."""

    def stepped(self, stepper: Stepper) -> None:
        """Nothing."""

    def strange(self, optimizer: object) -> None:
        """Nothing: the adapter is there."""

    def ends(self, loose: int) -> None:
        """Nothing but what waits to be said of the total."""
        self.rest.ends()
