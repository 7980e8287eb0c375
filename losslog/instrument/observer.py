"""From what a loop does to what it means: outputs, backward passes and steps become batches, validation, epochs.

Training thread. Contract:

- A step is one batch: the backward passes that fed its optimizer since its gradients were cleared.
- Where no backward pass was heard (gradients by other means) the outputs since the last step are the batch.
- Losses without gradients of a model that was trained are validation.
- An epoch's end is recorded at the first step of the next or at the run's end, so that its evaluation belongs to it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from losslog.instrument import calls
from losslog.instrument.discovery import Discovery
from losslog.instrument.family import Family
from losslog.instrument.leftovers import Leftovers
from losslog.instrument.listeners import guarded, meter, unusual
from losslog.instrument.logbook import Logbook
from losslog.instrument.onethread import OneThread
from losslog.instrument.optimizers import Steppers
from losslog.instrument.outputs import Output
from losslog.instrument.passes import EpochFinder
from losslog.instrument.plain import plainly
from losslog.instrument.reaching import Reaching
from losslog.instrument.readings import Reading, averaged, named
from losslog.instrument.roots import Root
from losslog.instrument.series import Entry, Series, rates
from losslog.instrument.sightings import Sightings
from losslog.instrument.signals import listen
from losslog.instrument.silence import Silence
from losslog.instrument.skipping import Held, is_fatal
from losslog.instrument.steady import begins, learns
from losslog.instrument.stepper import Heard, Stepper
from losslog.instrument.usual import Usual
from losslog.instrument.watching import Watching
from losslog.instrument.window import Window
from losslog.run import SAMPLE


class Observer(Watching):
    """Watches the models and optimizers of one run.

    Args:
        logbook: where to put what is found.
        finder: finds epochs.
    """

    sees_training, knows_all = True, False  # the latter: whether it has seen every optimizer being made

    def __init__(self, logbook: Logbook, finder: EpochFinder) -> None:
        super().__init__(logbook)
        self.finder, self.thread, self.leftovers = finder, OneThread(), Leftovers(self, logbook, finder)
        self.steppers = Steppers(self.leftovers.dropped)
        self.series = Series(logbook.step, lambda: self.steppers.alive, self.modules)
        self.silence, self._held = Silence(logbook), Held(logbook)
        self.discovery, self.reaching, self.usual = Discovery(self), Reaching(self), Usual(self)
        self.sightings = Sightings(self, logbook, finder, self.discovery, self.leftovers)
        self.called, self.yielded = self.sightings.called, self.sightings.yielded  # type: ignore[method-assign]
        self.running: list[Heard] = []
        self._fired = self._ending = self._left = False
        listen(self)

    def trains(self, optimizer: Any) -> bool:
        """Whether an optimizer that is not known is one to watch."""
        raise NotImplementedError

    def may_feed(self, heard: Heard, stepper: Stepper) -> bool:
        """Whether a pass that fed no optimizer that is known may have fed this one."""
        raise NotImplementedError

    def follows(self) -> bool:
        """Whether this thread, which calls backward, is the one whose training this is."""
        raise NotImplementedError

    def drives(self, stepper: Stepper, family: Family) -> bool:
        """Whether an optimizer changes what gives these losses, where no backward pass tells it."""
        parameters = family.parameters()
        return not parameters or stepper.owns(parameters)

    def modules(self) -> Iterable[Any]:
        """The modules that are watched, and those that were called from outside."""
        yield from (module for family in self.sightings.families for module in family.modules)
        yield from self.discovery.tops()

    def backward_begins(self, root: Root) -> None:
        """``torch.autograd.backward`` was called."""
        if not self.closed and (root.thread == self.thread.mine or self.follows()):
            heard = Heard(root)
            self.reaching.heard(heard)
            if pending := self.sightings.pending:
                begins(heard, pending)
            self.silence.rest.look(root, pending)
            self.steppers.begins(heard)
            if self.leftovers.again:
                self.leftovers.begins(root, pending)
            self.running.append(heard)

    def backward_ends(self, root: Root) -> None:
        """It has returned."""
        heard = next((each for each in self.running if each.root is root), None)
        if heard is None:
            return
        self.running.remove(heard)
        if heard.looked is not None:
            learns(heard)
        if not heard.taken and not self.closed:
            self.sightings.driven(heard)
            self.steppers.ends(heard)
            if self.leftovers.again:
                self.leftovers.ended()
            self.silence.heard(root, self.steppers)

    def made(self, optimizer: Any) -> None:
        """An optimizer was made."""
        if not self.closed and self.trains(optimizer):
            self.steppers.add(optimizer)
            self.discovery.start()

    def zeroed(self, owner: Any) -> None:
        """Gradients were set to zero."""
        if not self.closed and not (self.thread.others and self.thread.refused):
            self.steppers.zeroed(owner)

    def step_begins(self, optimizer: Any) -> None:
        """An optimizer is asked to step; with a closure it computes while it does."""
        if not self.closed and (stepper := self.steppers.get(optimizer)) is not None:
            stepper.inside, stepper.first = True, None

    def step_ends(self, optimizer: Any) -> None:
        """An optimizer has stepped."""
        stepper = self.steppers.stepped(optimizer)
        if self.closed or (self.thread.others and self.thread.refused):
            return
        if stepper is None and self.trains(optimizer):
            stepper = self.steppers.adopt(optimizer)
            self.silence.strange(optimizer)
        if stepper is not None:
            stepper.inside, self._fired = False, True
            self.reaching.measures.moved(optimizer)
            if self.thread.mine != stepper.thread:
                self.thread.follow()
            stepper.ended += 1
            self._step(stepper, taken=True)
            if meter.owner is self:
                self.logbook.run.spent(meter.stop())
            elif stepper.ended % SAMPLE == 5 and not self.discovery.looking:
                meter.start(self)

    def scaler_begins(self, optimizer: Any) -> None:
        """A GradScaler was asked to step an optimizer."""
        self._fired = False

    def scaler_ends(self, optimizer: Any, scaler: Any) -> None:
        """It did not where no step was seen: the gradients were infinite."""
        if not self.closed and (stepper := self.steppers.get(optimizer)) is not None:
            if not self._fired:
                self._step(stepper, taken=False)
            self._held.skips.asked(scaler, optimizer, self.logbook.made, self.modules, skipped=not self._fired)

    def train_called(self, module: Any, *, was_training: bool) -> None:
        """Ends an epoch where nothing else says so."""
        if self.closed or not any(each.has(module) for each in self.sightings.families):
            return
        amid = any(not each.taken for stepper in self.steppers.alive for each in stepper.waiting)
        if self.finder.train_called(was_training=was_training, amid=amid):
            self.end_epoch()

    def compiled(self, module: Any) -> None:
        """A model was wrapped by a compiled one: calls now come to the wrapper."""
        if not self.closed:
            self.discovery.start()

    def _step(self, stepper: Stepper, *, taken: bool) -> None:
        heard, shared = self.steppers.take(stepper, self.may_feed, self.running[-1:])
        if shared:
            self.series.joined(stepper)
            return
        if heard and heard == self.running[-1:]:
            self.sightings.driven(heard[0])
        elif not heard and self.leftovers.again and (heard := self.leftovers.cleared(stepper)):
            self.silence.cleared(stepper)
        elif heard and self.leftovers.again:
            heard = self.leftovers.put_together(stepper, heard)
        detached, self.sightings.detached = self.sightings.detached, []
        one = heard[0] if len(heard) == 1 else None
        reading = plainly(one.root, self, self.silence.rest) if one is not None and not detached else None
        if one is not None and reading is not None:
            outputs = [one.root.reached[0][0]]
            names: Collection[str] = reading.keys or ()
        elif heard:
            window = Window(heard, self, stepper, detached)
            outputs, names = window.outputs, window.own
            reading = window.reading(self.sightings.pending, dicts=stepper.named, rest=self.silence.rest)
        else:
            outputs = self.leftovers.by_other_means(self.sightings.pending, stepper)
            if not outputs:
                self.silence.stepped(stepper)
                return
            names = {name for each in outputs if each.named for name in each.names}
            reading = averaged(outputs)
        drivers = [each for one in heard for each in one.drivers] if heard else [each.driver for each in outputs]
        pending, self.sightings.pending = self.sightings.pending, []
        if pending != outputs:
            unreached = [each for each in pending if not each.reached and each not in outputs]
            others = len(self.steppers.alive) > 1
            self.sightings.pending = self.leftovers.unreached(unreached, drivers, stepper, others, bool(heard))
        if self.finder.begins(drivers):
            self.end_epoch()
        if not taken:
            self.silence.skipped += 1
            self.logbook.unstepped(reading, counted=True)
            return
        self.finder.stepped(drivers)
        reading = self.reaching.stepped(stepper, named(reading, outputs, heard), outputs, heard)
        self._record(stepper, reading, outputs, names)

    def _record(self, stepper: Stepper, reading: Reading, outputs: list[Output], own: Collection[str]) -> None:
        keys = reading.keys
        stepper.named = stepper.named or keys is not None
        for each in outputs:
            if each.names is not each.family.keys or each.names is not keys:
                each.family.gave(each.names, keys)
        optimizer = stepper.ref()
        if self.silence.rest.look_again and self.silence.rest.asks():
            self.discovery.start()
        if self.discovery.looking:
            self.discovery.stepped(stepper, explained=bool(keys))
        self.silence.recorded(stepper)
        lr = self.series.rates(stepper) if stepper.partners else rates(optimizer)
        if self.series.settled is stepper and not self._held.waits(optimizer):
            stepper.steps += 1
            self.logbook.step(reading, lr)
            self.usual.arm(stepper, outputs)
        else:
            self._held.put(Entry(stepper, reading, lr, own), optimizer, self.series.put)

    def loop_logs(self) -> None:
        """Called by the run when the loop logs a step itself, which it has no business to where they are recorded."""
        if self.logbook.trained and not self.closed:
            self.silence.twice()

    def log_evaluations(self) -> None:
        """Record the evaluations since the last step, behind the steps that wait."""
        self.series.flush()
        self.logbook.log_evaluations()

    def end_epoch(self) -> None:
        """End the open epoch."""
        self._ending = True
        try:
            self.logbook.run.end_epoch()
        finally:
            self._ending = False

    def epoch_ends(self, val_loss: Any) -> Any:
        """Called by the run before an epoch ends; gives the validation losses that go with it."""
        unusual()
        if not self._ending:
            self.finder.told = True
            guarded(self.leftovers.sort_out)
        return super().epoch_ends(val_loss)

    def before_epoch_end(self) -> Any:
        """Record what belongs to the epoch; gives its validation losses."""
        self._held.release(self.series.put, wait=True)
        self.series.flush()
        self.finder.ended()
        return super().before_epoch_end()

    def close(self, status: str) -> None:
        """Record what waits, end an epoch that was seen to its end, and take everything off."""
        if self.finder.lost:
            self.silence.one_epoch()
        self._held.release(self.series.put, wait=True)
        self.series.flush()
        pending = self.sightings.pending
        fatal = pending.pop() if pending and is_fatal(pending[-1]) else None
        self.leftovers.sort_out(said=not self.cut_short(status))
        if fatal is not None:
            self.logbook.step(averaged([fatal]), None)
        self._left = fatal is not None
        self.silence.ends(self.steppers.unclaimed)
        super().close(status)

    def cut_short(self, status: str) -> bool:
        """Whether the open epoch was left in the middle."""
        return self._left or (status in ("failed", "stopped") and not all(e.exhausted for e in self.finder.current))

    def detach(self) -> None:
        """Take everything of ours off."""
        super().detach()
        self.reaching.ends()
        meter.owner = None
        self.discovery.stop()
        calls.look_away(self)
        for family in self.sightings.families:
            family.remove()
