"""What a person is told where less was recorded than happened.

Training thread; `Silence.rest` on the drain thread. Contract:

- Each thing is said once after 20 steps or backward passes, and once more at the end, also below 20.
- A line says how many of what, and what to do.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Final

from losslog.instrument.logbook import Logbook
from losslog.instrument.optimizers import Stepper
from losslog.instrument.readings import RESOLUTION
from losslog.runtime.notices import Once, say, warn

MANY: Final = 20
COARSE: Final = 1e-2
BY_HAND: Final = "run = losslog.Run(); run.log_batch(losses)"


def _is_coarse(total: float) -> bool:
    """Whether a total came in bfloat16: sums of those leave rests of their own."""
    return math.isfinite(total) and not struct.pack(">f", min(max(total, -3e38), 3e38))[2:].strip(b"\0")


class Silence:
    """Counts for one observer.

    Args:
        logbook: knows whether anything was recorded.

    Attributes:
        how: what to write in a loop that is not understood.
        look_again: whether components left a rest for the first time.
    """

    def __init__(self, logbook: Logbook) -> None:
        self._logbook = logbook
        self._once = Once()
        self._heard = self._steps = self._bare = 0
        self._rest_said = False
        self.how = BY_HAND
        self.look_again = False

    def heard(self) -> None:
        """A backward pass has ended."""
        self._heard += 1
        if self._heard == MANY and not self._steps and not self._bare:
            warn("%s", self._unclaimed(self._heard))

    def stepped(self, stepper: Stepper) -> None:
        """An optimizer has stepped without anything that belongs to the step."""
        self._bare += 1
        if self._bare == 1 and stepper.begun:
            warn("the step under way when losslog.attach was called is not recorded: attach before the loop begins")
        if self._bare == MANY and not self._steps:
            warn("%s", self._empty(self._bare))

    def recorded(self, stepper: Stepper) -> None:
        """A step was recorded."""
        self._steps += 1
        if stepper.begun:
            stepper.begun = False
            warn("gradients were there when losslog.attach was called: the first step's losses are those heard since")

    def rest(self, total: float, rest: float, by_hand: float) -> None:
        """Components left a rest of a total."""
        if by_hand != 1.0:
            self._once(
                "the loss was multiplied by %g before backward: the total logged is that of the components, "
                "without it. torch.amp.GradScaler is divided out by itself",
                by_hand,
            )
        if abs(rest) > (COARSE if _is_coarse(total) else RESOLUTION) * max(
            abs(total), abs(total - rest)
        ) and math.isfinite(rest):
            self.look_again = not self._rest_said
            self._rest_said = True
            text = "%.3g of %.3g comes from outside the model: the total logged is what was optimised"
            self._once(text, rest, total, key="rest")

    def ends(self, loose: int) -> None:
        """The loop is over, with ``loose`` backward passes that no step came after: say what is in no record."""
        if self._steps:
            if loose > 1 + self._heard // 10:
                warn("%s", self._unclaimed(loose))
        elif self._bare:
            warn("%s", self._empty(self._bare))
        elif self._heard:
            warn("%s", self._unclaimed(self._heard))

    def _unclaimed(self, count: int) -> str:
        return (
            f"{count} backward passes were heard, and no step of an optimizer that is watched came after them: they "
            "are in no record. Name all optimizers (losslog.attach(model, [first, second])), or log in the loop: "
            f"{self.how}"
        )

    def _empty(self, count: int) -> str:
        return (
            f"{count} optimizer steps were made, and neither a backward pass nor a model gave losses: they are in no "
            f"record. Log them in the loop: {self.how}"
        )

    def twice(self) -> None:
        """The loop logs steps that are recorded here too."""
        self._once(
            "log_batch was called on a run that losslog.attach logs to as well: each step is recorded twice. Keep one "
            "of the two: take run.log_batch out of the loop, or losslog.attach (run = losslog.Run() in its place)",
            key="twice",
        )

    def foreign(self, optimizers: Sequence[object], family: str) -> None:
        """No optimizer that was named has a parameter of the model's."""
        names = " and ".join(dict.fromkeys(type(each).__name__ for each in optimizers))
        warn(
            "the optimizer given to losslog.attach (%s) trains no parameter of the model (%s): its steps do not change "
            "it, and losses of that model alone are in no record. Make it of model.parameters(), of the model as it is "
            "now (after .to(), wrapping or adding layers)",
            names,
            family,
        )

    def adopted(self, optimizer: object, family: str) -> None:
        """An optimizer that was not named is watched too."""
        say("a further optimizer (%s) over parameters of %s is watched too", type(optimizer).__name__, family)
