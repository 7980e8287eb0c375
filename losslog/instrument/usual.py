"""The usual step as one unit: what is like the steps before is recorded without a word to anybody.

The thread that trains; a unit is armed by its observer once a step was plain and its loop has a `Habit`. Contract:

- It takes one call of the model, one backward pass over the way that the last ones took, and one step of the one
  optimizer, and records what the observer would. No part that has something due sees such a step: a unit is armed
  only where none has, and for no more than as many steps as that holds.
- It asks before it takes. What differs is the observer's, and so is whatever is said to listeners beside: then the
  unit hands back what it holds, as the observer would have it by then, and is armed no more.
- Neither graph nor tensor is kept. Losses are read when they are given, a total when its backward pass begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import get_ident
from typing import Any, Final

import torch

from losslog.instrument import outputs
from losslog.instrument.listeners import armed, disturbed, hearing, meter
from losslog.instrument.outputs import Output, read_plain
from losslog.instrument.roots import Root, begun
from losslog.instrument.series import rates
from losslog.instrument.stepper import Heard, Stepper
from losslog.run import SAMPLE

BETWEEN, GIVEN, RUNNING, FED = range(4)  # steps; then a model gave losses, backward runs, and has fed the optimizer
SELDOM: Final = 1000  # plain steps after which a loop is tried again that always does something else
HEARD: Final = ("called", "backward_begins", "step_ends", "zeroed")  # nobody else may hear these
_running: Final = torch._C._current_graph_task_id  # -1 outside of backward passes
_level: Final = torch._C._functorch.maybe_current_level
_tracing: Final = torch._C._is_tracing


class Usual:
    """Takes one observer's usual steps.

    Args:
        owner: the observer.

    Attributes:
        stage: what has come of the step at hand.
        root: the backward pass that runs, once it was handed back.
    """

    __slots__ = (
        "_count", "_driver", "_family", "_granted", "_left", "_marks", "_names", "_optimizer", "_owner", "_parameters",
        "_pause", "_root_mark", "_stepper", "_targets", "_thread", "_total", "_vain", "_values", "root", "stage",
    )  # fmt: skip

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self.stage = BETWEEN
        self.root: Root | None = None
        self._left = self._granted = self._vain = self._pause = 0

    def arm(self, stepper: Stepper, several: Sequence[Output]) -> None:
        """A step was recorded; take the coming ones where it was plain, nothing is due, and nobody else listens."""
        if len(several) != 1 or not (output := several[0]).plain or not output.family.habit.known:
            return
        if self._granted and self._granted == self._left:  # it took no step
            self._vain = min(2 * self._vain + 1, SELDOM)
            self._pause, self._granted = self._vain, 0
        if self._pause:
            self._pause -= 1
            return
        owner, family = self._owner, output.family
        sightings, rest, thread = owner.sightings, owner.silence.rest, owner.thread
        left = min(outputs.EVERY - 1 - family.habit.outputs, owner.reaching.quiet(output))
        if (
            left <= 0 or armed or owner.closed or owner.discovery.looking or len(owner.steppers.alive) > 1
            or stepper.partners or stepper.begun or stepper.waiting or not stepper.probes
            or not sightings.idle(output) or owner.leftovers.again or rest.looks or rest.look_again or thread.others
            or thread.mine != get_ident() or any(len(hearing(each)) != 1 for each in HEARD)
        ):  # fmt: skip
            return
        self._family, self._stepper, self._names, self._driver = family, stepper, output.names, output.driver
        self._optimizer: Any = stepper.ref
        self._parameters, self._thread, self._left, self._granted = stepper.probes, thread.mine, left, left
        self._count, self.stage = disturbed[0], BETWEEN
        armed.append(self)

    def gives(self, module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> bool:
        """The model was called; whether that is done with."""
        if _running() != -1 or _level() is not None or _tracing():
            return True  # as `Sightings.called` has it
        owner = self._owner
        if self.stage or not self._left or self._count != disturbed[0] or self._thread != get_ident():
            return False
        found = read_plain(self._names, output)
        rest, sightings = owner.silence.rest, owner.sightings
        if found is None or rest.looks or rest.look_again or not owner.reaching.still():
            return False
        if not sightings.goes_on(module, self._family, self._driver, args, kwargs):
            return False
        self._values, self._marks = found
        known = self._driver is not None or sightings.naming.found
        self._targets: Sequence[Any] = sightings.naming.take(self._driver) if known else ()
        self.stage = GIVEN
        return True

    def begins(self, total: Any) -> bool:
        """Backward was called on this, and nothing else was said; whether that is done with."""
        if self.stage != GIVEN or self._count != disturbed[0] or self._thread != get_ident():
            return False
        if type(total) is not torch.Tensor or not total.is_cpu or total.dim() or (node := total.grad_fn) is None:
            return False
        value = total.tolist()
        if not self._family.habit.holds(node, self._names, self._marks, self._values, value):
            return False
        for each in self._parameters:
            if each.grad is not None:
                return False
        self._total, self._root_mark, self.stage = value, (node._sequence_nr(), total.output_nr), RUNNING
        return True

    def ends(self) -> bool:
        """The backward pass has ended; whether it has fed the optimizer, as it should."""
        if self.stage == RUNNING:
            for each in self._parameters:
                if each.grad is not None:
                    self._owner.silence.passes += 1
                    self.stage = FED
                    return True
        return False

    def steps(self, optimizer: Any) -> bool:
        """An optimizer has stepped; whether that is recorded."""
        stepper, owner = self._stepper, self._owner
        if self.stage != FED or self._count != disturbed[0] or self._thread != get_ident():
            return False
        if self._optimizer() is not optimizer or not owner.finder.goes_on(self._driver):
            return False
        self.stage = BETWEEN
        self._left -= 1
        self._vain = 0
        stepper.ended += 1
        stepper.steps += 1
        owner.silence.steps += 1
        owner.logbook.steps += 1
        owner.reaching.taken += 1
        habit, run = self._family.habit, owner.logbook.made
        habit.outputs += 1
        groups = optimizer.param_groups
        lr = groups[0].get("lr") if len(groups) == 1 else None
        lr = lr if type(lr) is float else rates(optimizer)
        run.log_forwards(self._names, [*self._values, self._total], lr, 1, True, habit.weights, self._targets)
        if meter.owner is owner:
            run.spent(meter.stop())
        elif stepper.ended % SAMPLE == 5:
            meter.start(owner)
        return True

    def hand_back(self) -> None:
        """What it holds becomes what the observer would have by now."""
        stage, self.stage, owner = self.stage, BETWEEN, self._owner
        if stage == BETWEEN:
            return
        output = Output(self._family, self._names, self._values, named=True, plain=True)
        output.marks, output.deaf, output.thread = [*self._marks], stage == GIVEN, self._thread
        output.driver, output.targets, output.batch = self._driver, self._targets, owner.sightings.batch
        owner.sightings.pending.append(output)
        if stage == GIVEN:
            return
        root = Root(self._thread, self._total, [self._root_mark])
        root.once = True
        self._family.habit.take(root, output)
        heard = Heard(root)
        if stage == RUNNING:
            self.root = begun(root)
            owner.running.append(heard)
        else:
            root.fed, heard.feeds, heard.drivers = (owner.steppers,), [self._stepper], [self._driver]
            self._stepper.waiting.append(heard)
