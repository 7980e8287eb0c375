"""From what a loop does to what it means: forwards, steps and passes become batches, validation, epochs.

Training thread. Contract:

- Forward passes with gradients wait for the optimizer step they belong to; a step is one batch, the mean of its passes.
- A pass that was never followed by a backward pass is a skipped batch where it shares its data with training, else
  validation; one whose gradients were thrown away, or that no step followed, counts in the epoch's mean alone.
- Losses without gradients of a model that was trained are validation.
- An epoch's end is recorded at the first step of the next or at the run's end, so that its evaluation belongs to it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

import torch

from losslog.control import group_name
from losslog.instrument.families import Family
from losslog.instrument.forwards import Forward, Reading, merge, read
from losslog.instrument.logbook import Logbook
from losslog.instrument.passes import EpochFinder, Pass
from losslog.instrument.signals import guarded, listen
from losslog.instrument.watching import Watching
from losslog.values.snapshot import learning_rate

MOST_WAITING: Final = 20_000  # forwards without a step, e.g. somebody who only runs a model in train mode


class _Held:
    """A step of a fused optimizer whose success only the device knows yet."""

    def __init__(self, reading: Reading, lr: Any, n: int, found_inf: Any) -> None:
        self.reading, self.lr, self.n = reading, lr, n
        self._value = found_inf.detach().clone().to("cpu", non_blocking=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record()

    def skipped(self, *, wait: bool) -> bool | None:
        """Whether it was skipped; None where that is not known without waiting."""
        if not wait and not self._event.query():  # type: ignore[no-untyped-call]
            return None
        self._event.synchronize()
        return bool(self._value.item())


class Observer(Watching):
    """Watches the models and optimizers of one run.

    Args:
        logbook: where to put what is found.
        finder: finds epochs.
    """

    sees_training = True

    def __init__(self, logbook: Logbook, finder: EpochFinder) -> None:
        super().__init__(logbook)
        self.finder = finder
        self.families: list[Family] = []
        self._fresh: list[Pass] = []
        self._pending: list[Forward] = []
        self._held: deque[_Held] = deque()
        self._fired = False
        self._ending = self._left = False
        listen(self)

    # ------------------------------------------------------------------ signals

    def yielded(self, data_pass: Pass) -> None:
        """A loader gave a batch."""
        if not self._fresh or (self._fresh[-1] is not data_pass and data_pass not in self._fresh):
            self._fresh.append(data_pass)

    def forward(self, family: Family, module: Any, output: Any) -> None:
        """A model was called from outside and returned."""
        if self.closed:
            return
        reading = read(output)
        if reading is not None and reading.node is not None and torch.is_grad_enabled():
            self._training_forward(family, reading)
            return
        if self._fresh:
            self._fresh[-1].evaluated = True
        if reading is not None and self.logbook.trained and family.keys is not None:
            self._validation_forward(family, module, reading)

    def _training_forward(self, family: Family, reading: Reading) -> None:
        self.logbook.log_evaluations()
        driver = self.finder.driver(self._fresh)
        self._fresh = []
        self._pending.append(Forward(family, reading, driver))
        if len(self._pending) > MOST_WAITING:
            del self._pending[: MOST_WAITING // 2]

    def _validation_forward(self, family: Family, module: Any, reading: Reading) -> None:
        if not module.training and family.keys != (reading.keys or ()):
            return  # in eval mode a model may return other figures
        self.logbook.validation(reading)

    def stepped(self, optimizer: Any) -> bool:
        """An optimizer has stepped; whether there were forward passes for it."""
        if self.closed:
            return True
        self._fired = True
        return self._step(optimizer, taken=True)

    def scaler_begins(self, optimizer: Any) -> None:
        """A GradScaler was asked to step an optimizer."""
        self._fired = False

    def scaler_ends(self, optimizer: Any) -> None:
        """It did not where no step was seen: the gradients were infinite."""
        if not self._fired and not self.closed:
            self._step(optimizer, taken=False)

    def zeroed(self, optimizer: Any) -> None:
        """Gradients were thrown away: of the passes that went backward since the last step nothing is left."""
        if not self._pending or self.closed:
            return
        gone = [each for each in self._pending if each.reached and each.family.driven_by(optimizer)]
        if gone:
            self._pending = [each for each in self._pending if each not in gone]
            self._unstepped(gone, counted=all(_finite(each.reading) for each in gone))

    def train_called(self, module: Any) -> None:
        """Ends an epoch where nothing else says so."""
        if self.closed or not self.finder.ends_with_train or not any(each.has(module) for each in self.families):
            return
        self.end_epoch()

    def compiled(self, module: Any) -> None:
        """A model of ours was compiled, or wrapped by a compiled one."""
        for family in self.families:
            if family.has(module):
                family.compiled(module)
            elif hasattr(module, "_orig_mod") and family.includes(module):
                family.add(module)

    # ------------------------------------------------------------------ steps

    def _step(self, optimizer: Any, *, taken: bool) -> bool:
        mine = [each for each in self._pending if each.family.driven_by(optimizer)]
        if not mine:
            return False
        window = [each for each in mine if each.reached]
        if not window:  # gradients by other means: the passes over the same data as the last one
            window = [each for each in mine if each.driver is mine[-1].driver]
        self._pending = [each for each in self._pending if each not in mine]
        self._never_backward([each for each in mine if each not in window], window)
        drivers = [each.driver for each in window]
        if self.finder.begins(drivers):
            left = [each for each in window if each.driver is not None and each.driver in self.finder.current]
            if len(left) < len(window):
                window = [each for each in window if each not in left]
                drivers = [each.driver for each in window]
                self._unstepped(left, counted=True)
            self.end_epoch()
        if taken:
            self.finder.stepped(drivers)
            self._record(optimizer, window)
        else:
            self._unstepped(window, counted=True)
        return True

    def _record(self, optimizer: Any, window: list[Forward]) -> None:
        for each in window:
            each.family.keys = each.reading.keys or ()
        (reading, n), lr = self._merge(window), self.rates(optimizer)
        found_inf = vars(optimizer).get("found_inf")  # a fused optimizer under GradScaler steps, and does nothing
        if isinstance(found_inf, torch.Tensor) and found_inf.is_cuda:
            self._held.append(_Held(reading, lr, n, found_inf))
            self._release(wait=False)
            return
        self._release(wait=True)
        if found_inf is not None and float(found_inf):
            self.logbook.unstepped(reading, n, counted=True)
        else:
            self.logbook.step(reading, lr, n)

    def _merge(self, window: list[Forward]) -> tuple[Reading, int]:
        """The window as one reading, and of how many passes it is the mean."""
        return merge([each.reading for each in window]), len(window)

    def _release(self, *, wait: bool) -> None:
        while self._held:
            skipped = self._held[0].skipped(wait=wait)
            if skipped is None:
                return
            held = self._held.popleft()
            if skipped:
                self.logbook.unstepped(held.reading, held.n, counted=True)
            else:
                self.logbook.step(held.reading, held.lr, held.n)

    def rates(self, optimizer: Any) -> Any:
        """The learning rates of an optimizer: a number, or numbers by group name."""
        groups = optimizer.param_groups
        if len(groups) == 1:
            return learning_rate(groups[0]["lr"]) if "lr" in groups[0] else None
        named = {group_name(index, group): group.get("lr") for index, group in enumerate(groups)}
        return learning_rate({name: rate for name, rate in named.items() if rate is not None}) or None

    def _never_backward(self, forwards: Iterable[Forward], window: list[Forward]) -> None:
        trained = [each.driver for each in window] + list(self.finder.current)
        for each in forwards:
            if each.driver is None or each.driver in trained:
                self._unstepped([each], counted=False)
            elif self.logbook.trained:
                self.logbook.validation(each.reading)

    def _unstepped(self, forwards: list[Forward], *, counted: bool) -> None:
        if forwards and (self.logbook.trained or counted or not all(_finite(each.reading) for each in forwards)):
            self.logbook.unstepped(merge([each.reading for each in forwards]), len(forwards), counted=counted)

    # ------------------------------------------------------------------ epochs and the end

    def end_epoch(self) -> None:
        """End the open epoch."""
        self._ending = True
        try:
            self.logbook.run.end_epoch()
        finally:
            self._ending = False

    def epoch_ends(self, val_loss: Any) -> Any:
        """Called by the run before an epoch ends; gives the validation losses that go with it."""
        if not self._ending:
            guarded(self._told)
        return super().epoch_ends(val_loss)

    def before_epoch_end(self) -> Any:
        """Record what belongs to the epoch; gives its validation losses."""
        self._release(wait=True)
        self.finder.ended()
        return super().before_epoch_end()

    def _told(self) -> None:
        """The loop itself has said that an epoch ends."""
        waiting, self._pending = self._pending, []
        self._sort_out(waiting)
        self.finder.told = True

    def _sort_out(self, waiting: list[Forward]) -> None:
        self._unstepped([each for each in waiting if each.reached], counted=True)
        self._never_backward([each for each in waiting if not each.reached], [])

    def close(self, status: str) -> None:
        """Record what waits, end an epoch that was seen to its end, and take everything off."""
        self._release(wait=True)
        waiting, self._pending = self._pending, []
        fatal = waiting[-1:] if waiting and self._is_fatal(waiting[-1]) else []
        self._sort_out([each for each in waiting if each not in fatal])
        for each in fatal:
            self.logbook.step(each.reading, None, 1)
        self._left = bool(fatal)
        super().close(status)

    def cut_short(self, status: str) -> bool:
        """Whether the open epoch was left in the middle."""
        unfinished = any(not each.exhausted for each in self.finder.current)
        return self._left or (status in ("failed", "stopped") and unfinished)

    def _is_fatal(self, forward: Forward) -> bool:
        """Whether the loop was left because of this loss: not finite, never backward, and data was still to come."""
        over = forward.driver is not None and forward.driver.exhausted
        return not forward.reached and not over and not _finite(forward.reading)

    def detach(self) -> None:
        """Take everything of ours off."""
        super().detach()
        for family in self.families:
            family.remove()


def _finite(reading: Reading) -> bool:
    values = reading.values
    return all(map(math.isfinite, values if isinstance(values, list) else values.resolve()))
