"""What a person is told where less was recorded than happened.

Training thread. Contract:

- Each thing is said once after 20 steps or backward passes, and once more at the end, also below 20.
- A line says how many of what, and what to do.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Final

from losslog.instrument.logbook import Logbook
from losslog.instrument.optimizers import Steppers
from losslog.instrument.rests import Rests
from losslog.instrument.roots import Root
from losslog.instrument.stepper import Stepper
from losslog.runtime.notices import Once, say, warn

ADAPTERS: Final = {
    "keras": "losslog.compat.keras.LosslogCallback: model.fit(callbacks=[LosslogCallback()])",
    "fastai": "losslog.compat.fastai.LosslogCallback: Learner(cbs=LosslogCallback())",
}
MANY: Final = 20
FEW: Final = 3  # steps without gradients: a loop may leave a bad batch out that way
_UNHEARD: Final = (
    "%d steps of %s had neither a backward pass nor losses (gradients set by hand?): they are in no record, the "
    "steps of others are"
)
BY_HAND: Final = "run = losslog.Run(); run.log_batch(losses)"


def framework(optimizer: Any) -> tuple[str, str] | None:
    """Whose an optimizer is that is none of torch's, and the adapter to use there; None of others."""
    origins = {each.__module__.partition(".")[0] for each in type(optimizer).__mro__}
    return next((each for each in ADAPTERS.items() if each[0] in origins), None)


class Silence:
    """Counts for one observer.

    Args:
        logbook: knows whether anything was recorded.

    Attributes:
        how: what to write in a loop that is not understood.
        steps: recorded ones.
        skipped: those that a GradScaler did not take.
        passes: backward passes that are not somebody else's.
        rest: what is said of totals that components do not explain.
    """

    def __init__(self, logbook: Logbook) -> None:
        self._logbook = logbook
        self._once = Once()
        self.passes = self.steps = self.skipped = self._bare = self._cleared = 0
        self._idle: dict[int, tuple[weakref.ref[Stepper], str, int]] = {}  # optimizers that never had a loss
        self._last: tuple[Root, Steppers] | None = None
        self.how = BY_HAND
        self.rest = Rests()

    def heard(self, root: Root, steppers: Steppers) -> None:
        """A backward pass has ended; whether it belongs to somebody else is known when the next one has."""
        last = self._last
        if last is not None and self.steps and steppers in last[0].fed and steppers is last[1]:
            self.passes += 1  # as `_settle` counts it
        else:
            self._settle()
        self._last = root, steppers

    def _settle(self) -> None:
        last, self._last = self._last, None
        if last is None or (last[0].fed and last[1] not in last[0].fed):
            return
        self.passes += 1
        if self.passes == MANY and not self.steps and not self._bare and not self.skipped:
            warn("%s", self._unclaimed(self.passes))

    def stepped(self, stepper: Stepper) -> None:
        """An optimizer has stepped without anything that belongs to the step."""
        self._bare += 1
        if not stepper.steps:
            self._idle[id(stepper)] = weakref.ref(stepper), type(stepper.ref()).__name__, stepper.ended
        if self._bare == 1 and stepper.begun and not self.steps:
            warn("the step under way when losslog.attach was called is not recorded: attach before the loop begins")
        if self._bare == MANY and not self.steps:
            warn("%s", self._empty(self._bare))

    def one_epoch(self) -> None:
        """All steps are one epoch, and nothing told where another begins."""
        if self.steps >= MANY:
            say(
                "all %d steps are one epoch: nothing in the loop's data says where one ends. For epochs of N steps: "
                "losslog.attach(..., steps_per_epoch=N) or losslog run --steps-per-epoch N; or run.end_epoch() in "
                "the loop",
                self.steps,
            )

    def cleared(self, stepper: Stepper) -> None:
        """The gradients of a step were set to zero before it."""
        self._cleared += 1
        if self._cleared == FEW:
            self._say_cleared(stepper)

    def _say_cleared(self, stepper: Stepper) -> None:
        optimizer = type(stepper.ref()).__name__
        self._once(
            f"zero_grad() was called between backward() and step(), {self._cleared} times by now: such a step of "
            f"{optimizer} has no gradients and trains nothing. Call zero_grad() before backward(), or after step()",
            key="cleared",
        )

    def recorded(self, stepper: Stepper) -> None:
        """A step was recorded."""
        self.steps += 1
        if stepper.begun:
            stepper.begun = False
            warn("gradients were there when losslog.attach was called: the first step's losses are those heard since")

    def ends(self, loose: int) -> None:
        """The loop is over, with ``loose`` backward passes that no step came after: say what is in no record."""
        self.rest.ends()
        self._settle()
        if self.steps:
            for ref, kind, count in self._idle.values():
                if count >= FEW and ((stepper := ref()) is None or not stepper.steps):
                    warn("%s", _UNHEARD % (count, kind))
            if loose > 1 + self.passes // 10:
                warn("%s", self._unclaimed(loose))
        elif self._bare:
            warn("%s", self._empty(self._bare))
        elif self.skipped:
            warn("no step was taken, the GradScaler skipped %d: the gradients were not finite", self.skipped)
        elif self.passes:
            warn("%s", self._unclaimed(self.passes))

    @property
    def nothing(self) -> bool:
        """Whether nothing was heard at all."""
        self._settle()
        return not (self.steps or self.skipped or self._bare or self.passes)

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

    def strange(self, optimizer: object) -> None:
        """An optimizer steps that may be none of torch's."""
        its = framework(optimizer)
        if its is not None:
            package, adapter = its
            self._once(
                f"{type(optimizer).__name__} is an optimizer of {package}'s: its steps and their total are recorded, "
                f"and what modules name. For {package}'s own losses, metrics and epochs: {adapter}",
                key=package,
            )

    def adopted(self, optimizer: object, family: str) -> None:
        """An optimizer that was not named is watched too."""
        say("a further optimizer (%s) over parameters of %s is watched too", type(optimizer).__name__, family)
